"""Masks to flows and flows to masks: the numpy-facing side of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import reference
from napari_aprcnn._kernels.dispatch import Stopped, default_threads, extension

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Poll = Callable[[float], bool]

__all__ = ["compact_labels", "flow_errors", "flows_from_labels"]


def poll_of(should_cancel: Callable[[], bool] | None, on_share: Callable[[float], None] | None) -> Poll | None:
    """One callable for the loop: tells the share that is done, returns whether to stop."""
    if should_cancel is None and on_share is None:
        return None

    def poll(share: float) -> bool:
        if on_share is not None:
            on_share(share)
        return should_cancel is not None and bool(should_cancel())

    return poll


def require_rank(labels: NDArray[Any]) -> None:
    if labels.ndim not in {2, 3}:
        raise ValueError(f"got {labels.ndim} axes, expected 2 (y, x) or 3 (z, y, x)")


def compact_labels(labels: NDArray[Any]) -> tuple[NDArray[np.uint32], int]:
    """Number labels 1..n in the order of their first voxel.

    Parameters
    ----------
    labels : (*S) bool or any integer type
        0 is background; ids may be huge and have gaps.

    Returns
    -------
    labels : (*S) uint32, and n

    Raises
    ------
    TypeError
        If the labels are no integers.
    ValueError
        If a label is negative.
    """
    labels = np.asarray(labels)
    if labels.dtype == np.bool_:
        labels = labels.view(np.uint8)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"got labels of type {labels.dtype}, expected bool or integers")
    labels = np.ascontiguousarray(labels, labels.dtype.newbyteorder("="))
    kernels = extension()
    if kernels is None:
        return reference.compact_labels(labels)
    out = np.empty(labels.shape, np.uint32)
    n = int(kernels.compact_labels(labels.reshape(-1), out.reshape(-1)))
    if n < 0:
        raise ValueError("negative label")
    return out, n


def flows_from_labels(
    labels: NDArray[Any],
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Unit vectors towards the centre of each object, along the heat that spreads from there.

    In a plane heat goes to the 8 neighbours for 2 (height + width + 4) steps of the bounding box, in a volume to the 6
    face neighbours for 6 (depth + height + width + 3) steps: the numbers of Cellpose 3.1.1. A piece of an object that
    heat does not reach gets a centre of its own.

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) bool or any integer type
        0 is background.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    should_cancel
        Asked about every 50 ms.

    Returns
    -------
    (D, *S) float32
        Components y, x or z, y, x; 0 outside, and where the heat is flat (single pixels, exact centres).

    Raises
    ------
    ValueError
        If the array has not 2 or 3 axes, or a label is negative.
    TypeError
        If the labels are no integers.
    Stopped
        If ``should_cancel`` said yes.
    """
    labels = np.asarray(labels)
    require_rank(labels)
    compact, n = compact_labels(labels)
    flows = np.zeros((labels.ndim, *labels.shape), np.float32)
    if n == 0:
        return flows
    workers, poll = default_threads(threads), poll_of(should_cancel, None)
    kernels = extension()
    if kernels is None:
        finished = reference.flows_from_labels(compact, n, flows, poll)
    else:
        finished = kernels.flows_from_labels(compact, n, flows, workers, poll)
    if not finished:
        raise Stopped
    return flows


def flow_errors(
    labels: NDArray[np.uint32],
    n: int,
    flows: NDArray[np.float32],
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.float64]:
    """Mean squared difference of each object's own flow (from its mask) and the network's.

    Parameters
    ----------
    labels : (*S) uint32
        1..n.
    n
        Number of objects.
    flows : (D, *S) float32
        5 x unit vectors. In 3D only their directions are compared: flows averaged over planes are shorter. The heat of
        the masks takes a third of the steps there; its directions differ by 0.001 (mean squared) or less.
    threads, should_cancel
        As in `flows_from_labels`.

    Returns
    -------
    (n,) float64
        0..4; 0 for a label without voxels.

    Raises
    ------
    Stopped
        If ``should_cancel`` said yes.
    """
    require_rank(labels)
    if flows.shape != (labels.ndim, *labels.shape):
        raise ValueError(f"got flows of shape {flows.shape}, expected {(labels.ndim, *labels.shape)}")
    errors = np.zeros(n, np.float64)
    if n == 0:
        return errors
    workers, poll = default_threads(threads), poll_of(should_cancel, None)
    labels = np.ascontiguousarray(labels, np.uint32)
    flows = np.ascontiguousarray(flows, np.float32)
    kernels = extension()
    if kernels is None:
        finished = reference.flow_errors(labels, n, flows, errors, poll)
    else:
        finished = kernels.flow_errors(labels, n, flows, errors, workers, poll)
    if not finished:
        raise Stopped
    return errors
