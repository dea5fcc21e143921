"""What models find in labelled images, nothing told: F1 beside the goals, a teacher, and fewer bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from napari_aprcnn._kernels.planes import can_quantise
from napari_aprcnn.bench.table import BenchTable, Cell
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import ConfigError, WeightsError
from napari_aprcnn.io.samples import sample_labels_path, sample_path
from napari_aprcnn.models.volume_network import VolumeNetwork
from napari_aprcnn.models.zoo import card_of, load_model
from napari_aprcnn.train.score import Score, score_archive

__all__ = ["GOALS", "table"]

Precision = Literal["float32", "bfloat16", "int8"]
SAMPLES = ("culture", "large-nuclei", "u2os", "muscle")


class Goal(NamedTuple):
    """F1 at IoU .5 and .7, and how far the default may be behind its teacher at .5."""

    f1_50: float
    f1_70: float
    behind: float


# By the name of an archive; the last is of an organ that nothing was trained on.
GOALS = {
    "dsb2018_fluo_test": Goal(0.94, 0.87, 0.01),
    "bbbc039_test": Goal(0.97, 0.95, 0.01),
    "bitdepth_test": Goal(0.82, 0.66, 0.02),
}
BITS_LOSS = 0.003


def table(
    *,
    data: Sequence[Path] | None = None,
    models: Sequence[str] | None = None,
    teacher: Path | None = None,
    threads: int = 2,
    quick: bool = False,
) -> BenchTable:
    """Segment labelled images through the whole pipeline, the diameter looked for, and match what is found.

    Parameters
    ----------
    data
        Archives or folders of labelled 2D images; ``None``: the package's own 2D samples.
    models
        Names or files; ``None``: the default model.
    teacher
        Weights of the network that the models are compared with; scored like them.
    threads
        Threads of a run.
    quick
        Every image of a large set is one of about eight.

    Returns
    -------
    BenchTable
        A row for each set, model and arithmetic.

    Raises
    ------
    TrainingDataError
        If the data cannot be read.
    ConfigError
        If a model is one for volumes, or there is none of that name.
    """
    limit = 8 if quick else None
    names = [*models] if models else [SegmentConfig().model]
    rows: list[tuple[Cell, ...]] = []
    with TemporaryDirectory() as folder:
        for path in data or [_samples(Path(folder))]:
            taught = None if teacher is None else _score(str(teacher), path, "float32", threads, limit)
            if taught is not None:
                rows.append(_row("teacher", "float32", taught, None, None))
            for name in names:
                full = _score(name, path, "float32", threads, limit)
                rows.append(_row(name, "float32", full, taught, None))
                rows += [
                    _row(name, fewer, _score(name, path, fewer, threads, limit), taught, full)
                    for fewer in _fewer_bits(name)
                ]
    notes = [
        "whole pipeline, nothing told; F1 pooled over the nuclei of a set",
        "goals: "
        + "; ".join(f"{name} {g.f1_50:g} / {g.f1_70:g}, {g.behind:g} behind a teacher" for name, g in GOALS.items()),
        f"bfloat16 and int8: at most {BITS_LOSS:g} below float32",
    ]
    if not data:
        notes.append("samples of the package (--data takes other sets); two of them are of the validation part")
    return BenchTable(
        title="F1 of labelled images",
        columns=("set", "model", "arithmetic", "F1 .5", "F1 .7", "to teacher", "lost by fewer bits", "reached", "s"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


class _Scored(NamedTuple):
    score: Score
    seconds: float


def _samples(folder: Path) -> Path:
    """Return a folder of the package's 2D samples and their labels."""
    place = folder / "samples"
    place.mkdir()
    for name in SAMPLES:
        for source in (sample_path(name), sample_labels_path(name)):
            (place / source.name).write_bytes(source.read_bytes())
    return place


def _fewer_bits(model: str) -> tuple[Precision, ...]:
    """What else the model can be run in, beside float32."""
    try:
        ranges = card_of(model).int8_spans
    except WeightsError:  # a file without a card
        ranges = {}
    return ("bfloat16", "int8") if ranges and can_quantise() else ("bfloat16",)


def _score(model: str, path: Path, precision: Precision, threads: int, limit: int | None) -> _Scored:
    network = load_model(model, precision=precision, device="cpu", threads=threads)
    if isinstance(network, VolumeNetwork):
        raise ConfigError(f"{model} is a network for volumes; score it with benchmarks/score_volumes.py")
    start = time.perf_counter()
    score = score_archive(network, path, limit=limit, threads=threads)
    return _Scored(score, time.perf_counter() - start)


def _row(name: str, arithmetic: str, found: _Scored, taught: _Scored | None, full: _Scored | None) -> tuple[Cell, ...]:
    first, second = found.score.f1(0.5), found.score.f1(0.7)
    gap = None if taught is None else first - taught.score.f1(0.5)
    lost = None if full is None else full.score.f1(0.5) - first
    return (
        found.score.name, name, arithmetic, first, second, gap, lost,
        _reached(found.score.name, arithmetic, first, second, gap, lost) if name != "teacher" else None, found.seconds,
    )  # fmt: skip


def _reached(name: str, arithmetic: str, first: float, second: float, gap: float | None, lost: float | None) -> str:
    """Which goals are met: F1, the gap to the teacher, what fewer bits lose."""
    met: list[str] = []
    goal = GOALS.get(name)
    if goal is not None and lost is None:
        met.append("F1 " + _word(first >= goal.f1_50 and second >= goal.f1_70))
        if gap is not None:
            met.append("teacher " + _word(gap >= -goal.behind))
    if lost is not None:
        met.append(f"{arithmetic} " + _word(lost <= BITS_LOSS))
    return ", ".join(met) or "-"


def _word(met: bool) -> str:
    return "yes" if met else "no"
