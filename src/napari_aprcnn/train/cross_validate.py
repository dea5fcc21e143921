"""`aprcnn cross-validate`: settings of a distillation compared by folds over images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Annotated

import typer

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.train.distil import distil_on, split, teacher_for
from napari_aprcnn.train.distil_options import PATCHES, Data, Kinds, Output, Student, Teacher, Views
from napari_aprcnn.train.distil_settings import DistilConfig
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.teacher import TeacherPatches, read_images

if TYPE_CHECKING:
    from napari_aprcnn.models.network import Network

__all__ = ["Fold", "cross_validate", "cross_validate_command", "folds_table"]


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
    on_fold: Callable[[Fold, int], None] = lambda _fold, _number: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> list[Fold]:
    """Compare settings by k-fold cross-validation over images (thesis 3.4: 4 folds, 15 epochs).

    Parameters
    ----------
    teacher, data, config, kinds
        As in `distil`.
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
    network = teacher_for(teacher, config)
    images = read_images(data, kinds=kinds)
    found: list[Fold] = []
    for diameter, rate, batch in itertools.product(diameters, learning_rates, batch_sizes):
        training = config.training.replace(diameter_px=diameter, learning_rate=rate, batch_size=batch)
        one = config.replace(training=training, patience=0)
        patches = TeacherPatches(images, network, one, folder=output / PATCHES, should_cancel=should_cancel)
        ious: list[float] = []
        for part in range(folds):
            train, looked_at = split(patches, parts=folds, part=part, seed=training.seed)
            every = max(1, len(train) // batch)
            setting = one.replace(training=training.replace(n_steps=every * epochs), validate_every=every)
            _, iou = distil_on(
                patches,
                train,
                looked_at,
                config=setting,
                teacher_width=network.module.config.widths[3],
                run_dir=output / "folds" / f"{training.architecture}_d{diameter:g}_r{rate:g}_b{batch}_{part}",
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
    views: Views = _DEFAULT.views,
    patch: Annotated[int, typer.Option(help="Edge of a patch, px.")] = _DEFAULT.training.crop_px,
    kind: Kinds = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, initialisation and patches.")] = 0,
) -> None:
    """Compare settings of a distillation by cross-validation over images."""
    training = TrainConfig(architecture=student, crop_px=patch, seed=seed)
    with stop_on_signals() as stop:
        found = cross_validate(
            teacher,
            data,
            output=output,
            config=DistilConfig(training=training, views=views),
            diameters=diameter or (20.0, 25.0, 30.0),
            learning_rates=learning_rate or (5e-4, 1e-3, 2e-3),
            batch_sizes=batch_size or (8,),
            folds=folds,
            epochs=epochs,
            kinds=kind or (),
            on_fold=lambda fold, part: typer.echo(
                f"diameter {fold.diameter_px:g}  rate {fold.learning_rate:g}  batch {fold.batch_size}  fold {part}  "
                f"IoU {fold.ious[-1]:.4f}",
                err=True,
            ),
            should_cancel=stop.is_set,
        )
    typer.echo(folds_table(found))
