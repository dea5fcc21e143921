"""Following the flows at a lower resolution: fields down, labels up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["enlarge", "reduce"]


def _factors(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Factor of each axis: a thin axis (a few planes) keeps its resolution."""
    return tuple(factor if edge >= 2 * factor else 1 for edge in shape)


def _blocks(array: NDArray[np.float32], factors: tuple[int, ...]) -> NDArray[np.float32]:
    """Sum over blocks of ``factors`` voxels; the last block of an axis may be smaller."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            array = np.add.reduceat(array, np.arange(0, array.shape[axis], factor), axis=axis)
    return array


def reduce(
    flows: NDArray[np.float32], inside: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average flows over the inside voxels of each block.

    Lengths stay: a step is one coarse voxel, so that paths need `factor` times fewer steps (thesis, section 3.5: resize
    factor).

    Parameters
    ----------
    flows : (D, *S) float32
    inside : (*S) bool
    factor
        Edge of a block in voxels; an axis shorter than two blocks keeps its resolution.

    Returns
    -------
    flows : (D, *coarse) float32
        0 where a block has no inside voxel.
    inside : (*coarse) bool
        Blocks with an inside voxel.

    Examples
    --------
    >>> flows, inside = np.ones((2, 4, 4), np.float32), np.eye(4, dtype=bool)
    >>> reduce(flows, inside, 2)[1].astype(int).tolist()
    [[1, 0], [0, 1]]
    """
    factors = _factors(inside.shape, factor)
    voxels = _blocks(inside.astype(np.float32), factors)
    coarse = np.empty((len(flows), *voxels.shape), np.float32)
    for axis, flow in enumerate(flows):
        coarse[axis] = _blocks(np.where(inside, flow, np.float32(0)), factors) / np.maximum(voxels, 1)
    return coarse, voxels > 0


def enlarge(labels: NDArray[np.uint32], inside: NDArray[np.bool_], factor: int) -> NDArray[np.uint32]:
    """Give each inside voxel the label of its block; outlines keep the full resolution.

    Parameters
    ----------
    labels : (*coarse) uint32
    inside : (*S) bool
    factor
        As given to `reduce`.

    Returns
    -------
    (*S) uint32
    """
    for axis, step in enumerate(_factors(inside.shape, factor)):
        if step > 1:
            labels = np.repeat(labels, step, axis=axis)
    cut = tuple(slice(edge) for edge in inside.shape)
    return np.where(inside, labels[cut], np.uint32(0))
