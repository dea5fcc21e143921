"""Particle trees of a wanted PRR, without an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from napari_aprcnn._kernels.reference_tree import block_max, grid_shape
from napari_aprcnn.apr.checks import level_max_of, shape_of
from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["synthetic_tree", "tree_of_estimate"]


def _expand(cells: NDArray[Any], factor: int, shape: tuple[int, ...]) -> NDArray[Any]:
    for axis in range(3):
        cells = cells.repeat(factor, axis)
    return cells[tuple(slice(n) for n in shape)]


def tree_of_estimate(estimate: NDArray[Any], shape: tuple[int, ...], *, check: bool = True) -> ParticleTree:
    """Tree of wanted levels: a cell is split where it or a neighbour wants to be finer (the pulling scheme, LibAPR).

    Parameters
    ----------
    estimate
        Wanted level of each cell of 2x2x2 voxels, 1..level_max - 1; half of the shape, rounded up.
    shape
        Shape of the image.
    check
        Whether to check the tree.
    """
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
        split = there & (maximum_filter(wanted[level], 3, mode="nearest") > level) & (level < top)
        leaf = there & ~split
        refined = leaf & (wanted[level] == level)
        for cells, value in ((leaf & ~refined, level), (refined, level + 1)):
            levels[_expand(cells, 1 << (top - level), half)] = value
        if level < top:
            there = _expand(split, 2, grid_shape(full, level_max, level + 1))
    return ParticleTree.from_levels(levels, shape=full, check=check)


def synthetic_tree(edge: int, prr: float, *, seed: int = 0) -> ParticleTree:
    """Tree of a cube of ``edge`` voxels, fine along the surfaces of random blobs of about a sixteenth of the edge.

    Parameters
    ----------
    edge
        Voxels a side, a power of two.
    prr
        Wanted particle reduction rate; met within a few per cent.
    seed
        Of the blobs.
    """
    half = edge // 2
    noise = np.random.default_rng(seed).standard_normal((half, half, half), dtype=np.float32)
    field = gaussian_filter(noise, half / 32, mode="wrap")
    distance = np.abs(field / field.std() - 1.2)
    finest = level_max_of((edge, edge, edge)) - 1

    def within(width: float) -> ParticleTree:
        return tree_of_estimate(np.where(distance < width, finest, 1), (edge, edge, edge), check=False)

    low, high = 0.0, 3.0
    tree = within(high)
    for _ in range(14):
        width = (low + high) / 2
        tree = within(width)
        low, high = (width, high) if tree.prr > prr else (low, width)
        if abs(tree.prr / prr - 1) < 0.01:
            break
    return tree
