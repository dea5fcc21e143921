"""One frozen model per step, shared by the widgets, the command line and the result files.

A configuration is validated once, when it is made; a run's configuration written as JSON and read back gives the
same run. Lengths carry their unit in the name (``_px``, ``_um``), axes are in z, y, x order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from napari_aprcnn.conversion_config import ConversionConfig, PyaprConfig
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen

__all__ = [
    "AxisMapping",
    "ConversionConfig",
    "FlowConfig",
    "NormaliseConfig",
    "PyaprConfig",
    "SegmentConfig",
    "TileConfig",
    "TrainConfig",
    "VolumeConfig",
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dimensionality = Literal["auto", "2d", "planes", "stitch", "volume"]


class AxisMapping(Frozen):
    """Which axis of the array is what.

    Attributes
    ----------
    order
        One letter for each axis of the array, out of T, C, Z, Y, X, each at most once; Y and X are required.
    channel
        Index of the channel to segment, where there is a C axis.

    Examples
    --------
    >>> AxisMapping(order="tczyx", channel=1).order
    'TCZYX'
    """

    order: str
    channel: int = Field(default=0, ge=0)

    @field_validator("order")
    @classmethod
    def _letters(cls, order: str) -> str:
        order = order.upper()
        if set(order) - set("TCZYX") or len(set(order)) != len(order) or not {"Y", "X"} <= set(order):
            raise ValueError("expected letters out of T, C, Z, Y, X, each at most once, with Y and X; for example ZYX")
        return order


class NormaliseConfig(Frozen):
    """Intensities to the network's range: the lower percentile becomes 0, the upper 1.

    Attributes
    ----------
    mode
        ``image``: percentiles of the whole image (per time point); ``tile``: of a neighbourhood, interpolated, for
        uneven illumination; ``none``: values are taken as they are.
    lower, upper
        Percentiles, 0..100.
    tile_px
        Edge of the neighbourhoods of mode ``tile``, in pixels.
    """

    mode: Literal["image", "tile", "none"] = "image"
    lower: float = Field(default=1.0, ge=0, le=100)
    upper: float = Field(default=99.0, ge=0, le=100)
    tile_px: int = Field(default=256, ge=16)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(f"the lower percentile {self.lower} must be below the upper {self.upper}")
        return self


class TileConfig(Frozen):
    """How a plane is cut for the network, and how often the network sees it.

    Attributes
    ----------
    tile_px
        Largest edge of a tile in network pixels (after rescaling), overlap included, give or take an eighth. Smaller
        tiles need less memory and see a cancel sooner; Cellpose's own wide networks take at most 448.
    overlap
        Share of a tile that it shares with its neighbour, 0..0.5; outputs are blended with a taper.
    border_px
        Zeros added around the image before the network: nuclei cut by the border need them.
    augment
        Average what a network for planes says of each tile and of its three mirror images (test-time augmentation):
        finer outlines, four times the network's time. The diameter is looked for without.
    memory_gb
        Peak memory that the run may add, in GB; ``None``: 80 % of what is free when it starts.
    """

    tile_px: int = Field(default=1024, ge=64, le=8192)
    overlap: float = Field(default=0.1, ge=0.0, le=0.5)
    border_px: int = Field(default=24, ge=0, le=256)
    augment: bool = False
    memory_gb: Positive | None = None


class FlowConfig(Frozen):
    """From flows to masks.

    Attributes
    ----------
    probability_threshold
        Logit of the cell probability above which a pixel belongs to a nucleus. Lower: more and larger nuclei.
    flow_threshold
        Largest mean squared difference between the flows of the network and those of a mask, in 2D; 0 keeps every mask.
    flow_threshold_3d
        The same for volumes, where only directions are compared; 0, as Cellpose does, keeps every mask.
    n_steps
        Steps that a pixel follows the flows.
    min_size_vox
        Masks with fewer pixels (voxels) are dropped. The default, or less, gives way to a quarter of a typical nucleus
        where that is smaller, so that small nuclei stay; what is above the default is taken as it is.
    max_size_fraction
        Masks that cover more than this share of the image are dropped, as background that was taken for a nucleus.
    fill_holes
        Fill the holes of each mask, in volumes plane by plane.
    resize_factor
        Follow the flows at 1 / resize_factor of the resolution: faster, coarser outlines.
    """

    probability_threshold: float = 0.0
    flow_threshold: float = Field(default=0.4, ge=0)
    flow_threshold_3d: float = Field(default=0.6, ge=0)
    n_steps: int = Field(default=200, ge=1, le=10_000)
    min_size_vox: int = Field(default=15, ge=0)
    max_size_fraction: float = Field(default=0.4, gt=0, le=1)
    fill_holes: bool = True
    resize_factor: int = Field(default=1, ge=1, le=8)


class VolumeConfig(Frozen):
    """How networks for volumes are run; those of planes do not look at it.

    Attributes
    ----------
    relative_error
        Of the conversion to particles; ``None``: what the network was trained with. Larger: fewer particles, faster.
    particle_stages
        Stages of the network that work on particles; 0: all on voxels. ``None``: as it was trained. Weights that were
        trained on particles lose accuracy on voxels.
    zoom
        Factor by which the image is enlarged before the network sees it: above 1 for nuclei that are smaller than those
        it was trained on (8 to 32 voxels), below 1 for larger ones.
    outline
        Probability at which a nucleus ends, 0..1: below 0.5 for looser outlines, above for tighter ones. With a
        StarDist head from which a nucleus counts, with three classes that of interiors and foreground; 0.5: the card's.
    grow_vox
        Voxels by which outlines are moved afterwards; negative: inwards.
    """

    relative_error: float | None = Field(default=None, gt=0, le=1)
    particle_stages: int | None = Field(default=None, ge=0)
    zoom: float = Field(default=1.0, ge=0.125, le=8)
    outline: float = Field(default=0.5, gt=0, lt=1)
    grow_vox: int = Field(default=0, ge=-16, le=16)


class SegmentConfig(Frozen):
    """Everything that decides the result of a segmentation.

    Attributes
    ----------
    model
        Name of a model of the zoo, or path of a weights file.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    precision
        ``bfloat16`` rounds what a network for planes multiplies, faster where the processor can, and keeps the features
        of a network on particles in half the memory. ``int8``, for FasterCellpose networks on CPUs with AVX512-VNNI, is
        the fastest, with about two digits.
    axes
        Meaning of the array's axes, or its letters alone (``"ZYX"``); ``None``: guessed from its shape.
    dimensionality
        ``2d``: each plane on its own; ``planes``: 3D by flows averaged over xy, zy and zx planes; ``stitch``: 3D by
        stitching the masks of xy planes; ``volume``: by a network for volumes, which knows nothing else; ``auto``: what
        the network is for, ``planes`` where there is a Z axis, else ``2d``.
    spacing_um
        Voxel size (z, y, x) in micrometres, (y, x) or one number; only ratios matter to the network. ``None``:
        isotropic.
    diameter_px
        Typical diameter of a nucleus in the y, x plane, in pixels; ``None``: estimated by a first pass.
    stitch_iou
        Smallest IoU at which the masks of neighbouring planes are one nucleus (mode ``stitch``).
    smallest_share_3d
        Objects of a volume smaller than this share of the median object are dropped: what planes leave of debris.
    keep_flows
        Keep flows and probability in the result, if they fit the memory.
    seed
        Seed of every random choice of the run.
    threads
        Threads of the network and the kernels; ``None``: all that the process may use.
    """

    other_names: ClassVar[Mapping[str, str]] = {
        "diameter": "diameter_px",
        "channels": "axes={'order': 'CYX', 'channel': 1}",
        "channel_axis": "axes",
        "z_axis": "axes",
        "anisotropy": "spacing_um",
        "spacing": "spacing_um",
        "do_3D": "dimensionality",
        "stitch_threshold": "stitch_iou",
        "model_type": "model",
        "pretrained_model": "model",
        "gpu": "device",
        "batch_size": "tiles",
        "bsize": "tiles={'tile_px': 512}",
        "tile_overlap": "tiles={'overlap': 0.1}",
        "normalize": "normalise",
        "cellprob_threshold": "flows={'probability_threshold': 0.0}",
        "flow_threshold": "flows={'flow_threshold': 0.4}",
        "min_size": "flows={'min_size_vox': 15}",
        "niter": "flows={'n_steps': 200}",
        "prob_thresh": "volume={'outline': 0.5}",
    }

    model: str = "fastercellpose-v3"
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    axes: AxisMapping | None = None
    dimensionality: Dimensionality = "auto"
    spacing_um: tuple[Positive, Positive, Positive] | None = None
    diameter_px: Positive | None = None
    normalise: NormaliseConfig = NormaliseConfig()
    tiles: TileConfig = TileConfig()
    flows: FlowConfig = FlowConfig()
    volume: VolumeConfig = VolumeConfig()
    stitch_iou: float = Field(default=0.25, gt=0, le=1)
    smallest_share_3d: float = Field(default=0.25, ge=0, lt=1)
    keep_flows: bool = True
    seed: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)

    @field_validator("axes", mode="before")
    @classmethod
    def _letters_alone(cls, axes: Any) -> Any:
        return {"order": axes} if isinstance(axes, str) else axes

    @field_validator("spacing_um", mode="before")
    @classmethod
    def _short_spacing(cls, spacing: Any) -> Any:
        if isinstance(spacing, (int, float)) and not isinstance(spacing, bool):
            return (spacing,) * 3
        if isinstance(spacing, (tuple, list)) and len(spacing) in (1, 2):
            return (spacing[0], spacing[0], spacing[-1])
        return spacing

    def to_json(self) -> str:
        """Return the configuration as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> SegmentConfig:
        """Read a configuration, or the ``config`` entry of a run file.

        Raises
        ------
        ConfigError
            If the text is no JSON, or has unknown names or values out of range.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the run file is not valid JSON ({error}); expected what `segment` wrote") from error
        if isinstance(values, dict) and "config" in values:
            values = values["config"]
        if not isinstance(values, dict):
            raise ConfigError(f"got a JSON {type(values).__name__}, expected an object with the fields of a run")
        return cls(**values)

    @classmethod
    def from_file(cls, path: Path | str) -> SegmentConfig:
        """Read a configuration or run file.

        Raises
        ------
        ConfigError
            If the file cannot be read or replayed.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the run file {path}: {error}") from error
        return cls.from_json(text)


class TrainConfig(Frozen):
    """Everything that decides the weights that a training ends with.

    Attributes
    ----------
    architecture
        Row of the Cellpose family.
    second_channel
        What the network's second input channel holds.
    n_steps, batch_size, crop_px
        Length of the training, crops in a step, edge of a crop in pixels.
    learning_rate, weight_decay, warmup_steps, clip_norm
        AdamW; the rate rises over the warm-up and falls as a cosine to 1 %.
    diameter_px
        Diameter that nuclei are brought to, in pixels.
    collage
        Share of samples composed of cut-out nuclei laid close together.
    tissue
        Share of samples of simulated tissue.
    shares
        Share of the samples of each source (stem of its path); others by the square root of their size.
    ema_decay
        Decay of the running average of the weights, which is what is kept.
    precision
        Arithmetic of forward and backward; master weights are float32.
    seed
        Seed of initialisation and samples.
    """

    architecture: str = "faster_v3"
    second_channel: Literal["zero", "asinh"] = "asinh"
    n_steps: int = Field(default=8000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    crop_px: int = Field(default=224, ge=32, multiple_of=16)
    learning_rate: Positive = 2e-3
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: Positive = 5.0
    diameter_px: Positive = 25.0
    collage: float = Field(default=0.15, ge=0, le=1)
    tissue: float = Field(default=0.15, ge=0, le=1)
    shares: dict[str, float] = Field(default_factory=dict)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = Field(default=0, ge=0)
