"""Who is whose neighbour, from centroids alone: within a radius, by Delaunay, the k nearest."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["delaunay_pairs", "nearest_pairs", "ordered", "pairs_in_radius"]

# Points this much nearer to a plane than they are spread in it lie in the plane.
_FLAT = 1e-6


def ordered(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs with the smaller end first, each once, in order, (E, 2)."""
    if not len(pairs):
        return np.zeros((0, 2), np.int64)
    pairs = np.sort(np.asarray(pairs, np.int64), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def pairs_in_radius(points: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Return the pairs of points at most `radius` apart.

    Examples
    --------
    >>> pairs_in_radius(np.array([[0.0, 0], [0, 1], [0, 3]]), 2).tolist()
    [[0, 1], [1, 2]]
    """
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return np.zeros((0, 2), np.int64)
    # A little more is asked for, and what the rounding of the tree lets through is looked at again.
    pairs = ordered(cKDTree(points).query_pairs(radius * (1 + 1e-9), output_type="ndarray"))
    return _not_longer(points, pairs, radius)


def nearest_pairs(points: NDArray[np.float64], k: int, radius: float = np.inf) -> NDArray[np.int64]:
    """Return the pairs of which one is among the k nearest of the other, at most `radius` apart.

    Examples
    --------
    >>> nearest_pairs(np.array([[0.0, 0], [0, 1], [0, 3]]), 1).tolist()
    [[0, 1], [1, 2]]
    """
    from scipy.spatial import cKDTree

    count = len(points)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    k = min(k, count - 1)
    _, near = cKDTree(points).query(points, k=k + 1)
    start = np.repeat(np.arange(count), k + 1)
    ends = near.reshape(-1)
    # Of points at one place, a point itself need not be the first that is found.
    other = ends != start
    rank = np.cumsum(other.reshape(count, k + 1), axis=1).reshape(-1)
    kept = other & (rank <= k)
    return _not_longer(points, ordered(np.stack([start[kept], ends[kept]], axis=1)), radius)


def delaunay_pairs(points: NDArray[np.float64], longest: float = np.inf) -> NDArray[np.int64]:
    """Return the edges of the Delaunay triangulation that are not longer than `longest`.

    Points that lie in a plane or on a line are triangulated there: on a line each is joined with the next. Up to D + 1
    points that span their space are all joined. A point at the place of another is joined with that one.

    Examples
    --------
    >>> line = np.array([[0.0, 0, 0], [1, 1, 1], [3, 3, 3]])
    >>> delaunay_pairs(line).tolist(), delaunay_pairs(line, longest=2).tolist()
    ([[0, 1], [1, 2]], [[0, 1]])
    """
    if len(points) < 2:
        return np.zeros((0, 2), np.int64)
    _, first, same = np.unique(points, axis=0, return_index=True, return_inverse=True)
    owner = first[np.asarray(same).reshape(-1)]
    alone = np.sort(first)
    doubles = np.flatnonzero(owner != np.arange(len(points)))
    pairs = alone[_triangulated(points[alone])]
    return _not_longer(points, ordered(np.concatenate([pairs, np.stack([owner[doubles], doubles], axis=1)])), longest)


def _triangulated(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Edges of the Delaunay triangulation of different points, in the space that they span."""
    from scipy.spatial import Delaunay, QhullError

    count = len(points)
    _, spread, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    rank = int(np.count_nonzero(spread > _FLAT * max(float(spread[0]), 1e-300)))
    while rank > 1:
        if count <= rank + 1:
            return np.array(list(combinations(range(count), 2)), np.int64)
        within = points if rank == points.shape[1] else (points - points.mean(axis=0)) @ axes[:rank].T
        try:
            found = Delaunay(within)
        except QhullError:
            rank -= 1  # flatter than it seemed
            continue
        pairs = [found.simplices[:, ends] for ends in combinations(range(rank + 1), 2)]
        # Points that rounding keeps out of the triangulation are joined with the nearest corner.
        return np.concatenate([*pairs, found.coplanar[:, [0, 2]]]).astype(np.int64)
    order = np.argsort((points - points.mean(axis=0)) @ axes[0], kind="stable")
    return np.stack([order[:-1], order[1:]], axis=1).astype(np.int64)


def _not_longer(points: NDArray[np.float64], pairs: NDArray[np.int64], longest: float) -> NDArray[np.int64]:
    if not np.isfinite(longest):
        return pairs
    length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    return np.asarray(pairs[length <= longest])
