"""Particle trees of a wanted PRR, without an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from napari_aprcnn._kernels.reference_tree import block_max, grid_shape
from napari_aprcnn.apr.checks import level_max_of
from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["synthetic_tree"]


def _expand(cells: NDArray[Any], factor: int, shape: tuple[int, ...]) -> NDArray[Any]:
    for axis in range(3):
        cells = cells.repeat(factor, axis)
    return cells[tuple(slice(n) for n in shape)]


def _tree_of(fine: NDArray[np.bool_], edge: int) -> ParticleTree:
    """Tree that is finest where asked and coarsens away from there, as the pulling scheme does (LibAPR)."""
    shape = (edge, edge, edge)
    level_max = level_max_of(shape)
    top = level_max - 1
    wanted = {top: np.where(fine, top, 1).astype(np.uint8)}
    for level in range(top - 1, 0, -1):
        wanted[level] = block_max(wanted[level + 1])
    levels = np.zeros(fine.shape, np.uint8)
    there = np.ones(grid_shape(shape, level_max, 1), bool)
    for level in range(1, top + 1):
        near = maximum_filter(wanted[level], 3, mode="nearest")
        split = there & (near > level) & (level < top)
        leaf = there & ~split
        refined = leaf & (wanted[level] == level)
        for cells, value in ((leaf & ~refined, level), (refined, level + 1)):
            levels[_expand(cells, 1 << (top - level), fine.shape)] = value
        if level < top:
            there = _expand(split, 2, grid_shape(shape, level_max, level + 1))
    return ParticleTree.from_levels(levels, shape=shape, check=False)


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
    low, high = 0.0, 3.0
    tree = _tree_of(distance < high, edge)
    for _ in range(14):
        width = (low + high) / 2
        tree = _tree_of(distance < width, edge)
        low, high = (width, high) if tree.prr > prr else (low, width)
        if abs(tree.prr / prr - 1) < 0.01:
            break
    return tree
