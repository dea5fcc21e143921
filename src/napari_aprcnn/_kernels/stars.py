"""Distances along rays to the border of labels: the numpy-facing side of the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import reference_stars
from napari_aprcnn._kernels.dispatch import Stopped, default_threads, extension
from napari_aprcnn._kernels.flows import poll_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["ray_distances"]


def ray_distances(
    labels: NDArray[np.uint32],
    corners: NDArray[Any],
    own: NDArray[Any],
    rays: NDArray[Any],
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Exact length of every ray inside the label of its point, from voxel to voxel; the image's border ends it too.

    Parameters
    ----------
    labels : (Z, Y, X) uint32
        Labels.
    corners : (N, 3) integers
        Twice the points' positions z, y, x where voxel i covers [i, i + 1): odd at a voxel's centre, even where voxels
        meet. Such a point belongs to all voxels around it: a ray starts in the one that it goes to.
    own : (N,) integers
        Label of every point; 0 for none, which costs nothing.
    rays : (R, 3) floats
        Unit vectors z, y, x.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    should_cancel
        Asked about every 50 ms.

    Returns
    -------
    (N, R) float32
        Distances in voxels; 0 for points without a label, and for rays that start outside it.

    Raises
    ------
    ValueError
        If shapes do not fit.
    Stopped
        If ``should_cancel`` said yes.
    """
    labels = np.ascontiguousarray(labels, np.uint32)
    corners, own = np.ascontiguousarray(corners, np.int64), np.ascontiguousarray(own, np.uint32)
    rays = np.ascontiguousarray(rays, np.float64)
    if labels.ndim != 3 or corners.shape != (len(own), 3) or rays.ndim != 2 or rays.shape[1] != 3:
        raise ValueError(
            f"got labels {labels.shape}, corners {corners.shape}, own {own.shape}, rays {rays.shape}; "
            "expected [z, y, x], [n, 3], [n], [r, 3]"
        )
    out = np.zeros((len(own), len(rays)), np.float32)
    poll = poll_of(should_cancel, None)
    kernels = extension()
    if kernels is None:
        finished = reference_stars.ray_distances(labels, corners, own, rays, out, poll)
    else:
        finished = kernels.ray_distances(labels, corners, own, rays, out, default_threads(threads), poll)
    if not finished:
        raise Stopped
    return out
