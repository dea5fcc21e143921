"""Commands and options. Nothing heavy is imported here: ``aprcnn --help`` answers at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_aprcnn.cli.console import guarded

__all__ = ["app", "main"]

app = typer.Typer(
    name="aprcnn",
    help="Segment the nuclei of 2D and 3D fluorescence images, on the hardware you have.",
    epilog=(
        "Exit codes: 0 ok, 1 some inputs failed, 2 usage or configuration, 3 unreadable input, 4 model, 5 memory, "
        "6 output, 70 a bug, 130 cancelled. APRCNN_DEBUG=1 shows tracebacks."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Mode(StrEnum):
    """How a stack is segmented."""

    AUTO = "auto"
    FLAT = "2d"
    PLANES = "planes"
    STITCH = "stitch"


class Format(StrEnum):
    """Format of label images."""

    TIF = "tif"
    OME_TIF = "ome-tif"
    ZARR = "zarr"


class Precision(StrEnum):
    """Arithmetic of the network."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Normalise(StrEnum):
    """Where percentiles are taken."""

    IMAGE = "image"
    TILE = "tile"
    NONE = "none"


def _option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


_RESULT, _IMAGE, _MODEL, _MASKS, _RUN = "Results", "Image", "Model", "Masks", "Run"

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
FormatOption = Annotated[Format, _option("--format", help="Format of label images (default: tif).", panel=_RESULT)]
Rois = Annotated[bool, _option("--rois", help="Write outlines as an ImageJ ROI zip.", panel=_RESULT)]
Geojson = Annotated[bool, _option("--geojson", help="Write outlines as GeoJSON (QuPath).", panel=_RESULT)]
Csv = Annotated[bool, _option("--csv", help="Write a table of measurements.", panel=_RESULT)]
Overlay = Annotated[
    bool, _option("--overlay", help="Write a picture of the outlines on the image (PNG).", panel=_RESULT)
]
Probability = Annotated[bool, _option("--probability", help="Write the probability (logits).", panel=_RESULT)]
Flows = Annotated[bool, _option("--flows", help="Write the flows.", panel=_RESULT)]
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
PrecisionOption = Annotated[Precision | None, _option("--precision", help="Arithmetic of the network.", panel=_MODEL)]
TilePx = Annotated[int | None, _option("--tile", help="Largest tile edge in network pixels.", min=64, panel=_MODEL)]
Axes = Annotated[
    str | None,
    _option("--axes", help="Meaning of the array's axes, such as TCZYX (default: from the file).", panel=_IMAGE),
]
Channel = Annotated[
    int | None, _option("--channel", help="Channel to segment, from 0 (default: 0).", min=0, panel=_IMAGE)
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
    _option("--mode", help="2d: planes on their own; planes: 3D flows; stitch: 2D masks, stitched.", panel=_MASKS),
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


@app.command("segment")
def segment(
    inputs: Inputs,
    output: Output = None,
    format: FormatOption = Format.TIF,
    rois: Rois = False,
    geojson: Geojson = False,
    csv: Csv = False,
    overlay: Overlay = False,
    probability: Probability = False,
    flows: Flows = False,
    overwrite: Overwrite = False,
    config: Config = None,
    preview: Preview = False,
    threads: Threads = None,
    memory_gb: Memory = None,
    seed: Seed = None,
    quiet: Quiet = False,
    json: Json = False,
    model: Model = None,
    device: Device = None,
    precision: PrecisionOption = None,
    tile: TilePx = None,
    axes: Axes = None,
    channel: Channel = None,
    spacing: SpacingOption = None,
    series: Series = 0,
    normalise: NormaliseOption = None,
    diameter: Diameter = None,
    mode: ModeOption = None,
    probability_threshold: ProbabilityThreshold = None,
    flow_threshold: FlowThreshold = None,
    min_size: MinSize = None,
    steps: Steps = None,
    resize: Resize = None,
    stitch_iou: StitchIou = None,
) -> None:
    """Segment the nuclei of images and write label images, outlines and tables."""
    given = dict(locals())
    with guarded():
        from napari_aprcnn.cli.batch import run_batch
        from napari_aprcnn.cli.settings import Outputs, Settings

        wanted = Outputs(
            folder_or_file=output, format=format.value, rois=rois, geojson=geojson, csv=csv, overlay=overlay,
            probability=probability, flows=flows, overwrite=overwrite,
        )  # fmt: skip
        code = run_batch(inputs, Settings.from_options(given), wanted, preview=preview, quiet=quiet, as_json=json)
        raise typer.Exit(code)


@app.command("replay")
def replay(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.json", help="Run file that `aprcnn segment` wrote.")],
    output: Output = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run a run file again: the same input, the same parameters."""
    with guarded():
        from napari_aprcnn.cli.batch import replay_run

        raise typer.Exit(replay_run(run_file, output, overwrite=overwrite, quiet=quiet, as_json=json))


@app.command("estimate")
def estimate(
    image: OneInput,
    config: Config = None,
    model: Model = None,
    device: Device = None,
    precision: PrecisionOption = None,
    tile: TilePx = None,
    threads: Threads = None,
    memory_gb: Memory = None,
    axes: Axes = None,
    channel: Channel = None,
    spacing: SpacingOption = None,
    series: Series = 0,
    diameter: Diameter = None,
    mode: ModeOption = None,
    json: Json = False,
) -> None:
    """Say what segmenting an image would take: memory, time, tiles."""
    given = dict(locals())
    with guarded():
        from napari_aprcnn.cli.inform import show_estimate
        from napari_aprcnn.cli.settings import Settings

        show_estimate(image, Settings.from_options(given), as_json=json)


@app.command("models")
def models(
    table: Annotated[bool, typer.Option("--table", help="Parameters and operations of all architectures.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the trained models, or the architectures."""
    with guarded():
        from napari_aprcnn.cli.inform import show_models

        show_models(table=table, as_json=json)


@app.command("info")
def info(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show versions, devices, instruction set and threads."""
    with guarded():
        from napari_aprcnn.cli.inform import show_info

        show_info(as_json=json)


@app.command("sample")
def sample(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Samples; without one, they are listed.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to copy to.")] = Path(),
    labels: Annotated[bool, typer.Option("--labels", help="Copy the labels too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Copy sample images, or list them."""
    with guarded():
        from napari_aprcnn.cli.inform import copy_samples

        copy_samples(names or [], output, labels=labels, overwrite=overwrite)


class Converter(StrEnum):
    """Who converts to particles."""

    OWN = "own"
    PYAPR = "pyapr"


class ErrorMode(StrEnum):
    """How strictly the conversion keeps its tolerance."""

    STRICT = "strict"
    COMPATIBLE = "compatible"


@app.command("convert")
def convert(
    image: Annotated[
        Path, typer.Argument(metavar="INPUT", help="TIFF or OME-Zarr; or an .apr file, for the way back.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output, .apr or .tif (default: the input's name, here).")
    ] = None,
    relative_error: Annotated[
        float | None, typer.Option("--relative-error", help="Tolerance, as a share of the local contrast (0.1).")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option("--smoothing", help="Smoothing before structure is measured; 0: none (3).")
    ] = None,
    mode: Annotated[
        ErrorMode | None, typer.Option("--mode", help="strict: at every voxel; compatible: as LibAPR (strict).")
    ] = None,
    converter: Annotated[Converter, typer.Option("--converter", help="Ours, or pyapr's.")] = Converter.OWN,
    smooth: Annotated[bool, typer.Option("--smooth", help="Of an .apr file: interpolate between particles.")] = False,
    axes: Axes = None,
    channel: Channel = None,
    spacing: SpacingOption = None,
    series: Series = 0,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Convert an image to particles (.apr), or particles to an image."""
    given = {"axes": axes, "channel": channel, "spacing": spacing, "series": series}
    with guarded():
        from napari_aprcnn.cli.particles import convert_file
        from napari_aprcnn.cli.settings import Settings

        changes = {"relative_error": relative_error, "smoothing": smoothing, "mode": mode and mode.value}
        convert_file(
            image,
            output,
            Settings.from_options({name: value for name, value in given.items() if value is not None}),
            {name: value for name, value in changes.items() if value is not None},
            converter=converter.value,
            smooth=smooth,
            threads=threads,
            overwrite=overwrite,
            quiet=quiet,
            as_json=json,
        )


@app.command(
    "train",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def train(context: typer.Context) -> None:
    """Train a model on labelled images; `aprcnn train --help` lists its options."""
    with guarded():
        # Its options live beside the training, which imports torch: only this command pays for it.
        from napari_aprcnn.train.command import train_command

        trainer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        trainer.command()(train_command)
        trainer(context.args, prog_name="aprcnn train", standalone_mode=True)


def _version(shown: bool) -> None:
    if shown:
        from napari_aprcnn import __version__

        typer.echo(f"aprcnn {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Segment the nuclei of 2D and 3D fluorescence images, on the hardware you have."""


def main() -> None:
    """Run the command; the entry point of the package."""
    app()
