"""How light spreads and fades on its way: point spread function, depth, illumination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_aprcnn.train.simulation.config import SimulationConfig
from napari_aprcnn.train.simulation.fields import blur, draw, resize_linear, smooth_noise
from napari_aprcnn.train.simulation.scenes import Style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Volume = NDArray[np.float32]

__all__ = ["Optics", "block_means", "draw_optics", "illumination", "with_halo"]


@dataclass(frozen=True)
class Optics:
    """The drawn optics of a volume.

    Attributes
    ----------
    sigma_px : (float, float)
        Standard deviation of the core in voxels along z, and in plane, on the side of the lens.
    halo, halo_width, depth_blur, attenuation
        As in `OpticsConfig`.
    from_top
        Whether the lens is on the side of the first plane.
    planes
        Planes of the volume.
    """

    sigma_px: tuple[float, float]
    halo: float
    halo_width: float
    depth_blur: float
    attenuation: float
    illumination: float
    from_top: bool
    planes: int

    def depth(self, z: float) -> float:
        """Share of the way through the volume, 0 on the side of the lens; beyond it for what lies outside."""
        share = z / self.planes
        return float(np.clip(share if self.from_top else 1 - share, -0.2, 1.2))

    def sigma_at(self, z: float) -> tuple[float, float, float]:
        """Standard deviations of the core at a plane, in voxels."""
        grown = 1 + self.depth_blur * max(self.depth(z), 0.0)
        return self.sigma_px[0] * grown, self.sigma_px[1] * grown, self.sigma_px[1] * grown

    def light_at(self, first: int, last: int) -> NDArray[np.float32]:
        """Light that arrives from planes [last - first, 1, 1]."""
        share = np.clip((np.arange(first, last) + 0.5) / self.planes, -0.2, 1.2)
        depth = share if self.from_top else 1 - share
        return np.exp(-self.attenuation * depth).astype(np.float32)[:, None, None]


def draw_optics(rng: np.random.Generator, style: Style, config: SimulationConfig) -> Optics:
    """Draw the optics of a volume."""
    optics = config.optics
    plane = draw(rng, optics.psf_xy_px) * (style.diameter_px / 18) ** 0.5
    return Optics(
        sigma_px=(plane * style.z_scale * draw(rng, optics.psf_axial), plane),
        halo=draw(rng, optics.halo) if rng.random() < 0.7 else optics.halo[0],
        halo_width=draw(rng, optics.halo_width),
        depth_blur=draw(rng, optics.depth_blur) if rng.random() < 0.6 else optics.depth_blur[0],
        attenuation=draw(rng, optics.attenuation) if rng.random() < 0.7 else optics.attenuation[0],
        illumination=draw(rng, optics.illumination) if rng.random() < 0.5 else optics.illumination[0],
        from_top=bool(rng.random() < 0.5),
        planes=config.shape[0],
    )


def block_means(field: Volume, factor: tuple[int, int, int]) -> Volume:
    """Means over blocks; the last ones are filled up with the border's values."""
    pad = [(0, -size % step) for size, step in zip(field.shape, factor, strict=True)]
    if any(after for _, after in pad):
        field = np.pad(field, pad, mode="edge")
    z, y, x = (size // step for size, step in zip(field.shape, factor, strict=True))
    return np.asarray(
        field.reshape(z, factor[0], y, factor[1], x, factor[2]).mean(axis=(1, 3, 5), dtype=np.float32), np.float32
    )


def with_halo(light: Volume, optics: Optics) -> Volume:
    """Move a share of the light into the wide part of the point spread function."""
    if optics.halo <= 0:
        return light
    wide = np.array([optics.sigma_px[0], optics.sigma_px[1], optics.sigma_px[1]]) * optics.halo_width
    # A field this smooth is as good on a coarser grid.
    z, y, x = (int(np.clip(np.floor(s), 1, 4)) for s in wide)
    coarse = blur(block_means(light, (z, y, x)), wide / (z, y, x), mode="nearest")
    return np.asarray(
        np.float32(1 - optics.halo) * light + np.float32(optics.halo) * resize_linear(coarse, light.shape), np.float32
    )


def illumination(rng: np.random.Generator, optics: Optics, shape: tuple[int, int, int]) -> Volume:
    """Uneven light in plane [1, Y, X]: a bright middle somewhere, and slow changes."""
    y, x = (np.linspace(-1, 1, size, dtype=np.float32) - np.float32(rng.uniform(-0.5, 0.5)) for size in shape[1:])
    fall = (y[:, None] ** 2 + x[None, :] ** 2) / 2
    slow = smooth_noise(rng, (1, *shape[1:]), (1, max(shape[1] / 2, 8), max(shape[2] / 2, 8)))[0]
    return np.asarray(np.clip(1 + optics.illumination * (0.5 - fall + 0.4 * slow), 0.3, 1.7), np.float32)[None]
