"""Predicted objects against points: one point in an object is a hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ImageError
from napari_aprcnn.evaluate.matching import Matching
from napari_aprcnn.evaluate.mistakes import Found, Kind, Mistake
from napari_aprcnn.evaluate.overlap import slabs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.overlap import OverlapTable

__all__ = ["PointVoxels", "match_points", "values_at", "voxels_of"]


@dataclass(frozen=True, eq=False)
class PointVoxels:
    """Voxels that points lie in, each voxel once.

    Attributes
    ----------
    indices : (n, D) int64
        Voxel indices.
    rows : (n,) intp
        Row of the first point in each voxel.
    n_duplicates
        Points that were left out, because another lies in the same voxel.
    """

    indices: NDArray[np.int64]
    rows: NDArray[np.intp]
    n_duplicates: int = 0

    def only(self, kept: NDArray[np.bool_]) -> PointVoxels:
        """Return some of them."""
        return PointVoxels(self.indices[kept], self.rows[kept], self.n_duplicates)


def voxels_of(coordinates: NDArray[Any], shape: tuple[int, ...], *, name: str = "the image") -> PointVoxels:
    """Return the voxels that points lie in.

    Parameters
    ----------
    coordinates : (N, D) float
        Voxel indices; a whole number is the middle of a voxel.
    shape
        Of the image, D axes.
    name
        Of the image, for messages.

    Returns
    -------
    PointVoxels
        In the order of the points.

    Raises
    ------
    ImageError
        If a point lies outside of the image, or has another number of axes.

    Examples
    --------
    >>> voxels_of(np.array([[0.4, 2.6], [0.0, 3.0]]), (2, 4)).indices.tolist()
    [[0, 3]]
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != len(shape):
        raise ImageError(
            f"points have shape {coordinates.shape}, {name} {len(shape)} axes; expected (N, {len(shape)}): "
            f"points and labels of the same axes"
        )
    indices = np.floor(coordinates + 0.5).astype(np.int64)
    outside = ((indices < 0) | (indices >= np.array(shape))).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        where = tuple(float(f"{value:.6g}") for value in coordinates[first])
        raise ImageError(
            f"{int(outside.sum())} of {len(coordinates)} points lie outside of {name} of shape {shape}, the first is "
            f"point {first} at {where}; check the order of the columns (z, y, x) and that they are voxels, not um"
        )
    _, firsts = np.unique(indices, axis=0, return_index=True)
    rows = np.sort(firsts)
    return PointVoxels(indices[rows], rows.astype(np.intp), len(indices) - len(rows))


def values_at(
    array: Any, indices: NDArray[np.int64], *, should_cancel: Callable[[], bool] = lambda: False
) -> NDArray[np.int64]:
    """Read an array at voxels, slab by slab.

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    values = np.zeros(len(indices), np.int64)
    if not len(indices):
        return values
    order = np.argsort(indices[:, 0], kind="stable")
    sorted_first = indices[order, 0]
    for start, slab in slabs(array, should_cancel=should_cancel):
        low, high = np.searchsorted(sorted_first, (start, start + len(slab)))
        if low == high:
            continue
        here = order[low:high]
        places = indices[here].copy()
        places[:, 0] -= start
        values[here] = slab[tuple(places.T)]
    return values


def match_points(table: OverlapTable, points: PointVoxels, ids: NDArray[np.int64]) -> tuple[Matching, Found]:
    """Count hits, merges, misses and false positives.

    An object with one point is a hit. One with several is a merge: one of them is hit, the others are missed. A point
    in no object (or in one that was left out) is a miss, an object without a point a false positive.

    Parameters
    ----------
    table
        Objects of the prediction.
    points
        Voxels of the points.
    ids : (n,) int64
        Id of the prediction at each of them.

    Returns
    -------
    Matching, Found
        With threshold 0; the kinds of the true objects are those of the points.

    Examples
    --------
    >>> from napari_aprcnn.evaluate.overlap import overlap_table
    >>> labels = np.array([[1, 1, 0, 2, 0, 3]])
    >>> points = voxels_of(np.array([[0, 0], [0, 1], [0, 2], [0, 3]]), labels.shape)
    >>> match, found = match_points(overlap_table(labels), points, values_at(labels, points.indices))
    >>> match.true_positives, match.false_positives, match.false_negatives
    (2, 1, 2)
    >>> [mistake.kind.words for mistake in found.mistakes]
    ['merge', 'miss', 'false positive']
    """
    n = len(table.label_ids)
    row = np.searchsorted(table.label_ids, ids)
    inside = (row < n) & (ids != 0)
    inside[inside] = table.label_ids[row[inside]] == ids[inside]
    counts = np.bincount(row[inside], minlength=n)
    label_kinds = np.full(n, Kind.FALSE_POSITIVE, np.uint8)
    label_kinds[counts == 1] = Kind.HIT
    label_kinds[counts > 1] = Kind.MERGE
    point_kinds = np.full(len(ids), Kind.MISS, np.uint8)
    point_kinds[inside] = label_kinds[row[inside]]
    members: dict[int, list[int]] = {}
    for point in np.flatnonzero(point_kinds == Kind.MERGE):
        members.setdefault(int(row[point]), []).append(int(points.rows[point]))
    mistakes = [_of_object(Kind.MERGE, table, label, members[label]) for label in sorted(members)]
    mistakes += [
        Mistake(
            kind=Kind.MISS,
            label_ids=(),
            truth_ids=(int(points.rows[point]),),
            centroid=tuple(float(value) for value in points.indices[point]),
            size_voxels=0,
            iou=0.0,
        )
        for point in np.flatnonzero(point_kinds == Kind.MISS)
    ]
    mistakes += [_of_object(Kind.FALSE_POSITIVE, table, int(label), ()) for label in np.flatnonzero(counts == 0)]
    hits = int(np.count_nonzero(counts))
    match = Matching(threshold=0.0, true_positives=hits, false_positives=n - hits, false_negatives=len(ids) - hits)
    return match, Found(tuple(mistakes), label_kinds, point_kinds)


def _of_object(kind: Kind, table: OverlapTable, label: int, points: Any) -> Mistake:
    return Mistake(
        kind=kind,
        label_ids=(int(table.label_ids[label]),),
        truth_ids=tuple(points),
        centroid=tuple(float(value) for value in table.label_centroids[label]),
        size_voxels=int(table.label_sizes[label]),
        iou=0.0,
    )
