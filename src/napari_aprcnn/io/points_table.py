"""Tables of points as text: which column is which axis, cells as numbers, limits on files that nobody vouches for."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError, FileFormatError

__all__ = [
    "EXPECTED",
    "MOST_COLUMNS",
    "Column",
    "bounded_lines",
    "checked_axes",
    "find_lengths",
    "find_places",
    "read_cells",
    "shown",
    "voxel_size_of",
]

Float64Array = NDArray[np.float64]

# Far above any list of nuclei, far below what fills the memory of a laptop.
_MOST_POINTS = 20_000_000
MOST_COLUMNS = 4096
_MOST_LINE = 1 << 20
_MOST_COORDINATE = 1e9
_AXES = "TZYX"
EXPECTED = "z,y,x (voxels; t before them for a time series), napari's axis-0,axis-1,..., or z_um,y_um,x_um"


@dataclass(frozen=True)
class Column:
    """Where an axis is found."""

    letter: str
    index: int
    in_um: bool
    name: str


def checked_axes(axes: str) -> str:
    """Axes in capitals, once they are known to be some of T, Z, Y, X in this order."""
    letters = str(axes).upper()
    if letters not in {"YX", "ZYX", "TYX", "TZYX"}:
        raise AxesError(f"axes {axes!r} of points; expected YX, ZYX, TYX or TZYX")
    return letters


def bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Lines of bounded length: a file without a line break must not be read whole."""
    number = 0
    while line := file.readline(_MOST_LINE + 1):
        number += 1
        if len(line) > _MOST_LINE:
            raise FileFormatError(f"{path.name}: line {number} has more than {_MOST_LINE:,} characters; no CSV table")
        yield line


def find_places(
    names: list[str], path: Path, *, columns: Mapping[str, str] | None, axes: str | None
) -> tuple[list[Column], int | None]:
    """Find the columns of the axes and of the annotator."""
    if columns is not None:
        found = {key: _index(names, name, path, exact=True) for key, name in columns.items()}
    else:
        lower = [name.lower() for name in names]
        keys = [*"tzyx", "z_um", "y_um", "x_um", "annotator"]
        found = {key: _index(names, key, path) for key in keys if key in lower}
        if not any(letter in found for letter in "zyx"):
            found |= _napari_columns(names, path, axes)
    places = []
    for letter in "tzyx":
        key = letter if letter in found else f"{letter}_um"
        if key in found:
            places.append(Column(letter, found[key], key != letter, names[found[key]]))
    if not {"y", "x"} <= {place.letter for place in places}:
        raise FileFormatError(
            f"{path.name} has columns {shown(names)}; expected {EXPECTED}: "
            f"name the columns that hold z, y and x (columns=), or export the points again"
        )
    return places, found.get("annotator")


def _napari_columns(names: list[str], path: Path, axes: str | None) -> dict[str, int]:
    n_axes = 0
    while f"axis-{n_axes}" in names:
        n_axes += 1
    if n_axes == 0:
        return {}
    if axes is None and n_axes not in (2, 3, 4):
        raise FileFormatError(f"{path.name} has {n_axes} axes (axis-0, ...); expected 2 (y, x) to 4 (t, z, y, x)")
    letters = checked_axes(axes if axes is not None else _AXES[-n_axes:])
    if len(letters) != n_axes:
        raise AxesError(f"axes {letters!r} for {path.name}, which has {n_axes} axes; expected one letter for each")
    return {letter: names.index(f"axis-{axis}") for axis, letter in enumerate(letters.lower())}


def _index(names: list[str], wanted: str, path: Path, *, exact: bool = False) -> int:
    hits = [i for i, name in enumerate(names) if (name if exact else name.lower()) == wanted]
    if len(hits) == 1:
        return hits[0]
    problem = "no" if not hits else f"{len(hits)}"
    raise FileFormatError(
        f"{path.name} has {problem} columns {wanted!r}, expected one; its columns are {shown(names)}: choose another"
    )


def find_lengths(names: list[str], letters: str) -> list[Column]:
    """Columns in micrometres of all spatial axes; none if one is missing."""
    lower = [name.lower() for name in names]
    wanted = [f"{letter}_um" for letter in letters.lower() if letter != "t"]
    if any(lower.count(name) != 1 for name in wanted):
        return []
    return [Column(name[0], lower.index(name), True, names[lower.index(name)]) for name in wanted]


def read_cells(
    reader: Iterator[list[str]], path: Path, *, places: list[Column], annotator: int | None, comma: bool
) -> tuple[Float64Array, list[str]]:
    """Read the numbers of all lines, and the names."""
    numbers, who, count = array("d"), list[str](), 0
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        count += 1
        if count > _MOST_POINTS:
            raise FileFormatError(f"{path.name} has more than {_MOST_POINTS:,} points; split the table")
        for place in places:
            numbers.append(_number(row, place, path, line=reader.line_num + 1, comma=comma))  # type: ignore[attr-defined]
        if annotator is not None:
            who.append(row[annotator].strip() if annotator < len(row) else "")
    return np.frombuffer(numbers, np.float64).reshape(count, len(places)) if count else np.empty((0, len(places))), who


def _number(row: list[str], place: Column, path: Path, *, line: int, comma: bool) -> float:
    text = row[place.index].strip() if place.index < len(row) else ""
    # A table with semicolons comes from a country where the decimal mark is a comma.
    try:
        value = float(text.replace(",", ".") if comma else text)
    except ValueError:
        value = math.nan
        if text.lower() not in ("nan", "+nan", "-nan"):
            raise FileFormatError(
                f"{path.name}, line {line}: column {place.name!r} holds {text[:40]!r}; expected a number"
            ) from None
    if not abs(value) <= _MOST_COORDINATE:
        raise FileFormatError(
            f"{path.name}, line {line}: column {place.name!r} holds {text[:40]!r}; expected a finite number "
            f"up to {_MOST_COORDINATE:g}: correct or remove the line"
        )
    return value


def voxel_size_of(voxels: Float64Array, lengths: Float64Array) -> tuple[float, ...] | None:
    """Voxel size out of places in voxels and in micrometres; None where an axis does not tell."""
    spacing = []
    for axis in range(voxels.shape[1]):
        far = int(np.abs(voxels[:, axis]).argmax()) if len(voxels) else 0
        if not len(voxels) or abs(voxels[far, axis]) < 0.5:
            return None
        step = float(lengths[far, axis] / voxels[far, axis])
        # Tables whose micrometres count from elsewhere do not tell a voxel size.
        if not step > 0 or not np.allclose(lengths[:, axis], step * voxels[:, axis], rtol=1e-3, atol=0.02 * step):
            return None
        spacing.append(float(f"{step:.8g}"))
    return tuple(spacing)


def shown(names: list[str]) -> str:
    """The first names of columns, for a message."""
    words = ", ".join(repr(name[:40]) for name in names[:20])
    return f"{words}, and {len(names) - 20} more" if len(names) > 20 else words or "none"
