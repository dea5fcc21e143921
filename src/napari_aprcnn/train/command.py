"""`aprcnn train`: from labelled images to a weights file with its card."""

from __future__ import annotations

import shlex
import sys
import time
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
from napari_aprcnn.train.fit import TrainStep, fit
from napari_aprcnn.train.ranges import at_network_scale, int8_spans
from napari_aprcnn.train.run_lock import training_in
from napari_aprcnn.train.sampling import CropSampler
from napari_aprcnn.train.score import Score, score_archive
from napari_aprcnn.train.sets import check_shares, mark_of_sets, read_sets, source_names
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.starts import first_state

if TYPE_CHECKING:
    from napari_aprcnn.models.family import CellposeFamily

__all__ = ["export", "read_sets", "train", "train_command"]

_TOLD_EVERY_S = 2.0  # while data are read and scenes made


def train(
    data: Sequence[Path | str],
    *,
    output: Path | str,
    name: str,
    config: TrainConfig,
    title: str = "",
    data_words: str = "",
    licence: str = "",
    test: Sequence[Path | str] = (),
    command: str | None = None,
    threads: int | None = None,
    initial: Path | str | None = None,
    device: str = "cpu",
    workers: int = 0,
    on_data: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
    progress: Callable[[TrainStep], None] = lambda _: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> tuple[Path, list[Score]]:
    """Train a model, score it, and write ``NAME.safetensors`` with its card ``NAME.json``.

    Parameters
    ----------
    data
        Archives or folders of labelled images (see `train.data`).
    output
        Folder of the result; ``output/NAME_run`` keeps checkpoints and the log, from which an interrupted training
        goes on when it is called again.
    name
        Name of the model and of its files.
    config
        The training.
    title, data_words, licence
        What the card says of the model, its data and its licence.
    test
        Archives or folders to score the model on afterwards, with no diameter given.
    command
        What the card gives as the command that repeats it; default: the command line of this process.
    threads
        Threads of torch; ``None``: as torch chose.
    initial
        Weights to start from, of the same network or of one that has enough in common (`models.growing`); ``None``:
        random.
    device, workers
        As `fit` takes them.
    on_data
        Told what is read or made before the first step, how much of it is done, and all of it.
    progress, should_cancel
        As `fit` takes them; it is also asked after every image that is read and every scene that is made.

    Returns
    -------
    path : Path
        The weights file.
    scores : list of Score
        One for each test set.

    Raises
    ------
    ConfigError
        If the name, a share or another parameter is not usable.
    TrainingError
        If another process trains a model of that name in that folder.
    TrainingDataError
        If data or test sets cannot be read, or the folder holds another training's checkpoint, one of other images too.
    CancelledError
        If `should_cancel` said yes.
    """
    output = Path(output)

    def prepare(what: str, done: int, total: int) -> None:
        on_data(what, done, total)
        if should_cancel():
            raise CancelledError(f"the training was cancelled at {what}, {done} of {total}; run it again to go on")

    check_shares(config.shares, source_names(data))
    check_request(name, config.architecture, device=device, threads=threads, test=test, progress=prepare)
    run_dir = output / f"{name}_run"
    with training_in(run_dir, name), using_threads(threads or torch.get_num_threads()):
        state = first_state(initial, config.architecture, seed=config.seed)
        images = read_sets(data, progress=prepare)
        sampler = CropSampler(
            images,
            seed=config.seed,
            crop_px=config.crop_px,
            diameter_px=config.diameter_px,
            collage=config.collage,
            tissue=config.tissue,
            shares=config.shares,
            workers=workers,
            progress=prepare,
        )
        module = fit(
            sampler,
            config=config,
            run_dir=run_dir,
            initial=state,
            key={"images": mark_of_sets(images)},
            device=device,
            workers=workers,
            progress=progress,
            should_cancel=should_cancel,
        )
        planes = at_network_scale(images, diameter_px=config.diameter_px)
        spans = int8_spans(module, planes, second_channel=config.second_channel)
    words = data_words or ", ".join(source_names(data))
    said = command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    card = _card(name, config, title=title, data=words, licence=licence, command=said, metrics={})
    card = card.replace(int8_spans=spans)
    path = output / f"{name}.safetensors"
    save_model(module, path, card)
    scores = [score_archive(str(path), archive) for archive in test]
    if scores:
        save_model(module, path, card.model_copy(update={"metrics": {s.name: s.summary() for s in scores}}))
    return path, scores


def _card(
    name: str,
    config: TrainConfig,
    *,
    title: str,
    data: str,
    licence: str,
    command: str,
    metrics: Mapping[str, Mapping[str, float]],
) -> ModelCard:
    return ModelCard(
        name=name,
        architecture=config.architecture,
        title=title or f"{config.architecture} trained on labelled nuclei",
        data=data,
        licence=licence or "that of the training data",
        seed=config.seed,
        command=command,
        metrics=dict(metrics),
        diameter_px=config.diameter_px,
        second_channel=config.second_channel,
        border_px=24,
        date=date.today().isoformat(),
        sha256="",
    )


def export(module: CellposeFamily, path: Path | str, config: TrainConfig, *, name: str) -> None:
    """Write the weights of a training that is still going on, with a bare card."""
    save_model(module, Path(path), _card(name, config, title="", data="", licence="", command="", metrics={}))


def train_command(
    data: Annotated[list[str], typer.Argument(help="Zips or folders of images and labels; PATH=SHARE weights one.")],
    name: Annotated[str, typer.Option("--name", help="Name of the model and of its files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the result and of its checkpoints.")],
    architecture: Annotated[str, typer.Option(help="Network of the family; `aprcnn models --table`.")] = "faster_v3",
    steps: Annotated[int, typer.Option(help="Steps of the training.")] = TrainConfig().n_steps,
    batch_size: Annotated[int, typer.Option(help="Crops in a step.")] = TrainConfig().batch_size,
    crop: Annotated[int, typer.Option(help="Edge of a crop, in pixels.")] = TrainConfig().crop_px,
    learning_rate: Annotated[float, typer.Option(help="Highest rate of AdamW.")] = TrainConfig().learning_rate,
    diameter: Annotated[float, typer.Option(help="Diameter nuclei are brought to, px.")] = TrainConfig().diameter_px,
    collage: Annotated[float, typer.Option(help="Share of simulated crowded samples, 0..1.")] = TrainConfig().collage,
    tissue: Annotated[float, typer.Option(help="Share of simulated tissue, 0..1.")] = TrainConfig().tissue,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = TrainConfig().precision,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and samples.")] = 0,
    start: Annotated[str | None, typer.Option("--from", help="Model or weights file to start from.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Zip or folder to score on afterwards.")] = None,
    title: Annotated[str, typer.Option(help="One line for the card.")] = "",
    data_words: Annotated[str, typer.Option("--data", help="What the card says of the data.")] = "",
    licence: Annotated[str, typer.Option(help="What the card says of the licence.")] = "",
    threads: Annotated[int | None, typer.Option(help="Threads; default: all.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, auto.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that prepare batches; 0: a thread.", min=0)] = 0,
) -> None:
    """Train a model on labelled images.

    An interrupted training (Ctrl-C, a kill) goes on from its last checkpoint when the same command is given again.
    """
    paths, shares = _shares(data)
    config = TrainConfig(
        architecture=architecture,
        n_steps=steps,
        batch_size=batch_size,
        crop_px=crop,
        learning_rate=learning_rate,
        diameter_px=diameter,
        collage=collage,
        tissue=tissue,
        precision=precision,
        seed=seed,
        shares=shares,
    )
    with stop_on_signals(aloud=True) as stop:
        path, scores = train(
            paths,
            output=output,
            name=name,
            config=config,
            title=title,
            data_words=data_words,
            licence=licence,
            test=test or [],
            command=_repeat(data, name, output, config, start),
            threads=threads,
            initial=start,
            device=device,
            workers=workers,
            on_data=_seldom(),
            progress=_tell,
            should_cancel=stop.is_set,
        )
    for score in scores:
        typer.echo(f"{score.name}: " + "  ".join(f"{key} {value:.3f}" for key, value in score.summary().items()))
    typer.echo(f"wrote {path}")


def _repeat(data: Sequence[str], name: str, output: Path, config: TrainConfig, start: str | None) -> str:
    """The command that repeats a training, every parameter that decides the weights spelled out."""
    options = {
        "name": name,
        "output": output,
        "architecture": config.architecture,
        "steps": config.n_steps,
        "batch-size": config.batch_size,
        "crop": config.crop_px,
        "learning-rate": config.learning_rate,
        "diameter": config.diameter_px,
        "collage": config.collage,
        "tissue": config.tissue,
        "precision": config.precision,
        "seed": config.seed,
    }
    if start is not None:
        options["from"] = start
    return shlex.join(
        ["aprcnn", "train", *data, *(str(o) for key, value in options.items() for o in (f"--{key}", value))]
    )


def _shares(data: Sequence[str]) -> tuple[list[Path], dict[str, float]]:
    """Split ``PATH=SHARE``; shares are those of the sources' names."""
    paths, given = [], []
    for item in data:
        head, mark, tail = item.rpartition("=")
        share = None
        if mark and not Path(item).exists():
            try:
                share = float(tail)
            except ValueError as error:
                raise ConfigError(
                    f"got the share {tail!r} in {item!r}, expected a number, as in train.zip=0.5"
                ) from error
            item = head
        paths.append(Path(item))
        given.append(share)
    shares: dict[str, float] = {}
    names = source_names(paths)
    for name, share in zip(names, given, strict=True):
        if share is None:
            continue
        if name in shares and shares[name] != share:
            raise ConfigError(f"got {name!r} with the shares {shares[name]:g} and {share:g}; give it once")
        shares[name] = share
    check_shares(shares, names)
    return paths, shares


def _seldom() -> Callable[[str, int, int], None]:
    """Tell what is read and made every now and then, and when it is done."""
    told = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > _TOLD_EVERY_S:
            told = time.monotonic()
            typer.echo(f"{what}: {done} of {total}", err=True)

    return tell


def _tell(step: TrainStep) -> None:
    typer.echo(
        f"step {step.step}/{step.n_steps}  flow {step.flow_loss:.4f}  probability {step.probability_loss:.4f}  "
        f"rate {step.learning_rate:.1e}  {step.seconds_per_step:.2f} s/step  {step.seconds_left / 60:.0f} min left",
        err=True,
    )
