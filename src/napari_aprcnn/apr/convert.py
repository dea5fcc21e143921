"""Image -> which particle covers what, and the particles' values.

The adaptive particle representation: Cheeseman et al., "Adaptive particle representation of fluorescence microscopy
images", Nature Communications 9, 5160 (2018). The steps and constants are those of LibAPR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import conversion as kernels
from napari_aprcnn._kernels import values
from napari_aprcnn._kernels.dispatch import Stopped
from napari_aprcnn._kernels.flows import poll_of
from napari_aprcnn.apr.checks import level_max_of
from napari_aprcnn.apr.grid import LevelGrid
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.errors import CancelledError, ImageDtypeError, ImageError, ImageValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Poll = Callable[[float], bool]
    Floats = NDArray[np.float32]

__all__ = ["LevelGrid", "as_volume", "level_grid", "sample_values"]

# Half-widths of the two windows of the local scale on the 2x2x2 grid, and what makes the scale of a blurred edge its
# height, for a point spread function of 1, 2, ... 6 voxels and 1, 2 or 3 axes (LibAPR's constants).
_INNER = (1, 1, 1, 2, 2, 3)
_OUTER = (2, 3, 4, 4, 5, 6)
_RESCALE = {
    1: (13.9040, 31.2843, 57.4037, 30.3767, 45.9930, 29.0890),
    2: (13.2421, 28.7069, 52.0385, 24.4272, 34.9565, 21.1891),
    3: (12.8214, 26.1256, 40.2795, 23.3692, 36.2061, 27.0385),
}

# What the filter itself leaves of a uniform background near borders (its boundary sums are cut at 1e-4) and of any
# brightness by rounding, as shares of the grey value. Nothing fainter than that is structure.
_RESIDUE = 5e-4
_ROUNDING = 4e-6
_SLACK = 1e-6


def as_volume(image: NDArray[Any]) -> NDArray[Any]:
    """Look at an image as z, y, x without copying it.

    Parameters
    ----------
    image : (Y, X) or (Z, Y, X) bool, any integer or float type
        Any strides and byte order.

    Raises
    ------
    ImageError
        If it is empty, has not 2 or 3 axes, or more than 65536 voxels along one.
    ImageDtypeError
        If voxels are not real numbers.
    """
    image = np.asanyarray(image)
    if image.ndim not in {2, 3}:
        raise ImageError(f"got {image.ndim} axes, expected 2 (y, x) or 3 (z, y, x); choose a channel and a time point")
    if 0 in image.shape:
        raise ImageError(f"got an image of shape {image.shape}, expected at least one voxel along each axis")
    if max(image.shape) > kernels.MOST_VOXELS_A_SIDE:
        raise ImageError(
            f"got an image of shape {image.shape}, expected at most {kernels.MOST_VOXELS_A_SIDE} voxels along an axis; "
            "convert it in parts"
        )
    if image.dtype.kind not in "buif":
        raise ImageDtypeError(f"got voxels of type {image.dtype}, expected real numbers")
    image = image.view(np.ndarray)
    if image.dtype == np.bool_:
        image = image.view(np.uint8)
    elif image.dtype.itemsize > 8:
        image = image.astype(np.float64)
    return image[None] if image.ndim == 2 else image


class Meter:
    """Shares of the steps to one share of the whole."""

    def __init__(self, poll: Poll | None) -> None:
        self._poll = poll
        self._from = 0.0

    def step(self, to: float) -> Poll | None:
        """Poll for the next step, which ends at the share ``to``."""
        if self._poll is None:
            return None
        start, self._from = self._from, to
        if self._poll(start):
            raise Stopped
        poll = self._poll
        return lambda share: poll(start + (to - start) * share)


def require_finite(statistics: tuple[int, int, float, float], shape: tuple[int, ...]) -> None:
    bad, first, _, _ = statistics
    if bad:
        at = tuple(int(i) for i in np.unravel_index(first, shape))
        raise ImageValueError(
            f"got {bad} voxels that are not finite as 32-bit floats, the first at (z, y, x) = {at}; "
            "replace them, for example by numpy.nan_to_num"
        )


def _windows(config: ConversionConfig) -> int:
    """Row of the table of windows."""
    if config.psf is None:
        return 1
    ratio = np.float32(config.psf) / np.float32(config.spacing[1])  # the reference looks at its x axis, our y
    return int(np.clip(np.floor(float(ratio) + 0.5) - 1, 0, 5))


def local_scale(
    intensity: Floats,
    gradient: Floats,
    shape: tuple[int, ...],
    config: ConversionConfig,
    threshold: float,
    threads: int | None,
    poll: Poll | None,
) -> Floats:
    row = _windows(config)
    active = tuple(n > _OUTER[row] for n in intensity.shape)
    return kernels.local_scale(
        intensity,
        gradient,
        shape,
        threshold=threshold,
        inner=_INNER[row],
        outer=_OUTER[row],
        rescale=_RESCALE[max(1, sum(active))][row],
        active=active,
        smoothed=config.smoothing > 0,
        threads=threads,
        poll=poll,
    )


def _intensity_threshold(config: ConversionConfig, smallest: float) -> float:
    if config.intensity_threshold is not None:
        return config.intensity_threshold
    if smallest >= 0:
        return 0.0
    if config.mode == "compatible":
        raise ImageValueError(
            f"got negative voxels (down to {smallest:g}), whose detail mode 'compatible' would drop without a word; "
            "give intensity_threshold, or use mode 'strict'"
        )
    return -np.inf


def residue(smallest: float, largest: float) -> tuple[float, float]:
    """What smoothing leaves of a flat image with such voxels, and the slack of the strict check; in grey values."""
    background = max(smallest, -largest, 0.0)
    brightness = max(abs(smallest), abs(largest))
    return _RESIDUE * background + _ROUNDING * brightness, _SLACK * brightness


def _noise_sd(residuals: Floats) -> float:
    return float(1.4826 * np.median(np.abs(residuals - np.median(residuals))))


def level_factor(config: ConversionConfig, level_max: int) -> float:
    """Edge of the image's cell of level 0 over the relative error, rounded as in the reference."""
    edge = np.float32(np.float32(2.0**level_max) * np.float32(min(config.spacing)))
    return float(edge / np.float32(config.relative_error))


def level_grid(
    image: NDArray[Any],
    config: ConversionConfig | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    block_planes: int | None = None,
) -> LevelGrid:
    """Decide which particles represent an image.

    Parameters
    ----------
    image : (Y, X) or (Z, Y, X) bool, any integer or float type
        Any strides and byte order; read slab by slab, never copied as a whole.
    config
        ``None``: the defaults.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    progress
        Told the share that is done, 0..1.
    should_cancel
        Asked about every 50 ms.
    block_planes
        Planes that are worked on at a time; ``None``: 64 MiB of them. The result does not depend on it.

    Returns
    -------
    LevelGrid

    Raises
    ------
    ImageError, ImageDtypeError
        See `as_volume`.
    ImageValueError
        If a voxel is not finite, or negative in mode ``compatible`` without an intensity threshold.
    CancelledError
        If ``should_cancel`` said yes.

    Notes
    -----
    Added memory: 64 MiB for a slab, 8 bytes for each cell of 2x2x2 voxels (gradient and scale), two or three for
    its levels, and two planes of state for each slab.

    Examples
    --------
    >>> flat = level_grid(np.full((64, 64, 64), 100, np.uint8))
    >>> flat.level_max, flat.particles
    (6, 64)
    """
    config = ConversionConfig() if config is None else config
    volume = as_volume(image)
    try:
        grid, _ = _convert(volume, config, threads, Meter(poll_of(should_cancel, progress)), block_planes)
    except Stopped:
        raise CancelledError("the conversion was cancelled") from None
    if progress is not None:
        progress(1.0)
    return grid


def _convert(
    volume: NDArray[Any], config: ConversionConfig, threads: int | None, meter: Meter, block_planes: int | None
) -> tuple[LevelGrid, Floats]:
    """Level grid and clamped local scale."""
    shape, level_max = volume.shape, level_max_of(volume.shape)
    top = level_max - 1
    passes = kernels.ConversionImage(
        volume, smoothing=config.smoothing, block_planes=block_planes, threads=threads, poll=meter.step(0.3)
    )
    gradient, intensity, residuals = passes.estimate(config.spacing, poll=meter.step(0.55))
    statistics = passes.statistics()
    require_finite(statistics, shape)
    threshold = _intensity_threshold(config, statistics[2])
    scale = local_scale(intensity, gradient, shape, config, threshold, threads, meter.step(0.65))
    sigma_threshold, gradient_threshold = config.sigma_threshold, config.gradient_threshold
    if config.auto_thresholds:
        gradient_threshold, sigma_threshold = kernels.li_thresholds(
            gradient, scale, threads=threads, poll=meter.step(0.7)
        )
    slack = 0.0
    if config.mode == "strict":
        faint, slack = residue(statistics[2], statistics[3])
        sigma_threshold = max(sigma_threshold, faint / config.relative_error)
        gradient_threshold = max(gradient_threshold, faint / min(config.spacing))
    sigma_threshold, gradient_threshold = float(np.float32(sigma_threshold)), float(np.float32(gradient_threshold))
    wanted = kernels.estimate_levels(
        gradient,
        scale,
        scale_threshold=sigma_threshold,
        scale_threshold_max=config.sigma_threshold_max,
        gradient_threshold=gradient_threshold,
        factor=level_factor(config, level_max),
        top=max(top, 1),
        threads=threads,
        poll=meter.step(0.72),
    )
    del gradient
    noise_sd, rounds, optimise = _noise_sd(residuals), 0, config.neighbourhood_optimisation
    if level_max <= 2:
        levels = np.full(wanted.shape, level_max, np.uint8)
    else:
        levels = kernels.pull(wanted, top, optimise=optimise, threads=threads, poll=meter.step(0.75))
    if level_max > 2 and config.mode == "strict":
        original = config.bound == "original"
        fails = passes.check_cells(
            scale,
            top,
            relative=config.relative_error * (1 - 1e-5),
            slack=slack,
            least=config.noise_floor * noise_sd if original else 0.0,
            original=original,
            poll=meter.step(0.95),
        )
        rounds = kernels.refine(levels, top, fails, threads=threads, poll=meter.step(1.0))
    return LevelGrid(
        shape=shape,
        level_max=level_max,
        levels=levels,
        config=config,
        intensity_threshold=threshold,
        sigma_threshold=sigma_threshold,
        gradient_threshold=gradient_threshold,
        noise_sd=noise_sd,
        rounds=rounds,
    ), scale


def sample_values(
    image: NDArray[Any],
    level_rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    x: NDArray[np.uint16],
    *,
    level_max: int,
    repeated: bool = False,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[Any]:
    """Values of particles: means of the image over their cells.

    Parameters
    ----------
    image : (Y, X) or (Z, Y, X)
        As in `level_grid`.
    level_rows : (level_max + 2,) int64
        First row of each level 0..level_max, and the number of rows.
    offsets : (rows + 1,) int64
        First particle of each row (a row: level, z, y).
    x : (particles,) uint16
        Position along x, in cells of the particle's level.
    level_max
        Level of single voxels.
    repeated
        ``False``: the mean over the voxels of the cell that lie in the image, rounded once, half to even (float images:
        in double precision). ``True``: LibAPR's values: means of eight, level by level, cut to the voxel type
        each time, odd ends counted twice; on the average 0.44 grey values a level too low.

    Returns
    -------
    (particles,) uint8, uint16 or float32
        uint8 for bool and uint8 images, uint16 for uint16, else float32.

    Raises
    ------
    ImageError
        If image and rows do not fit.
    CancelledError
        If ``should_cancel`` said yes.
    """
    volume = as_volume(image)
    poll = poll_of(should_cancel, progress)
    try:
        return values.sample_values(
            volume, level_rows, offsets, x, level_max=level_max, repeated=repeated, threads=threads, poll=poll
        )
    except Stopped:
        raise CancelledError("the conversion was cancelled") from None
    except ValueError as error:
        raise ImageError(f"the image of shape {volume.shape} is not what these particles are of: {error}") from error
