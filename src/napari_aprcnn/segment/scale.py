"""Between the pixels of the image and those of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F

from napari_aprcnn.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Scale", "resize", "scale_for"]

NEARLY_ONE = 0.03  # a resize by less than this changes nothing that the network sees
LARGEST, SMALLEST = 8.0, 1 / 64  # bounds of the rescaling: nuclei of 3 px to 1600 px at 25 px in training
LARGEST_RATIO = 50.0


@dataclass(frozen=True)
class Scale:
    """How an image is rescaled for the network.

    Attributes
    ----------
    zoom
        Network pixels per image pixel, in the plane.
    ratio
        Voxel size (z, y, x) over the mean voxel size in the plane; (1, 1, 1) is isotropic.
    """

    zoom: float
    ratio: tuple[float, float, float]

    def network_size(self, size: tuple[int, int], axes: tuple[int, int]) -> tuple[int, int]:
        """Size in network pixels of a plane that spans two of the axes z 0, y 1, x 2."""
        height, width = (self._length(n, axis) for n, axis in zip(size, axes, strict=True))
        return height, width

    def _length(self, n: int, axis: int) -> int:
        factor = self.zoom * self.ratio[axis]
        return n if abs(factor - 1.0) < NEARLY_ONE else max(1, round(n * factor))

    @property
    def displacement(self) -> tuple[float, float, float]:
        """Voxels that a step of the flows goes along z, y, x; the finest axis goes one."""
        finest = min(self.ratio)
        z, y, x = (finest / ratio for ratio in self.ratio)
        return z, y, x

    def steps(self, n_steps: int) -> int:
        """Steps at image resolution that go as far as `n_steps` at the network's."""
        return math.ceil(n_steps * max(1.0, 1.0 / (self.zoom * min(self.ratio))))


def scale_for(diameter_px: float | None, trained_px: float, spacing_um: tuple[float, float, float] | None) -> Scale:
    """Find the rescaling that brings nuclei to the size that a network was trained at.

    Parameters
    ----------
    diameter_px
        Diameter of the nuclei in the plane, in image pixels; ``None``: no rescaling.
    trained_px
        Diameter of the nuclei that the network was trained at, in pixels.
    spacing_um
        Voxel size (z, y, x); ``None``: isotropic.

    Raises
    ------
    ConfigError
        If the voxel sizes differ by more than a factor 50.

    Examples
    --------
    >>> scale_for(50.0, 25.0, (1.0, 0.25, 0.25))
    Scale(zoom=0.5, ratio=(4.0, 1.0, 1.0))
    """
    zoom = 1.0 if diameter_px is None else min(max(trained_px / diameter_px, SMALLEST), LARGEST)
    if spacing_um is None:
        return Scale(zoom, (1.0, 1.0, 1.0))
    if max(spacing_um) > LARGEST_RATIO * min(spacing_um):
        raise ConfigError(
            f"spacing_um is {spacing_um} (z, y, x): the axes differ by more than a factor {LARGEST_RATIO:.0f}; "
            "check the order and the units (all in micrometres)"
        )
    z, y, x = spacing_um
    if abs(y / x - 1.0) < NEARLY_ONE:
        return Scale(zoom, (z / x if abs(z / x - 1.0) >= NEARLY_ONE else 1.0, 1.0, 1.0))
    plane = math.sqrt(y * x)
    return Scale(zoom, (z / plane, y / plane, x / plane))


def resize(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize planes (N, C, H, W) bilinearly, averaging where they shrink.

    Returns
    -------
    (N, C, *size) Tensor
        The input itself where the size is the same.
    """
    height, width = planes.shape[-2:]
    if (height, width) == size:
        return planes
    shrinks = size[0] < height or size[1] < width
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
