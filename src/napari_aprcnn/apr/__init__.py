"""The adaptive particle representation: conversion, structure, reconstruction."""
