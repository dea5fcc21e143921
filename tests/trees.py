"""Particle trees for tests."""

from __future__ import annotations

import numpy as np

from napari_aprcnn._kernels.reference_tree import block_max, grid_shape
from napari_aprcnn.apr.tree import ParticleTree, level_max_of, shape_of


def near(values: np.ndarray) -> np.ndarray:
    """Largest value of the 26 neighbours and the cell itself."""
    padded = np.pad(values, 1, mode="edge")
    parts = [
        padded[tuple(slice(o, o + n) for o, n in zip(at, values.shape, strict=True))] for at in np.ndindex(3, 3, 3)
    ]
    return np.maximum.reduce(parts)


def expand(cells: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    for axis in range(3):
        cells = cells.repeat(factor, axis)
    return cells[tuple(slice(n) for n in shape)]


def tree_of_estimate(estimate: np.ndarray, shape: tuple[int, ...]) -> ParticleTree:
    """Tree of a wanted level on the grid of 2x2x2 voxels: a cell is split where it or a neighbour wants to be finer."""
    full = shape_of(shape)
    level_max = level_max_of(full)
    top = level_max - 1
    half = grid_shape(full, level_max, top)
    if level_max <= 2:
        return ParticleTree.from_levels(np.full(half, level_max, np.uint8), shape=full)
    wanted = {top: np.clip(estimate, 1, top).astype(np.uint8)}
    for level in range(top - 1, 0, -1):
        wanted[level] = block_max(wanted[level + 1])
    levels = np.zeros(half, np.uint8)
    there = np.ones(grid_shape(full, level_max, 1), bool)
    for level in range(1, top + 1):
        split = there & (near(wanted[level]) > level) & (level < top)
        fine = there & ~split & (wanted[level] == level)
        whole = there & ~split & ~fine
        factor = 1 << (top - level)
        levels[expand(whole, factor, half)] = level
        levels[expand(fine, factor, half)] = level + 1
        if level < top:
            there = expand(split, 2, grid_shape(full, level_max, level + 1))
    return ParticleTree.from_levels(levels, shape=full)


def random_tree(shape: tuple[int, ...], seed: int = 0, share: float = 0.02) -> ParticleTree:
    """Tree with a few fine spots."""
    rng = np.random.default_rng(seed)
    full = shape_of(shape)
    level_max = level_max_of(full)
    half = grid_shape(full, level_max, level_max - 1)
    spots = np.where(rng.random(half) < share, level_max - 1, 1)
    return tree_of_estimate(spots, full)


def finest_tree(shape: tuple[int, ...]) -> ParticleTree:
    """Every voxel a particle: PRR 1."""
    full = shape_of(shape)
    level_max = level_max_of(full)
    return ParticleTree.from_levels(
        np.full(grid_shape(full, level_max, level_max - 1), level_max, np.uint8), shape=full
    )
