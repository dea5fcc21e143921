"""The log of a training on volumes: one CSV with a line for every whole epoch, continued by a resumed training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.io.atomic import write_text

if TYPE_CHECKING:
    from napari_aprcnn.train.reports import EpochReport

__all__ = ["METRICS", "add_metrics", "begin_metrics"]

METRICS = "metrics.csv"
_COLUMNS = ("epoch", "loss", "flow_loss", "probability_loss", "validation_loss", "seconds_per_step")


def begin_metrics(run_dir: Path, done: int) -> None:
    """Begin ``metrics.csv``, or keep its lines of the first `done` epochs.

    Raises
    ------
    TrainingDataError
        If it cannot be read.
    OutputError
        If it cannot be written.
    """
    path, kept = run_dir / METRICS, [",".join(_COLUMNS)]
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if done and path.exists() else []
    except OSError as error:
        raise TrainingDataError(f"cannot read {path}: {error.strerror or error}; move it away to go on") from error
    for line in lines:
        epoch = line.partition(",")[0]
        if epoch.isdecimal() and int(epoch) <= done:
            kept.append(line)
    write_text("\n".join(kept) + "\n", path, overwrite=True)


def add_metrics(run_dir: Path, report: EpochReport) -> None:
    """Add the line of an epoch; numbers to six digits, an empty field where there is no validation."""
    values = [getattr(report, name) for name in _COLUMNS[1:]]
    line = [str(report.epoch), *("" if value is None else f"{value:.6g}" for value in values)]
    with (run_dir / METRICS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(",".join(line) + "\n")
