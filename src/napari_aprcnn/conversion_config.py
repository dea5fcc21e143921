"""Parameters of the conversion from an image to particles."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from napari_aprcnn.frozen import Frozen

__all__ = ["ConversionConfig", "PyaprConfig"]

Positive = Annotated[float, Field(gt=0)]


class ConversionConfig(Frozen):
    """From an image to an adaptive particle representation.

    Thresholds are in grey values of the image (gradients: grey values per unit of ``spacing``), on the smoothed image.

    Attributes
    ----------
    mode
        ``strict``: what is promised holds at every voxel: |smoothed - reconstruction| <= relative_error * local scale.
        ``compatible``: the particles, and values, of LibAPR 2022 (pyapr 1.0.7), which promises it to first order only.
    relative_error
        Tolerated deviation as a share of the local intensity scale; about 0.1 is usual; at least 1e-9.
    smoothing
        Lambda of the smoothing spline, which noise is taken out with before structure is measured; 0: none. It must be
        above 1/24 otherwise. Particle values are means of the original image in any case.
    intensity_threshold
        Where the smoothed image is not above it, detail does not count as structure (in ``strict`` mode the bound holds
        there nevertheless). ``None``: 0 for images without negative voxels; else nothing is left out, which only
        ``strict`` mode can do.
    sigma_threshold
        Smallest local scale: detail fainter than relative_error times this is not resolved.
    sigma_threshold_max
        Where the scale is below this and below ``sigma_threshold``, it counts as 60000: no detail at all.
    gradient_threshold
        Smaller gradients count as flat.
    auto_thresholds
        Estimate ``sigma_threshold`` and ``gradient_threshold`` from the image (minimum cross entropy); the two fields
        are not used then.
    spacing
        Voxel size (z, y, x), in any unit of length.
    psf
        Width of the point spread function along y, in the unit of ``spacing``, which sets the windows of the local
        scale; ``None``: two voxels.
    neighbourhood_optimisation
        Refine only cells that need it themselves, not their neighbours; off costs particles and gains nothing usual.
    bound
        What ``strict`` mode compares the reconstruction with: the ``smoothed`` image, or the ``original`` voxels, to
        within max(relative_error * scale, noise_floor * standard deviation of the noise). The latter costs many
        particles: 1.5 to 5 times as many at a noise floor of 4.
    noise_floor
        See ``bound``; in multiples of the standard deviation of the noise, which is estimated from original - smoothed.
    """

    mode: Literal["strict", "compatible"] = "strict"
    relative_error: float = Field(default=0.1, ge=1e-9)
    smoothing: float = Field(default=3.0, ge=0, le=1e4)
    intensity_threshold: float | None = None
    sigma_threshold: float = Field(default=0.0, ge=0)
    sigma_threshold_max: float = Field(default=0.0, ge=0)
    gradient_threshold: float = Field(default=0.0, ge=0)
    auto_thresholds: bool = True
    spacing: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    psf: Positive | None = None
    neighbourhood_optimisation: bool = True
    bound: Literal["smoothed", "original"] = "smoothed"
    noise_floor: float = Field(default=4.0, ge=0)

    @field_validator("smoothing")
    @classmethod
    def _has_a_filter(cls, smoothing: float) -> float:
        if 0 < smoothing <= 0.042:  # 1/24 and a margin for single precision
            raise ValueError("expected 0 (no smoothing) or more than 0.042: below 1/24 the spline does not exist")
        return smoothing

    @model_validator(mode="after")
    def _bound_is_checked(self) -> Self:
        if self.bound == "original" and self.mode == "compatible":
            raise ValueError("the bound on original voxels needs mode='strict'; mode='compatible' checks no bound")
        return self


class PyaprConfig(Frozen):
    """Conversion of an image to particles by pyapr, the second converter.

    Attributes
    ----------
    relative_error
        Largest error of the reconstruction, relative to the local intensity scale.
    auto_thresholds
        Let pyapr choose the thresholds of scale and gradient (minimum cross entropy).
    smoothing
        Weight of the smoothing spline before gradients are taken; 0 switches it off.
    intensity_threshold
        Voxels below are background.
    scale_threshold
        The local intensity scale is at least this.
    scale_cutoff
        Where the local intensity scale is below this, nothing is resolved.
    gradient_threshold
        Gradients below are taken as 0.
    spacing_um
        Voxel size (z, y, x) in micrometres; only ratios matter.
    """

    relative_error: Positive = 0.1
    auto_thresholds: bool = True
    smoothing: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    intensity_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    scale_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    scale_cutoff: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    gradient_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    spacing_um: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)

    @field_validator("smoothing")
    @classmethod
    def _not_tiny(cls, smoothing: float) -> float:
        # LibAPR's filter has complex poles there, which it does not notice.
        if 0 < smoothing <= 1 / 24:
            raise ValueError("pyapr fails for a smoothing above 0 up to 1/24; take 0 (off) or more")
        return smoothing
