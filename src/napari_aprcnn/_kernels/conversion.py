"""Image to level grid: the numpy-facing side of the conversion kernels.

The compiled kernels work in slabs of planes, the numpy reference on whole arrays; the results are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import reference_conversion as reference
from napari_aprcnn._kernels.dispatch import Stopped, default_threads, extension
from napari_aprcnn._kernels.reference_conversion import ERROR_BINS, coarser
from napari_aprcnn._kernels.spline import spline_constants

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Poll = Callable[[float], bool]
    Floats = NDArray[np.float32]

__all__ = [
    "ERROR_BINS",
    "MOST_VOXELS_A_SIDE",
    "ConversionImage",
    "ask",
    "coarser",
    "estimate_levels",
    "finish",
    "li_thresholds",
    "local_scale",
    "pull",
    "pyramid_size",
    "refine",
    "require_volume",
]

MOST_VOXELS_A_SIDE = 65536
_SLAB_VOXELS = 1 << 24  # 64 MiB of float32
_MOST_SAMPLES = 1 << 18


def pyramid_size(grid: tuple[int, ...], top: int) -> int:
    """Number of cells of the levels top, top-1, ..., 1 over a grid of level ``top``."""
    return sum(int(np.prod(coarser(grid, top - level))) for level in range(top, 0, -1))


def require_volume(image: NDArray[Any]) -> None:
    """Refuse what the kernels cannot read."""
    if image.ndim != 3 or not image.size:
        raise ValueError(f"got an image of shape {image.shape}, expected 3 axes and at least one voxel")
    if image.dtype.kind not in "uif" or image.dtype.itemsize > 8:
        raise TypeError(f"got voxels of type {image.dtype}, expected integers or floats of at most 8 bytes")


def finish(finished: bool) -> None:
    """Raise `Stopped` unless a kernel finished."""
    if not finished:
        raise Stopped


def ask(poll: Poll | None) -> None:
    """Ask once, before a step of the reference."""
    if poll is not None and poll(0.0):
        raise Stopped


class ConversionImage:
    """An image that is being converted.

    Parameters
    ----------
    image : (Z, Y, X) uint8..uint64, int8..int64, float16..float64
        Any strides and byte order; it is not copied (by the reference it is).
    smoothing
        Lambda of the smoothing spline, above 1/24; 0: none.
    block_planes
        Planes of a slab, rounded up to a multiple of 4; ``None``: 64 MiB of float32. The result does not depend on it.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    poll
        Told the share that is done; says whether to stop.

    Raises
    ------
    Stopped
        If ``poll`` said yes.
    """

    def __init__(
        self,
        image: NDArray[Any],
        *,
        smoothing: float,
        block_planes: int | None = None,
        threads: int | None = None,
        poll: Poll | None = None,
    ) -> None:
        require_volume(image)
        self.shape: tuple[int, int, int] = image.shape
        self.grid = coarser(image.shape, 1)
        spline = spline_constants(smoothing) if smoothing > 0 else None
        if block_planes is None:
            block_planes = max(8, _SLAB_VOXELS // (image.shape[1] * image.shape[2]))
        if block_planes < 1:
            raise ValueError(f"got slabs of {block_planes} planes, expected at least 1")
        kernels = extension()
        self._reference: reference.ReferenceImage | None = None
        if kernels is None:
            ask(poll)
            self._reference = reference.ReferenceImage(image, spline)
            return
        constants = [] if spline is None else [spline.b1, spline.b2, spline.gain]
        weights = [] if spline is None else [row.tolist() for row in spline.weights]
        self._image = kernels.ConversionImage(image, constants, weights, block_planes, default_threads(threads))
        finish(self._image.prepare(poll))

    def statistics(self) -> tuple[int, int, float, float]:
        """Count of voxels that are not finite as float32, flat index of the first (-1), smallest and largest voxel.

        Complete after `estimate`.
        """
        return (self._reference or self._image).statistics()

    def estimate(self, spacing: tuple[float, ...], poll: Poll | None = None) -> tuple[Floats, Floats, Floats]:
        """Gradient and intensity of each cell of 2x2x2 voxels.

        Returns
        -------
        gradient, intensity : (z, y, x) float32
            Largest gradient magnitude in grey values per unit of ``spacing``; mean, not yet filtered along z.
        residuals : (n,) float32
            Original - smoothed at evenly spread voxels, n <= 2^18.
        """
        size = int(np.prod(self.shape))
        step = _spread_step(self.shape, max(1, -(-size // _MOST_SAMPLES)))
        samples = -(-size // step)
        if self._reference is not None:
            ask(poll)
            return self._reference.estimate(spacing, step, samples)
        gradient, intensity = np.empty(self.grid, np.float32), np.empty(self.grid, np.float32)
        residuals = np.empty(samples, np.float32)
        finish(self._image.estimate(list(spacing), gradient.reshape(-1), intensity.reshape(-1), step, residuals, poll))
        return gradient, intensity, residuals

    def check_cells(
        self,
        scale: Floats,
        top: int,
        *,
        relative: float,
        slack: float,
        least: float,
        original: bool,
        poll: Poll | None = None,
    ) -> NDArray[np.uint8]:
        """Find the cells that must not be one particle.

        A cell passes if the mean of its voxels is within max(relative * scale - slack, least) of each of them.

        Returns
        -------
        (n,) uint8
            1 where a cell fails; cells of level ``top``, then ``top`` - 1, ... 1, each in z, y, x order.
        """
        if self._reference is not None:
            ask(poll)
            return self._reference.check_cells(scale, top, relative, slack, least, original)
        fails = np.empty(pyramid_size(self.grid, top), np.uint8)
        finish(self._image.check_cells(scale.reshape(-1), top, relative, slack, least, original, fails, poll))
        return fails

    def measure_errors(
        self,
        scale: Floats,
        levels: NDArray[np.uint8],
        top: int,
        *,
        relative: float,
        rounded: bool,
        poll: Poll | None = None,
    ) -> tuple[NDArray[np.int64], tuple[float, float, float], int]:
        """Measure the piecewise constant reconstruction.

        Returns
        -------
        counts : (3, 2^18) int64
            Histograms of |reconstruction - smoothed| / (relative * scale), |reconstruction - original|, the latter
            / scale, by the upper 19 bits of the float32 number.
        largest
            Their maxima.
        over
            Number of voxels where the first is above 1.
        """
        if self._reference is not None:
            ask(poll)
            return self._reference.measure_errors(scale, levels, top, relative, rounded)
        counts = np.zeros((3, ERROR_BINS), np.int64)
        finished, *largest, over = self._image.measure_errors(
            scale.reshape(-1), levels.reshape(-1), top, relative, rounded, counts.reshape(-1), poll
        )
        finish(finished)
        return counts, (largest[0], largest[1], largest[2]), over


def _spread_step(shape: tuple[int, int, int], step: int) -> int:
    """A step near ``step`` that visits all columns and rows: without common divisor with their numbers."""
    if step == 1:
        return 1
    while np.gcd(step, shape[2]) > 1 or np.gcd(step, shape[1]) > 1:
        step += 1
    return step


def local_scale(
    intensity: Floats,
    gradient: Floats,
    full: tuple[int, ...],
    *,
    threshold: float,
    inner: int,
    outer: int,
    rescale: float,
    active: tuple[bool, ...],
    smoothed: bool,
    threads: int | None = None,
    poll: Poll | None = None,
) -> Floats:
    """Replace the intensity by the local scale: rescale * mean_outer |intensity - mean_inner intensity|.

    Parameters
    ----------
    intensity, gradient : (z, y, x) float32
        What `ConversionImage.estimate` gave; used up. Cells with intensity <= threshold get gradient -1.
    full
        Voxels along z, y, x.
    threshold
        In grey values; ``-inf`` marks nothing.
    inner, outer
        Half-widths of the windows in cells.
    active
        Axes along which the windows run.

    Returns
    -------
    (z, y, x) float32
        Grey values.
    """
    kernels = extension()
    if kernels is None:
        ask(poll)
        return reference.local_scale(intensity, gradient, full, threshold, inner, outer, rescale, active, smoothed)
    finished = kernels.local_scale(
        intensity.reshape(-1),
        gradient.reshape(-1),
        list(intensity.shape),
        smoothed and full[0] > 2,
        threshold,
        inner,
        outer,
        rescale,
        list(active),
        default_threads(threads),
        poll,
    )
    finish(finished)
    return intensity


def li_thresholds(
    gradient: Floats, scale: Floats, *, threads: int | None = None, poll: Poll | None = None
) -> tuple[float, float]:
    """Minimum cross entropy thresholds (Li and Lee, Pattern Recognition 26, 617 (1993)) of gradient and scale.

    Cells with a negative gradient do not count; of more than 2^23 others every n-th does.
    """
    kernels = extension()
    if kernels is None:
        ask(poll)
        return reference.li_thresholds(gradient, scale)
    finished, first, second = kernels.li_thresholds(
        gradient.reshape(-1), scale.reshape(-1), default_threads(threads), poll
    )
    finish(finished)
    return float(first), float(second)


def estimate_levels(
    gradient: Floats,
    scale: Floats,
    *,
    scale_threshold: float,
    scale_threshold_max: float,
    gradient_threshold: float,
    factor: float,
    top: int,
    threads: int | None = None,
    poll: Poll | None = None,
) -> NDArray[np.uint8]:
    """floor(log2(gradient / scale * factor)), within 1..top; the scale is clamped in place.

    A scale below ``scale_threshold`` becomes that, or 60000 if it is below ``scale_threshold_max`` too. Where the
    scale is 0 and the gradient is not, the level is ``top``.
    """
    values = (scale_threshold, scale_threshold_max, gradient_threshold, factor, top)
    kernels = extension()
    if kernels is None:
        ask(poll)
        return reference.estimate_levels(gradient, scale, *values)
    levels = np.empty(gradient.shape, np.uint8)
    finish(
        kernels.estimate_levels(
            gradient.reshape(-1), scale.reshape(-1), *values, levels.reshape(-1), default_threads(threads), poll
        )
    )
    return levels


def pull(
    wanted: NDArray[np.uint8],
    top: int,
    *,
    optimise: bool = True,
    threads: int | None = None,
    poll: Poll | None = None,
) -> NDArray[np.uint8]:
    """Pulling scheme: the level (2..top+1) of the particle that covers each cell of 2x2x2 voxels.

    Parameters
    ----------
    wanted : (z, y, x) uint8
        Level estimate, 1..top.
    top
        Level of that grid, at least 1.
    optimise
        The neighbourhood optimisation of the APR: only cells that want their own level are refined once more.
    """
    kernels = extension()
    if kernels is None:
        ask(poll)
        return reference.pull(wanted, top, optimise)
    out = np.empty(wanted.shape, np.uint8)
    finish(
        kernels.pull(
            wanted.reshape(-1), list(wanted.shape), top, optimise, out.reshape(-1), default_threads(threads), poll
        )
    )
    return out


def refine(
    levels: NDArray[np.uint8],
    top: int,
    fails: NDArray[np.uint8],
    *,
    threads: int | None = None,
    poll: Poll | None = None,
) -> int:
    """Split particles until none is a cell that fails; neighbours stay within one level of each other.

    Parameters
    ----------
    levels : (z, y, x) uint8
        What `pull` gave; changed in place.
    fails
        What `ConversionImage.check_cells` gave.

    Returns
    -------
    int
        Number of rounds that split something.
    """
    kernels = extension()
    if kernels is None:
        ask(poll)
        return reference.refine(levels, top, fails)
    rounds = kernels.refine(levels.reshape(-1), list(levels.shape), top, fails, default_threads(threads), poll)
    finish(rounds >= 0)
    return int(rounds)
