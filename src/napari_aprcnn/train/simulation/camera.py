"""From light to grey values: photons, amplification, read-out, grey levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_aprcnn.train.simulation.config import CameraConfig, SimulationConfig
from napari_aprcnn.train.simulation.fields import draw, draw_log

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["degrade", "draw_camera", "expose"]

MOST_PHOTONS = 1e6  # in a voxel


def degrade(
    clean: NDArray[np.float32], rng: np.random.Generator, config: SimulationConfig | CameraConfig | None = None
) -> NDArray[np.uint16]:
    """Take a picture of a volume without noise: another camera and other noise at every call.

    Parameters
    ----------
    clean : (Z, Y, X) float32
        Light, in units of the median nucleus' contrast; below 0 counts as 0.
    rng
        Source of all that is random.
    config
        Ranges of the camera's parameters; by default `CameraConfig()`.

    Returns
    -------
    (Z, Y, X) uint16
        Grey values.
    """
    camera = config.camera if isinstance(config, SimulationConfig) else config or CameraConfig()
    return expose(clean, rng, draw_camera(rng, camera))


def draw_camera(rng: np.random.Generator, config: CameraConfig) -> dict[str, Any]:
    """Draw one camera and exposure; `expose` takes it."""
    top = 2 ** int(rng.choice(config.bits)) - 1
    contrast = draw_log(rng, config.contrast_grey)
    offset = min(draw(rng, config.offset_grey), 0.3 * top)
    if top < 4096:  # eight bits: a picture for the eye fills the range, with its black near 0
        contrast, offset = min(contrast, rng.uniform(0.25, 0.8) * top), min(offset, 12.0)
    return {
        "photons": draw_log(rng, config.photons),
        "dark_photons": draw_log(rng, config.dark_photons),
        "emccd": bool(rng.random() < config.emccd),
        "contrast_grey": float(contrast),
        "offset_grey": float(offset),
        "read_noise": draw_log(rng, config.read_noise),
        "correlation_px": draw(rng, config.correlation_px) if rng.random() < config.correlated else 0.0,
        "row_gain": draw(rng, config.row_gain),
        "plane_gain": draw(rng, config.plane_gain) if rng.random() < 0.4 else 0.0,
        "fixed_pattern": draw(rng, config.fixed_pattern),
        "hot_voxels": draw(rng, config.hot_voxels),
        "saturation": draw(rng, config.saturation) if rng.random() < config.saturated else None,
        "black_clip": bool(rng.random() < config.black_clip),
        "top_grey": top,
    }


def expose(clean: NDArray[np.float32], rng: np.random.Generator, camera: dict[str, Any]) -> NDArray[np.uint16]:
    """Take a picture with a given camera; what `degrade` does after drawing one.

    Parameters
    ----------
    clean : (Z, Y, X) float32
        Light, in units of the median nucleus' contrast.
    rng
        Source of the noise.
    camera
        What `draw_camera` gave.

    Returns
    -------
    (Z, Y, X) uint16
        Grey values.
    """
    planes, rows = clean.shape[:2]
    photons = np.float32(camera["photons"])
    gain = np.exp(rng.normal(0, camera["plane_gain"], (planes, 1, 1)) if camera["plane_gain"] else np.zeros((1, 1, 1)))
    gain = gain * (1 + camera["row_gain"] * rng.standard_normal((1, rows, 1)))
    light = np.clip(clean, 0, None) * np.asarray(gain * photons, np.float32)
    light += np.float32(camera["dark_photons"])
    np.minimum(light, np.float32(MOST_PHOTONS), out=light)
    counted = rng.poisson(light).astype(np.float32)
    if camera["emccd"]:
        # The register multiplies each electron by a number of exponential distribution: n of them by a gamma variate.
        counted = rng.standard_gamma(counted, dtype=np.float32)
    counted /= photons
    if camera["correlation_px"]:
        counted = _correlated(counted, light / photons, camera["correlation_px"])
    signal = counted - np.float32(camera["dark_photons"]) / photons
    signal += np.float32(camera["read_noise"]) * rng.standard_normal(clean.shape, dtype=np.float32)
    signal += np.asarray(camera["fixed_pattern"] * rng.standard_normal((1, rows, 1)), np.float32)
    _heat(signal, rng, camera["hot_voxels"])
    if camera["saturation"] is not None:
        np.minimum(signal, np.float32(camera["saturation"]), out=signal)
    offset = 0.0 if camera["black_clip"] else camera["offset_grey"]
    grey = signal * np.float32(camera["contrast_grey"]) + np.float32(offset)
    return np.asarray(np.rint(np.clip(grey, 0, camera["top_grey"])), np.uint16)


def _correlated(counted: NDArray[np.float32], expected: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Spread the noise, not the signal, over neighbours; it keeps about half of what the filter takes from it."""
    noise = ndimage.gaussian_filter(counted - expected, (0.5 * sigma, sigma, sigma), mode="nearest", truncate=3)
    return np.asarray(expected + noise * np.float32(1 + sigma), np.float32)


def _heat(signal: NDArray[np.float32], rng: np.random.Generator, share: float) -> None:
    """Add hot voxels in place."""
    count = int(rng.poisson(share * signal.size))
    at = rng.integers(0, signal.size, count)
    signal.reshape(-1)[at] += rng.exponential(0.6, count).astype(np.float32)
