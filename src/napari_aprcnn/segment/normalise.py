"""Intensities to the network's range: the lower percentile becomes 0, the upper 1.

Percentiles come from a bounded sample whose positions depend on the shape alone: a lazy image gives the same values
as one in memory, and none is read whole for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import NormaliseConfig
    from napari_aprcnn.segment.source import Region

__all__ = ["Intensity", "measure_intensity", "percentiles", "robust_range"]

SAMPLE_PLANES = 16  # planes of a stack that are looked at
SAMPLE_EDGE = 1024  # planes larger than this squared are looked at in crops
SAMPLE_CROPS = 4  # along each axis, of SAMPLE_EDGE / SAMPLE_CROPS pixels
BRIGHTEST = 20.0  # normalised values are cut here: one hot pixel must not shift the style of a tile
WEAKEST_TILE = 0.2  # mode "tile": a neighbourhood counts as empty below this share of the image's range

Read = Callable[["Region"], "NDArray[Any]"]


def percentiles(values: NDArray[Any], shares: tuple[float, ...]) -> list[float]:
    """Percentiles with linear interpolation, by counting where the type is narrow.

    Parameters
    ----------
    values
        Real numbers of any shape, at least one.
    shares
        Percentiles, 0..100.

    Examples
    --------
    >>> percentiles(np.arange(101, dtype=np.uint8), (1.0, 50.0))
    [1.0, 50.0]
    """
    values = values.ravel()
    if values.dtype.kind not in "ui" or values.dtype.itemsize > 2:
        return [float(value) for value in np.percentile(values.astype(np.float64, copy=False), shares)]
    low = int(values.min())
    counts = np.cumsum(np.bincount(values.astype(np.int32) - low))
    result = []
    for share in shares:
        rank = share / 100.0 * (values.size - 1)
        below, above = (int(np.searchsorted(counts, r, side="right")) for r in (int(rank), int(np.ceil(rank))))
        result.append(float(low + below + (above - below) * (rank - int(rank))))
    return result


def robust_range(values: NDArray[Any], *, lower: float = 1.0, upper: float = 99.0) -> tuple[float, float]:
    """Percentiles that span the nuclei even where there are few.

    With nuclei on less than 2 % of the area the 99th percentile lies in the background, and stretching the range to it
    would show noise to the network. Where the sample looks like one background peak up to the upper percentile, half
    of the pixels above six standard deviations of that background are taken as the tail instead: their median
    becomes 1.

    Parameters
    ----------
    values
        Sample of the image.
    lower, upper
        Percentiles, 0..100.

    Returns
    -------
    (low, high)
        Equal where the sample is constant.
    """
    low, deep, dark, middle, high = percentiles(values, (lower, 1.0, 16.0, 50.0, upper))
    sigma = middle - dark
    # A bell has its 1st percentile at 2.3 sigma; two peaks (half the image is nuclei) have it near 1.
    one_peak = sigma == 0 or middle - deep >= 1.5 * sigma
    if high > middle + 4.0 * sigma or not one_peak:
        return low, high
    bright = values[values > middle + 6.0 * sigma]
    if bright.size >= 16 and bright.size <= 0.02 * values.size:
        return low, max(high, percentiles(bright, (50.0,))[0])
    return (low, high) if high > low else (float(values.min()), float(values.max()))


@dataclass(frozen=True)
class Intensity:
    """The intensities that become 0 and 1, on a grid of neighbourhoods.

    Attributes
    ----------
    low, high : (gz, gy, gx) float64
        One value for the whole image, or one for each neighbourhood, interpolated between their centres.
    shape
        (Z, Y, X) of the time point.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    shape: tuple[int, int, int]

    @property
    def flat(self) -> bool:
        """The image is constant: there is nothing to find."""
        return bool(np.all(self.high <= self.low))

    def apply(self, block: NDArray[Any], region: Region) -> NDArray[np.float32]:
        """Normalise a block (z, y, x) that was read from `region`."""
        if self.flat:
            return np.zeros(block.shape, np.float32)
        # Integers of 32 and 64 bits and doubles lose their last digits in float32 unless the offset goes first.
        wide = block.dtype.itemsize > 4 or (block.dtype.kind in "ui" and block.dtype.itemsize == 4)
        wide = wide or max(abs(float(self.low.min())), abs(float(self.high.max()))) > 1e30
        kind = np.float64 if wide else np.float32
        low, span = self.low, self.high - self.low
        if low.size > 1:
            low, span = (_interpolate(grid, self.shape, region) for grid in (low, span))
        result = np.subtract(block, low.astype(kind), dtype=kind)
        result *= (1.0 / span).astype(kind)
        if result.size and float(result.max()) > BRIGHTEST:
            np.minimum(result, kind(BRIGHTEST), out=result)
        return np.ascontiguousarray(result, np.float32)


def measure_intensity(
    read: Read, shape: tuple[int, int, int], config: NormaliseConfig, *, anisotropy: float = 1.0
) -> Intensity:
    """Find the intensities of one time point that become 0 and 1.

    Parameters
    ----------
    read
        Reads a region (z, y, x) of the time point.
    shape
        (Z, Y, X).
    config
        Mode and percentiles.
    anisotropy
        Voxel size in z over that in y and x, for neighbourhoods of equal extent.
    """
    if config.mode == "none":
        return Intensity(np.zeros((1, 1, 1)), np.ones((1, 1, 1)), shape)
    values = np.concatenate([read(region).ravel() for region in _sample(shape)])
    low, high = robust_range(values, lower=config.lower, upper=config.upper)
    if high <= low and values.size < np.prod(shape):
        low, high = _full_range(read, shape)
    image = Intensity(np.full((1, 1, 1), low), np.full((1, 1, 1), high), shape)
    if config.mode == "image" or image.flat:
        return image
    edges = (max(1, round(config.tile_px / anisotropy)), config.tile_px, config.tile_px)
    grid = tuple(max(1, round(n / edge)) for n, edge in zip(shape, edges, strict=True))
    lows, highs = np.full(grid, low), np.full(grid, high)
    for index in np.ndindex(*grid):
        z, y, x = (slice(i * n // g, (i + 1) * n // g) for i, n, g in zip(index, shape, grid, strict=True))
        step = max(1, (z.stop - z.start) // SAMPLE_PLANES)
        planes = [read((slice(i, i + 1), y, x)) for i in range(z.start, z.stop, step)]
        a, b = robust_range(np.concatenate(planes), lower=config.lower, upper=config.upper)
        # An empty neighbourhood would have its noise stretched to full contrast.
        lows[index], highs[index] = a, a + max(b - a, WEAKEST_TILE * (high - low))
    return Intensity(lows, highs, shape)


def _sample(shape: tuple[int, int, int]) -> Iterator[Region]:
    n_z, n_y, n_x = shape
    planes = sorted({int((i + 0.5) * n_z / SAMPLE_PLANES) for i in range(SAMPLE_PLANES)}) if n_z > 1 else [0]
    for z in planes:
        for y in _crops(n_y, whole=n_y * n_x <= SAMPLE_EDGE**2):
            for x in _crops(n_x, whole=n_y * n_x <= SAMPLE_EDGE**2):
                yield slice(z, z + 1), y, x


def _crops(length: int, *, whole: bool) -> list[slice]:
    edge = SAMPLE_EDGE // SAMPLE_CROPS
    if whole or length <= SAMPLE_EDGE:
        return [slice(0, length)]
    starts = [round((i + 0.5) * length / SAMPLE_CROPS - edge / 2) for i in range(SAMPLE_CROPS)]
    return [slice(start, start + edge) for start in starts]


def _full_range(read: Read, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Look at every voxel, a slab of rows at a time: the sample was constant, the image may not be."""
    low, high = np.inf, -np.inf
    rows = max(1, SAMPLE_EDGE**2 * 4 // shape[2])
    for z in range(shape[0]):
        for y in range(0, shape[1], rows):
            block = read((slice(z, z + 1), slice(y, min(y + rows, shape[1])), slice(0, shape[2])))
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    return low, high


def _interpolate(grid: NDArray[np.float64], shape: tuple[int, int, int], region: Region) -> NDArray[np.float64]:
    """Interpolate linearly between the centres of the neighbourhoods, constant beyond the outermost."""
    for axis, (n, part) in enumerate(zip(shape, region, strict=True)):
        g = grid.shape[axis]
        at = np.clip((np.arange(part.start, part.stop) + 0.5) * g / n - 0.5, 0, g - 1)
        below = np.minimum(at.astype(np.intp), max(g - 2, 0))
        share = (at - below).reshape([-1 if i == axis else 1 for i in range(3)])
        above = np.minimum(below + 1, g - 1)
        grid = np.take(grid, below, axis) * (1 - share) + np.take(grid, above, axis) * share
    return grid
