"""The conversion of images in numpy: the same steps in the same precision as the compiled ones, on whole arrays.

This is what runs without a compiler, and what the compiled kernels are tested against. Axes are z, y, x throughout.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_aprcnn._kernels.spline import SplineConstants

    Poll = Callable[[float], bool]
    Floats = NDArray[np.float32]

__all__ = [
    "ERROR_BINS",
    "ReferenceImage",
    "coarser",
    "estimate_levels",
    "li_thresholds",
    "local_scale",
    "mean_of_eight",
    "pull",
    "refine",
]

ERROR_BINS = 1 << 18
_BLOCK = 65536  # cells of a partial sum
_MOST = 1 << 23  # cells that a threshold is computed from
_BEYOND = np.float32(60000)


def coarser(shape: tuple[int, ...], shift: int) -> tuple[int, ...]:
    """Cells of 2^shift voxels an edge that cover a grid."""
    return tuple(-(-n // (1 << shift)) for n in shape)


def _octants(a: NDArray[Any], *, twice: bool) -> Iterator[NDArray[Any]]:
    """Yield the eight cells under each coarser one, x fastest; an odd end is taken ``twice`` or filled with NaN."""
    for corner in itertools.product((0, 1), repeat=3):
        part = a
        for axis, second in enumerate(corner):
            n = a.shape[axis]
            index = np.arange(0, n, 2) + second
            part = part.take(np.minimum(index, n - 1), axis)
            if not twice and second and n % 2:
                gone = [slice(None)] * 3
                gone[axis] = slice(-1, None)
                part[tuple(gone)] = np.nan
        yield part


def _spread(a: NDArray[Any], shape: tuple[int, ...], shift: int) -> NDArray[Any]:
    """Give every cell of a finer grid the value of the cell above it."""
    for axis in range(3):
        a = a.take(np.arange(shape[axis]) >> shift, axis)
    return a


# --- smoothing -----------------------------------------------------------------------------------------------------


def _folded(weights: Floats, n: int) -> Floats:
    used = weights[:, :n].copy()
    for k in range(n, weights.shape[1]):
        used[:, -1] += weights[:, k]
    return used


def _filter_axis(a: Floats, axis: int, spline: SplineConstants) -> Floats:
    """Run the recursions along one axis. Along x the operations have another order, as in the reference."""
    x = np.moveaxis(a, axis, 0)
    n, along_x = len(x), axis == 2
    if n <= 2:
        return a
    b1, b2, gain = np.float32(spline.b1), np.float32(spline.b2), np.float32(spline.gain)
    weights = _folded(spline.weights, n)
    sums = [np.zeros(x.shape[1:], np.float32) for _ in range(4)]
    for k in range(weights.shape[1]):
        for i, total in enumerate(sums):
            total += weights[i, k] * (x[k] if i < 2 else x[n - 1 - k])

    def step(value: Floats, one: Floats, two: Floats) -> Floats:
        return (one * b1 + two * b2) + value if along_x else (value + b1 * one) + b2 * two

    u = x.copy()
    u[0], u[1] = sums[0], sums[1]
    for i in range(2, n - 2):
        u[i] = step(x[i], u[i - 1], u[i - 2])
    last, before = sums[2], sums[3]
    out = np.empty_like(u)
    out[n - 1], out[n - 2] = gain * last, gain * before
    if along_x:  # restarts from what is stored
        last, before = out[n - 1] / gain, out[n - 2] / gain
    for i in range(n - 3, -1, -1):
        last, before = before, step(u[i], before, last)
        out[i] = gain * before
    return np.moveaxis(out, 0, axis)


def _sampled(a: Floats, full: tuple[int, ...], axes: tuple[int, ...] = (2, 1, 0)) -> Floats:
    """Samples of the spline: (1, 4, 1) / 6, mirrored, along axes of more than two voxels at full resolution."""
    side, centre = np.float32(1 / 6), np.float32(4 / 6)
    for axis in axes:
        if full[axis] <= 2:
            continue
        n = a.shape[axis]
        index = np.arange(n)
        before = a.take(np.abs(index - 1), axis)
        after = a.take(np.where(index + 1 < n, index + 1, n - 2), axis)
        a = (side * before + centre * a) + side * after
    return a


def _gradient(c: Floats, spacing: tuple[float, ...]) -> Floats:
    """Largest gradient magnitude under each cell of 2x2x2 voxels."""
    squares = []
    for axis in range(3):
        index = np.arange(c.shape[axis])
        after = c.take(np.minimum(index + 1, c.shape[axis] - 1), axis)
        before = c.take(np.maximum(index - 1, 0), axis)
        slope = ((after - before) / (np.float32(2) * np.float32(spacing[axis]))).astype(np.float64)
        squares.append(slope * slope)
    total = (squares[1] + squares[0]) + squares[2]
    largest = np.maximum.reduce(list(_octants(total, twice=True)))
    out: Floats = np.sqrt(largest).astype(np.float32)
    return out


def mean_of_eight(a: NDArray[Any]) -> Floats:
    """Mean of the eight cells under each coarser one, as float32; an odd end counts twice."""
    parts = _octants(a, twice=True)
    total = next(parts).astype(np.float32)
    for part in parts:
        total += part.astype(np.float32)
    out: Floats = total * np.float32(0.125)
    return out


class ReferenceImage:
    """The steps that need the image; the counterpart of the extension's ``ConversionImage``."""

    def __init__(self, image: NDArray[Any], spline: SplineConstants | None) -> None:
        self._image = image
        self._spline = spline
        with np.errstate(over="ignore"):  # beyond float32: infinite, and reported as such
            self._original = np.ascontiguousarray(image, np.float32)
        self._coefficients = self._original
        if spline is not None and np.isfinite(self._original).all():
            for axis in (2, 1, 0):
                self._coefficients = _filter_axis(self._coefficients, axis, spline)

    def statistics(self) -> tuple[int, int, float, float]:
        bad = ~np.isfinite(self._original)
        first = int(np.argmax(bad)) if bad.any() else -1
        finite = self._original[~bad]
        if not finite.size:
            return int(bad.sum()), first, 0.0, 0.0
        return int(bad.sum()), first, float(finite.min()), float(finite.max())

    def _smoothed(self) -> Floats:
        return self._coefficients if self._spline is None else _sampled(self._coefficients, self._image.shape)

    def estimate(self, spacing: tuple[float, ...], step: int, samples: int) -> tuple[Floats, Floats, Floats]:
        """Gradient, intensity (not yet filtered along z), residuals at every ``step``-th voxel."""
        intensity = mean_of_eight(self._coefficients)
        if self._spline is not None:
            intensity = _sampled(intensity, self._image.shape, (2, 1))
        residuals = (self._original - self._smoothed()).reshape(-1)[::step][:samples]
        return _gradient(self._coefficients, spacing), intensity, residuals

    def check_cells(
        self, scale: Floats, top: int, relative: float, slack: float, least: float, original: bool
    ) -> NDArray[np.uint8]:
        """1 for each cell of the levels top, top-1, ..., 1 that must not be one particle."""
        voxels = (self._original if original else self._smoothed()).astype(np.float64)
        tolerance = np.maximum(relative * scale.astype(np.float64) - slack, least)
        tolerance = _spread(tolerance, voxels.shape, 1)
        total, count = voxels, np.ones(voxels.shape)
        high, low = voxels - tolerance, voxels + tolerance
        flags = []
        for level in range(top, 0, -1):
            parts = [list(_octants(a, twice=False)) for a in (total, count, high, low)]
            total = sum((np.nan_to_num(part) for part in parts[0]), np.zeros(()))
            count = sum((np.nan_to_num(part) for part in parts[1]), np.zeros(()))
            high, low = np.fmax.reduce(parts[2]), np.fmin.reduce(parts[3])
            if level == top - 1:  # kept as float32 from here on
                high, low = (a.astype(np.float32).astype(np.float64) for a in (high, low))
            mean = total / count
            flags.append(~((high <= mean) & (mean <= low)))
        return np.concatenate([flag.reshape(-1) for flag in flags]).astype(np.uint8)

    def measure_errors(
        self, scale: Floats, levels: NDArray[np.uint8], top: int, relative: float, rounded: bool
    ) -> tuple[NDArray[np.int64], tuple[float, float, float], int]:
        """Histograms and maxima of the three errors (see `conversion.measure_errors`), voxels over the bound."""
        shape = self._image.shape
        level, sigma = _spread(levels, shape, 1), _spread(scale, shape, 1).astype(np.float64)
        errors = []
        for k, voxels in enumerate((self._smoothed(), self._original)):
            error = np.zeros(shape)
            total, count = voxels.astype(np.float64), np.ones(shape)
            for at in range(top, 0, -1):
                total = sum((np.nan_to_num(part) for part in _octants(total, twice=False)), np.zeros(()))
                count = sum((np.nan_to_num(part) for part in _octants(count, twice=False)), np.zeros(()))
                mean = np.rint(total / count) if k and rounded else total / count
                here = level == at
                error[here] = np.abs(_spread(mean, shape, top + 1 - at) - voxels)[here]
            errors.append(error)
        over = int((errors[0] > relative * sigma).sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = [
                np.where(errors[0] == 0, 0, errors[0] / (relative * sigma)),
                errors[1],
                np.where(errors[1] == 0, 0, errors[1] / sigma),
            ]
        counts = np.zeros((3, ERROR_BINS), np.int64)
        largest = []
        for row, error in zip(counts, wanted, strict=True):
            single = error.astype(np.float32).reshape(-1)
            row += np.bincount(single.view(np.uint32) >> 13, minlength=ERROR_BINS)
            largest.append(float(single.max()))
        return counts, (largest[0], largest[1], largest[2]), over


# --- the grid of 2x2x2 cells ---------------------------------------------------------------------------------------


def _box(a: Floats, axis: int, r: int) -> Floats:
    """Mean over windows of 2r+1, cut at the ends."""
    n = a.shape[axis]
    pad = [(0, 0)] * 3
    pad[axis] = (r, r)
    padded = np.pad(a, pad)
    index = np.arange(n)
    total = padded.take(index, axis)
    for k in range(1, 2 * r + 1):
        total += padded.take(index + k, axis)
    count = np.minimum(index + r, n - 1) - np.maximum(index - r, 0) + 1
    shape = [1, 1, 1]
    shape[axis] = n
    mean: Floats = total / count.astype(np.float32).reshape(shape)
    return mean


def local_scale(
    intensity: Floats,
    gradient: Floats,
    full: tuple[int, ...],
    threshold: float,
    inner: int,
    outer: int,
    rescale: float,
    active: tuple[bool, ...],
    smoothed: bool,
) -> Floats:
    """Return the local scale; marks cells of low intensity by gradient = -1."""
    if smoothed:
        intensity = _sampled(intensity, full, (0,))
    gradient[intensity <= np.float32(threshold)] = -1
    axes = [axis for axis in (2, 1, 0) if active[axis]]
    if not axes:
        mean = np.float32(intensity.astype(np.float64).mean())
        return np.full_like(intensity, mean - intensity.min())
    pad = [(outer, outer) if active[axis] else (0, 0) for axis in range(3)]
    padded = np.pad(intensity, pad, "reflect")
    mean_ = padded
    for axis in axes:
        mean_ = _box(mean_, axis, inner)
    deviation = np.abs(mean_ - padded)
    for axis in axes:
        deviation = _box(deviation, axis, outer)
    inside = tuple(slice(low, low + n) for (low, _), n in zip(pad, intensity.shape, strict=True))
    return np.ascontiguousarray(deviation[inside] * np.float32(rescale))


def _li(values: Floats) -> float:
    if values.size == 0:
        return 0.0
    smallest, largest = float(values.min()), float(values.max())
    if smallest == largest:
        return smallest
    exact = values.astype(np.float64)
    tolerance = min(0.01, 1e-4 * (largest - smallest))
    t, previous = float(exact.mean()), -2.0 * tolerance
    for _ in range(1000):
        if abs(t - previous) <= tolerance:
            break
        previous = t
        above = exact > t
        if not above.any() or not exact[~above].sum():
            break
        high, low = float(exact[above].mean()), float(exact[~above].mean())
        t = (high - low) / (np.log(high) - np.log(low))
    return float(t)


def li_thresholds(gradient: Floats, scale: Floats) -> tuple[float, float]:
    """Minimum cross entropy thresholds (Li and Lee, 1993) of gradient and scale over the cells that are not marked."""
    chosen = np.flatnonzero(gradient.reshape(-1) >= 0)
    used = min(_MOST, len(chosen))
    if used:
        chosen = chosen[:: len(chosen) // used][:used]
    return _li(gradient.reshape(-1)[chosen]), _li(scale.reshape(-1)[chosen])


def estimate_levels(
    gradient: Floats,
    scale: Floats,
    scale_threshold: float,
    scale_threshold_max: float,
    gradient_threshold: float,
    factor: float,
    top: int,
) -> NDArray[np.uint8]:
    """Level estimate, 1..top; clamps the scale in place."""
    faint = scale < np.float32(scale_threshold)
    scale[faint] = np.where(scale[faint] < np.float32(scale_threshold_max), _BEYOND, np.float32(scale_threshold))
    slope = np.where((gradient < np.float32(gradient_threshold)) | (gradient < 0), np.float32(0), gradient)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        t = np.where(slope > 0, (slope / scale) * np.float32(factor), np.float32(0)).astype(np.float32)
    exponent = (t.view(np.uint32) >> 23).astype(np.int64) - 127
    return np.clip(exponent, 1, top).astype(np.uint8)


# --- the pulling scheme --------------------------------------------------------------------------------------------


def _nearby_max(v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    for axis in range(3):
        index = np.arange(v.shape[axis])
        after = v.take(np.minimum(index + 1, v.shape[axis] - 1), axis)
        v = np.maximum(np.maximum(v, after), v.take(np.maximum(index - 1, 0), axis))
    return v


def pull(wanted: NDArray[np.uint8], top: int, optimise: bool) -> NDArray[np.uint8]:
    """Level of the particle that covers each cell of 2x2x2 voxels."""
    pyramid = {top: wanted}
    for level in range(top - 1, 0, -1):
        pyramid[level] = np.maximum.reduce(list(_octants(pyramid[level + 1], twice=True)))
    settled = np.zeros((), np.uint8)
    for level in range(1, top + 1):
        v = pyramid[level]
        nearby = _nearby_max(v)
        mine = np.where((v if optimise else nearby) == level, level + 1, level)
        if level < top:
            mine = np.where(nearby > level, 0, mine)
        if level > 1:
            parent = _spread(settled, v.shape, 1)
            mine = np.where(parent > 0, parent, mine)
        settled = mine.astype(np.uint8)
    return settled


def _split(levels: NDArray[np.uint8], top: int, level: int, bad: NDArray[np.bool_]) -> bool:
    """Particles of ``level`` where ``bad`` become their children; whether there were any."""
    corner = (slice(None, None, 1 << (top - level)),) * 3
    bad = bad & (levels[corner] == level)
    if not bad.any():
        return False
    levels[_spread(bad, levels.shape, top - level)] = level + 1
    return True


def _balance(levels: NDArray[np.uint8], top: int) -> bool:
    """One sweep that splits whatever touches particles two or more levels finer; whether there were any."""
    changed = False
    for level in range(top - 1, 0, -1):
        finest = levels
        for _ in range(top - level - 1):
            finest = np.maximum.reduce(list(_octants(finest, twice=True)))
        too_fine = _nearby_max(finest) > level + 1
        changed |= _split(levels, top, level, np.logical_or.reduce(list(_octants(too_fine, twice=True))))
    return changed


def refine(levels: NDArray[np.uint8], top: int, fails: NDArray[np.uint8]) -> int:
    """Split particles (in place) until none fails and neighbours are within one level; returns the number of rounds."""
    rounds = 0
    while True:
        end, changed = len(fails), False
        for level in range(1, top + 1):
            shape = coarser(levels.shape, top - level)
            start = end - int(np.prod(shape))
            changed |= _split(levels, top, level, fails[start:end].reshape(shape) > 0)
            end = start
        if not changed:
            return rounds
        rounds += 1
        while _balance(levels, top):
            pass
