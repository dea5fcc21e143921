"""Networks for volumes as data: one description for the pixel, the particle and the hybrid form. No torch here.

APR-CNN, section 5 (U-Net), section 5.4 (StarDist) and supplementary figure 9 (hybrid networks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from napari_aprcnn.frozen import Frozen

__all__ = ["Halo", "LayerSpec", "VolumeNetConfig", "describe", "halo", "multiply_adds", "receptive_radius"]

STARDIST_CHANNELS = 128


class VolumeNetConfig(Frozen):
    """A U-Net for volumes.

    Attributes
    ----------
    channels
        C: channels of the finest stage; a pooling doubles them.
    depth
        Poolings.
    filter_banks
        eta: kernels of the finest levels that are learnt, not restricted from finer ones. Particle stages only.
    decreasing_banks
        Whether every coarser stage has one bank less, at least one.
    particle_stages
        Stages, from the finest, that work on particles: ``None`` all of them (the APR network), 0 none (its pixel
        twin), k in between Hybrid-k: particles become voxels after the k-th pooling and are sampled again before the
        k-th last upsampling.
    block
        ``plain``: two times convolution, norm and ReLU; ``residual``: with the input added before the last ReLU.
    norm
        ``group`` (C groups in every stage), ``instance``, ``batch`` or ``none``.
    head
        ``three_class``: background, interior, boundary. ``flows``: flow along z, y, x (5 x voxels per step) and the
        logit of the nucleus probability. ``stardist``: one stage coarser, the logit of the object probability and
        `rays` distances.
    rays, ray_spacing
        Directions of the StarDist head, and the voxel size z, y, x that they are spread for.
    in_channels
        Channels of the input.
    planar
        Kernels of one plane (1 x 3 x 3), for 2D images.
    """

    channels: int = Field(default=16, ge=1, le=512)
    depth: int = Field(default=3, ge=1, le=8)
    filter_banks: int = Field(default=3, ge=1, le=16)
    decreasing_banks: bool = False
    particle_stages: int | None = Field(default=None, ge=0)
    block: Literal["plain", "residual"] = "plain"
    norm: Literal["group", "instance", "batch", "none"] = "group"
    head: Literal["three_class", "flows", "stardist"] = "three_class"
    rays: int = Field(default=96, ge=4, le=1024)
    ray_spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    in_channels: int = Field(default=1, ge=1, le=64)
    planar: bool = False

    @model_validator(mode="after")
    def _stages(self) -> VolumeNetConfig:
        if self.particle_stages is not None and self.particle_stages > self.depth + 1:
            raise ValueError(f"particle_stages: expected at most depth + 1 = {self.depth + 1}, or None for all")
        return self

    @property
    def hybrid(self) -> int:
        """Number of particle stages, `depth` + 1 where all are."""
        return self.depth + 1 if self.particle_stages is None else self.particle_stages

    @property
    def form(self) -> str:
        """``apr``, ``pixel`` or ``hybrid1`` ..."""
        return {0: "pixel", self.depth + 1: "apr"}.get(self.hybrid, f"hybrid{self.hybrid}")

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return {"three_class": 3, "flows": 4, "stardist": 1 + self.rays}[self.head]

    @property
    def out_stage(self) -> int:
        """Stage of the output: StarDist predicts on cells of two voxels a side."""
        return 1 if self.head == "stardist" else 0

    def banks(self, stage: int) -> int:
        """Filter banks of a stage."""
        return max(self.filter_banks - stage, 1) if self.decreasing_banks else self.filter_banks


@dataclass(frozen=True)
class LayerSpec:
    """One convolution.

    Attributes
    ----------
    key
        Where its parameters stand in ``state_dict``, without ``.weight``.
    stage
        Poolings before it: it works on the grid of ceil(image / 2^stage).
    particles
        Whether on particles.
    inside, outside
        Channels.
    kernel
        Taps along z, y, x.
    banks
        Filter banks; 1 on voxels.
    groups
        Of the norm that follows; 0: no norm, but a bias.
    """

    key: str
    stage: int
    particles: bool
    inside: int
    outside: int
    kernel: tuple[int, int, int]
    banks: int
    groups: int

    @property
    def taps(self) -> int:
        """Product of the kernel's axes."""
        return self.kernel[0] * self.kernel[1] * self.kernel[2]


def describe(config: VolumeNetConfig) -> tuple[LayerSpec, ...]:
    """List the convolutions in the order in which they run.

    Examples
    --------
    >>> layers = describe(VolumeNetConfig())
    >>> len(layers), layers[0].key, sum(l.banks * l.taps * l.inside * l.outside for l in layers)
    (18, 'encoder.0.first.conv', 3973536)
    """
    return tuple(_layers(config))


def _layers(config: VolumeNetConfig) -> Iterator[LayerSpec]:
    wide = (1, 3, 3) if config.planar else (3, 3, 3)
    widths = [config.channels << stage for stage in range(config.depth + 1)]

    def layer(
        key: str, stage: int, inside: int, outside: int, kernel: tuple[int, int, int], groups: int, owner: int
    ) -> LayerSpec:
        particles = owner < config.hybrid
        banks = config.banks(stage) if particles else 1
        return LayerSpec(key, stage, particles, inside, outside, kernel, banks, groups)

    def block(name: str, stage: int, inside: int) -> Iterator[LayerSpec]:
        width = widths[stage]
        yield layer(f"{name}.first.conv", stage, inside, width, wide, config.channels, stage)
        yield layer(f"{name}.second.conv", stage, width, width, wide, config.channels, stage)
        if config.block == "residual" and inside != width:
            yield layer(f"{name}.shortcut.conv", stage, inside, width, (1, 1, 1), config.channels, stage)

    for stage in range(config.depth + 1):
        yield from block(f"encoder.{stage}", stage, widths[stage - 1] if stage else config.in_channels)
    for stage in reversed(range(config.out_stage, config.depth)):
        width = widths[stage]
        # On the coarser grid, but after the voxels were sampled: it belongs to the finer stage.
        yield layer(f"narrow.{stage}.conv", stage + 1, 2 * width, width, (1, 1, 1), width, stage)
        yield from block(f"decoder.{stage}", stage, 2 * width)
    last, inside = config.out_stage, widths[config.out_stage]
    if config.head == "stardist":
        yield layer("head.block.conv", last, inside, STARDIST_CHANNELS, wide, config.channels, last)
        yield layer("head.probability", last, STARDIST_CHANNELS, 1, (1, 1, 1), 0, last)
        yield layer("head.distances", last, STARDIST_CHANNELS, config.rays, (1, 1, 1), 0, last)
    else:
        yield layer("head.output", last, inside, config.out_channels, (1, 1, 1), 0, last)


def receptive_radius(config: VolumeNetConfig) -> int:
    """Radius of the receptive field as the paper counts it: what the kernels reach, in voxels; 44 at depth 3.

    The grids of the poolings add `halo`'s difference.

    Examples
    --------
    >>> receptive_radius(VolumeNetConfig()), receptive_radius(VolumeNetConfig(depth=4))
    (44, 92)
    """
    return sum(
        (spec.kernel[2] // 2) << spec.stage for spec in describe(config) if not spec.key.endswith("shortcut.conv")
    )


@dataclass(frozen=True)
class Halo:
    """Voxels before and after an output voxel that it can depend on, along one axis (y and x, or z)."""

    before: int
    after: int


def halo(config: VolumeNetConfig, *, axis: int = 2) -> Halo:
    """How far an output voxel can look, at the worst place of the grids of all poolings.

    Notes
    -----
    Norms look at everything; they are left out, as everywhere in the field.

    Examples
    --------
    >>> halo(VolumeNetConfig())
    Halo(before=51, after=51)
    """
    period = 1 << config.depth
    reach = [_reach(config, at, axis) for at in range(16 * period, 17 * period)]
    return Halo(max(before for before, _ in reach), max(after for _, after in reach))


def _reach(config: VolumeNetConfig, at: int, axis: int) -> tuple[int, int]:
    """Follow the cells that one output voxel needs, from the head back to the input."""
    convs = dict.fromkeys(range(config.depth + 1), 0)
    for spec in describe(config):
        if spec.key.startswith("encoder") and not spec.key.endswith("shortcut.conv"):
            convs[spec.stage] += spec.kernel[axis] // 2
    cells = (at >> config.out_stage, at >> config.out_stage)
    needed: dict[int, tuple[int, int]] = {}
    for stage in range(config.out_stage, config.depth + 1):
        radius = sum(
            spec.kernel[axis] // 2
            for spec in describe(config)
            if spec.stage == stage
            and spec.key.startswith(("decoder", "head"))
            and not spec.key.endswith("shortcut.conv")
        )
        cells = (cells[0] - radius, cells[1] + radius)
        needed[stage] = cells
        cells = (cells[0] >> 1, cells[1] >> 1)
    low, high = needed[config.depth]
    for stage in reversed(range(config.depth + 1)):
        if stage in needed:
            low, high = min(low, needed[stage][0]), max(high, needed[stage][1])
        low, high = low - convs[stage], high + convs[stage]
        if stage:
            low, high = 2 * low, 2 * high + 1
    return at - low, high - at


def multiply_adds(config: VolumeNetConfig, rows: Sequence[int]) -> int:
    """Multiply-adds of the convolutions.

    Parameters
    ----------
    rows
        Of every stage, the finest first: its particles (feature rows) where it works on particles, else the cells of
        its grid.
    """
    return sum(spec.taps * spec.inside * spec.outside * rows[spec.stage] for spec in describe(config))
