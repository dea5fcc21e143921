"""Commands and options. Nothing heavy is imported here: ``aprcnn --help`` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_aprcnn.cli.console import guarded
from napari_aprcnn.cli.evaluate import evaluate
from napari_aprcnn.cli.graph import graph
from napari_aprcnn.cli.options import (  # typer reads the annotations while it runs
    AprError,
    Augment,
    Axes,
    Channel,
    Config,
    Csv,
    Device,
    Diameter,
    Flows,
    FlowThreshold,
    FormatOption,
    Geojson,
    Grow,
    Inputs,
    Json,
    Memory,
    MinSize,
    Model,
    ModeOption,
    NormaliseOption,
    OneInput,
    Outline,
    Output,
    Overlay,
    Overwrite,
    ParticleStages,
    PrecisionOption,
    Preview,
    Probability,
    ProbabilityThreshold,
    Quiet,
    Resize,
    Rois,
    SaveParticles,
    Seed,
    Series,
    SpacingOption,
    Steps,
    StitchIou,
    Threads,
    TilePx,
    Zoom,
)
from napari_aprcnn.cli.simulate import simulate

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


@app.command("segment")
def segment(
    inputs: Inputs,
    output: Output = None,
    format: FormatOption = None,
    rois: Rois = False,
    geojson: Geojson = False,
    csv: Csv = False,
    overlay: Overlay = False,
    probability: Probability = False,
    flows: Flows = False,
    save_particles: SaveParticles = False,
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
    augment: Augment = None,
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
    apr_error: AprError = None,
    particle_stages: ParticleStages = None,
    zoom: Zoom = None,
    outline: Outline = None,
    grow: Grow = None,
) -> None:
    """Segment the nuclei of images and write label images, outlines and tables."""
    given = dict(locals())
    with guarded():
        from napari_aprcnn.cli.batch import run_batch
        from napari_aprcnn.cli.inputs import check_format
        from napari_aprcnn.cli.settings import Outputs, Settings

        if format is not None:
            check_format(output, format.value)
        wanted = Outputs(
            folder_or_file=output, format=format.value if format else "tif", rois=rois, geojson=geojson, csv=csv,
            overlay=overlay, probability=probability, flows=flows, particles=save_particles, overwrite=overwrite,
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
    augment: Augment = None,
    threads: Threads = None,
    memory_gb: Memory = None,
    axes: Axes = None,
    channel: Channel = None,
    spacing: SpacingOption = None,
    series: Series = 0,
    diameter: Diameter = None,
    mode: ModeOption = None,
    apr_error: AprError = None,
    particle_stages: ParticleStages = None,
    zoom: Zoom = None,
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


_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _pass_on(context: typer.Context, name: str, command: Callable[..., None]) -> None:
    """Hand the arguments to a command whose options live beside the training, which imports torch."""
    trainer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    trainer.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
    trainer(context.args, prog_name=f"aprcnn {name}", standalone_mode=True)


@app.command("train", add_help_option=False, context_settings=_PASSED_ON)
def train(context: typer.Context) -> None:
    """Train a model on labelled images; `aprcnn train --help` lists its options."""
    with guarded():
        from napari_aprcnn.train.command import train_command

        _pass_on(context, "train", train_command)


@app.command("distil", add_help_option=False, context_settings=_PASSED_ON)
def distil(context: typer.Context) -> None:
    """Distil a large network into a small one, without labels; `aprcnn distil --help` lists its options."""
    with guarded():
        from napari_aprcnn.train.distil_command import distil_command

        _pass_on(context, "distil", distil_command)


@app.command("cross-validate", add_help_option=False, context_settings=_PASSED_ON)
def cross_validate(context: typer.Context) -> None:
    """Compare settings of a distillation; `aprcnn cross-validate --help` lists its options."""
    with guarded():
        from napari_aprcnn.train.cross_validate import cross_validate_command

        _pass_on(context, "cross-validate", cross_validate_command)


@app.command("train-volumes", add_help_option=False, context_settings=_PASSED_ON)
def train_volumes(context: typer.Context) -> None:
    """Train a network for volumes; `aprcnn train-volumes --help` lists its options."""
    with guarded():
        from napari_aprcnn.train.extras import need_extras

        need_extras()
        from napari_aprcnn.train.volume_command import train_volumes_command

        _pass_on(context, "train-volumes", train_volumes_command)


app.command("simulate")(simulate)
app.command("evaluate")(evaluate)
app.command("graph")(graph)


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
