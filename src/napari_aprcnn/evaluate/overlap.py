"""How many voxels predicted and true objects share: a sparse table, read slab by slab.

A row of voxels is cut into runs of equal (label, truth) pairs. Runs are few where objects are larger than a voxel, so
sorting them costs little, and no matrix of all labels times all true objects is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import CancelledError, ImageDtypeError, ImageError, ImageValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OverlapTable", "check_labels", "overlap_table", "planes", "slabs"]

# Voxels that are looked at at once: a few planes, small beside the rest of the machine's memory.
_PIECE_VOXELS = 1 << 21
# Rows of the table that are kept before equal ones are added up.
_MOST_ROWS = 1 << 20

Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class OverlapTable:
    """Objects of two label images and the voxels that they share. What was excluded is not in it.

    Attributes
    ----------
    label_ids, truth_ids : (n,), (m,) int64
        Ids in ascending order.
    label_sizes, truth_sizes : (n,), (m,) int64
        Voxels, those of the ignored region left out.
    label_centroids, truth_centroids : (n, D), (m, D) float64
        Mean voxel index along every axis.
    pair_labels, pair_truths : (k,) intp
        Rows of the pairs that share a voxel.
    pair_voxels : (k,) int64
        Voxels that they share.
    n_excluded_labels, n_excluded_truths
        Objects that were left out: too small, or mostly in the ignored region.
    """

    label_ids: NDArray[np.int64]
    truth_ids: NDArray[np.int64]
    label_sizes: NDArray[np.int64]
    truth_sizes: NDArray[np.int64]
    label_centroids: NDArray[np.float64]
    truth_centroids: NDArray[np.float64]
    pair_labels: NDArray[np.intp]
    pair_truths: NDArray[np.intp]
    pair_voxels: NDArray[np.int64]
    n_excluded_labels: int = 0
    n_excluded_truths: int = 0

    @property
    def pair_ious(self) -> NDArray[np.float64]:
        """Intersection over union of every pair, (k,) float64."""
        union = self.label_sizes[self.pair_labels] + self.truth_sizes[self.pair_truths] - self.pair_voxels
        ious: NDArray[np.float64] = self.pair_voxels / np.maximum(union, 1)
        return ious


def overlap_table(
    labels: Any,
    truth: Any = None,
    *,
    ignore: Any = None,
    ignore_label: int | None = None,
    min_size: float = 0,
    progress: Progress = lambda _fraction: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> OverlapTable:
    """Count the voxels of every object and of every overlap.

    Parameters
    ----------
    labels, truth : (*S) integer
        Predicted and true instance labels, 0 is background. numpy, dask, zarr and memory-mapped arrays are read slab by
        slab along the first axis. Without `truth` only the labels are counted. An id is one object, wherever its voxels
        lie.
    ignore : (*S) bool or integer
        Region (not 0) that counts for nobody. Its voxels are background on both sides, and an object with more than
        half of its voxels in it is left out.
    ignore_label
        Value of `truth` that marks such a region as well, for example -1 or 255.
    min_size
        Voxels, outside of the ignored region, that an object needs. Smaller ones are left out on both sides; so is a
        predicted object that lies with more than half of its voxels in true objects which were left out.
    progress
        Called with the share of the slabs that is done, 0..1.
    should_cancel
        Asked before every slab.

    Returns
    -------
    OverlapTable

    Raises
    ------
    ImageError
        If the shapes differ.
    ImageDtypeError
        If the labels do not hold integers.
    ImageValueError
        If there are negative ids (other than `ignore_label`).
    CancelledError
        If `should_cancel` said yes.

    Examples
    --------
    >>> table = overlap_table(np.array([[1, 1, 0, 3]]), np.array([[0, 7, 7, 7]]))
    >>> table.label_ids.tolist(), table.truth_sizes.tolist(), table.pair_voxels.tolist()
    ([1, 3], [3], [1, 1])
    """
    shape = check_labels(labels, truth, ignore)
    rows = _Rows(len(shape))
    for start, slab, true, hidden in slabs(labels, truth, ignore, should_cancel=should_cancel):
        hidden = hidden != 0 if hidden is not None else None
        if ignore_label is not None and true is not None:
            marked = true == ignore_label
            true = np.where(marked, 0, true)
            hidden = marked if hidden is None else hidden | marked
        rows.add(slab, true, hidden, start)
        progress((start + len(slab)) / max(1, shape[0]))
    return _excluding(*rows.merged(), min_size=min_size)


def check_labels(labels: Any, truth: Any = None, ignore: Any = None) -> tuple[int, ...]:
    """Check that label images go together, without reading them.

    Raises
    ------
    ImageError
        If the shapes differ, or there is no axis.
    ImageDtypeError
        If one of them does not hold integers.
    """
    shape = tuple(int(n) for n in labels.shape)
    if not shape:
        raise ImageError("labels are a single number; expected an array of at least one axis")
    for name, array in (("labels", labels), ("truth", truth), ("ignore", ignore)):
        if array is None:
            continue
        if tuple(array.shape) != shape:
            raise ImageError(
                f"labels have shape {shape}, {name} {tuple(array.shape)}; expected equal shapes: resample or crop one"
            )
        if np.dtype(array.dtype).kind not in "iub":
            raise ImageDtypeError(f"{name} have dtype {array.dtype}; expected integers, 0 being background")
    return shape


def slabs(*arrays: Any, should_cancel: Callable[[], bool] = lambda: False) -> Iterator[tuple[Any, ...]]:
    """Read arrays of one shape in slabs along the first axis, in pieces of whole chunks.

    Yields
    ------
    tuple
        First index of the slab, then the slab of each array (``None`` for ``None``).

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    first = arrays[0]
    if 0 in first.shape:
        return
    small = max(1, _PIECE_VOXELS // max(1, prod(int(n) for n in first.shape[1:])))
    depth = max(small, _depth(arrays))
    for start in range(0, int(first.shape[0]), depth):
        if should_cancel():
            raise CancelledError("cancelled; nothing was changed")
        read = [None if array is None else np.asarray(array[start : start + depth]) for array in arrays]
        for piece in range(0, min(depth, int(first.shape[0]) - start), small):
            yield start + piece, *(None if part is None else part[piece : piece + small] for part in read)


def planes(
    *arrays: Any, indices: Sequence[int], should_cancel: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Any, ...]]:
    """Read some planes along the first axis of arrays of one shape; every chunk is read once.

    Yields
    ------
    tuple
        Index of the plane, then the plane of each array (``None`` for ``None``).

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    depth = _depth(arrays)
    for _, group in groupby(sorted(indices), key=lambda index: index // depth):
        here = list(group)
        read = [None if array is None else np.asarray(array[here[0] : here[-1] + 1]) for array in arrays]
        for index in here:
            if should_cancel():
                raise CancelledError("cancelled; nothing was changed")
            yield index, *(None if part is None else part[index - here[0]] for part in read)


def _depth(arrays: Sequence[Any]) -> int:
    """Planes to read at once: a chunk that is read in two pieces is decompressed twice."""
    return max(_chunk_depth(array) for array in arrays if array is not None)


def _chunk_depth(array: Any) -> int:
    """Length of the chunks along the first axis; 1 for arrays without chunks."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return 1
    first = chunks[0]
    return max(int(n) for n in first) if isinstance(first, tuple) else int(first)


class _Rows:
    """Sums over the voxels of every (label, truth, ignored) triple: voxels, and every coordinate."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._ids: list[NDArray[np.int64]] = []
        self._sums: list[NDArray[np.float64]] = []
        self._n = 0

    def add(
        self, labels: NDArray[Any], truth: NDArray[Any] | None, hidden: NDArray[np.bool_] | None, start: int
    ) -> None:
        """Add the runs of a slab that begins at index `start` of the first axis."""
        width = labels.shape[-1]
        sides = [np.ascontiguousarray(side).ravel() for side in (labels, truth, hidden) if side is not None]
        breaks = np.empty(sides[0].size, np.bool_)
        breaks[0] = True
        np.not_equal(sides[0][1:], sides[0][:-1], out=breaks[1:])
        for side in sides[1:]:
            breaks[1:] |= side[1:] != side[:-1]
        breaks[::width] = True
        starts = np.flatnonzero(breaks)
        lengths = np.diff(starts, append=sides[0].size)
        ids = np.zeros((3, len(starts)), np.int64)
        ids[0] = sides[0][starts]
        if truth is not None:
            ids[1] = sides[1][starts]
        if hidden is not None:
            ids[2] = sides[-1][starts]
        kept = (ids[0] != 0) | (ids[1] != 0)
        ids, starts, lengths = ids[:, kept], starts[kept], lengths[kept]
        if ids.size and int(ids[:2].min()) < 0:
            raise ImageValueError(
                f"got the id {int(ids[:2].min())}; expected ids of 1 and above, 0 for background, at most "
                f"{np.iinfo(np.int64).max}; name a negative value that marks an ignored region (ignore_label)"
            )
        sums = np.empty((1 + self._rank, len(starts)))
        sums[0] = lengths
        places = np.unravel_index(starts, labels.shape)
        for axis, place in enumerate(places):
            sums[1 + axis] = (place + (start if axis == 0 else 0)) * lengths
        sums[self._rank] += lengths * (lengths - 1) / 2  # runs lie along the last axis
        self._keep(*_grouped(ids, sums))

    def _keep(self, ids: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
        self._ids.append(ids)
        self._sums.append(sums)
        self._n += ids.shape[1]
        if self._n > _MOST_ROWS:
            ids, sums = self.merged()
            self._ids, self._sums = [ids], [sums]
            # Where most rows stay apart there is nothing to gain from adding up again soon.
            self._n = ids.shape[1] // 2

    def merged(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return (3, k) ids and (1 + D, k) sums, each triple once, in ascending order."""
        if not self._ids:
            return np.zeros((3, 0), np.int64), np.zeros((1 + self._rank, 0))
        return _grouped(np.concatenate(self._ids, axis=1), np.concatenate(self._sums, axis=1))


def _grouped(ids: NDArray[np.int64], sums: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Add up the columns of equal ids."""
    if not ids.shape[1]:
        return ids, sums
    if int(ids[:2].max()) < 1 << 31:
        # One number for three is sorted several times faster.
        order = np.argsort((ids[0] << 32) | (ids[1] << 1) | ids[2], kind="stable")
    else:
        order = np.lexsort(ids[::-1])
    ids, sums = ids[:, order], sums[:, order]
    firsts = np.flatnonzero(np.append(True, (ids[:, 1:] != ids[:, :-1]).any(axis=0)))
    return ids[:, firsts], np.add.reduceat(sums, firsts, axis=1)


def _excluding(ids: NDArray[np.int64], sums: NDArray[np.float64], *, min_size: float) -> OverlapTable:
    """Make the table out of grouped rows, without the objects that are too small or mostly ignored."""
    label_ids, label_rows, label_sums, label_hidden = _side(ids[0], ids[2], sums)
    truth_ids, truth_rows, truth_sums, truth_hidden = _side(ids[1], ids[2], sums)
    keep_label, keep_truth = (
        (hidden <= side[0]) & (side[0] > 0) & (side[0] >= min_size)
        for side, hidden in ((label_sums, label_hidden), (truth_sums, truth_hidden))
    )
    # A pair of two objects outside of the ignored region.
    pair = np.flatnonzero((ids[0] != 0) & (ids[1] != 0) & (ids[2] == 0))
    pair_labels, pair_truths, voxels = label_rows[pair], truth_rows[pair], sums[0, pair]
    on_excluded = np.zeros(len(label_ids))
    np.add.at(on_excluded, pair_labels, voxels * ~keep_truth[pair_truths])
    keep_label &= 2 * on_excluded <= label_sums[0]
    both = keep_label[pair_labels] & keep_truth[pair_truths]
    new_label, new_truth = np.cumsum(keep_label) - 1, np.cumsum(keep_truth) - 1
    return OverlapTable(
        label_ids=label_ids[keep_label],
        truth_ids=truth_ids[keep_truth],
        label_sizes=label_sums[0, keep_label].astype(np.int64),
        truth_sizes=truth_sums[0, keep_truth].astype(np.int64),
        label_centroids=(label_sums[1:, keep_label] / label_sums[0, keep_label]).T,
        truth_centroids=(truth_sums[1:, keep_truth] / truth_sums[0, keep_truth]).T,
        pair_labels=new_label[pair_labels[both]].astype(np.intp),
        pair_truths=new_truth[pair_truths[both]].astype(np.intp),
        pair_voxels=voxels[both].astype(np.int64),
        n_excluded_labels=int(np.count_nonzero(~keep_label)),
        n_excluded_truths=int(np.count_nonzero(~keep_truth)),
    )


def _side(
    ids: NDArray[np.int64], hidden: NDArray[np.int64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Ids of one side, the row of each column in them, sums outside and voxels inside of the ignored region."""
    objects = np.unique(ids)
    objects = objects[objects != 0]
    rows = np.searchsorted(objects, ids)  # of background: any, never used
    totals = np.zeros((len(sums), len(objects)))
    inside: NDArray[Any] = np.zeros(len(objects))
    if len(objects):
        open_, closed = (ids != 0) & (hidden == 0), (ids != 0) & (hidden != 0)
        for index, values in enumerate(sums):
            totals[index] = np.bincount(rows[open_], values[open_], minlength=len(objects))
        inside = np.bincount(rows[closed], sums[0, closed], minlength=len(objects))
    return objects, rows.astype(np.intp), totals, inside
