"""What the options of the commands are called, what they take and what they say of themselves."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AprError",
    "Augment",
    "Axes",
    "Channel",
    "Config",
    "Csv",
    "Device",
    "Diameter",
    "FlowThreshold",
    "Flows",
    "Format",
    "FormatOption",
    "Geojson",
    "Grow",
    "Inputs",
    "Json",
    "Memory",
    "MinSize",
    "Mode",
    "ModeOption",
    "Model",
    "Normalise",
    "NormaliseOption",
    "OneInput",
    "Outline",
    "Output",
    "Overlay",
    "Overwrite",
    "ParticleStages",
    "Precision",
    "PrecisionOption",
    "Preview",
    "Probability",
    "ProbabilityThreshold",
    "Quiet",
    "Resize",
    "Rois",
    "SaveParticles",
    "Seed",
    "Series",
    "SpacingOption",
    "Steps",
    "StitchIou",
    "Threads",
    "TilePx",
    "Zoom",
]


class Mode(StrEnum):
    """How a stack is segmented."""

    AUTO = "auto"
    FLAT = "2d"
    PLANES = "planes"
    STITCH = "stitch"
    VOLUME = "volume"


class Format(StrEnum):
    """Format of label images."""

    TIF = "tif"
    OME_TIF = "ome-tif"
    ZARR = "zarr"


class Precision(StrEnum):
    """Arithmetic of the network."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class Normalise(StrEnum):
    """Where percentiles are taken."""

    IMAGE = "image"
    TILE = "tile"
    NONE = "none"


def _option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


_RESULT, _IMAGE, _MODEL, _MASKS, _RUN = "Results", "Image", "Model", "Masks", "Run"
_VOLUME = "Models for volumes"

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="IN...", help="TIFF, OME-Zarr or .npy images, folders of images, or patterns like 'day1/*.tif'."
    ),
]
OneInput = Annotated[str, typer.Argument(metavar="IN", help="TIFF, OME-Zarr or .npy image.")]
Output = Annotated[
    Path | None,
    _option(
        "-o", "--output", help="Folder for the results, or for one input the name of the label file.", panel=_RESULT
    ),
]
FormatOption = Annotated[
    Format | None, _option("--format", help="Format of label images (default: tif, or as -o says).", panel=_RESULT)
]
Rois = Annotated[bool, _option("--rois", help="Write outlines as an ImageJ ROI zip.", panel=_RESULT)]
Geojson = Annotated[bool, _option("--geojson", help="Write outlines as GeoJSON (QuPath).", panel=_RESULT)]
Csv = Annotated[bool, _option("--csv", help="Write a table of measurements.", panel=_RESULT)]
Overlay = Annotated[
    bool, _option("--overlay", help="Write a picture of the outlines on the image (PNG).", panel=_RESULT)
]
Probability = Annotated[bool, _option("--probability", help="Write the probability (logits).", panel=_RESULT)]
Flows = Annotated[bool, _option("--flows", help="Write the flows.", panel=_RESULT)]
SaveParticles = Annotated[
    bool, _option("--save-particles", help="Write the particles of a model for volumes (.apr).", panel=_RESULT)
]
Overwrite = Annotated[bool, _option("--overwrite", help="Replace results that exist.", panel=_RESULT)]
Config = Annotated[
    Path | None,
    _option(
        "--config", help="Configuration from the napari dock or a run file; options below override it.", panel=_RUN
    ),
]
Preview = Annotated[
    bool,
    _option(
        "--preview",
        help="Segment only the middle, write a picture of it, and say what the whole would take.",
        panel=_RUN,
    ),
]
Threads = Annotated[int | None, _option("--threads", help="Threads (default: all that are free).", min=1, panel=_RUN)]
Memory = Annotated[
    float | None,
    _option("--memory-gb", help="Memory that the run may add, in GB (default: 80 % of the free memory).", panel=_RUN),
]
Seed = Annotated[int | None, _option("--seed", help="Seed of every random choice (default: 0).", min=0, panel=_RUN)]
Quiet = Annotated[bool, _option("-q", "--quiet", help="Only errors.", panel=_RUN)]
Json = Annotated[bool, _option("--json", help="One JSON object for each input on standard output.", panel=_RUN)]
Model = Annotated[
    str | None, _option("-m", "--model", help="Model of `aprcnn models`, or a weights file.", panel=_MODEL)
]
Device = Annotated[str | None, _option("--device", help="auto, cpu, cuda, cuda:1, mps (default: auto).", panel=_MODEL)]
PrecisionOption = Annotated[
    Precision | None,
    _option(
        "--precision",
        help="bfloat16: faster on planes, half the memory on particles; int8: fastest on planes.",
        panel=_MODEL,
    ),
]
Augment = Annotated[
    bool | None,
    _option("--augment/--no-augment", help="Average mirror images: finer outlines, four times as long.", panel=_MODEL),
]
TilePx = Annotated[int | None, _option("--tile", help="Largest tile edge in network pixels.", min=64, panel=_MODEL)]
Axes = Annotated[
    str | None,
    _option("--axes", help="Meaning of the array's axes, such as TCZYX (default: from the file).", panel=_IMAGE),
]
Channel = Annotated[
    int | None,
    _option(
        "--channel",
        help="Channel to segment, from 0 (default: 0; of colours that of the largest contrast).",
        min=0,
        panel=_IMAGE,
    ),
]
SpacingOption = Annotated[
    str | None,
    _option("--spacing", help="Voxel size in um: z,y,x or y,x or one number (default: from the file).", panel=_IMAGE),
]
Series = Annotated[int, _option("--series", help="Image of a file with several, from 0.", min=0, panel=_IMAGE)]
NormaliseOption = Annotated[
    Normalise | None,
    _option(
        "--normalise", help="Percentiles of the image, of tiles (uneven light), or none (default: image).", panel=_IMAGE
    ),
]
Diameter = Annotated[
    float | None, _option("--diameter", help="Diameter of the nuclei in pixels (default: estimated).", panel=_MASKS)
]
ModeOption = Annotated[
    Mode | None,
    _option(
        "--mode",
        help="2d: planes on their own; planes: 3D flows; stitch: 2D masks, stitched; volume: by a model for volumes.",
        panel=_MASKS,
    ),
]
ProbabilityThreshold = Annotated[
    float | None,
    _option("--probability-threshold", help="Logit above which a pixel is nucleus (default: 0).", panel=_MASKS),
]
FlowThreshold = Annotated[
    float | None,
    _option("--flow-threshold", help="Largest flow error of a mask; 0 keeps all (default: 0.4).", panel=_MASKS),
]
MinSize = Annotated[
    int | None, _option("--min-size", help="Smallest nucleus, in pixels or voxels (default: 15).", min=0, panel=_MASKS)
]
Steps = Annotated[int | None, _option("--steps", help="Steps along the flows (default: 200).", min=1, panel=_MASKS)]
Resize = Annotated[
    int | None, _option("--resize", help="Follow flows at 1/N of the resolution: faster, coarser.", min=1, panel=_MASKS)
]
StitchIou = Annotated[
    float | None,
    _option("--stitch-iou", help="IoU that joins masks of neighbouring planes (default: 0.25).", panel=_MASKS),
]
AprError = Annotated[
    float | None,
    _option(
        "--apr-error",
        help="Relative error of the particles, 0.02 to 0.5 (default: that of the training). Larger: faster, coarser.",
        panel=_VOLUME,
    ),
]
ParticleStages = Annotated[
    int | None,
    _option("--particle-stages", help="Stages on particles; 0: all on voxels (default: as trained).", min=0,
            panel=_VOLUME),
]  # fmt: skip
Zoom = Annotated[
    float | None,
    _option("--zoom", help="Enlarge the image for the network: above 1 for small nuclei (default: 1).", panel=_VOLUME),
]
Outline = Annotated[
    float | None,
    _option("--outline", help="Probability at which a nucleus ends, 0 to 1 (default: 0.5).", panel=_VOLUME),
]
Grow = Annotated[
    int | None,
    _option("--grow", help="Voxels to move outlines by; negative: inwards (default: 0).", panel=_VOLUME),
]
