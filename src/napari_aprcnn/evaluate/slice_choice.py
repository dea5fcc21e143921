"""Which slices of a volume are worth annotating: a few, apart from each other, chosen by a rule that can be repeated.

A slice is named by its indices along the axes before Y and X: ``(z,)`` of a volume, ``(t, z)`` of a time series of
volumes, ``(t,)`` of a time series of planes. Arrays may be dask or zarr arrays: they are read one slice at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_aprcnn.errors import AxesError, CancelledError, ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Method",
    "Score",
    "SliceIndex",
    "choose_slices",
    "read_slice",
    "score_slices",
    "slice_axes",
    "slice_shape",
]

SliceIndex = tuple[int, ...]
Method = Literal["random", "even", "uncertainty", "density"]
Score = Literal["entropy", "variance", "objects", "foreground", "bright"]

# More pixels of a slice say nothing more about how uncertain or how full it is.
_PIXELS_A_SLICE = 1 << 22
_SAMPLED_SLICES = 16


def slice_axes(axes: str) -> str:
    """Return the axes that name a slice: those before Y and X, without channels.

    Raises
    ------
    AxesError
        If the axes are not Y, X and others out of T, C, Z, each once.

    Examples
    --------
    >>> slice_axes("TCZYX")
    'TZ'
    """
    letters = axes.upper()
    if len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters) <= set("TCZYX"):
        raise AxesError(f"axes {axes!r}; expected Y, X and others out of T, C and Z, each once")
    return "".join(letter for letter in "TZ" if letter in letters)


def slice_shape(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """Return how many slices there are along each of `slice_axes`.

    Raises
    ------
    AxesError
        If the axes do not fit the shape.
    """
    leading = slice_axes(axes)
    if len(shape) != len(axes) or min(shape, default=0) < 1:
        raise AxesError(f"axes {axes!r} do not fit the shape {tuple(shape)}; expected a letter for each, none empty")
    return tuple(int(shape[axes.upper().index(letter)]) for letter in leading)


def read_slice(array: Any, axes: str, index: SliceIndex, *, channel: int = 0) -> NDArray[Any]:
    """Read one slice.

    Parameters
    ----------
    array
        Image or labels; dask, zarr and numpy arrays. Nothing else of it is read.
    axes
        A letter for each of its axes.
    index
        Of the slice.
    channel
        Along C, where there is such an axis.

    Returns
    -------
    (Y, X) array

    Examples
    --------
    >>> read_slice(np.arange(24).reshape(2, 3, 4), "ZYX", (1,))[0].tolist()
    [12, 13, 14, 15]
    """
    axes = axes.upper()
    places = dict(zip(slice_axes(axes), index, strict=True)) | {"C": channel}
    plane = np.asarray(array[tuple(slice(None) if letter in "YX" else places[letter] for letter in axes)])
    return plane if axes.index("Y") < axes.index("X") else plane.T


# --- scores -----------------------------------------------------------------------------------------------------------


def score_slices(
    array: Any,
    *,
    axes: str,
    score: Score,
    channel: int = 0,
    most: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.float64]:
    """Give every slice a number to choose by, reading one slice at a time.

    Parameters
    ----------
    array
        Probabilities or logits (``entropy``, ``variance``), labels (``objects``, ``foreground``), or an
        image (``bright``).
    axes
        A letter for each of its axes.
    score
        ``entropy``: mean binary entropy of the probability, 0..1 bit. ``variance``: mean of p (1 - p), 0..0.25.
        ``objects``: number of different labels. ``foreground``: share of labelled pixels. ``bright``: share of pixels
        above Otsu's threshold of a sample of the slices.
    channel
        Along C, where there is such an axis.
    most
        Look at no more than so many slices, evenly spaced; None: at all.
    progress
        Called with the number of slices that are done and that there are.
    should_cancel
        Asked before every slice.

    Returns
    -------
    float64 of the shape of `slice_shape`
        NaN for slices that were not looked at. Large slices are looked at every few pixels.

    Raises
    ------
    AxesError
        If the axes do not fit.
    CancelledError
        If `should_cancel` said yes.

    Examples
    --------
    >>> labels = np.zeros((3, 4, 4), int)
    >>> labels[1, 0] = [1, 1, 2, 0]
    >>> score_slices(labels, axes="ZYX", score="objects").tolist()
    [0.0, 2.0, 0.0]
    """
    if score not in get_args(Score):
        raise ConfigError(f"score {score!r}; expected one of {', '.join(get_args(Score))}")
    shape = slice_shape(array.shape, axes)
    total = int(np.prod(shape, dtype=np.int64))
    wanted = _evenly(total, total if most is None else max(1, min(most, total)))
    looked_at = [tuple(int(i) for i in np.unravel_index(flat, shape)) for flat in wanted]
    kind = np.dtype(array.dtype).kind

    def plane(index: SliceIndex) -> NDArray[Any]:
        if should_cancel is not None and should_cancel():
            raise CancelledError("choosing slices was cancelled")
        return _thinned(read_slice(array, axes, index, channel=channel))

    threshold = 0.0
    if score == "bright":
        threshold = _threshold([plane(looked_at[i]) for i in _evenly(len(looked_at), _SAMPLED_SLICES)])
    values = np.full(shape, np.nan)
    # Whether numbers are logits is known once one is outside 0..1; until then both readings are kept.
    as_logits, are_logits = np.full(shape, np.nan), False
    for done, index in enumerate(looked_at, start=1):
        pixels = plane(index)
        if score in ("entropy", "variance"):
            numbers = _numbers(pixels)
            are_logits = are_logits or bool(((numbers < 0) | (numbers > 1)).any())
            if kind == "f":
                as_logits[index] = _uncertainty(1 / (1 + np.exp(-np.clip(numbers, -60, 60))), score)
            values[index] = _uncertainty(np.clip(numbers, 0, 1), score)
        elif score == "objects":
            values[index] = np.count_nonzero(np.unique(pixels))
        else:
            values[index] = np.mean(pixels > threshold)
        if progress is not None:
            progress(done, len(looked_at))
    return as_logits if are_logits and kind == "f" else values


def _thinned(plane: NDArray[Any]) -> NDArray[Any]:
    step = int(np.ceil(np.sqrt(plane.size / _PIXELS_A_SLICE)))
    return plane[:: max(1, step), :: max(1, step)]


def _numbers(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities or logits as floats; integer pictures of probabilities are brought to 0..1."""
    numbers = np.nan_to_num(pixels.astype(np.float64))
    return numbers / np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else numbers


def _uncertainty(probability: NDArray[np.float64], score: Score) -> float:
    if score == "variance":
        return float(np.mean(probability * (1 - probability)))
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(np.mean(-inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside)))


def _threshold(planes: list[NDArray[Any]]) -> float:
    from skimage.filters import threshold_otsu

    values = np.concatenate([np.nan_to_num(plane.ravel()[:: max(1, plane.size // 50_000)]) for plane in planes])
    return float(threshold_otsu(values)) if values.min() < values.max() else float(values.max())


def _evenly(total: int, n: int) -> list[int]:
    n = min(n, total)
    return [int((i + 0.5) * total / n) for i in range(n)]


# --- choosing ---------------------------------------------------------------------------------------------------------


def choose_slices(
    n: int,
    *,
    shape: Sequence[int],
    method: Method = "random",
    scores: NDArray[np.float64] | None = None,
    min_distance: int = 1,
    seed: int = 0,
    taken: Iterable[SliceIndex] = (),
) -> list[SliceIndex]:
    """Choose slices.

    Parameters
    ----------
    n
        How many.
    shape
        Slices along each axis, as `slice_shape` gives them: ``(n_z,)``, ``(n_t, n_z)``, ``(n_t,)``.
    method
        ``random``: any slice is as likely. ``even``: evenly spaced, over time and depth. ``uncertainty``: those of the
        highest score. ``density``: stratified, from each of `n` strata of equally many slices by score one at random.
    scores
        A number for every slice, needed for ``uncertainty`` and ``density``; slices with NaN are not chosen.
    min_distance
        Least distance between chosen slices of a time point, in slices; 1: they are only different.
    seed
        The same seed chooses the same slices.
    taken
        Slices that are chosen already: they are kept at a distance and not chosen again.

    Returns
    -------
    list of tuple of int
        In order.

    Raises
    ------
    ConfigError
        If so many do not fit, an argument is out of range, or scores are missing.

    Examples
    --------
    >>> choose_slices(3, shape=(30,), method="even")
    [(5,), (15,), (25,)]
    >>> choose_slices(2, shape=(6,), method="uncertainty", scores=np.array([0, 3, 9, 8, 1, 2.0]), min_distance=2)
    [(2,), (5,)]
    """
    sizes = tuple(int(size) for size in shape)
    if method not in get_args(Method):
        raise ConfigError(f"method {method!r}; expected one of {', '.join(get_args(Method))}")
    if n < 1 or min_distance < 1 or min(sizes, default=1) < 1:
        raise ConfigError(f"{n} slices of {sizes} at a distance of {min_distance}; expected numbers from 1 on")
    if method in ("uncertainty", "density") and scores is None:
        raise ConfigError(f"method {method!r} needs scores: give a probability layer, labels or an image to rank by")
    if scores is not None and np.shape(scores) != sizes:
        raise ConfigError(f"scores of shape {np.shape(scores)} for slices {sizes}; expected the same shape")
    if not sizes:
        return [()]
    usable = np.ones(sizes, bool) if scores is None or method in ("random", "even") else np.isfinite(scores)
    lines = _Lines(sizes, usable, min_distance)
    for index in taken:
        lines.take(lines.flat(index))
    if lines.room() < n:
        raise ConfigError(
            f"{n} slices at a distance of {min_distance} do not fit: {lines.room()} fit into {sizes}"
            f"{' beside those that are chosen' if taken else ''}; choose fewer, or a smaller distance"
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.flatnonzero(usable))
    chosen: list[int] = []
    for candidates in _candidates(method, n, shuffled, None if scores is None else np.ravel(scores), lines):
        found = next((int(flat) for flat in candidates if lines.fits(int(flat), still=n - len(chosen))), None)
        if found is not None:
            lines.take(found)
            chosen.append(found)
    return [tuple(int(i) for i in np.unravel_index(flat, sizes)) for flat in sorted(chosen)]


def _candidates(
    method: Method, n: int, shuffled: NDArray[np.intp], scores: NDArray[np.float64] | None, lines: _Lines
) -> Iterable[Iterable[int]]:
    """Yield, for each slice that is to be chosen, the candidates from the best to the worst."""
    if method == "even":
        for target in lines.even(n):
            yield sorted(shuffled.tolist(), key=lambda flat: lines.distance(flat, target))
        return
    order = shuffled if scores is None or method == "random" else shuffled[np.argsort(-scores[shuffled], kind="stable")]
    if method != "density":
        for _ in range(n):
            yield order
        return
    edges = np.linspace(0, len(order), n + 1)
    ranks = {int(flat): rank for rank, flat in enumerate(order)}
    for i in range(n):
        low, high = edges[i], edges[i + 1]
        # Within the stratum at random (the sort is stable over the shuffled ones), then whatever is nearest to it.
        yield sorted(
            shuffled.tolist(),
            key=lambda flat: max(0.0, low - ranks[flat], ranks[flat] - high + 1),
        )


class _Lines:
    """The slices of each time point as a line, on which chosen ones keep their distance."""

    def __init__(self, sizes: tuple[int, ...], usable: NDArray[np.bool_], distance: int) -> None:
        self._length = sizes[-1]
        self._sizes = sizes
        self._free = usable.reshape(-1, self._length).copy()
        self._gap = distance
        self._rooms = [self._room(row) for row in self._free]
        self._total = sum(self._rooms)

    def flat(self, index: SliceIndex) -> int:
        if len(index) != len(self._sizes) or not all(0 <= i < n for i, n in zip(index, self._sizes, strict=True)):
            raise ConfigError(f"slice {tuple(index)} is not one of {self._sizes}")
        return int(np.ravel_multi_index(index, self._sizes))

    def _room(self, free: NDArray[np.bool_]) -> int:
        """How many still fit into a line: the leftmost each time, which is the most that there can be."""
        if self._gap == 1:
            return int(np.count_nonzero(free))
        count, following = 0, 0
        for position in np.flatnonzero(free).tolist():
            if position >= following:
                count, following = count + 1, position + self._gap
        return count

    def room(self) -> int:
        return self._total

    def _without(self, flat: int) -> tuple[int, NDArray[np.bool_]]:
        line, position = divmod(flat, self._length)
        free = self._free[line].copy()
        free[max(0, position - self._gap + 1) : position + self._gap] = False
        return line, free

    def fits(self, flat: int, *, still: int) -> bool:
        """Whether a slice is free, and the others that are to be chosen (`still`, it included) fit beside it."""
        if not self._free.ravel()[flat]:
            return False
        line, free = self._without(flat)
        return self._total - self._rooms[line] + self._room(free) >= still - 1

    def take(self, flat: int) -> None:
        line, free = self._without(flat)
        self._free[line] = free
        room = self._room(free)
        self._total += room - self._rooms[line]
        self._rooms[line] = room

    def even(self, n: int) -> list[tuple[int, int]]:
        """Evenly spaced targets: as many at each time point, then over the line."""
        n_lines = len(self._free)
        counts = [n // n_lines] * n_lines
        for line in _evenly(n_lines, n % n_lines) if n % n_lines else []:
            counts[line] += 1
        targets = []
        for line, count in enumerate(counts):
            crowded = count > 1 and self._length / count < self._gap
            places = np.linspace(0, self._length - 1, count) if crowded else _evenly(self._length, count)
            targets += [(line, int(place)) for place in places]
        return targets

    def distance(self, flat: int, target: tuple[int, int]) -> tuple[int, int, int]:
        line, position = divmod(flat, self._length)
        return abs(line - target[0]), abs(position - target[1]), position
