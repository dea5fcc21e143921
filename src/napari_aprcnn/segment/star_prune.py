"""Candidates of star-convex objects: which one stands for those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_aprcnn.segment.star_rays import StarRays

__all__ = ["local_best", "recentred"]

FIRST_NEIGHBOURS = 8  # itself included; most candidates have a better neighbour among the first few
ROUNDS = 2  # of recentring; a third changes nothing that can be measured
AT_A_TIME = 1 << 22  # distances that are held at once


def local_best(
    points: NDArray[Any], scores: NDArray[Any], radii: NDArray[Any], *, check: Callable[[], None] | None = None
) -> NDArray[np.intp]:
    """Points that no better point within reach exceeds.

    A point falls if a better one lies within the smaller of both radii. The winner may fall itself: what is left are
    local maxima, as in climbing a hill step by step. Nearest neighbours are looked up a few at a time, and more of
    them only for the points that are not decided yet, so that dense clusters cost little.

    Parameters
    ----------
    points : (N, 3) float
        Positions in voxels.
    scores : (N,) float
        Higher is better; of equal ones the first is better.
    radii : (N,) float
        Reach of every point in voxels.
    check
        Called between the rounds; may raise to stop.

    Returns
    -------
    (M,) intp
        Indices of the points that are left, ascending.
    """
    from scipy.spatial import cKDTree

    n = len(points)
    if n == 0:
        return np.zeros(0, np.intp)
    # Position in the order of quality, so that ties are decided once.
    rank = np.empty(n, np.intp)
    rank[np.argsort(-np.asarray(scores, np.float64), kind="stable")] = np.arange(n)
    radii = np.asarray(radii, np.float64)
    tree = cKDTree(np.asarray(points, np.float64))
    kept: list[NDArray[np.intp]] = []
    open_, count = np.arange(n), min(FIRST_NEIGHBOURS, n)
    while len(open_):
        later: list[NDArray[np.intp]] = []
        step = max(1, AT_A_TIME // count)
        for start in range(0, len(open_), step):
            if check is not None:
                check()
            part = open_[start : start + step]
            distance, other = tree.query(tree.data[part], count)
            distance, other = distance.reshape(len(part), -1), other.reshape(len(part), -1)
            beaten = (rank[other] < rank[part, None]) & (distance <= np.minimum(radii[part, None], radii[other]))
            left = ~beaten.any(1)
            seen_all = (distance[:, -1] > radii[part]) | (count == n)
            kept.append(part[left & seen_all])
            later.append(part[left & ~seen_all])
        open_, count = np.concatenate(later), min(4 * count, n)
    return np.sort(np.concatenate(kept))


def recentred(
    chosen: NDArray[np.intp],
    points: NDArray[Any],
    distances: NDArray[Any],
    rays: StarRays,
) -> NDArray[np.intp]:
    """Replace chosen points by those nearest to the middle of their own bodies.

    From the middle of an object more of its border can be seen, and its shape is drawn better, than from where its
    probability happens to be highest: at the border of the image where that cuts it, or anywhere on the ridge of a
    long object. A point that describes another body (whose middle is further away than half a radius) is not
    taken, and no point is taken twice.

    Parameters
    ----------
    chosen : (n,) intp
        Indices of the points that became objects.
    points : (N, 3) float
        Positions of all candidates in voxels.
    distances : (N, R) float
        Their distances along the rays.
    rays
        Directions.

    Returns
    -------
    (n,) intp
        Indices, in the same order.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(np.asarray(points, np.float64))
    now = chosen
    for _ in range(ROUNDS):
        middle = points[now] + rays.centroids(distances[now])
        other = tree.query(middle)[1]
        apart = np.linalg.norm(points[other] + rays.centroids(distances[other]) - middle, axis=1)
        moved = np.where(apart <= 0.5 * rays.radii(distances[now]), other, now)
        # One that is wanted twice, or stands for another object already, stays with whom it belongs to.
        free = ~np.isin(moved, now) & (np.bincount(moved, minlength=len(points))[moved] == 1)
        now = np.where(free, moved, now)
    return now
