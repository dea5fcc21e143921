"""Reads an image in parts, each voxel once where it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.segment.normalise import Intensity
    from napari_aprcnn.segment.source import MappedImage, Region

__all__ = ["Reader"]

SLAB = 16  # planes of a volume that are read together: the depth of common chunks


class Reader:
    """Keeps the last time point, or the last plane, of a lazy image, if it is small.

    Percentiles, diameter and segmentation look at the same voxels; reading them may mean a network drive and a
    decompression.

    Parameters
    ----------
    source
        The image.
    volumes
        Whole time points are needed, else single planes.
    hold_bytes
        Most that may be kept.
    """

    def __init__(self, source: MappedImage, *, volumes: bool, hold_bytes: int) -> None:
        self.source = source
        plane = source.shape[1] * source.shape[2] * source.dtype.itemsize
        self._volumes = volumes and plane * source.shape[0] <= hold_bytes
        self._hold = not isinstance(source.data, np.ndarray) and (self._volumes or plane <= hold_bytes)
        self._key: tuple[int, int, int] | None = None
        self._held: NDArray[Any] | None = None

    def read(self, time: int, region: Region) -> NDArray[Any]:
        """Read a region (z, y, x) of a time point."""
        z, y, x = region
        if not self._hold or (not self._volumes and z.stop - z.start != 1):
            return self.source.read(time, region)
        first, last = (0, self.source.shape[0]) if self._volumes else (z.start, z.stop)
        if self._held is None or self._key != (time, first, last):
            self._held = None  # before the next is read, not beside it
            self._held = self.source.read(time, (slice(first, last), *self.source.whole[1:]))
            self._key = (time, first, last)
        return self._held[z.start - first : z.stop - first, y, x]

    def normalised(self, time: int, region: Region, intensity: Intensity) -> NDArray[np.float32]:
        """Read a region and normalise it, a slab of planes at a time."""
        z, y, x = region
        if z.stop - z.start == 1:
            return intensity.apply(self.read(time, region), region)
        result = np.empty(tuple(part.stop - part.start for part in region), np.float32)
        for start in range(z.start, z.stop, SLAB):
            slab = slice(start, min(start + SLAB, z.stop))
            result[slab.start - z.start : slab.stop - z.start] = intensity.apply(
                self.read(time, (slab, y, x)), (slab, y, x)
            )
        return result

    def release(self) -> None:
        """Forget what is kept."""
        self._held = self._key = None
