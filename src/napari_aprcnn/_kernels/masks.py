"""Flows to masks: the numpy-facing side of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import reference_masks
from napari_aprcnn._kernels.dispatch import Stopped, default_threads, extension
from napari_aprcnn._kernels.flows import poll_of, require_rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["MOST_VOXELS", "clean_labels", "follow_flows", "group_ends", "relabel"]

MOST_VOXELS = 2**32 - 2


def follow_flows(
    flows: NDArray[np.float32],
    inside: NDArray[np.bool_],
    *,
    n_steps: int = 200,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
    on_share: Callable[[float], None] | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Where each inside voxel ends after Euler steps of flows / 5 with linear interpolation.

    Outside, and beyond the array, the flow is zero; positions stay within the array. Displacements are
    taken in steps of 1/8192 voxel and cut off at 4. From the 12th step on, every 4 steps, positions are rounded to
    1/2048 voxel, and voxels at the same place go on together: where paths converge, ends differ by less than that.

    Parameters
    ----------
    flows : (D, *S) float32
        In voxels per step, times 5; components y, x or z, y, x.
    inside : (*S) bool
        Voxels that follow.
    n_steps
        Steps, each of flows / 5.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    should_cancel
        Asked about every 50 ms.
    on_share
        Told the share that is done, 0..1, about every 50 ms.

    Returns
    -------
    ends : (*S) uint32
        1 + flat index of the voxel where each inside voxel ends; 0 outside.
    counts : (*S) uint32
        How many voxels end here.

    Raises
    ------
    ValueError
        If shapes do not fit, an inside flow is not finite, or there are more than `MOST_VOXELS` voxels.
    Stopped
        If ``should_cancel`` said yes.
    """
    require_rank(inside)
    if flows.shape != (inside.ndim, *inside.shape):
        raise ValueError(f"got flows of shape {flows.shape}, expected {(inside.ndim, *inside.shape)}")
    if inside.size > MOST_VOXELS:
        raise ValueError(f"got {inside.size} voxels, expected at most {MOST_VOXELS}")
    if n_steps < 1:
        raise ValueError(f"got {n_steps} steps, expected at least 1")
    ends, counts = np.zeros(inside.shape, np.uint32), np.zeros(inside.shape, np.uint32)
    if inside.size == 0:
        return ends, counts
    flows = np.ascontiguousarray(flows, np.float32)
    inside = np.ascontiguousarray(inside, np.bool_)
    workers, poll = default_threads(threads), poll_of(should_cancel, on_share)
    kernels = extension()
    if kernels is None:
        finished = reference_masks.follow_flows(flows, inside, n_steps, ends, counts, poll)
    else:
        finished = kernels.follow_flows(flows, inside.view(np.uint8), n_steps, ends, counts, workers, poll)
    if not finished:
        raise Stopped
    return ends, counts


def group_ends(
    ends: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    *,
    max_voxels: float = np.inf,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> tuple[NDArray[np.uint32], int]:
    """Make objects of the places where voxels gather; both arrays are used up.

    A place with more than 10 voxels that none in its 5 x 5 (x 5) neighbourhood exceeds is a seed. It grows five times
    by one place in all directions, over places with more than 2 voxels. Where seeds grow into each other, the fullest
    wins. A voxel belongs to the object of the place where it ends. (The constants are Cellpose's.)

    Parameters
    ----------
    ends, counts
        What `follow_flows` gave.
    max_voxels
        Larger objects are dropped.
    threads, should_cancel
        As in `follow_flows`.

    Returns
    -------
    labels : (*S) uint32, and n
        1..n in the order of their first voxel; the memory of ``ends``.

    Raises
    ------
    Stopped
        If ``should_cancel`` said yes.
    """
    kernels = extension()
    if kernels is None:
        return ends, reference_masks.group_ends(ends, counts, max_voxels)
    n = int(kernels.group_ends(ends, counts, max_voxels, default_threads(threads), poll_of(should_cancel, None)))
    if n < 0:
        raise Stopped
    return ends, n


def relabel(labels: NDArray[np.uint32], lookup: NDArray[Any], *, threads: int | None = None) -> NDArray[np.uint32]:
    """Replace labels by ``lookup[labels]``, in place; C-contiguous labels below ``len(lookup)``."""
    kernels = extension()
    if kernels is None:
        labels[...] = lookup[labels]
    else:
        kernels.relabel(labels, np.ascontiguousarray(lookup, np.uint32), default_threads(threads))
    return labels


def clean_labels(
    labels: NDArray[np.uint32],
    n: int,
    *,
    min_size: int = 15,
    fill_holes: bool = True,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> tuple[NDArray[np.uint32], int]:
    """Drop small objects, then fill holes; in place.

    A hole is background, or another object, that cannot leave the object going by edges in its z plane. Volumes are
    filled plane by plane, as Cellpose does. An object inside a hole is swallowed.

    Parameters
    ----------
    labels : (*S) uint32
        1..n, C-contiguous.
    n
        Number of labels.
    min_size
        Objects with fewer voxels (before filling) are dropped.
    fill_holes
        Whether holes are filled.
    threads, should_cancel
        As in `follow_flows`.

    Returns
    -------
    labels, and their number
        1..m in the old order.

    Raises
    ------
    Stopped
        If ``should_cancel`` said yes.
    """
    kernels = extension()
    if kernels is None:
        return labels, reference_masks.clean_labels(labels, n, min_size, fill_holes)
    workers, poll = default_threads(threads), poll_of(should_cancel, None)
    kept = int(kernels.clean_labels(labels, n, min_size, fill_holes, workers, poll))
    if kept < 0:
        raise Stopped
    return labels, kept
