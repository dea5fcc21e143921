"""What the conversion decided: a level for each cell, and by which thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr.checks import level_max_of
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.errors import ParticleTreeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["LevelGrid", "record_of", "recorded_grid"]


@dataclass(frozen=True, kw_only=True)
class LevelGrid:
    """Which particle covers each cell of 2x2x2 voxels, and what it was decided by.

    Attributes
    ----------
    shape
        Voxels along z, y, x; one plane for a 2D image.
    level_max
        Level of single voxels; max(1, ceil(log2(longest edge))).
    levels : (ceil(z/2), ceil(y/2), ceil(x/2)) uint8
        Level of the particle that covers the cell, 2..level_max; level_max: the cell's voxels are particles. In images
        of at most 4 voxels a side all are.
    config
        What was asked for.
    intensity_threshold
        The one used, in grey values; ``-inf``: nothing was left out.
    sigma_threshold, gradient_threshold
        Those used: given or automatic, in ``strict`` mode at least what the smoothing itself leaves of a flat image.
    noise_sd
        Standard deviation of original - smoothed (1.4826 * median absolute deviation), in grey values.
    rounds
        How often ``strict`` mode split particles that broke the bound.
    """

    shape: tuple[int, int, int]
    level_max: int
    levels: NDArray[np.uint8]
    config: ConversionConfig
    intensity_threshold: float
    sigma_threshold: float
    gradient_threshold: float
    noise_sd: float
    rounds: int = 0

    @property
    def particles(self) -> int:
        """Number of particles."""
        total = 0
        top = self.level_max - 1
        for level in range(2, top + 1):
            corner = (slice(None, None, 1 << (top - level)),) * 3
            total += int(np.count_nonzero(self.levels[corner] == level))
        finest = self.levels == self.level_max
        for axis, n in enumerate(self.shape):
            weight = np.full(self.levels.shape[axis], 2)
            weight[-1] = n - 2 * (len(weight) - 1)
            finest = np.tensordot(finest, weight, axes=(0, 0)) if axis == 0 else np.tensordot(weight, finest, (0, 0))
        return total + int(finest)


def record_of(grid: LevelGrid) -> dict[str, Any]:
    """What a tree remembers of its conversion: parameters, and the thresholds that were used."""
    return {
        **grid.config.model_dump(mode="json"),
        "converter": "own",
        "intensity_threshold_used": grid.intensity_threshold,
        "sigma_threshold_used": grid.sigma_threshold,
        "gradient_threshold_used": grid.gradient_threshold,
        "noise_sd": grid.noise_sd,
    }


def recorded_grid(shape: tuple[int, int, int], levels: NDArray[np.uint8], record: Mapping[str, Any]) -> LevelGrid:
    """Level grid of a tree that remembers its conversion.

    Raises
    ------
    ParticleTreeError
        If it does not.
    """
    if record.get("converter") != "own":
        raise ParticleTreeError(
            "got a tree whose conversion is not known, expected one made by to_apr (converter 'own')"
        )
    return LevelGrid(
        shape=shape,
        level_max=level_max_of(shape),
        levels=levels,
        config=ConversionConfig(**{name: record[name] for name in ConversionConfig.model_fields}),
        intensity_threshold=record["intensity_threshold_used"],
        sigma_threshold=record["sigma_threshold_used"],
        gradient_threshold=record["gradient_threshold_used"],
        noise_sd=record["noise_sd"],
    )
