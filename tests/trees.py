"""Particle trees for tests."""

from __future__ import annotations

import numpy as np

from napari_aprcnn._kernels.reference_tree import grid_shape
from napari_aprcnn.apr.tree import ParticleTree, level_max_of, shape_of
from napari_aprcnn.bench.trees import tree_of_estimate


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
