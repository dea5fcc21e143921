"""Organoids of known shape, made of balls: quicker than the simulation, and of no noise."""

from __future__ import annotations

import numpy as np


def sphere_points(count, radius, seed=0):
    """Evenly spread points on a sphere (Fibonacci's spiral), turned at random."""
    index = np.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - height**2)
    points = radius * np.stack([height, across * np.sin(angle), across * np.cos(angle)], axis=1)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return points @ turn


def grid_points(radius, step):
    """Points of a cubic lattice in a ball."""
    edge = np.arange(-radius, radius + step / 2, step)
    points = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), axis=-1).reshape(-1, 3)
    return points[np.linalg.norm(points, axis=1) <= radius]


def paint(points_um, radius_um, *, spacing_um=(2.0, 1.0, 1.0), margin_um=6.0):
    """Labels of balls about points; a voxel belongs to the nearest."""
    points = np.asarray(points_um, float)
    points = points - points.min(axis=0) + radius_um + margin_um
    spacing = np.asarray(spacing_um)
    shape = np.ceil((points.max(axis=0) + radius_um + margin_um) / spacing).astype(int)
    labels, nearest = np.zeros(shape, np.uint16), np.full(shape, radius_um**2)
    for number, point in enumerate(points, start=1):
        low = np.maximum(np.floor((point - radius_um) / spacing).astype(int), 0)
        high = np.minimum(np.ceil((point + radius_um) / spacing).astype(int) + 1, shape)
        axes = [(np.arange(a, b) * s - p) ** 2 for a, b, s, p in zip(low, high, spacing, point, strict=True)]
        squares = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mine = squares < nearest[box]
        nearest[box][mine], labels[box][mine] = squares[mine], number
    return labels


def cyst(count=90, radius=30.0, nucleus=6.0, seed=0):
    """A monolayer on a sphere, without gaps."""
    return paint(sphere_points(count, radius, seed), nucleus)


def solid(radius=24.0, step=9.0, nucleus=5.0):
    """A ball of nuclei."""
    return paint(grid_points(radius, step), nucleus)


def crowd(count=110, radius=26.0, apart=6.5, nucleus=5.0, seed=0):
    """A ball of nuclei without order."""
    rng, points = np.random.default_rng(seed), []
    while len(points) < count:
        point = rng.uniform(-radius, radius, 3)
        if np.linalg.norm(point) < radius and all(np.linalg.norm(point - other) > apart for other in points):
            points.append(point)
    return paint(points, nucleus)


def lobes(nucleus=4.5, step=8.0):
    """Six solid lobes about a core."""
    ball = grid_points(12.0, step)
    away = 22.0 * np.concatenate([np.eye(3), -np.eye(3)])
    return paint(np.unique(np.concatenate([ball, *(ball + d for d in away)]).round(3), axis=0), nucleus)
