"""A table of measurements: as text for people, as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from napari_aprcnn._kernels import instruction_set

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BenchTable", "Cell", "machine"]

Cell = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class BenchTable:
    """What was measured, how, and on what.

    Attributes
    ----------
    title
        One line.
    columns
        Names, with units: ``wall s``.
    rows
        One cell a column; ``None`` is shown as a dash.
    notes
        What a reader must know: versions, repeats, what was left out and why.

    Raises
    ------
    ValueError
        If a row has another number of cells than there are columns.

    Examples
    --------
    >>> print(BenchTable(title="Speed", columns=("who", "wall s"), rows=(("ours", 0.04211), ("theirs", 12.0))).text())
    Speed
    who     wall s
    ------  ------
    ours    0.0421
    theirs    12.0
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"got a row of {len(row)} cells, expected {len(self.columns)}: {row}")

    def text(self) -> str:
        """Return the table in columns of plain text, numbers to the right."""
        cells = [[_words(cell) for cell in row] for row in self.rows]
        widths = [max(len(line[i]) for line in [list(self.columns), *cells]) for i in range(len(self.columns))]
        right = [all(not isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]

        def line(parts: list[str]) -> str:
            places = zip(parts, widths, right, strict=True)
            return "  ".join(part.rjust(width) if end else part.ljust(width) for part, width, end in places).rstrip()

        lines = [self.title, line(list(self.columns)), line(["-" * width for width in widths])]
        return "\n".join([*lines, *(line(row) for row in cells), *(f"* {note}" for note in self.notes)])

    def to_json(self) -> str:
        """Return title, columns, rows, notes and the machine as indented JSON."""
        return json.dumps({**asdict(self), "machine": machine()}, indent=2)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.txt`` and ``NAME.json``; the folder is made.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / f"{name}.txt", folder / f"{name}.json"
        for path, content in zip(paths, (self.text(), self.to_json()), strict=True):
            beside = path.with_suffix(path.suffix + ".part")
            beside.write_text(content + "\n", encoding="utf-8")
            beside.replace(path)
        return paths


def _words(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        # Three significant digits, never an exponent for what people read as a number.
        return f"{cell:.3g}" if 1e-4 <= abs(cell) < 10 and cell != round(cell, 1) else f"{cell:,.1f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def machine() -> dict[str, Cell]:
    """What the figures depend on: processor, cores, load, kernels."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "load": load,
        "python": platform.python_version(),
        "system": platform.platform(),
        "kernels": instruction_set(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a device file
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
