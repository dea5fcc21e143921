"""Photometric augmentation: what microscopes, cameras and file formats do to an image.

Every function takes and gives a float32 (H, W) image in normalised units (0 background, 1 the 99th percentile) and
draws from the generator that it is given, so that a sample is a pure function of its seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]

__all__ = ["degrade"]


def _blur(image: Image, rng: np.random.Generator) -> Image:
    """Defocus, or the elongated point spread of an axial (zy, zx) section."""
    if rng.random() < 0.3:
        axis = int(rng.integers(2))
        return np.asarray(ndimage.gaussian_filter1d(image, rng.uniform(0.5, 3.0), axis=axis), np.float32)
    return np.asarray(ndimage.gaussian_filter(image, rng.uniform(0.3, 1.6)), np.float32)


def _gamma(image: Image, rng: np.random.Generator) -> Image:
    return (np.sign(image) * np.abs(image) ** rng.uniform(0.6, 1.6)).astype(np.float32)


def _gain(image: Image, rng: np.random.Generator) -> Image:
    """Another choice of percentiles: sparse images put the 99th into the background, dense ones the 1st into nuclei."""
    return (image * 2 ** rng.uniform(-1.0, 1.0) + rng.uniform(-0.12, 0.15)).astype(np.float32)


def _illumination(image: Image, rng: np.random.Generator) -> Image:
    """Smooth shading over the field of view."""
    height, width = image.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    a, b, c = rng.uniform(-0.4, 0.4, 3)
    return np.asarray(image * np.clip(1 + a * y + b * x + c * (y * y + x * x - 0.5), 0.25, None), np.float32)


def _haze(image: Image, rng: np.random.Generator) -> Image:
    """Out-of-focus light of a thick sample."""
    return np.asarray(image + rng.uniform(0.15, 0.7) * ndimage.gaussian_filter(image, rng.uniform(6, 20)), np.float32)


def _saturate(image: Image, rng: np.random.Generator) -> Image:
    return np.minimum(image, np.float32(rng.uniform(0.4, 1.0)), dtype=np.float32)


def _noise(image: Image, rng: np.random.Generator) -> Image:
    """Read noise, shot noise and, at times, the correlated noise of resampled or compressed images."""
    level = np.exp(rng.uniform(np.log(0.005), np.log(0.15)))
    noise = np.asarray(rng.standard_normal(image.shape, dtype=np.float32), np.float32)
    if rng.random() < 0.25:
        noise = np.asarray(ndimage.gaussian_filter(noise, 0.8) * 2.8, np.float32)
    if rng.random() < 0.5:
        noise = np.asarray(noise * (0.3 + np.sqrt(np.clip(image, 0, None))), np.float32)
    return np.asarray(image + level * noise, np.float32)


def _coarse(image: Image, rng: np.random.Generator) -> Image:
    """A lower magnification, enlarged."""
    factor = rng.uniform(1.3, 3.0)
    small = ndimage.zoom(ndimage.gaussian_filter(image, 0.35 * factor), 1 / factor, order=1)
    scale = (image.shape[0] / small.shape[0], image.shape[1] / small.shape[1])
    return np.asarray(ndimage.zoom(small, scale, order=1), np.float32)


def _quantise(image: Image, rng: np.random.Generator) -> Image:
    """Few grey levels: 8-bit exports of dim 16-bit images."""
    levels = rng.integers(6, 80)
    return np.asarray(np.rint(image * levels) / levels, np.float32)


def _specks(image: Image, rng: np.random.Generator) -> Image:
    """Debris and hot pixels: bright, but no nuclei."""
    height, width = image.shape
    for _ in range(int(rng.integers(1, 12))):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        radius = rng.uniform(0.5, 2.2)
        y0, y1, x0, x1 = int(max(0, y - 8)), int(y + 9), int(max(0, x - 8)), int(x + 9)
        window = image[y0:y1, x0:x1]
        yy, xx = np.ogrid[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]]
        spot = np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * radius**2))
        image[y0:y1, x0:x1] = window + (rng.uniform(0.2, 2.0) * spot).astype(np.float32)
    return image


# In the order in which light meets the sample, the optics, the camera and the file.
_CHAIN = (
    (0.06, _specks),
    (0.12, _haze),
    (0.33, _blur),
    (0.20, _illumination),
    (0.08, _coarse),
    (0.35, _gamma),
    (0.45, _noise),
    (0.10, _saturate),
    (0.10, _quantise),
    (0.70, _gain),
)


def degrade(image: Image, rng: np.random.Generator) -> Image:
    """Apply each effect with its own probability, in physical order.

    Parameters
    ----------
    image : (H, W) float32
        Normalised image; it is not changed.
    rng
        Source of every random choice.

    Returns
    -------
    (H, W) float32
    """
    image = image.copy()
    for probability, effect in _CHAIN:
        if rng.random() < probability:
            image = effect(image, rng)
    return image
