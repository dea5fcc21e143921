"""A picture of the errors: what became of every voxel's object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.evaluate.mistakes import Kind
from napari_aprcnn.evaluate.overlap import check_labels, slabs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.scores import UnitScore

__all__ = ["COLOURS", "paint_errors"]

# The palette of Okabe and Ito, which people with any colour vision tell apart.
COLOURS = {
    Kind.HIT: "#009E73",
    Kind.MISS: "#0072B2",
    Kind.MERGE: "#D55E00",
    Kind.SPLIT: "#E69F00",
    Kind.FALSE_POSITIVE: "#CC79A7",
}
# A lookup table up to this id, a search above it.
_LARGEST_TABLE = 1 << 24
_POINT_RADIUS = 2


def paint_errors(
    labels: Any,
    truth: Any,
    units: Sequence[UnitScore],
    *,
    should_cancel: Callable[[], bool] = lambda: False,
) -> NDArray[np.uint8]:
    """Paint the kind of every object.

    Parameters
    ----------
    labels : (*S) integer
        The prediction that was evaluated.
    truth : (*S) integer, or None
        True labels; ``None`` for points, whose misses are small balls.
    units
        Scores of this image: one, or one for each slice that was looked at.
    should_cancel
        Asked before every slab.

    Returns
    -------
    (*S) uint8
        A `Kind` where a predicted object is; elsewhere ``Kind.MISS`` where a true object was missed; else 0.

    Raises
    ------
    ImageError
        If the shapes differ.
    CancelledError
        If `should_cancel` said yes.

    Examples
    --------
    >>> from napari_aprcnn.evaluate.scores import ImagePair, evaluate_images
    >>> labels, truth = np.array([[4, 4, 0, 0]]), np.array([[1, 1, 0, 2]])
    >>> found = evaluate_images([ImagePair(name="a", labels=labels, truth=truth)])
    >>> paint_errors(labels, truth, found.units).tolist()
    [[1, 1, 0, 2]]
    """
    picture = np.zeros(check_labels(labels, truth), np.uint8)
    by_slice = {unit.slice_index: (_lookup(unit, "label"), _lookup(unit, "truth")) for unit in units}
    for start, slab, true in slabs(labels, truth, should_cancel=should_cancel):
        for offset in range(len(slab)) if None not in by_slice else [None]:
            here = by_slice.get(None if offset is None else start + offset)
            if here is None:
                continue
            part = slab if offset is None else slab[offset]
            found = here[0](part)
            if true is not None:
                missed = here[1](true if offset is None else true[offset])
                found[(found == 0) & (missed == Kind.MISS)] = Kind.MISS
            where = slice(start, start + len(slab)) if offset is None else start + offset
            picture[where] = found
    if truth is None:
        for unit in units:
            _paint_points(picture, unit)
    return picture


def _lookup(unit: UnitScore, side: str) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """Return a function from an array of ids to their kinds; 0 for ids that are not known."""
    ids, kinds = getattr(unit, f"{side}_ids"), getattr(unit, f"{side}_kinds")
    largest = int(ids[-1]) if len(ids) else 0
    if largest < _LARGEST_TABLE:
        table = np.zeros(largest + 2, np.uint8)
        table[ids] = kinds

        def look_up(values: NDArray[Any]) -> NDArray[np.uint8]:
            inside = (values >= 0) & (values <= largest)
            return table[values] if inside.all() else table[np.where(inside, values, largest + 1)]

        return look_up

    def search(values: NDArray[Any]) -> NDArray[np.uint8]:
        rows = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
        return np.where(ids[rows] == values, kinds[rows], 0).astype(np.uint8)

    return search


def _paint_points(picture: NDArray[np.uint8], unit: UnitScore) -> None:
    """Mark missed points, in their slice or all around, where there is no object."""
    canvas = picture if unit.slice_index is None else picture[unit.slice_index]
    steps = np.indices((2 * _POINT_RADIUS + 1,) * canvas.ndim).reshape(canvas.ndim, -1).T - _POINT_RADIUS
    ball = steps[(steps**2).sum(axis=1) <= _POINT_RADIUS**2]
    for mistake in unit.mistakes:
        if mistake.kind is not Kind.MISS:
            continue
        places = np.round(mistake.centroid[-canvas.ndim :]).astype(np.int64) + ball
        places = places[((places >= 0) & (places < np.array(canvas.shape))).all(axis=1)]
        index = tuple(places.T)
        canvas[index] = np.where(canvas[index] == 0, Kind.MISS, canvas[index])
