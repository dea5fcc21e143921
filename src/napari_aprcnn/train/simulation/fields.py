"""Random fields and rotations, cheap enough for every volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Volume = NDArray[np.float32]
    Edges = Sequence[float] | NDArray[Any]

__all__ = ["blur", "draw", "draw_log", "resize_linear", "rotations", "smooth_noise", "texture_tile"]


def draw(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Draw uniformly from a range."""
    return float(rng.uniform(limits[0], limits[1]))


def draw_log(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Draw from a range of positive numbers, uniformly in the logarithm."""
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def rotations(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Uniform random rotations [count, 3, 3], by normalised quaternions."""
    q = rng.standard_normal((count, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def resize_linear(field: Volume, shape: Sequence[int]) -> Volume:
    """Interpolate linearly to a shape, axis by axis; first and last samples are kept."""
    for axis, size in enumerate(shape):
        old = field.shape[axis]
        at = np.linspace(0, old - 1, size)
        low = np.clip(at.astype(int), 0, max(old - 2, 0))
        weight = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(field.ndim)])
        first = np.take(field, low, axis)
        first += weight * (np.take(field, np.minimum(low + 1, old - 1), axis) - first)
        field = first
    return field


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], cell: Edges) -> Volume:
    """Noise of mean about 0 and deviation about 1 that changes over `cell` voxels along each axis."""
    coarse = [max(2, int(np.ceil(size / max(edge, 1.0))) + 2) for size, edge in zip(shape, cell, strict=True)]
    field = ndimage.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), 0.6, mode="nearest", truncate=3)
    field = resize_linear(field, shape)
    return np.asarray(field * np.float32(2.3), np.float32)  # the filter's loss of deviation


def texture_tile(rng: np.random.Generator, sigma: Edges, shape: Sequence[int]) -> Volume:
    """Filtered noise of mean 0 and deviation 1 that can be repeated in all directions."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3)
    field -= field.mean()
    field /= max(float(field.std()), 1e-6)
    return np.asarray(field, np.float32)


def blur(field: Volume, sigma: Edges, *, mode: str = "constant") -> Volume:
    """Gaussian filter in single precision."""
    return np.asarray(ndimage.gaussian_filter(field, sigma, mode=mode, truncate=3.0), np.float32)
