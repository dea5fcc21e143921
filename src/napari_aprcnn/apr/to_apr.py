"""`to_apr`: an image becomes a particle tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_aprcnn.apr.convert import as_volume, level_grid, sample_values
from napari_aprcnn.apr.grid import record_of
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.config import ConversionConfig, PyaprConfig
from napari_aprcnn.errors import ConfigError

__all__ = ["pyapr_config", "to_apr"]

_SHARE_OF_LEVELS = 0.8  # of the time, by measurement
_SHARE_OF_ROWS = 0.85


def to_apr(
    image: ArrayLike,
    config: ConversionConfig | None = None,
    *,
    converter: Literal["own", "pyapr"] = "own",
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    **parameters: Any,
) -> ParticleTree:
    """Convert an image to particles with intensities.

    Parameters
    ----------
    image
        [y, x] or [z, y, x]; bool, integers or floats, any strides and byte order; read slab by slab, never copied.
    config
        Parameters; by default `ConversionConfig()`: strict bound, relative error 0.1, automatic thresholds.
    converter
        ``pyapr`` converts in another process by pyapr (Python 3.11 only), as a second opinion.
    threads
        Number of threads; by default all cores. The result does not depend on it.
    progress
        Called with the share done, 0..1.
    should_cancel
        Asked about every 50 ms; true stops.
    **parameters
        Fields of `ConversionConfig` to change: ``relative_error=0.05``, ``spacing=(0.5, 0.2, 0.2)``, ...

    Returns
    -------
    ParticleTree
        Intensities in the dtype of the image: means over the cells, rounded once. ``conversion`` holds the parameters
        and the thresholds that were used.

    Raises
    ------
    ConfigError
        For parameters out of range, or that pyapr does not have.
    ImageError, ImageDtypeError, ImageValueError
        For images that are empty, of other axes, not real, not finite, or negative in mode ``compatible``.
    CancelledError
        If ``should_cancel`` said yes.
    ConversionError, MissingDependencyError
        From pyapr: it failed, or is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> z, y, x = np.mgrid[:32, :32, :32]
    >>> ball = (200 * np.exp(-((z - 16) ** 2 + (y - 16) ** 2 + (x - 16) ** 2) / 20) + 10).astype(np.uint8)
    >>> tree = to_apr(ball, relative_error=0.1)
    >>> tree.prr > 2, tree.reconstruct().shape
    (True, (32, 32, 32))
    """
    given = np.asanyarray(image)
    config = (config or ConversionConfig()).replace(**parameters)
    if converter == "pyapr":
        from napari_aprcnn.apr.pyapr_bridge import convert_with_pyapr

        return convert_with_pyapr(
            given, pyapr_config(config), progress=progress, should_cancel=should_cancel, threads=threads
        )
    if converter != "own":
        raise ConfigError(f"got converter {converter!r}, expected 'own' or 'pyapr'")
    share = progress or (lambda _: None)
    grid = level_grid(
        given,
        config,
        threads=threads,
        progress=lambda done: share(_SHARE_OF_LEVELS * done),
        should_cancel=should_cancel,
    )
    tree = ParticleTree.from_levels(grid.levels, shape=grid.shape, check=False, threads=threads)
    share(_SHARE_OF_ROWS)
    rows = tree.particles
    values = sample_values(
        as_volume(given),
        rows.level_rows,
        rows.offsets,
        rows.x,
        level_max=tree.level_max,
        repeated=config.mode == "compatible",
        threads=threads,
        progress=lambda done: share(_SHARE_OF_ROWS + (1 - _SHARE_OF_ROWS) * done),
        should_cancel=should_cancel,
    )
    made = ParticleTree(tree.shape, rows, tree.nodes, intensities=values, conversion=record_of(grid))
    made.remember(given)
    share(1.0)
    return made


def pyapr_config(config: ConversionConfig) -> PyaprConfig:
    """Parameters of pyapr that mean the same.

    Raises
    ------
    ConfigError
        For what pyapr cannot do: a bound on the original voxels, another point spread function.
    """
    if config.bound == "original" or config.psf is not None or not config.neighbourhood_optimisation:
        raise ConfigError(
            "got bound='original', psf or neighbourhood_optimisation=False, which pyapr lacks here; use converter='own'"
        )
    return PyaprConfig(
        relative_error=config.relative_error,
        auto_thresholds=config.auto_thresholds,
        smoothing=config.smoothing,
        intensity_threshold=config.intensity_threshold or 0.0,
        scale_threshold=config.sigma_threshold,
        scale_cutoff=config.sigma_threshold_max,
        gradient_threshold=config.gradient_threshold,
        spacing_um=config.spacing,
    )
