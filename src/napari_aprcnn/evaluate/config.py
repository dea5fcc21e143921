"""How to evaluate: one frozen set of parameters for the dock, the command and scripts."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.evaluate.matching import CURVE_THRESHOLDS, check_thresholds
from napari_aprcnn.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EvaluateConfig"]


class EvaluateConfig(Frozen):
    """Parameters of an evaluation.

    Attributes
    ----------
    thresholds
        IoU thresholds of the accuracy curve, each in (0, 1].
    iou
        IoU from which on an object counts as found in the list of errors and the headline.
    slices
        Indices along the first axis (z of a volume). Each of these slices is an image of its own: objects are their
        cross-sections, points belong to their slice, everything else is not looked at. ``all``: every slice;
        ``None``: volumes are taken as wholes.
    min_size
        Objects smaller than this are left out on both sides.
    min_size_unit
        ``voxels``, or ``um``: cubic micrometres, of slices and planes square micrometres.
    ignore_label
        Value of the true labels that marks a region which counts for nobody.
    bootstrap
        Draws for the 95 % confidence intervals; 0: none.
    seed
        Of the draws.

    Examples
    --------
    >>> EvaluateConfig(min_size=8, min_size_unit="um").min_size_voxels((2.0, 0.5, 0.5), rank=3)
    16.0
    """

    thresholds: tuple[float, ...] = CURVE_THRESHOLDS
    iou: float = Field(default=0.5, gt=0, le=1)
    slices: tuple[int, ...] | Literal["all"] | None = None
    min_size: float = Field(default=0.0, ge=0)
    min_size_unit: Literal["voxels", "um"] = "voxels"
    ignore_label: int | None = None
    bootstrap: int = Field(default=1000, ge=0, le=100_000)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> EvaluateConfig:
        check_thresholds(self.thresholds)
        if isinstance(self.slices, tuple) and (not self.slices or min(self.slices) < 0):
            raise ValueError("expected at least one slice, each of 0 or more")
        if self.ignore_label == 0:
            raise ValueError("0 is background and cannot be ignored; expected another value")
        return self

    @property
    def all_thresholds(self) -> tuple[float, ...]:
        """The thresholds of the curve and `iou`, ascending."""
        return tuple(sorted({*self.thresholds, self.iou}))

    def min_size_voxels(self, spacing_um: Sequence[float] | None, *, rank: int) -> float:
        """Return the minimum size in voxels of an image with so many spatial axes.

        Raises
        ------
        ConfigError
            If it is given in micrometres and the voxel size is not known.
        """
        if self.min_size_unit == "voxels" or self.min_size == 0:
            return self.min_size
        if spacing_um is None or len(spacing_um) < rank:
            raise ConfigError(
                f"a minimum size of {self.min_size:g} um was asked for, but the voxel size is not known; "
                f"give the voxel size, or the minimum in voxels"
            )
        return self.min_size / prod(float(value) for value in list(spacing_um)[-rank:])
