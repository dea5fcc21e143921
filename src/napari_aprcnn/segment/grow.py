"""Labels that grow, shrink or fall away: whole steps over the faces of voxels, never merging two objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["drop_small", "grow_labels", "inner_voxels", "shrink_labels", "steps_along"]


def steps_along(steps: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """One number of steps for each axis; one number stands for all."""
    every = (steps,) * axes if isinstance(steps, int) else tuple(steps)
    return every[-axes:]


def _shifts(axis: int, ndim: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Pairs of views of an array: every voxel that has a neighbour along an axis, and that neighbour."""
    everything = (slice(None),) * ndim
    first = (*everything[:axis], slice(None, -1), *everything[axis + 1 :])
    last = (*everything[:axis], slice(1, None), *everything[axis + 1 :])
    return [(first, last), (last, first)]


def inner_voxels(labels: NDArray[Any], steps: int | Sequence[int]) -> NDArray[np.bool_]:
    """Voxels of an object that lie more than some steps from every voxel that is not of the same object.

    The border of the image is no border of an object. Where a step would leave nothing of an object that is thicker
    than a voxel, the object keeps what it has after the steps before; the first step is always taken.

    Parameters
    ----------
    labels : (*S) uint32
        0 is background; ids without large gaps, as `napari_aprcnn._kernels.compact_labels` gives them.
    steps
        Steps over faces, one number or one for each axis.

    Returns
    -------
    (*S) bool
    """
    along = steps_along(steps, labels.ndim)
    inside = labels > 0
    for step in range(max(along)):
        axes = [axis for axis in range(labels.ndim) if step < along[axis] and labels.shape[axis] > 1]
        smaller = inside.copy()
        for axis in axes:
            for here, there in _shifts(axis, labels.ndim):
                # The first step sees other labels; the later ones see what the one before has left.
                smaller[here] &= labels[here] == labels[there] if step == 0 else inside[there]
        if step > 0:
            smaller |= inside & _vanished(labels, inside, smaller)[labels]
        inside = smaller
    return inside


def _vanished(labels: NDArray[Any], before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which labels had voxels before and have none after; bool [largest label + 1]."""
    count = int(labels.max(initial=0)) + 1
    had, has = (np.bincount(labels[part], minlength=count) for part in (before, after))
    return np.asarray((had > 0) & (has == 0))


def shrink_labels(labels: NDArray[np.uint32], steps: int | Sequence[int]) -> NDArray[np.uint32]:
    """Take some layers of voxels off every object; one that would vanish keeps its last layers."""
    inner = inner_voxels(labels, steps)
    kept = inner | ((labels > 0) & _vanished(labels, labels > 0, inner)[labels])
    return np.where(kept, labels, np.uint32(0))


def grow_labels(
    labels: NDArray[np.uint32], steps: int | Sequence[int], allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.uint32]:
    """Let every object spread into free voxels, one layer at a time; objects that meet stay apart.

    Parameters
    ----------
    labels : (*S) uint32
        0 is free.
    steps
        Steps over faces, one number or one for each axis.
    allowed : (*S) bool
        Voxels that may be taken; by default all. Objects spread through such voxels only.

    Returns
    -------
    (*S) uint32
        A voxel that several objects reach with the same step goes to the smallest label.
    """
    along = steps_along(steps, labels.ndim)
    # A frame of zeros, so that neighbours can be read by their flat index without leaving the array.
    padded = np.pad(labels, 1)
    free = padded == 0
    if allowed is not None:
        free &= np.pad(allowed, 1)
    else:
        frame = np.zeros_like(free)
        frame[(slice(1, -1),) * labels.ndim] = True
        free &= frame
    flat, open_ = padded.reshape(-1), np.flatnonzero(free)
    strides = [int(np.prod(padded.shape[axis + 1 :])) for axis in range(labels.ndim)]
    nothing = np.iinfo(np.uint32).max
    for step in range(max(along)):
        found = np.full(len(open_), nothing, np.uint32)
        for axis, stride in enumerate(strides):
            if step < along[axis]:
                for side in (-stride, stride):
                    # Nothing wraps to the largest number, so that a label is smaller than none.
                    np.minimum(found, flat[open_ + side] - np.uint32(1), out=found)
        taken = found != nothing
        flat[open_[taken]] = found[taken] + np.uint32(1)
        open_ = open_[~taken]
    return padded[(slice(1, -1),) * labels.ndim].copy()


def drop_small(labels: NDArray[np.uint32], smallest: float) -> NDArray[np.uint32]:
    """Drop objects with fewer voxels; the others are numbered 1..n in the old order."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(smallest, 1)
    keep[:1] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.uint32)[labels]
