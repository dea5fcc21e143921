"""Every parameter of the simulation, by name and with its unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen

__all__ = ["PHENOTYPES", "CameraConfig", "OpticsConfig", "Scene", "SimulationConfig", "read_simulation"]

Scene = Literal["mixed", "cystic", "compact", "cauliflower", "embryo", "scattered", "tissue", "empty"]
PHENOTYPES = ("cystic", "compact", "cauliflower")


def _range(low: float, high: float = float("inf")) -> AfterValidator:
    """A range (smallest, largest) in order, within limits."""

    def check(value: tuple[float, float]) -> tuple[float, float]:
        if not low <= value[0] <= value[1] <= high:
            raise ValueError(f"expected (smallest, largest) in order within {low:g} .. {high:g}")
        return value

    return AfterValidator(check)


Share = Annotated[tuple[float, float], _range(0, 1)]
Size = Annotated[tuple[float, float], _range(0)]
Chance = Annotated[float, Field(ge=0, le=1)]


class OpticsConfig(Frozen):
    """The microscope, without its camera. Ranges are drawn once for each volume.

    Attributes
    ----------
    psf_xy_px
        Standard deviation of the point spread function's core in plane, in pixels, for nuclei of 18 px; it grows with
        the square root of the nominal diameter.
    psf_axial
        Axial over in-plane width of the core, in micrometres over micrometres.
    halo, halo_width
        Share of the light in the wide halo, and its width over that of the core.
    depth_blur
        Relative growth of the core from the side of the lens to the far side.
    attenuation
        Light lost from the side of the lens to the far side: exp(-attenuation) is left.
    illumination
        Largest deviation of the uneven illumination from 1.
    """

    psf_xy_px: Size = (0.5, 1.8)
    psf_axial: Size = (1.2, 4.0)
    halo: Share = (0.0, 0.3)
    halo_width: Size = (2.5, 5.0)
    depth_blur: Size = (0.0, 0.8)
    attenuation: Annotated[tuple[float, float], _range(0, 20)] = (0.0, 1.2)
    illumination: Share = (0.0, 0.3)


class CameraConfig(Frozen):
    """The camera. Ranges are drawn once for each exposure, those of signals logarithmically.

    Attributes
    ----------
    photons
        Photons in a voxel at the median nucleus' contrast.
    dark_photons
        Photons, or electrons, in every voxel that do not come from the sample.
    emccd
        Chance of an electron multiplying register: its gain is random, which makes heavy tails.
    contrast_grey
        Grey values of the median nucleus' contrast.
    offset_grey
        Grey value without light.
    read_noise
        Standard deviation of the read noise, as a share of the median nucleus' contrast.
    correlated
        Chance that noise is correlated between neighbours, as after resampling, binning or compression.
    correlation_px
        Standard deviation of the correlating filter.
    row_gain, plane_gain
        Relative standard deviation of the gain between rows and between planes.
    fixed_pattern
        Standard deviation of the rows' offsets, as a share of the median nucleus' contrast.
    hot_voxels
        Share of voxels that are hot.
    saturated
        Chance that the brightest voxels are cut off, at `saturation` times the median nucleus' contrast.
    saturation
        Where it is cut off.
    black_clip
        Chance that the offset is set too low, so that dark voxels are cut off at 0.
    bits
        Bits of the camera that are possible; values beyond are cut off.
    """

    photons: Size = (3.5, 250.0)
    dark_photons: Size = (0.02, 10.0)
    emccd: Chance = 0.4
    contrast_grey: Size = (25.0, 3000.0)
    offset_grey: Size = (0.0, 400.0)
    read_noise: Size = (0.003, 0.3)
    correlated: Chance = 0.3
    correlation_px: Size = (0.3, 0.8)
    row_gain: Size = (0.0, 0.01)
    plane_gain: Size = (0.0, 0.08)
    fixed_pattern: Size = (0.0, 0.006)
    hot_voxels: Share = (0.0, 0.0005)
    saturated: Chance = 0.12
    saturation: Size = (1.0, 2.5)
    black_clip: Chance = 0.12
    bits: tuple[Literal[8, 12, 14, 16], ...] = Field(default=(8, 12, 16, 16), min_length=1)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("photons", "dark_photons", "contrast_grey", "read_noise"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name} is drawn logarithmically; expected a smallest value above 0")
        return self


class SimulationConfig(Frozen):
    """A simulated volume: what is in it, how it is seen, and where a label ends.

    Ranges (smallest, largest) are drawn once for each volume, unless said otherwise.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    scene
        What is shown; ``mixed`` draws one of the others, ``empty`` in one of twenty.
    diameter_px
        Median diameter of the nuclei in plane, in pixels, drawn logarithmically.
    size_cv
        Relative standard deviation of diameters within a volume.
    z_scale
        Extent of a ball in voxels along z, over that in plane: voxel size xy / z.
    voxel_xy_um
        In-plane voxel size, in micrometres; it only scales `SimulatedVolume.spacing_um`.
    extent
        Diameter of an organoid or embryo over the shortest edge of the volume, both in micrometres. Above 1, the volume
        is a crop.
    density
        Share of the room that nuclei fill where a scene has them, of what packing allows.
    spacing
        Distance of neighbours over the sum of their radii; below 1 they press against each other.
    nuclei
        Fewest and most nuclei that a scene places, before those outside the volume are dropped.
    elongation
        Standard deviation of the logarithms of the axes of a nucleus.
    irregularity
        Deviation of a nucleus' surface from the ellipsoid, as a share of its radius.
    texture, grain
        Depth of the chromatin's texture (standard deviation of the logarithm), and the share of it that is fine.
    nucleoli
        Depth of the nucleoli: 1 is as dark as the background.
    profile
        Fall of the intensity from the centre to the rim; negative for a bright rim.
    intensity_cv
        Standard deviation of the logarithm of the nuclei's intensities.
    mitotic
        Share of the nuclei in mitosis: condensed plates, and pairs of plates.
    pyknotic
        Share of the nuclei that are small, dense and several times brighter, as those of dying cells before they break
        up; labelled. Drawn for two volumes in five, the others have the smallest value.
    debris
        Bright fragments for each nucleus, as of apoptosis; never labelled.
    ghosts
        Defocused nuclei beyond the volume, for each nucleus; never labelled.
    polar_bodies
        Most polar bodies beside an embryo; never labelled.
    haze
        Light of the cell bodies, as a share of the median nucleus' contrast.
    background
        Slow changes of the background, in the same unit.
    outline_level
        Where a label ends: at this share of the peak of the nucleus' own blurred image without noise. BBBC050's labels
        end at about 0.2, tighter ones at 0.35 to 0.55.
    outline_common
        How far all nuclei of a volume end at one grey value, as annotators at a fixed display and semi-automatic
        labels have it: 0, each at `outline_level` of its own peak; 1, each at `outline_level` of the median peak, so
        that dim nuclei have tighter and bright ones wider outlines. BBBC050's labels are at about 0.8.
    faint
        Nuclei whose peak is below this share of the median's are not labelled.
    min_voxels
        Labels below are dropped.
    optics, camera
        See `OpticsConfig` and `CameraConfig`.
    """

    shape: tuple[int, int, int] = (64, 96, 96)
    scene: Scene = "mixed"
    diameter_px: Annotated[tuple[float, float], _range(4, 128)] = (8.0, 32.0)
    size_cv: Share = (0.04, 0.28)
    z_scale: Annotated[tuple[float, float], _range(0.1, 4)] = (0.35, 0.9)
    voxel_xy_um: float = Field(default=0.5, gt=0)
    extent: Annotated[tuple[float, float], _range(0.1, 20)] = (0.7, 1.8)
    density: Share = (0.25, 1.0)
    spacing: Annotated[tuple[float, float], _range(0.4, 4)] = (0.8, 1.15)
    nuclei: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=20_000)]] = (1, 800)
    elongation: Share = (0.0, 0.28)
    irregularity: Share = (0.02, 0.16)
    texture: Share = (0.05, 0.5)
    grain: Share = (0.1, 0.8)
    nucleoli: Share = (0.0, 0.7)
    profile: Annotated[tuple[float, float], _range(-1, 1)] = (-0.2, 0.6)
    intensity_cv: Share = (0.05, 0.5)
    mitotic: Share = (0.0, 0.15)
    pyknotic: Share = (0.0, 0.1)
    debris: Size = (0.0, 0.3)
    ghosts: Size = (0.0, 0.15)
    polar_bodies: int = Field(default=3, ge=0, le=20)
    haze: Share = (0.0, 0.15)
    background: Share = (0.0, 0.12)
    outline_level: float = Field(default=0.25, gt=0.01, lt=0.95)
    outline_common: Chance = 0.8
    faint: float = Field(default=0.06, ge=0, lt=1)
    min_voxels: int = Field(default=30, ge=1)
    optics: OpticsConfig = OpticsConfig()
    camera: CameraConfig = CameraConfig()

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if min(self.shape) < 8:
            raise ValueError(f"got shape {self.shape}; expected at least 8 voxels along z, y and x")
        if self.nuclei[0] > self.nuclei[1]:
            raise ValueError(f"got nuclei {self.nuclei}; expected (fewest, most) in order")
        return self


def read_simulation(path: Path | str, **values: Any) -> SimulationConfig:
    """Read a JSON file with fields of `SimulationConfig`.

    Parameters
    ----------
    path
        The file.
    **values
        Of fields that the file does not name.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not an object, or a field is unknown or out of range.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot read {path} ({error}); expected JSON with fields of SimulationConfig") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds a {type(found).__name__}; expected an object with fields and values")
    return SimulationConfig(**{**values, **found})
