"""Smooth reconstruction: coarse particles are interpolated between their centres instead of painted as blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["interpolate"]


def _upsample(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Linear interpolation onto a grid of half the spacing, cell centres to cell centres."""
    for axis in range(3):
        n = values.shape[axis]
        before = values.take(np.maximum(np.arange(n) - 1, 0), axis)
        after = values.take(np.minimum(np.arange(n) + 1, n - 1), axis)
        pair = np.stack([0.25 * before + 0.75 * values, 0.75 * values + 0.25 * after], axis=axis + 1)
        merged = (*values.shape[:axis], 2 * n, *values.shape[axis + 1 :])
        values = pair.reshape(merged).take(np.arange(shape[axis]), axis)
    return values.astype(np.float32, copy=False)


def interpolate(tree: Any, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Image whose coarse parts are interpolated linearly.

    From the coarsest level to the finest, every level's grid gets its particles' values where it has particles, the
    mean
    of what lies below where it has interior nodes, and the grid above, interpolated, elsewhere.

    Parameters
    ----------
    tree
        `napari_aprcnn.apr.tree.ParticleTree`.
    values
        One value for each particle; [N].
    """
    means = tree.node_means(values)
    image = np.zeros((1, 1, 1), np.float32)
    for level in range(tree.level_max + 1):
        grid = _upsample(image, tree.grid_shape(level)) if level else image
        for own, rows in ((values, tree.particles), (means, tree.nodes)):
            if level < len(rows.level_rows) - 1:
                first, at = tree.row_cells(rows, level)
                grid[tuple(at.T)] = own[first : first + len(at)]
        image = grid
    return image
