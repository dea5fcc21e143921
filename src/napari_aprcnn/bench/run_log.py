"""The runs of this user, kept between sessions: one line of JSON a run, compared in a table."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field

from napari_aprcnn.errors import ConfigError, OutputError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text
from napari_aprcnn.segment.memory import words_bytes
from napari_aprcnn.segment.readout import Readout

__all__ = ["COLUMNS", "METRICS", "RunLog", "RunRecord", "markdown", "run_log_path", "runs_json", "write_runs"]

logger = logging.getLogger(__name__)

KEPT = 500
COLUMNS = ("when", "model", "time", "memory", "PRR", "F1", "nuclei", "Mvoxel/s", "image", "device")
METRICS = {
    "seconds": "time, s",
    "voxels_per_s": "million voxels/s",
    "memory_added_bytes": "memory added, MB",
    "prr": "voxels a particle (PRR)",
    "n_objects": "nuclei",
    "f1": "F1",
}


class RunRecord(Frozen):
    """A run and what is known of it.

    Attributes
    ----------
    key
        Names the run; labels carry it, so that an evaluation finds it.
    when
        ISO 8601, UTC.
    image
        Name of the image.
    readout
        Figures of the run.
    f1, f1_threshold
        F1 of an evaluation of its labels and the IoU threshold of it (0: against points); ``None``: not evaluated.
    """

    key: str = Field(default_factory=lambda: uuid.uuid4().hex[:12])
    when: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    image: str
    readout: Readout
    f1: float | None = None
    f1_threshold: float | None = None

    def value(self, metric: str) -> float | None:
        """Return a figure by its name in `METRICS`, in the unit given there; ``None``: not known."""
        if metric == "f1":
            return self.f1
        value = float(getattr(self.readout, metric))
        if metric == "prr" and not value:
            return None
        return value / 1e6 if metric in ("voxels_per_s", "memory_added_bytes") else value

    def cells(self) -> tuple[str, ...]:
        """Return the run as the table shows it, in the order of `COLUMNS`."""
        r = self.readout
        when = datetime.fromisoformat(self.when).astimezone()
        return (
            f"{when:%d %b %H:%M}",
            r.model,
            f"{r.seconds:.2f} s" if r.seconds < 10 else f"{r.seconds:.1f} s",
            words_bytes(r.memory_added_bytes),
            f"{r.prr:.1f}" if r.prr else "-",
            "-" if self.f1 is None else f"{self.f1:.3f}",
            str(r.n_objects),
            f"{r.voxels_per_s / 1e6:.2f}",
            self.image,
            f"{r.device}, {r.threads} threads" if "thread" not in r.device else r.device,
        )


def run_log_path() -> Path:
    """Return the file of the runs; the environment variable ``APRCNN_CONFIG_DIR`` moves its folder."""
    folder = os.environ.get("APRCNN_CONFIG_DIR") or platformdirs.user_data_dir("napari-aprcnn", appauthor=False)
    return Path(folder) / "runs.jsonl"


class RunLog:
    """The runs in a file, the oldest first.

    Parameters
    ----------
    path
        A ``.jsonl`` file; ``None``: the user's.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or run_log_path()

    def records(self) -> list[RunRecord]:
        """Read the runs. Lines that cannot be read (a newer version, a full disk) are left out and stay in the file."""
        return [record for record, _ in self._lines() if record is not None]

    def add(self, record: RunRecord) -> bool:
        """Append a run; whether it could be written. What cannot is logged: it must not cost a result."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(record.model_dump_json() + "\n")
        except OSError as error:
            logger.warning("the run cannot be noted in %s: %s", self.path, error)
            return False
        lines = self._texts()
        if len(lines) > KEPT + KEPT // 10:
            try:
                self._write(lines[-KEPT:])
            except OutputError as error:
                logger.warning("old runs cannot be forgotten: %s", error)
        return True

    def remove(self, keys: Iterable[str]) -> None:
        """Forget runs.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        gone = set(keys)
        self._write(line for record, line in self._lines() if record is None or record.key not in gone)

    def note_score(self, key: str, f1: float, *, threshold: float) -> bool:
        """Note the F1 of a run's labels; whether there is such a run.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        lines = self._lines()
        if not any(record is not None and record.key == key for record, _ in lines):
            return False
        self._write(
            record.replace(f1=f1, f1_threshold=threshold).model_dump_json()
            if record is not None and record.key == key
            else line
            for record, line in lines
        )
        return True

    def _lines(self) -> list[tuple[RunRecord | None, str]]:
        return [(_record(line), line) for line in self._texts()]

    def _texts(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("the runs in %s cannot be read: %s", self.path, error)
            return []
        return [line for line in text.splitlines() if line.strip()]

    def _write(self, lines: Iterable[str]) -> None:
        kept = list(lines)
        if kept or self.path.exists():
            write_text("".join(f"{line}\n" for line in kept), self.path, overwrite=True)


def _record(line: str) -> RunRecord | None:
    try:
        values: Any = json.loads(line)
        return RunRecord(**values)
    except (ValueError, TypeError, ConfigError):
        return None


def markdown(records: Sequence[RunRecord]) -> str:
    """Return runs as a Markdown table.

    Examples
    --------
    >>> markdown([]).splitlines()[0]
    '| when | model | time | memory | PRR | F1 | nuclei | Mvoxel/s | image | device |'
    """
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(record.cells() for record in records)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def runs_json(records: Sequence[RunRecord]) -> str:
    """Return runs with every figure of their readouts as JSON."""
    return json.dumps([json.loads(record.model_dump_json()) for record in records], indent=2) + "\n"


def write_runs(records: Sequence[RunRecord], path: Path | str) -> Path:
    """Write runs as JSON, or as Markdown where the name ends in ``.md``.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = markdown(records) + "\n" if str(path).lower().endswith(".md") else runs_json(records)
    if not records:
        raise OutputError("there is no run to save; segment an image first, or select runs in the table")
    write_text(text, path, overwrite=True)
    return Path(path)
