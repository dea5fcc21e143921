"""`aprcnn cross-validate`: settings of a distillation compared by folds over images."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.io.atomic import make_folder, write_text
from napari_aprcnn.models.network import using_threads
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
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.starts import first_state
from napari_aprcnn.train.teacher import TeacherPatches

if TYPE_CHECKING:
    from napari_aprcnn.models.network import Network

__all__ = ["Fold", "cross_validate", "cross_validate_command", "folds_table", "write_folds"]

TABLE = "folds.csv"


@dataclass(frozen=True)
class Fold:
    """IoU of students with their teacher, for one setting.

    Attributes
    ----------
    diameter_px, learning_rate, batch_size
        The setting.
    ious
        One for each fold.
    """

    diameter_px: float
    learning_rate: float
    batch_size: int
    ious: tuple[float, ...]


def cross_validate(
    teacher: Network | str | Path,
    data: Sequence[Path | str],
    *,
    output: Path | str,
    config: DistilConfig,
    diameters: Sequence[float],
    learning_rates: Sequence[float],
    batch_sizes: Sequence[int],
    folds: int = 4,
    epochs: int = 15,
    kinds: Sequence[str] = (),
    channel: int | None = None,
    initial: Path | str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    workers: int = 0,
    on_patches: Callable[[int, int], None] = lambda _done, _total: None,
    on_fold: Callable[[Fold, int], None] = lambda _fold, _number: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> list[Fold]:
    """Compare settings by k-fold cross-validation over images (thesis 3.4: 4 folds, 15 epochs).

    Planes of one file are in one fold.

    Parameters
    ----------
    teacher, data, config, kinds, channel, initial, threads, device, workers, on_patches
        As in `distil`; every fold starts from `initial`.
    output
        Folder of patches and runs; an interrupted comparison goes on from there.
    diameters, learning_rates, batch_sizes
        Every combination is tried.
    folds, epochs
        How many parts, and passes over the patches in each.
    on_fold
        Told a setting with the IoUs so far, and the number of the fold.
    should_cancel
        Asked at every step.

    Returns
    -------
    list of Fold
        The best mean first.

    Raises
    ------
    ConfigError, TrainingDataError, CancelledError
        As in `distil`.
    """
    output = Path(output)
    found: list[Fold] = []
    with using_threads(threads or torch.get_num_threads()):
        network = teacher_for(teacher, config, device=device, threads=threads)
        images = read_images(data, kinds=kinds, channel=channel)
        state = first_state(initial, config.training.architecture, seed=config.training.seed)
        for diameter, rate, batch in itertools.product(diameters, learning_rates, batch_sizes):
            training = config.training.replace(diameter_px=diameter, learning_rate=rate, batch_size=batch)
            one = config.replace(training=training, patience=0)
            patches = TeacherPatches(
                images, network, one, folder=output / PATCHES, progress=on_patches, should_cancel=should_cancel
            )
            # All of them first, from the last, which is the first to lack images: that is told before any training.
            parts = [split(patches, parts=folds, part=part, seed=training.seed) for part in reversed(range(folds))]
            ious: list[float] = []
            for part, (train, looked_at) in enumerate(reversed(parts)):
                every = max(1, len(train) // batch)
                setting = one.replace(training=training.replace(n_steps=every * epochs), validate_every=every)
                name = f"{training.architecture}_d{diameter:g}_r{rate:g}_b{batch}_e{epochs}_{part}of{folds}"
                _, iou = distil_on(
                    patches,
                    train,
                    looked_at,
                    config=setting,
                    teacher_width=network.module.config.widths[3],
                    run_dir=output / "folds" / name,
                    initial=state,
                    device=device,
                    workers=workers,
                    should_cancel=should_cancel,
                )
                ious.append(iou)
                on_fold(Fold(diameter, rate, batch, tuple(ious)), part)
            found.append(Fold(diameter, rate, batch, tuple(ious)))
    return sorted(found, key=lambda fold: -mean(fold.ious))


def folds_table(folds: Sequence[Fold]) -> str:
    """A Markdown table of a comparison, the best first."""
    rows = [
        "| diameter px | learning rate | batch | IoU with the teacher | folds |",
        "| ---: | ---: | ---: | --- | --- |",
    ]
    for fold in folds:
        each = " ".join(f"{iou:.3f}" for iou in fold.ious)
        rows.append(
            f"| {fold.diameter_px:g} | {fold.learning_rate:g} | {fold.batch_size} "
            f"| {mean(fold.ious):.3f} +- {pstdev(fold.ious):.3f} | {each} |"
        )
    return "\n".join(rows)


def write_folds(folds: Sequence[Fold], path: Path | str) -> Path:
    """Write a comparison as a table, the best first; one that is there is replaced.

    Parameters
    ----------
    folds
        The comparison.
    path
        ``NAME.csv``: diameter in px, rate, batch, mean and standard deviation of the IoU, IoU of each fold;
        ``NAME.md``: as `folds_table`.

    Raises
    ------
    ConfigError
        If the name ends otherwise.
    OutputError
        If it cannot be written.
    """
    path = _table_path(path)
    make_folder(path.parent)
    if path.suffix.lower() == ".md":
        return write_text(folds_table(folds) + "\n", path, overwrite=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    each = [f"iou_fold_{number}" for number in range(max((len(fold.ious) for fold in folds), default=0))]
    writer.writerow(["diameter_px", "learning_rate", "batch_size", "iou_mean", "iou_sd", *each])
    for fold in folds:
        values = (mean(fold.ious), pstdev(fold.ious), *fold.ious)
        writer.writerow([fold.diameter_px, fold.learning_rate, fold.batch_size, *(f"{value:.6f}" for value in values)])
    return write_text(text.getvalue(), path, overwrite=True)


def _table_path(path: Path | str) -> Path:
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".csv", ".md"):
        raise ConfigError(f"got the table {path.name!r}; expected a name that ends in .csv or .md")
    return path


_DEFAULT = DistilConfig()


def cross_validate_command(
    teacher: Teacher,
    student: Student,
    data: Data,
    output: Output,
    diameter: Annotated[list[float] | None, typer.Option(help="Repeatable. Default: 20, 25, 30.")] = None,
    learning_rate: Annotated[list[float] | None, typer.Option(help="Repeatable. Default: 5e-4, 1e-3, 2e-3.")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="Repeatable. Default: 8.")] = None,
    folds: Annotated[int, typer.Option(help="Parts of the images.", min=2)] = 4,
    epochs: Annotated[int, typer.Option(help="Passes over the patches.", min=1)] = 15,
    table: Annotated[
        Path | None, typer.Option(help=f"Where to write the table, .csv or .md; default: {TABLE} in the output.")
    ] = None,
    views: Views = _DEFAULT.views,
    scale_jitter: Jitter = _DEFAULT.scale_jitter,
    foreground: Foreground = _DEFAULT.foreground,
    patch: Annotated[int, typer.Option(help="Edge of a patch, px.")] = _DEFAULT.training.crop_px,
    weight_decay: WeightDecay = _DEFAULT.training.weight_decay,
    kind: Kinds = None,
    channel: Channel = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, initialisation and patches.")] = 0,
    start: Start = None,
    threads: Threads = None,
    device: Device = "cpu",
    workers: Workers = 0,
) -> None:
    """Compare settings of a distillation by cross-validation over images.

    An interrupted comparison goes on when the same command is given again.
    """
    training = TrainConfig(architecture=student, crop_px=patch, weight_decay=weight_decay, seed=seed)
    written = _table_path(table or output / TABLE)
    with stop_on_signals(aloud=True) as stop:
        found = cross_validate(
            teacher,
            data,
            output=output,
            config=DistilConfig(training=training, views=views, scale_jitter=scale_jitter, foreground=foreground),
            diameters=diameter or (20.0, 25.0, 30.0),
            learning_rates=learning_rate or (5e-4, 1e-3, 2e-3),
            batch_sizes=batch_size or (8,),
            folds=folds,
            epochs=epochs,
            kinds=kind or (),
            channel=channel,
            initial=start,
            threads=threads,
            device=device,
            workers=workers,
            on_patches=lambda done, total: typer.echo(f"teacher: {done} of {total} images", err=True),
            on_fold=lambda fold, part: typer.echo(
                f"diameter {fold.diameter_px:g}  rate {fold.learning_rate:g}  batch {fold.batch_size}  fold {part}  "
                f"IoU {fold.ious[-1]:.4f}",
                err=True,
            ),
            should_cancel=stop.is_set,
        )
    write_folds(found, written)
    typer.echo(folds_table(found))
    typer.echo(f"wrote {written}", err=True)
