"""What networks for volumes see: intensities in units of the image's own background, contrast and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["InputScale", "input_features", "input_scale"]

_VOXELS = 2_000_000
_LOW, _HIGH = (-0.5, 2.0), (-1.0, 2.5)


@dataclass(frozen=True)
class InputScale:
    """Three numbers of an image, in its grey values.

    Attributes
    ----------
    background
        30th percentile.
    contrast
        99.7th percentile above the background.
    noise
        Standard deviation of the noise: from differences of neighbours along x in the darker half.
    """

    background: float
    contrast: float
    noise: float


def input_scale(image: NDArray[Any]) -> InputScale:
    """Measure an image; of large ones, planes and rows at regular distances.

    Parameters
    ----------
    image : (Y, X) or (Z, Y, X) real
        Finite.

    Raises
    ------
    ImageError
        If it is empty.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(100, 5, (8, 64, 64))
    >>> scale = input_scale(noisy)
    >>> round(scale.background), round(scale.noise)
    (97, 5)
    """
    if image.size == 0:
        raise ImageError(f"got an empty image of shape {image.shape}, expected at least one pixel")
    step = max(1, round((image.size / _VOXELS) ** 0.5))
    rows = image[..., ::step, :] if image.ndim == 2 else image[::step, ::step]
    values = np.asarray(rows, np.float32)
    background, high = np.percentile(values, [30, 99.7])
    contrast = max(float(high - background), 1e-6 * max(1.0, abs(float(background))))
    sd = 0.0
    if values.shape[-1] > 1:
        difference, mean = np.diff(values, axis=-1), (values[..., 1:] + values[..., :-1]) / 2
        dark = difference[mean <= np.median(values)]
        sd = 1.4826 * float(np.median(np.abs(dark))) / np.sqrt(2.0) if dark.size else 0.0
    return InputScale(float(background), contrast, max(float(sd), 0.004 * contrast))


def input_features(values: NDArray[Any], scale: InputScale, channels: int = 2) -> NDArray[np.float32]:
    """Channels of the network for voxels or particles.

    Parameters
    ----------
    values : (*S) real
        Intensities.
    scale
        Of the whole image.
    channels
        1: (I - background) / contrast, cut to -0.5..2. 2: also asinh((I - background) / (2 noise)) / 3, cut to
        -1..2.5, in which dim nuclei stand out as much as bright ones.

    Returns
    -------
    (*S, channels) float32
    """
    above = np.asarray(values, np.float32) - np.float32(scale.background)
    linear: NDArray[np.float32] = np.clip(above / np.float32(scale.contrast), *_LOW)
    if channels == 1:
        return linear[..., None]
    relative = np.clip(np.arcsinh(above / np.float32(2 * scale.noise)) / np.float32(3), *_HIGH)
    found: NDArray[np.float32] = np.stack([linear, relative], axis=-1)
    return found
