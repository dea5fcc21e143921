"""One pass over a label image: sizes, moments, intensities, surfaces and contacts of all objects.

Nothing here loops over objects. The image is read in slabs along its first axis, so that the memory beside it stays
small, and each pair of neighbouring voxels is looked at once, in 13 directions (4 in 2D).

Surfaces follow Cauchy and Crofton: the mean number of times that parallel lines cross a surface, over all directions,
is proportional to its area. Counting the sides of voxels instead would make a tilted plane up to 1.7 times too large.
The surface that two objects share is open, and the lines miss its rim; it is nearly a plane, however, and the area of a
plane is the length of the vector of its projections, which are sums of sides of voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import AxesError, CancelledError, ImageDtypeError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scan", "check_labels", "crossing_areas", "directions", "scan_labels"]

_SLAB_VOXELS = 1 << 22
# Up to this label a table of all of them is quicker than sorting.
_LARGEST_TABLE = 1 << 26


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass has found, in voxels unless said otherwise; n objects in the order of their labels.

    Attributes
    ----------
    labels : [n] int64
        Their labels.
    sizes : [n] int64
        Voxels.
    first : (n, D) float64
        Mean index along each axis.
    second : (n, D, D) float64
        Covariance of the indices.
    surface : [n] float64
        Surface, in the unit of the spacing, squared (2D: perimeter).
    border : [n] bool
        A voxel lies at the border of the image.
    pairs : (E, 2) int64
        Objects of which voxels touch by a side, an edge or a corner; the smaller index first, in order.
    contact : [E] float64
        Their common surface (2D: length of the common border); 0 where only edges and corners touch.
    boxes : (n, 2, D) int64
        First and last index along each axis.
    intensity_sum, intensity_squares : [n] float64 or None
        Of the image's values; the squares are of the differences to `intensity_shift`.
    intensity_shift
        A value of the image.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    surface: NDArray[np.float64]
    border: NDArray[np.bool_]
    pairs: NDArray[np.int64]
    contact: NDArray[np.float64]
    boxes: NDArray[np.int64]
    intensity_sum: NDArray[np.float64] | None = None
    intensity_squares: NDArray[np.float64] | None = None
    intensity_shift: float = 0.0


def directions(rank: int) -> NDArray[np.int64]:
    """Return a step to every second neighbour of a voxel: one of each pair of opposite ones, 4 or 13.

    Examples
    --------
    >>> directions(2).tolist()
    [[0, 1], [1, -1], [1, 0], [1, 1]]
    """
    return np.array([step for step in product((-1, 0, 1), repeat=rank) if step > (0,) * rank])


@lru_cache(maxsize=32)
def crossing_areas(spacing: tuple[float, ...]) -> tuple[float, ...]:
    """Return the surface that one crossing in each of `directions` stands for.

    Parameters
    ----------
    spacing
        Voxel size along each axis.

    Returns
    -------
    tuple of float
        In the unit of the spacing squared, in 2D in that unit.
    """
    steps = directions(len(spacing)) * np.array(spacing)
    lengths = np.linalg.norm(steps, axis=1)
    units = np.concatenate([steps, -steps]) / np.concatenate([lengths, lengths])[:, None]
    if len(spacing) == 2:
        angles = np.arctan2(units[:, 0], units[:, 1])
        order = np.argsort(angles)
        gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
        weights = np.empty(len(angles))
        weights[order] = (gaps + np.roll(gaps, 1)) / (4 * np.pi)
        factor = np.pi / 2
    else:
        from scipy.spatial import SphericalVoronoi

        weights = SphericalVoronoi(units).calculate_areas() / (4 * np.pi)
        factor = 2.0
    # Both signs of a direction are one family of lines.
    share = 2 * weights[: len(steps)]
    return tuple((factor * share * float(np.prod(spacing)) / lengths).tolist())


def check_labels(labels: Any, image: Any = None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Check a label image, and an image beside it.

    Raises
    ------
    AxesError
        If the labels are neither a plane nor a volume, or the image has another shape.
    ImageDtypeError
        If the labels are no integers, or the image no real numbers.
    ImageError
        If a label is negative or there is no voxel.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (2, 3):
        raise AxesError(f"got labels of shape {labels.shape}; expected (Y, X) or (Z, Y, X): pick one time point")
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if labels.dtype.kind not in "iu":
        raise ImageDtypeError(f"got labels of type {labels.dtype}; expected integers, 0 for background")
    if labels.size == 0:
        raise ImageError(f"got labels of shape {labels.shape}, which hold no voxel; expected at least one")
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise ImageError(f"got the label {labels.min()}; expected 0 for background and numbers above for objects")
    if image is not None:
        image = np.asarray(image)
        if image.shape != labels.shape:
            raise AxesError(f"the image has shape {image.shape}, the labels {labels.shape}; expected the same")
        if image.dtype.kind not in "biuf":
            raise ImageDtypeError(f"got an image of type {image.dtype}; expected real numbers")
    return labels, image


def scan_labels(
    labels: NDArray[Any],
    image: NDArray[Any] | None = None,
    *,
    spacing: tuple[float, ...],
    progress: Callable[[float], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Scan:
    """Read a label image once.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
        As `check_labels` returns them.
    image : the same shape, or None
        Intensities.
    spacing
        Voxel size along each axis.
    progress
        Gets the share that is done.
    should_cancel
        Asked after every slab.

    Returns
    -------
    Scan

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    known = _labels_in(labels)
    lookup = _Lookup(known)
    sums = _Sums(len(known), labels.shape, spacing, image)
    per_plane = int(np.prod(labels.shape[1:]))
    depth = max(1, _SLAB_VOXELS // per_plane)
    for start in range(0, labels.shape[0], depth):
        if should_cancel is not None and should_cancel():
            raise CancelledError("cancelled; no graph was made")
        stop = min(start + depth, labels.shape[0])
        # One plane more on the far side, for the contacts across slabs; a frame of background around.
        padded = np.zeros((stop - start + 2, *(n + 2 for n in labels.shape[1:])), np.int32)
        far = min(stop + 1, labels.shape[0])
        plane = tuple(slice(1, -1) for _ in labels.shape[1:])
        inner: tuple[slice, ...] = (slice(1, 1 + far - start), *plane)
        padded[inner] = lookup(labels[start:far])
        if start:
            padded[0][plane] = lookup(labels[start - 1])
        sums.add(padded, start, stop)
        if progress is not None:
            progress(stop / labels.shape[0])
    return sums.finish(known)


def _labels_in(labels: NDArray[Any]) -> NDArray[np.int64]:
    """All labels but 0, in order."""
    largest = int(labels.max())
    if largest <= _LARGEST_TABLE:
        present = np.zeros(largest + 1, bool)
        for plane in labels:
            present[plane] = True
        present[0] = False
        return np.flatnonzero(present)
    found = np.unique(np.concatenate([np.unique(plane) for plane in labels]))
    return found[found > 0].astype(np.int64)


class _Lookup:
    """Turns labels into 1..n; 0 stays 0."""

    def __init__(self, known: NDArray[np.int64]) -> None:
        self._known = known
        largest = int(known[-1]) if len(known) else 0
        self._table = None
        if largest <= _LARGEST_TABLE:
            self._table = np.zeros(largest + 1, np.int32)
            self._table[known] = np.arange(1, len(known) + 1)

    def __call__(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        if self._table is not None:
            return np.asarray(self._table[labels])
        dense = np.searchsorted(self._known, labels).astype(np.int32) + 1
        return np.where(labels > 0, dense, 0).astype(np.int32)


class _Sums:
    """What is added up over the slabs."""

    def __init__(self, n: int, shape: tuple[int, ...], spacing: tuple[float, ...], image: Any) -> None:
        rank = len(shape)
        self._n, self._shape, self._image = n, shape, image
        self._areas = crossing_areas(spacing)
        self._side_areas = np.prod(spacing) / np.array(spacing)
        self._steps = directions(rank)
        self._size = np.zeros(n + 1, np.int64)
        self._first = np.zeros((rank, n + 1))
        self._second = np.zeros((rank, rank, n + 1))
        self._surface = np.zeros(n + 1)
        self._border = np.zeros(n + 1, bool)
        self._low = np.full((rank, n + 1), np.iinfo(np.int64).max)
        self._high = np.full((rank, n + 1), -1, np.int64)
        self._sum = np.zeros(n + 1)
        self._squares = np.zeros(n + 1)
        self._keys: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._sides: list[NDArray[np.float64]] = [np.zeros((0, rank))]
        self._shift = 0.0 if image is None else float(np.asarray(image).flat[0])

    def add(self, padded: NDArray[np.int32], start: int, stop: int) -> None:
        """Add planes start to stop; `padded` holds them with one voxel more on every side."""
        core = padded[tuple(slice(1, -1) for _ in self._shape)]
        places = np.nonzero(core)
        who = core[places]
        self._moments(who, places, start)
        if self._image is not None:
            values = self._image[start:stop][places].astype(np.float64) - self._shift
            self._sum += np.bincount(who, values, minlength=self._n + 1)
            self._squares += np.bincount(who, values * values, minlength=self._n + 1)
        for step, area in zip(self._steps, self._areas, strict=True):
            self._crossings(padded, step, area, first=start == 0)

    def _moments(self, who: NDArray[np.int32], places: tuple[NDArray[np.intp], ...], start: int) -> None:
        count = self._n + 1
        self._size += np.bincount(who, minlength=count)
        index = [axis.astype(np.float64) for axis in places]
        index[0] += start
        # Sums are taken from the middle of the image, which keeps the squares small.
        index = [axis - n / 2 for axis, n in zip(index, self._shape, strict=True)]
        for i, at in enumerate(index):
            self._first[i] += np.bincount(who, at, minlength=count)
            for j in range(i, len(index)):
                self._second[i, j] += np.bincount(who, at * index[j], minlength=count)
            place = places[i] + (start if i == 0 else 0)
            np.minimum.at(self._low[i], who, place)
            np.maximum.at(self._high[i], who, place)

    def _crossings(self, padded: NDArray[np.int32], step: NDArray[np.int64], area: float, *, first: bool) -> None:
        """Count where a line along a step goes from one object, or the background, into another."""
        here, there = [], []
        for axis, (move, n) in enumerate(zip(step.tolist(), padded.shape, strict=True)):
            # A slab owns the steps that start in it, and the first slab those from the frame as well.
            low, high = (1, n - 1) if axis == 0 and move == 0 else (0, n - max(move, 0))
            if axis == 0 and move and not first:
                low = 1
            low = max(low, -move)
            here.append(slice(low, high))
            there.append(slice(low + move, high + move))
        one, other = padded[tuple(here)], padded[tuple(there)]
        differ = one != other
        one, other = one[differ], other[differ]
        count = self._n + 1
        self._surface += area * (np.bincount(one, minlength=count) + np.bincount(other, minlength=count))
        both = (one > 0) & (other > 0)
        one, other = one[both].astype(np.int64), other[both].astype(np.int64)
        keys, times = np.unique(np.minimum(one, other) * count + np.maximum(one, other), return_counts=True)
        self._keys.append(keys)
        self._sides.append(np.zeros((len(keys), len(step))))
        if np.count_nonzero(step) == 1:  # sides; edges and corners have no surface
            self._sides[-1][:, np.flatnonzero(step)[0]] = times

    def finish(self, known: NDArray[np.int64]) -> Scan:
        """Return what was found."""
        rank, count = len(self._shape), self._n + 1
        sizes = np.maximum(self._size[1:], 1)
        first = (self._first[:, 1:] / sizes).T
        second = np.empty((self._n, rank, rank))
        for i in range(rank):
            for j in range(i, rank):
                second[:, i, j] = second[:, j, i] = self._second[i, j, 1:] / sizes - first[:, i] * first[:, j]
        keys, pair = np.unique(np.concatenate(self._keys), return_inverse=True)
        sides = np.zeros((len(keys), rank))
        np.add.at(sides, np.asarray(pair).reshape(-1), np.concatenate(self._sides))
        last = np.array(self._shape)[:, None] - 1
        border = ((self._low == 0) | (self._high == last)).any(axis=0)
        return Scan(
            labels=known,
            sizes=self._size[1:],
            first=first + np.array(self._shape) / 2,
            second=second,
            surface=self._surface[1:],
            border=border[1:],
            pairs=np.stack([keys // count, keys % count], axis=1).astype(np.int64) - 1,
            contact=np.linalg.norm(sides * self._side_areas, axis=1),
            boxes=np.stack([self._low[:, 1:].T, self._high[:, 1:].T], axis=1),
            intensity_sum=None if self._image is None else self._sum[1:] + self._shift * self._size[1:],
            intensity_squares=None if self._image is None else self._squares[1:],
            intensity_shift=self._shift,
        )
