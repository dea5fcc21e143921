"""Shape of all objects at once: surfaces by counting crossings, hulls of planes, neighbours that touch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["crossings", "hull_areas", "surface_weights"]

_SLAB_VOXELS = 1 << 21
_DIRECTIONS = [
    (z, y, x) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)
]  # the 13 lines through a voxel and its 26 neighbours


@lru_cache(maxsize=8)
def surface_weights(spacing: tuple[float, float, float]) -> dict[tuple[int, int, int], float]:
    """Return the area that one crossing along each of 13 directions stands for.

    Crofton's formula: a surface is twice the mean, over directions, of its crossings with the lines along that
    direction, each times the area that belongs to a line. A direction counts with the part of the sphere that is
    nearest to it, so the estimate holds for voxels of any proportions.

    Parameters
    ----------
    spacing
        Edges (z, y, x) of a voxel.

    Examples
    --------
    >>> round(sum(surface_weights((1.0, 1.0, 1.0)).values()), 3)
    1.502
    """
    from scipy.spatial import SphericalVoronoi

    steps = np.array(_DIRECTIONS, float) * np.array(spacing)
    lengths = np.linalg.norm(steps, axis=1)
    units = steps / lengths[:, None]
    shares = SphericalVoronoi(np.concatenate([units, -units])).calculate_areas()[: len(units)] / (2 * np.pi)
    areas = 2 * shares * float(np.prod(spacing)) / lengths
    return {direction: float(area) for direction, area in zip(_DIRECTIONS, areas, strict=True)}


def crossings(
    dense: NDArray[np.int32], n_objects: int, weights: dict[tuple[int, int, int], float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum the weighted crossings of every object's border, and count the neighbours that share a face with it.

    Parameters
    ----------
    dense : (Z, Y, X) int32
        Objects 1..N, 0 is background; outside is background too.
    n_objects
        N.
    weights
        Area of a crossing by direction; faces that are missing count neighbours only.

    Returns
    -------
    surface : (N,) float64
    neighbours : (N,) int64
    """
    surface = np.zeros(n_objects + 1)
    pairs: list[NDArray[np.int64]] = []
    outside = _pad(dense)
    planes = max(1, _SLAB_VOXELS // max(1, outside[0].size))
    for z0 in range(0, len(outside), planes):
        block = outside[z0 : z0 + planes + 1]
        for direction in _DIRECTIONS:
            face, weight = sum(map(abs, direction)) == 1, weights.get(direction, 0.0)
            if not (face or weight):
                continue
            one, other = _ends(block, direction, planes)
            if weight:
                surface += weight * np.bincount(one, minlength=n_objects + 1)
                surface += weight * np.bincount(other, minlength=n_objects + 1)
            if face:
                both = (one > 0) & (other > 0)
                low, high = np.minimum(one[both], other[both]), np.maximum(one[both], other[both])
                pairs.append(np.unique(low.astype(np.int64) * (n_objects + 1) + high))
    touching = np.unique(np.concatenate(pairs)) if pairs else np.zeros(0, np.int64)
    ends = np.concatenate([touching // (n_objects + 1), touching % (n_objects + 1)])
    return surface[1:], np.bincount(ends, minlength=n_objects + 1)[1:]


def _ends(
    block: NDArray[np.int32], direction: tuple[int, int, int], planes: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return both sides of every step along a direction that leaves an object; steps start in the first planes."""
    dz, dy, dx = direction
    here, there = block[: min(planes, len(block) - dz)], block[dz:][:planes]
    (y0, y1), (x0, x1) = _cut(dy), _cut(dx)
    one, other = here[:, y0, x0], there[: len(here), y1, x1]
    differ = one != other
    return one[differ], other[differ]


def _cut(step: int) -> tuple[slice, slice]:
    """Slices of an axis that are one step apart."""
    if step == 0:
        return slice(None), slice(None)
    return (slice(None, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(None, -1))


def _pad(dense: NDArray[np.int32]) -> NDArray[np.int32]:
    padded = np.zeros(tuple(n + 2 for n in dense.shape), np.int32)
    padded[1:-1, 1:-1, 1:-1] = dense
    return padded


def hull_areas(
    labels: NDArray[np.integer], rows: NDArray[np.integer], first: NDArray[np.integer], last: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Area of the convex hull of the pixels (their corners) of every object of a plane.

    Parameters
    ----------
    labels, rows, first, last : (R,) int
        Runs of pixels along x: object 1..N, row, first pixel, one past the last.

    Returns
    -------
    (N,) float64
        In pixels.

    Examples
    --------
    >>> one = np.ones(3, int)
    >>> hull_areas(one, np.arange(3), np.array([0, 1, 2]), np.array([1, 2, 3])).tolist()  # a diagonal of three pixels
    [5.0]
    """
    height = int(rows.max(initial=0)) + 2
    # The corners of a run lie in two rows of corners.
    keys = np.concatenate([labels.astype(np.int64) * height + rows, labels.astype(np.int64) * height + rows + 1])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    left = np.minimum.reduceat(np.tile(first, 2)[order], starts)
    right = np.maximum.reduceat(np.tile(last, 2)[order], starts)
    owner, y = np.divmod(keys[starts], height)
    return _chain(owner, y, right) - _chain(owner, y, -left, sign=-1)


def _chain(
    owner: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.integer], *, sign: int = 1
) -> NDArray[np.float64]:
    """Area between the y axis and the convex chain to the right of the points, for each owner; points sorted by y."""
    x = x.astype(np.int64)
    n_owners = int(owner[-1]) if len(owner) else 0
    while len(owner) > 2:
        inner = (owner[:-2] == owner[2:]).nonzero()[0] + 1
        before, after = inner - 1, inner + 1
        turn = (y[inner] - y[before]) * (x[after] - x[before]) - (x[inner] - x[before]) * (y[after] - y[before])
        # Left of or on the line between two other points: no corner of the hull, whatever else is taken out.
        gone = inner[turn >= 0]
        if not len(gone):
            break
        keep = np.ones(len(owner), bool)
        keep[gone] = False
        owner, y, x = owner[keep], y[keep], x[keep]
    same = owner[1:] == owner[:-1]
    strips = np.where(same, (y[1:] - y[:-1]) * (x[1:] + x[:-1]) / 2, 0.0)
    return np.asarray(np.bincount(owner[1:], weights=sign * strips, minlength=n_owners + 1)[1:], np.float64)
