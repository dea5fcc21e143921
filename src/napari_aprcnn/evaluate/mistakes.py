"""Which nuclei were missed, merged, split or made up: a list to walk through, and a class for every object."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.overlap import OverlapTable

__all__ = ["ERRORS", "MIN_SHARE", "Found", "Kind", "Mistake", "find_mistakes"]

# A part of less than this share of the object is debris, and makes no split or merge.
MIN_SHARE = 0.1


class Kind(IntEnum):
    """What became of an object; the numbers are the labels of the picture of errors."""

    HIT = 1
    MISS = 2
    MERGE = 3
    SPLIT = 4
    FALSE_POSITIVE = 5

    @property
    def words(self) -> str:
        """Name for people: ``false positive``."""
        return self.name.lower().replace("_", " ")

    @property
    def plural(self) -> str:
        """Name of several: ``misses``."""
        return f"{self.words}es" if self.words.endswith("s") else f"{self.words}s"


ERRORS = (Kind.SPLIT, Kind.MERGE, Kind.MISS, Kind.FALSE_POSITIVE)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One error.

    Attributes
    ----------
    kind
        Split, merge, miss or false positive.
    label_ids, truth_ids
        Predicted and true objects that take part; of points the numbers of their rows, from 0.
    centroid
        Voxel indices, in the axes of the image; of a miss or split that of the true object, else of the predicted one.
    size_voxels
        Of that object; 0 for a point.
    iou
        Largest IoU of its pairs, 0..1; 0 for points.
    image
        Name of the image.
    slice_index
        Slice that was looked at by itself, else ``None``; the centroid has its index, too.
    """

    kind: Kind
    label_ids: tuple[int, ...]
    truth_ids: tuple[int, ...]
    centroid: tuple[float, ...]
    size_voxels: int
    iou: float
    image: str = ""
    slice_index: int | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """The errors of an image, and the class of every object.

    Attributes
    ----------
    mistakes
        Splits, merges, misses, false positives.
    label_kinds, truth_kinds : (n,), (m,) uint8
        A `Kind` for each predicted and each true object of the table.
    """

    mistakes: tuple[Mistake, ...]
    label_kinds: NDArray[np.uint8]
    truth_kinds: NDArray[np.uint8]


def find_mistakes(table: OverlapTable, matched: NDArray[np.intp], *, min_share: float = MIN_SHARE) -> Found:
    """List the errors of a prediction.

    A true object is *split* if at least two predicted objects lie in it with more than half of their voxels, each
    covering at least `min_share` of it. A predicted object is a *merge* if at least two true objects lie in it with
    more than half of their voxels, each making up at least `min_share` of it. A true object that was not matched and
    takes part in neither is a *miss*; a predicted one a *false positive*. So every error is listed once, and misses
    are fewer than false negatives where nuclei were merged.

    Parameters
    ----------
    table
        Overlaps of the image.
    matched
        Matched pairs, of `napari_aprcnn.evaluate.assign.matched_pairs`.
    min_share
        Least share of a part, 0..1.

    Returns
    -------
    Found

    Examples
    --------
    >>> from napari_aprcnn.evaluate.assign import matched_pairs
    >>> from napari_aprcnn.evaluate.overlap import overlap_table
    >>> table = overlap_table(np.array([[1, 1, 1, 0, 4]]), np.array([[5, 6, 6, 0, 0]]))
    >>> for mistake in find_mistakes(table, matched_pairs(table, 0.5)).mistakes:
    ...     print(mistake.kind.words, mistake.label_ids, mistake.truth_ids)
    merge (1,) (5, 6)
    false positive (4,) ()
    """
    rows, columns, voxels = table.pair_labels, table.pair_truths, table.pair_voxels
    of_label, of_truth = voxels / table.label_sizes[rows], voxels / table.truth_sizes[columns]
    parts = np.flatnonzero((of_label > 0.5) & (of_truth >= min_share))
    swallowed = np.flatnonzero((of_truth > 0.5) & (of_label >= min_share))
    splits = _with_several(columns, parts)
    merges = _with_several(rows, swallowed)
    label_kinds = np.full(len(table.label_ids), Kind.FALSE_POSITIVE, np.uint8)
    truth_kinds = np.full(len(table.truth_ids), Kind.MISS, np.uint8)
    label_kinds[rows[matched]] = Kind.HIT
    truth_kinds[columns[matched]] = Kind.HIT
    # Where an object takes part in both, a merge is what has to be mended first.
    for truth, pairs in splits.items():
        truth_kinds[truth] = label_kinds[rows[pairs]] = Kind.SPLIT
    for label, pairs in merges.items():
        label_kinds[label] = truth_kinds[columns[pairs]] = Kind.MERGE
    best_label, best_truth = _best(table, rows, len(table.label_ids)), _best(table, columns, len(table.truth_ids))
    mistakes = [
        _mistake(Kind.SPLIT, table, truth=truth, labels=rows[pairs], iou=best_truth[truth])
        for truth, pairs in splits.items()
    ]
    mistakes += [
        _mistake(Kind.MERGE, table, label=label, truths=columns[pairs], iou=best_label[label])
        for label, pairs in merges.items()
    ]
    mistakes += [
        _mistake(Kind.MISS, table, truth=int(truth), iou=best_truth[truth])
        for truth in np.flatnonzero(truth_kinds == Kind.MISS)
    ]
    mistakes += [
        _mistake(Kind.FALSE_POSITIVE, table, label=int(label), iou=best_label[label])
        for label in np.flatnonzero(label_kinds == Kind.FALSE_POSITIVE)
    ]
    return Found(tuple(mistakes), label_kinds, truth_kinds)


def _with_several(owners: NDArray[np.intp], pairs: NDArray[np.intp]) -> dict[int, NDArray[np.intp]]:
    """Pairs by owner, of those that own at least two."""
    pairs = pairs[np.argsort(owners[pairs], kind="stable")]
    ids, firsts, counts = np.unique(owners[pairs], return_index=True, return_counts=True)
    return {
        int(owner): pairs[first : first + count]
        for owner, first, count in zip(ids, firsts, counts, strict=True)
        if count > 1
    }


def _best(table: OverlapTable, owners: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    best = np.zeros(n)
    np.maximum.at(best, owners, table.pair_ious)
    return best


def _mistake(
    kind: Kind,
    table: OverlapTable,
    *,
    iou: Any,
    label: int | None = None,
    truth: int | None = None,
    labels: Iterable[Any] = (),
    truths: Iterable[Any] = (),
) -> Mistake:
    own = label if label is not None else truth
    centroids, sizes = (
        (table.label_centroids, table.label_sizes) if label is not None else (table.truth_centroids, table.truth_sizes)
    )
    label_rows = [label] if label is not None else list(labels)
    truth_rows = [truth] if truth is not None else list(truths)
    return Mistake(
        kind=kind,
        label_ids=tuple(int(table.label_ids[row]) for row in label_rows),
        truth_ids=tuple(int(table.truth_ids[row]) for row in truth_rows),
        centroid=tuple(float(value) for value in centroids[own]),
        size_voxels=int(sizes[own]),
        iou=float(iou),
    )
