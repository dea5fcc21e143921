"""`aprcnn distil`: from a teacher and images to a student with its card."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.errors import CancelledError, ConfigError
from napari_aprcnn.models.network import using_threads
from napari_aprcnn.models.zoo import ModelCard, save_model
from napari_aprcnn.train.checks import check_request
from napari_aprcnn.train.distil import distil_on, split, teacher_for
from napari_aprcnn.train.distil_images import read_images
from napari_aprcnn.train.distil_options import (  # typer reads the annotations while it runs
    PATCHES,
    Channel,
    Data,
    Device,
    Foreground,
    Jitter,
    Kinds,
    Output,
    Start,
    Student,
    Teacher,
    Threads,
    Views,
    WeightDecay,
    Workers,
)
from napari_aprcnn.train.distil_settings import DistilConfig
from napari_aprcnn.train.fit import TrainStep
from napari_aprcnn.train.ranges import IMAGES, int8_spans
from napari_aprcnn.train.run_lock import training_in
from napari_aprcnn.train.score import Score, score_archive
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.starts import first_state
from napari_aprcnn.train.teacher import TeacherPatches

if TYPE_CHECKING:
    from napari_aprcnn.models.network import Network

__all__ = ["distil", "distil_command"]

_log = logging.getLogger(__name__)


def distil(
    teacher: Network | str | Path,
    data: Sequence[Path | str],
    *,
    output: Path | str,
    name: str,
    config: DistilConfig,
    kinds: Sequence[str] = (),
    channel: int | None = None,
    initial: Path | str | None = None,
    test: Sequence[Path | str] = (),
    title: str = "",
    data_words: str = "",
    licence: str = "",
    command: str = "",
    threads: int | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: Callable[[TrainStep], None] = lambda _: None,
    on_patches: Callable[[int, int], None] = lambda _done, _total: None,
    on_look: Callable[[int, float], None] = lambda _step, _iou: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> tuple[Path, list[Score]]:
    """Distil a teacher into a student and write ``NAME.safetensors`` with its card ``NAME.json``.

    Parameters
    ----------
    teacher
        A loaded network of the Cellpose family, a name, or a file (an official Cellpose checkpoint for one).
    data
        Archives or folders of images; labels, where there are any, serve for diameters and `DistilConfig.hard`.
    output
        Folder of the result; ``output/patches`` keeps what the teacher said, for all its students, and
        ``output/NAME_run`` the checkpoint and the logs of this one.
    name
        Name of the student and of its files.
    config
        The distillation.
    kinds
        Only images of kinds or objectives that hold one of these words: a model for one objective.
    channel
        Of images without labels that have several, from 0.
    initial
        Weights to start from, as `train` takes them; ``None``: random (Kaiming).
    test
        Archives or folders to score the student on afterwards, no diameter given.
    title, data_words, licence, command
        What the card says.
    threads
        Threads of torch; ``None``: as torch chose.
    device, workers
        As `fit` takes them.
    progress, on_patches, on_look, should_cancel
        Told of steps, of images that the teacher has seen, of the IoU with it; asked at every step.

    Returns
    -------
    path : Path
        The weights file.
    scores : list of Score
        One for each test set.

    Raises
    ------
    ConfigError
        If teacher and student put out different things, or the name, the student or the held-out share is not usable.
    TrainingError
        If another process trains a model of that name in that folder.
    TrainingDataError
        If there is nothing to learn from, a test set cannot be read, the teacher finds nothing, or a checkpoint is
        damaged or another's.
    CancelledError
        If `should_cancel` said yes; the same call goes on.
    """
    output = Path(output)

    def heard(what: str, done: int, total: int) -> None:
        if should_cancel():
            raise CancelledError(f"the distillation was cancelled at {what}, {done} of {total}; run it again to go on")

    parts = _parts(config)
    check_request(name, config.training.architecture, device=device, threads=threads, test=test, progress=heard)
    run_dir = output / f"{name}_run"
    with training_in(run_dir, name), using_threads(threads or torch.get_num_threads()):
        network = teacher_for(teacher, config, device=device, threads=threads)
        images = read_images(data, kinds=kinds, channel=channel)
        patches = TeacherPatches(
            images, network, config, folder=output / PATCHES, progress=on_patches, should_cancel=should_cancel
        )
        train, looked_at = split(patches, parts=parts, part=0, seed=config.training.seed)
        state = first_state(initial, config.training.architecture, seed=config.training.seed)
        module, iou = distil_on(
            patches,
            train,
            looked_at,
            config=config,
            teacher_width=network.module.config.widths[3],
            run_dir=run_dir,
            initial=state,
            device=device,
            workers=workers,
            progress=progress,
            on_look=on_look,
            should_cancel=should_cancel,
        )
    training = config.training
    some = train[:: -(-len(train) // IMAGES)]
    planes = (patches.patch(number)[0] for number in some)
    spans = int8_spans(module, planes, second_channel=training.second_channel)
    metrics: dict[str, dict[str, float]] = {"teacher": {"iou": round(iou, 4)}}
    card = ModelCard(
        name=name,
        architecture=training.architecture,
        title=title or f"{training.architecture} distilled from {network.name}",
        data=data_words or ", ".join(Path(path).stem for path in data),
        licence=licence or "that of the training data and of the teacher",
        seed=training.seed,
        command=command,
        metrics=metrics,
        diameter_px=training.diameter_px,
        second_channel=training.second_channel,
        border_px=24,
        int8_spans=spans,
        date=date.today().isoformat(),
        sha256="",
    )
    path = output / f"{name}.safetensors"
    save_model(module, path, card)
    scores = [score_archive(str(path), archive) for archive in test]
    if scores:
        metrics = {**metrics, **{score.name: score.summary() for score in scores}}
        save_model(module, path, card.model_copy(update={"metrics": metrics}))
    return path, scores


def _parts(config: DistilConfig) -> int:
    """One of so many images is looked at."""
    if config.held_out > 0.5:
        raise ConfigError(
            f"got a held-out share of {config.held_out:g}, expected at most 0.5: at least half is there to learn "
            "from; lower held_out (--held-out)"
        )
    return round(1 / config.held_out)


_DEFAULT = DistilConfig()


def distil_command(
    teacher: Teacher,
    student: Student,
    data: Data,
    name: Annotated[str, typer.Option("--name", help="Name of the student and of its files.")],
    output: Output,
    steps: Annotated[int, typer.Option(help="Steps, at most.")] = _DEFAULT.training.n_steps,
    batch_size: Annotated[int, typer.Option(help="Patches in a step.")] = _DEFAULT.training.batch_size,
    patch: Annotated[int, typer.Option(help="Edge of a patch, px.")] = _DEFAULT.training.crop_px,
    learning_rate: Annotated[float, typer.Option(help="Highest rate.")] = _DEFAULT.training.learning_rate,
    weight_decay: WeightDecay = _DEFAULT.training.weight_decay,
    diameter: Annotated[
        float, typer.Option(help="Diameter nuclei are brought to, px.")
    ] = _DEFAULT.training.diameter_px,
    views: Views = _DEFAULT.views,
    scale_jitter: Jitter = _DEFAULT.scale_jitter,
    foreground: Foreground = _DEFAULT.foreground,
    consistency: Annotated[bool, typer.Option(help="The student sees degraded patches.")] = _DEFAULT.consistency,
    hard: Annotated[float, typer.Option(help="Weight of labels against the teacher, 0..1.")] = _DEFAULT.hard,
    features: Annotated[float, typer.Option(help="Weight of the teacher's features.")] = _DEFAULT.features,
    held_out: Annotated[
        float, typer.Option(help="Share of the images that is looked at, up to 0.5: one of 1 / share, rounded.")
    ] = _DEFAULT.held_out,
    validate_every: Annotated[
        int, typer.Option(help="Steps between two looks; 0: after every pass.")
    ] = _DEFAULT.validate_every,
    max_drop: Annotated[float, typer.Option(help="Stop when the IoU is so far below the best.")] = _DEFAULT.max_drop,
    patience: Annotated[int, typer.Option(help="Looks of standstill before it stops; 0: never.")] = _DEFAULT.patience,
    standstill: Annotated[float, typer.Option(help="Smaller changes are a standstill.")] = _DEFAULT.standstill,
    kind: Kinds = None,
    channel: Channel = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = _DEFAULT.training.precision,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and patches.")] = 0,
    start: Start = None,
    test: Annotated[list[Path] | None, typer.Option(help="Zip or folder to score on afterwards.")] = None,
    title: Annotated[str, typer.Option(help="One line for the card.")] = "",
    data_words: Annotated[str, typer.Option("--data", help="What the card says of the data.")] = "",
    licence: Annotated[str, typer.Option(help="What the card says of the licence.")] = "",
    threads: Threads = None,
    device: Device = "cpu",
    workers: Workers = 0,
) -> None:
    """Distil a large network into a small one; no labels are needed.

    An interrupted distillation goes on when the same command is given again.
    """
    training = TrainConfig(
        architecture=student,
        n_steps=steps,
        batch_size=batch_size,
        crop_px=patch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        diameter_px=diameter,
        precision=precision,
        seed=seed,
    )
    config = DistilConfig(
        training=training,
        views=views,
        scale_jitter=scale_jitter,
        foreground=foreground,
        consistency=consistency,
        hard=hard,
        features=features,
        held_out=held_out,
        validate_every=validate_every,
        max_drop=max_drop,
        patience=patience,
        standstill=standstill,
    )
    parts = _parts(config)
    if abs(1 / parts - held_out) > 0.005:
        typer.echo(f"--held-out {held_out:g}: one image of {parts} is looked at, {1 / parts:.0%}", err=True)
    with stop_on_signals(aloud=True) as stop:
        path, scores = distil(
            teacher,
            data,
            output=output,
            name=name,
            config=config,
            kinds=kind or (),
            channel=channel,
            initial=start,
            test=test or [],
            title=title,
            data_words=data_words,
            licence=licence,
            command=_repeat(teacher, student, data, name, config, kind or (), {"channel": channel, "from": start}),
            threads=threads,
            device=device,
            workers=workers,
            progress=_tell,
            on_patches=lambda done, total: typer.echo(f"teacher: {done} of {total} images", err=True),
            on_look=lambda step, iou: typer.echo(f"step {step}  IoU with the teacher {iou:.4f}", err=True),
            should_cancel=stop.is_set,
        )
    for score in scores:
        typer.echo(f"{score.name}: " + "  ".join(f"{key} {value:.3f}" for key, value in score.summary().items()))
    typer.echo(f"wrote {path}")


def _repeat(
    teacher: str,
    student: str,
    data: Sequence[str],
    name: str,
    config: DistilConfig,
    kinds: Sequence[str],
    given: Mapping[str, object],
) -> str:
    """The command that repeats a distillation, every parameter that decides the weights spelled out."""
    training = config.training
    options: dict[str, object] = {
        "name": name,
        "output": ".",
        "steps": training.n_steps,
        "batch-size": training.batch_size,
        "patch": training.crop_px,
        "learning-rate": training.learning_rate,
        "weight-decay": training.weight_decay,
        "diameter": training.diameter_px,
        "views": config.views,
        "scale-jitter": config.scale_jitter,
        "foreground": config.foreground,
        "hard": config.hard,
        "features": config.features,
        "held-out": config.held_out,
        "validate-every": config.validate_every,
        "max-drop": config.max_drop,
        "patience": config.patience,
        "standstill": config.standstill,
        "precision": training.precision,
        "seed": training.seed,
    }
    options |= {key: value for key, value in given.items() if value is not None}
    words = [str(o) for key, value in options.items() for o in (f"--{key}", value)]
    words += ["--consistency" if config.consistency else "--no-consistency"]
    words += [o for kind in kinds for o in ("--kind", kind)]
    return shlex.join(["aprcnn", "distil", teacher, student, *(Path(path).name for path in data), *words])


def _tell(step: TrainStep) -> None:
    typer.echo(
        f"step {step.step}/{step.n_steps}  flow {step.flow_loss:.4f}  probability {step.probability_loss:.4f}  "
        f"{step.seconds_per_step:.2f} s/step  {step.seconds_left / 60:.0f} min left",
        err=True,
    )
