"""How many voxels a particle there will be: the conversion's level grid alone, of the image or of its middle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr.convert import level_grid
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.segment.source import map_image
from napari_aprcnn.segment.volume_masks import resized

if TYPE_CHECKING:
    from napari_aprcnn.config import AxisMapping

__all__ = ["LOW_PRR", "MOST_EDGE", "Reduction", "measure_reduction"]

MOST_EDGE = 128
LOW_PRR = 1.5  # noise, or an APR error far below it


@dataclass(frozen=True)
class Reduction:
    """Particle reduction of an image at one relative error.

    Attributes
    ----------
    relative_error
        Of the conversion.
    particles, voxels
        Of what was measured, at the network's resolution.
    shape
        Voxels of the image along z, y, x that were measured.
    whole
        That is the whole volume; else its middle.
    n_times
        Time points of the image, of which the first was measured.
    """

    relative_error: float
    particles: int
    voxels: int
    shape: tuple[int, int, int]
    whole: bool
    n_times: int = 1

    @property
    def prr(self) -> float:
        """Particle reduction rate: voxels a particle."""
        return self.voxels / max(self.particles, 1)

    @property
    def words(self) -> str:
        """PRR, what it was measured on, and a warning where it is hardly above 1.

        Examples
        --------
        >>> Reduction(0.1, 1000, 8000, (20, 20, 20), True).words
        'PRR 8.0: 1,000 particles for 8,000 voxels'
        """
        counts = f"PRR {self.prr:.1f}: {self.particles:,} particles for {self.voxels:,} voxels"
        where = "" if self.whole else f"the middle {' x '.join(str(n) for n in self.shape)}"
        when = "the first time point" if self.n_times > 1 else ""
        words = ", measured on ".join(part for part in (counts, " of ".join(filter(None, (where, when)))) if part)
        if self.prr >= LOW_PRR:
            return words
        return f"{words}; hardly any reduction, so that the run takes the most time and memory: raise the APR error"


def measure_reduction(
    image: Any,
    mapping: AxisMapping | None = None,
    *,
    relative_error: float,
    zoom: float = 1.0,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Reduction:
    """Measure the particle reduction of a volume as a network for volumes will see it.

    Parameters
    ----------
    image, mapping
        As for `segment`; of a time series the first time point. At most 128 network voxels a side are read, from the
        middle.
    relative_error
        Of the conversion.
    zoom
        As in `VolumeConfig`.
    threads
        Threads; ``None``: all cores.
    should_cancel
        Asked about every 50 ms.

    Raises
    ------
    ImageError, AxesError, ImageDtypeError, ImageValueError
        If the image cannot be converted.
    CancelledError
        If `should_cancel` said yes.

    Examples
    --------
    >>> flat = measure_reduction(np.full((200, 64, 64), 7, np.uint8), relative_error=0.1)
    >>> flat.shape, flat.whole
    ((128, 64, 64), False)
    """
    source = map_image(image, mapping)
    edge = max(1, min(MOST_EDGE, math.floor(MOST_EDGE / zoom)))
    z, y, x = (_middle(n, edge) for n in source.shape)
    block = np.ascontiguousarray(source.read(0, (z, y, x)))
    if zoom != 1.0:
        block = resized(block, [max(1, round(n * zoom)) for n in block.shape])
    config = ConversionConfig(relative_error=relative_error)
    grid = level_grid(block, config, threads=threads, should_cancel=should_cancel)
    shape = (z.stop - z.start, y.stop - y.start, x.stop - x.start)
    return Reduction(relative_error, grid.particles, block.size, shape, shape == source.shape, source.n_times)


def _middle(n: int, most: int) -> slice:
    start = max(0, (n - most) // 2)
    return slice(start, min(n, start + most))
