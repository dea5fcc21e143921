"""How far apart the surfaces of two objects are, voxels being boxes: 0 where they touch by a side, edge or corner.

Boxes of one lattice are nearest to each other at their corners, so the distance of two objects is the smallest one
between the corners of their voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import CancelledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.graph.scan import Scan

__all__ = ["Surfaces", "box_gaps", "pairs_within", "surface_distances"]

_EVERY = 256  # pairs between two questions whether to stop
_MOST_PRODUCTS = 40_000


class Surfaces:
    """Corners of the voxels at the surface of each object; cut out of the label image when they are asked for.

    Parameters
    ----------
    labels
        Label image.
    scan
        Of it.
    spacing : [D]
        Voxel size.
    """

    def __init__(self, labels: NDArray[Any], scan: Scan, spacing: NDArray[np.float64]) -> None:
        self._labels, self._scan, self._spacing = labels, scan, spacing
        self._corners: dict[int, NDArray[np.float64]] = {}

    def corners(self, index: int) -> NDArray[np.float64]:
        """Return the corners of an object's surface, (n, D), in the unit of the spacing."""
        if index not in self._corners:
            low, high = self._scan.boxes[index]
            box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
            mask = np.pad(self._labels[box] == self._scan.labels[index], 1)
            # A corner is at the surface where not all of the voxels around it are of the object, and not none.
            around = np.zeros(tuple(n - 1 for n in mask.shape), np.uint8)
            for shift in product((0, 1), repeat=mask.ndim):
                around += mask[tuple(slice(s, s + n - 1) for s, n in zip(shift, mask.shape, strict=True))]
            at = np.argwhere((around > 0) & (around < 2**mask.ndim))
            self._corners[index] = (at + low - 0.5) * self._spacing
        return self._corners[index]

    def forget(self, below: int) -> None:
        """Drop the corners of objects that are asked for no more."""
        for index in [index for index in self._corners if index < below]:
            del self._corners[index]

    def distance(self, one: int, other: int) -> float:
        """Return the distance of two objects' surfaces."""
        a, b = self.corners(one), self.corners(other)
        # A few steps to and fro give a distance that the smallest one cannot exceed ...
        start = a[_nearest(a, b.mean(axis=0))]
        opposite = b[_nearest(b, start)]
        bound = float(np.linalg.norm(opposite - a[_nearest(a, opposite)]))
        # ... and what is farther from the other's box than that needs no look.
        a, b = _near_box(a, b, bound), _near_box(b, a, bound)
        from scipy.spatial import cKDTree
        from scipy.spatial.distance import cdist

        if len(a) * len(b) <= _MOST_PRODUCTS:
            return float(cdist(a, b).min())
        found, _ = cKDTree(b).query(a)
        return float(found.min())


def _nearest(points: NDArray[np.float64], to: NDArray[np.float64]) -> int:
    return int(((points - to) ** 2).sum(axis=1).argmin())


def _near_box(points: NDArray[np.float64], others: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    low, high = others.min(axis=0), others.max(axis=0)
    beyond = np.maximum(np.maximum(low - points, points - high), 0.0)
    near = (beyond**2).sum(axis=1) <= (bound * (1 + 1e-9)) ** 2
    return points[near] if near.any() else points


def surface_distances(
    pairs: NDArray[np.int64],
    surfaces: Surfaces,
    *,
    touching: NDArray[np.bool_],
    progress: Callable[[float], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.float64]:
    """Return the distance of the surfaces of each pair.

    Parameters
    ----------
    pairs : (E, 2)
        Indices of objects, in order.
    surfaces
        Of the objects.
    touching : [E]
        Pairs that are known to touch.
    progress, should_cancel
        As everywhere.

    Returns
    -------
    [E] float64
        In the unit of the spacing; 0 where they touch.

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    distances = np.zeros(len(pairs))
    apart = np.flatnonzero(~touching)
    for number, index in enumerate(apart.tolist()):
        one, other = (int(end) for end in pairs[index])
        if number % _EVERY == 0:
            if should_cancel is not None and should_cancel():
                raise CancelledError("cancelled; no graph was made")
            if progress is not None:
                progress(number / len(apart))
            surfaces.forget(one)
        distances[index] = surfaces.distance(one, other)
    return distances


def box_gaps(one: NDArray[np.int64], other: NDArray[np.int64], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances of bounding boxes (n, 2, D), which those of what is in them cannot fall below."""
    gap = np.maximum(np.maximum(other[:, 0] - one[:, 1], one[:, 0] - other[:, 1]) - 1, 0) * spacing
    return np.asarray(np.sqrt((gap**2).sum(axis=1)))


def pairs_within(scan: Scan, spacing: NDArray[np.float64], gap: float) -> NDArray[np.int64]:
    """Return the pairs of objects whose bounding boxes are at most `gap` apart, (E, 2), in order."""
    from scipy.spatial import cKDTree

    if len(scan.boxes) < 2:
        return np.zeros((0, 2), np.int64)
    boxes = scan.boxes
    middle = boxes.mean(axis=1) * spacing
    half = (boxes[:, 1] - boxes[:, 0] + 1) / 2 * spacing
    # In the largest norm two boxes are nearer than the sum of their halves and the gap; the largest half bounds one.
    largest = float(half.max())
    tree = cKDTree(middle)
    reach = half.max(axis=1) + largest + gap
    found = [
        np.stack([np.full(len(near), index), near], axis=1)
        for index, near in enumerate(tree.query_ball_point(middle, reach * (1 + 1e-9), p=np.inf))
    ]
    pairs = np.concatenate(found).astype(np.int64)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[box_gaps(boxes[pairs[:, 0]], boxes[pairs[:, 1]], spacing) <= gap * (1 + 1e-9)]
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])
