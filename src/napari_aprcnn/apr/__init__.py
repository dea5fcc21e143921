"""The particle tree: conversion, pooling stages, reconstruction, sampling, files."""
