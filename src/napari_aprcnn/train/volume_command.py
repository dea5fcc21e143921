"""`aprcnn train-volumes`: from simulated and labelled volumes to a weights file with its card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer

from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.models.forms import choose_form_for
from napari_aprcnn.models.network import using_threads
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.zoo import save_model
from napari_aprcnn.train.reports import EpochReport, StepReport
from napari_aprcnn.train.run_lock import training_in
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.simulation import SimulationConfig, read_simulation, simulate_volume
from napari_aprcnn.train.volume_checks import check_place, check_training
from napari_aprcnn.train.volume_fit import fit_volumes
from napari_aprcnn.train.volume_repeat import MIXED, length_words, repeat_words
from napari_aprcnn.train.volume_request import find_checkpoint
from napari_aprcnn.train.volume_settings import VolumeTrainConfig
from napari_aprcnn.train.volume_sources import read_volumes
from napari_aprcnn.train.volume_start import accelerator_of, load_start, rays_of_start
from napari_aprcnn.train.volume_tune import can_tune, tuned_settings

__all__ = ["fastest_form", "train_volumes", "train_volumes_command"]

_MARGIN = 16
_LOOKED_AT = 4  # images of each kind


def train_volumes(
    *,
    output: Path | str,
    name: str,
    config: VolumeTrainConfig,
    labelled: Sequence[Path | str] = (),
    validation: Sequence[Path | str] = (),
    simulation: SimulationConfig | Sequence[SimulationConfig] | None = None,
    initial: Path | str | None = None,
    title: str = "",
    data_words: str = "",
    licence: str = "",
    command: str = "",
    threads: int | None = None,
    accelerator: str = "cpu",
    progress: Callable[[EpochReport], None] = lambda _: None,
    on_step: Callable[[StepReport], None] = lambda _: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> Path:
    """Train a network for volumes and write ``NAME.safetensors`` with its card ``NAME.json``.

    Parameters
    ----------
    output
        Folder of the result; ``output/NAME_run`` keeps checkpoints, logs and simulated volumes, from which an
        interrupted training goes on when it is called again. A model of that name that it has not made is not replaced.
    name
        Name of the model and of its files.
    config
        The training.
    labelled, validation
        Archives or folders of labelled images (see `train.data`) to train on, and to look at after every epoch. On the
        latter the thresholds of StarDist and three classes are chosen in the end, and written into the card; without
        them the card has those of `initial`, where that has the same head.
    simulation
        Of simulated volumes, which take turns where there are several; by default `SimulationConfig` of a shape a
        little larger than the crops.
    initial
        Model or weights file to start from, of the same network in any form.
    title, data_words, licence, command
        What the card says.
    threads
        Of torch; ``None``: as it is.
    accelerator
        ``cpu``, ``cuda``, ``cuda:1`` ..., or ``auto``: a GPU where there is one.
    progress, on_step, should_cancel
        As `fit_volumes` takes them.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    OutputError
        If a model of that name is there, and no run that it came from, or the folder cannot be written to.
    TrainingDataError
        If data or checkpoint cannot be used, or the checkpoint is of another training.
    ConfigError
        If the name is none for a file, the network to start from is one for planes, there is `patience` and no
        validation, or more epochs are done than asked for.
    DeviceError
        If the device cannot be used.
    MissingDependencyError
        If thresholds are to be chosen and the stardist package is not there.
    TrainingError
        If the loss is no number any more, a process that makes crops was killed, or another process trains a model of
        that name in that folder.
    CancelledError
        If `should_cancel` said yes.
    """
    path, run_dir = check_place(output, name)
    accelerator = accelerator_of(accelerator, threads=threads)
    tunes = len(validation) > 0 and can_tune(config.network.head)
    start, settings = None, {}
    if initial is not None:
        start, former = load_start(initial)
        if start.config.head == config.network.head:  # where they are not chosen anew
            settings = former.settings
    simulation = simulation or SimulationConfig(shape=_larger(config.crop))
    low, high = config.relative_error
    card = ModelCard(
        name=name,
        architecture=f"{config.network.form}_unet",
        title=title or f"{config.network.form} U-Net for volumes, {config.network.head}",
        data=data_words or ", ".join(["simulated volumes"] * (config.simulated > 0) + [Path(p).stem for p in labelled]),
        licence=licence or "that of the training data",
        seed=config.seed,
        command=command,
        volume=config.network,
        relative_error=round((low * high) ** 0.5, 3),
        settings=settings,
        date=date.today().isoformat(),
    )
    with training_in(run_dir, name), using_threads(threads or torch.get_num_threads()):
        looked_at = read_volumes(validation)
        net = fit_volumes(
            config,
            run_dir=run_dir,
            labelled=read_volumes(labelled),
            validation=looked_at,
            simulation=simulation,
            initial=start,
            accelerator=accelerator,
            progress=progress,
            on_step=on_step,
            should_cancel=should_cancel,
        )
        if tunes:
            settings = tuned_settings(
                net, card, looked_at, device=accelerator, threads=threads, should_cancel=should_cancel
            )
            card = card.replace(settings=settings)
    card = card.replace(command=command and command + length_words(find_checkpoint(run_dir), config.epochs))
    save_model(net, path, card)
    return path


def _larger(crop: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = (max(8, n + _MARGIN) for n in crop)
    return z, y, x


_DEFAULT = VolumeTrainConfig()


def train_volumes_command(
    name: Annotated[str, typer.Option("--name", help="Name of the model and of its files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the result and of its checkpoints.")],
    labelled: Annotated[list[Path] | None, typer.Argument(help="Zips or folders of images and labels.")] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Zip or folder to look at after every epoch. Repeatable.")
    ] = None,
    simulated: Annotated[float, typer.Option(help="Share of simulated crops, 0..1.")] = _DEFAULT.simulated,
    simulated_volumes: Annotated[int, typer.Option(help="Volumes that are simulated.")] = _DEFAULT.simulated_volumes,
    outline: Annotated[float, typer.Option(help="Share of its peak at which a simulated nucleus ends.")] = 0.25,
    outline_common: Annotated[
        float, typer.Option(help="How far all nuclei end at one grey value, 0..1.")
    ] = SimulationConfig().outline_common,
    simulations: Annotated[
        list[str] | None,
        typer.Option(
            "--simulation", help="JSON with fields of SimulationConfig, or 'mixed'; volumes take turns. Repeatable."
        ),
    ] = None,
    channels: Annotated[int, typer.Option(help="Channels of the finest stage.")] = _DEFAULT.network.channels,
    depth: Annotated[int, typer.Option(help="Poolings.")] = _DEFAULT.network.depth,
    banks: Annotated[int, typer.Option(help="Filter banks.")] = _DEFAULT.network.filter_banks,
    decreasing_banks: Annotated[
        bool, typer.Option("--decreasing-banks", help="One bank less at every coarser stage.")
    ] = _DEFAULT.network.decreasing_banks,
    block: Annotated[str, typer.Option(help="plain (U-Net) or residual (ResNet).")] = _DEFAULT.network.block,
    norm: Annotated[str, typer.Option(help="group, instance, batch or none.")] = _DEFAULT.network.norm,
    form: Annotated[str, typer.Option(help="apr, pixel, hybrid1 ..., or auto: the fastest here.")] = "apr",
    head: Annotated[str, typer.Option(help="flows, stardist or three_class.")] = _DEFAULT.network.head,
    ray_spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size z y x that StarDist's rays are spread for; default: as --from has it, or 1 1 1."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs.")] = _DEFAULT.epochs,
    steps: Annotated[int, typer.Option(help="Steps in an epoch.")] = _DEFAULT.steps_per_epoch,
    batch_size: Annotated[int, typer.Option(help="Crops in a step.")] = _DEFAULT.batch_size,
    crop: Annotated[tuple[int, int, int], typer.Option(help="Voxels along z, y, x.")] = _DEFAULT.crop,
    learning_rate: Annotated[float, typer.Option(help="Highest rate of AdamW.")] = _DEFAULT.learning_rate,
    loss_on: Annotated[str, typer.Option(help="particles, or voxels: their reconstruction.")] = _DEFAULT.loss_on,
    apr_error: Annotated[
        tuple[float, float], typer.Option(help="Relative error of the conversion, drawn between the two.")
    ] = _DEFAULT.relative_error,
    rescale: Annotated[float, typer.Option(help="Labelled crops: largest factor of size.")] = _DEFAULT.rescale,
    elastic: Annotated[float, typer.Option(help="Labelled crops: deformation, voxels.")] = _DEFAULT.elastic,
    gamma: Annotated[float, typer.Option(help="Labelled crops: largest exponent of grey values.")] = _DEFAULT.gamma,
    noise: Annotated[float, typer.Option(help="Labelled crops: noise, as a share of contrast.")] = _DEFAULT.noise,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = _DEFAULT.precision,
    patience: Annotated[int, typer.Option(help="Epochs without a better --validation; 0: train to the end.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of weights and crops.")] = 0,
    start: Annotated[str | None, typer.Option("--from", help="Model or weights file to start from.")] = None,
    title: Annotated[str, typer.Option(help="One line for the card.")] = "",
    data_words: Annotated[str, typer.Option("--data", help="What the card says of the data.")] = "",
    licence: Annotated[str, typer.Option(help="What the card says of the licence.")] = "",
    threads: Annotated[int | None, typer.Option(help="Threads; default: all.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ..., or auto.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that make crops.", min=0, max=64)] = _DEFAULT.workers,
) -> None:
    """Train a network for volumes on simulated nuclei, on labelled images, or on both.

    An interrupted training (Ctrl-C, a kill) goes on from its last epoch when the same command is given again.
    With --validation, the thresholds of StarDist and three classes are chosen on it.
    """
    paths = labelled or []
    check_place(output, name)
    device = accelerator_of(device, threads=threads)
    network = VolumeNetConfig(
        channels=channels,
        depth=depth,
        filter_banks=banks,
        decreasing_banks=decreasing_banks,
        block=cast("Any", block),
        norm=cast("Any", norm),
        particle_stages=None if form == "auto" else _stages(form, depth),
        head=cast("Any", head),
        ray_spacing=ray_spacing or (1.0, 1.0, 1.0),
        in_channels=2,
    )
    if start is not None and ray_spacing is None:
        network = rays_of_start(network, load_start(start)[0].config)
    config = VolumeTrainConfig(
        network=network,
        epochs=epochs,
        steps_per_epoch=steps,
        batch_size=batch_size,
        crop=crop,
        simulated=simulated,
        simulated_volumes=simulated_volumes,
        relative_error=apr_error,
        learning_rate=learning_rate,
        rescale=rescale,
        elastic=elastic,
        gamma=gamma,
        noise=noise,
        loss_on=loss_on,
        precision=precision,
        patience=patience,
        seed=seed,
        workers=workers,
    )
    plain = SimulationConfig(shape=_larger(config.crop), outline_level=outline, outline_common=outline_common)
    simulation = [_simulation(word, plain) for word in simulations or [MIXED]]
    if form == "auto":
        config = fastest_form(config, paths, simulation)
        form = config.network.form
        typer.echo(f"form: {form}", err=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with stop_on_signals(aloud=True) as stop:
        path = train_volumes(
            output=output,
            name=name,
            config=config,
            labelled=paths,
            validation=validation or [],
            simulation=simulation,
            initial=start,
            title=title,
            data_words=data_words,
            licence=licence,
            command=repeat_words(paths, validation or [], name, config, form, plain, simulations or [], start),
            threads=threads,
            accelerator=device,
            progress=lambda report: _tell(report, config.network.head),
            should_cancel=stop.is_set,
        )
    typer.echo(f"wrote {path}")


def _simulation(word: str, plain: SimulationConfig) -> SimulationConfig:
    if word == MIXED:
        return plain
    return read_simulation(
        word, shape=plain.shape, outline_level=plain.outline_level, outline_common=plain.outline_common
    )


def _stages(form: str, depth: int) -> int | None:
    if form == "apr":
        return None
    if form == "pixel":
        return 0
    number = form.removeprefix("hybrid")
    if form.startswith("hybrid") and number.isdecimal() and 1 <= int(number) <= depth:
        return int(number)
    raise ConfigError(f"got form {form!r}, expected apr, pixel, auto, or hybrid1 to hybrid{depth}")


def fastest_form(
    config: VolumeTrainConfig, paths: Sequence[Path], simulation: Sequence[SimulationConfig] = ()
) -> VolumeTrainConfig:
    """Return the same training of the form that is expected to be fastest on a few of its images.

    Parameters
    ----------
    config
        The training, its network in any form.
    paths
        Archives or folders of labelled images, as `train_volumes` takes them.
    simulation
        Of the simulated volumes; by default what `train_volumes` takes.

    Raises
    ------
    TrainingDataError
        If the data cannot be read, or an image is too small for the network's depth.
    """
    simulation = simulation or [SimulationConfig(shape=_larger(config.crop))]
    labelled = read_volumes(paths)
    images = [item.image for item in labelled][:_LOOKED_AT]
    simulates = config.simulated > 0 or not images
    check_training(config.replace(patience=0), labelled, (), simulation if simulates else ())
    if simulates:
        images += [simulate_volume(one, seed=config.seed + n).image for one in simulation for n in range(_LOOKED_AT)]
    error = (config.relative_error[0] * config.relative_error[1]) ** 0.5
    stages = choose_form_for(config.network, (to_apr(image, relative_error=error) for image in images))
    return config.replace(network=config.network.replace(particle_stages=stages))


def _tell(report: EpochReport, head: str) -> None:
    first = {"flows": "flow", "stardist": "distance"}.get(head, "classes")
    checked = "" if report.validation_loss is None else f"  validation {report.validation_loss:.4f}"
    typer.echo(
        f"epoch {report.epoch}/{report.epochs}  {first} {report.flow_loss:.4f}  probability "
        f"{report.probability_loss:.4f}{checked}  {report.seconds_per_step:.2f} s/step  "
        f"{report.seconds_left / 60:.0f} min left",
        err=True,
    )
