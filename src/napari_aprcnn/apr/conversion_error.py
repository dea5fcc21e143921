"""How far a piecewise constant reconstruction is from the image, measured at every voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import conversion as kernels
from napari_aprcnn._kernels import values
from napari_aprcnn._kernels.dispatch import Stopped
from napari_aprcnn._kernels.flows import poll_of
from napari_aprcnn.apr.convert import Meter, as_volume, level_factor, local_scale, require_finite
from napari_aprcnn.apr.grid import LevelGrid
from napari_aprcnn.errors import CancelledError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["QUANTILES", "ErrorReport", "Spread", "conversion_error"]

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Largest value and quantiles over all voxels.

    Attributes
    ----------
    maximum
        Exact.
    quantiles
        Value at or below which a share of the voxels lies; at most 0.1 % too high.
    """

    maximum: float
    quantiles: Mapping[float, float]


@dataclass(frozen=True, kw_only=True)
class ErrorReport:
    """Deviation of the reconstruction from the image.

    Attributes
    ----------
    bound
        |reconstruction of the smoothed image - smoothed image| / (relative_error * local scale). At most 1 in
        mode ``strict`` with the bound on the smoothed image.
    grey
        |reconstruction - original image| in grey values, for particle values rounded once.
    scale
        The same divided by the local scale.
    over_bound
        Share of voxels where ``bound`` is above 1.
    voxels
        Number of voxels.
    """

    bound: Spread
    grey: Spread
    scale: Spread
    over_bound: float
    voxels: int


def _spread(counts: NDArray[np.int64], maximum: float) -> Spread:
    below = np.cumsum(counts)
    quantiles = {}
    for share in QUANTILES:
        place = int(np.searchsorted(below, np.ceil(share * below[-1])))
        edge = np.array((place + 1 << 13) - 1, np.uint32).view(np.float32) if place else np.float32(0)
        quantiles[share] = min(float(edge), maximum)
    return Spread(maximum=maximum, quantiles=quantiles)


def conversion_error(
    image: NDArray[Any],
    grid: LevelGrid,
    *,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    block_planes: int | None = None,
) -> ErrorReport:
    """Measure what a level grid does to the image that it was made from.

    Parameters
    ----------
    image : (Y, X) or (Z, Y, X)
        The image itself, not a reconstruction.
    grid
        What `level_grid` gave for it.
    threads, progress, should_cancel, block_planes
        As in `level_grid`.

    Raises
    ------
    ImageError
        If image and grid differ in shape, and as in `level_grid`.
    CancelledError
        If ``should_cancel`` said yes.

    Notes
    -----
    The image is smoothed again, slab by slab; takes three times as long as the conversion.

    Examples
    --------
    >>> from napari_aprcnn.apr.convert import level_grid
    >>> ramp = np.arange(4096, dtype=np.uint16).reshape(16, 16, 16)
    >>> conversion_error(ramp, level_grid(ramp)).over_bound
    0.0
    """
    volume = as_volume(image)
    if volume.shape != grid.shape:
        raise ImageError(f"got an image of shape {volume.shape} for particles of one of shape {grid.shape}")
    meter = Meter(poll_of(should_cancel, progress))
    try:
        report = _measure(volume, grid, threads, meter, block_planes)
    except Stopped:
        raise CancelledError("the measurement was cancelled") from None
    if progress is not None:
        progress(1.0)
    return report


def _measure(
    volume: NDArray[Any], grid: LevelGrid, threads: int | None, meter: Meter, block_planes: int | None
) -> ErrorReport:
    config = grid.config
    passes = kernels.ConversionImage(
        volume, smoothing=config.smoothing, block_planes=block_planes, threads=threads, poll=meter.step(0.15)
    )
    gradient, intensity, _ = passes.estimate(config.spacing, poll=meter.step(0.25))
    require_finite(passes.statistics(), volume.shape)
    scale = local_scale(intensity, gradient, volume.shape, config, grid.intensity_threshold, threads, meter.step(0.3))
    kernels.estimate_levels(  # for the clamped scale
        gradient,
        scale,
        scale_threshold=grid.sigma_threshold,
        scale_threshold_max=config.sigma_threshold_max,
        gradient_threshold=grid.gradient_threshold,
        factor=level_factor(config, grid.level_max),
        top=max(grid.level_max - 1, 1),
        threads=threads,
        poll=meter.step(0.32),
    )
    del gradient
    counts, largest, over = passes.measure_errors(
        scale,
        grid.levels,
        grid.level_max - 1,
        relative=config.relative_error,
        rounded=values.value_dtype(volume).kind == "u",
        poll=meter.step(1.0),
    )
    bound, grey, share = (_spread(row, maximum) for row, maximum in zip(counts, largest, strict=True))
    return ErrorReport(bound=bound, grey=grey, scale=share, over_bound=over / volume.size, voxels=volume.size)
