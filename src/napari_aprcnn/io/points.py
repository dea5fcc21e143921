"""Points in voxels: centres of nuclei, clicked or found. CSV out, and CSV of several programs in."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError, ConfigError, FileFormatError
from napari_aprcnn.io.atomic import beside
from napari_aprcnn.io.points_table import (
    EXPECTED,
    MOST_COLUMNS,
    bounded_lines,
    checked_axes,
    find_lengths,
    find_places,
    read_cells,
    shown,
    voxel_size_of,
)

__all__ = ["Points", "read_points", "write_points"]

Float64Array = NDArray[np.float64]

# Far above any list of nuclei, far below what fills the memory of a laptop.
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class Points:
    """Points of an image, in voxels.

    Attributes
    ----------
    coordinates : (N, D) float64
        Voxel indices; a whole number is the middle of a voxel. Read-only.
    axes
        One letter for each column, in the order T, Z, Y, X: ``"YX"``, ``"ZYX"``, ``"TZYX"``.
    spacing_um
        Voxel size of the spatial axes, in their order, in micrometres; None if it is not known.
    annotators
        Who set each point, or nothing.

    Raises
    ------
    AxesError
        If the axes do not fit the coordinates.
    ConfigError
        If a coordinate is not finite, or the voxel size is not positive.

    Examples
    --------
    >>> points = Points([[3, 10, 20]], axes="ZYX", spacing_um=(2, 0.5, 0.5))
    >>> len(points), points.coordinates_um.tolist()
    (1, [[6.0, 5.0, 10.0]])
    """

    coordinates: Float64Array
    axes: str = "ZYX"
    spacing_um: tuple[float, ...] | None = None
    annotators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        axes = checked_axes(self.axes)
        values = np.array(self.coordinates, dtype=np.float64)
        if values.size == 0:
            values = values.reshape(0, len(axes))
        if values.ndim != 2 or values.shape[1] != len(axes):
            raise AxesError(f"coordinates of shape {values.shape} do not fit axes {axes!r}; expected (N, {len(axes)})")
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ConfigError(f"point {row} is at {values[row].tolist()}; expected finite numbers of voxels")
        names = tuple(str(name) for name in self.annotators)
        if names and len(names) != len(values):
            raise ConfigError(f"{len(names)} annotators for {len(values)} points; expected one for each, or none")
        values.setflags(write=False)
        object.__setattr__(self, "coordinates", values)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "spacing_um", _checked_spacing(self.spacing_um, axes))
        object.__setattr__(self, "annotators", names)

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def spatial_axes(self) -> str:
        """The axes without time."""
        return self.axes.replace("T", "")

    @property
    def spatial(self) -> Float64Array:
        """(N, 2 or 3) voxel indices without time."""
        return self.coordinates[:, len(self.axes) - len(self.spatial_axes) :]

    @property
    def coordinates_um(self) -> Float64Array:
        """(N, 2 or 3) places in micrometres from the middle of the first voxel.

        Raises
        ------
        ConfigError
            If the voxel size is not known.
        """
        if self.spacing_um is None:
            raise ConfigError("the voxel size of these points is not known; set spacing_um")
        return self.spatial * np.asarray(self.spacing_um, np.float64)


def read_points(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    spacing_um: Sequence[float] | None = None,
    axes: str | None = None,
) -> Points:
    r"""Read points out of a table (CSV; comma, semicolon or tab).

    Columns ``t``, ``z``, ``y``, ``x`` are voxels, ``z_um``, ``y_um``, ``x_um`` micrometres, ``annotator`` a name; large
    and small letters are the same. Without voxel columns napari's own (``axis-0``, ``axis-1``, ...) are taken, then
    those in micrometres. Other columns are ignored.

    Parameters
    ----------
    path
        The file.
    columns
        Which column holds which axis, for tables of other programs: ``{"z": "slice", "y": "Y", "x": "X"}``. Keys are
        t, z, y, x, z_um, y_um, x_um and annotator; only these columns are read.
    spacing_um
        Voxel size of the spatial axes (micrometres). Needed where only micrometres are given. Without it it is worked
        out where the table has voxels and micrometres.
    axes
        Meaning of napari's axis columns, by default the last of TZYX.

    Returns
    -------
    Points
        In the order of the file; a table without lines is a list without points.

    Raises
    ------
    FileFormatError
        If it is no such table: columns missing, no number, not finite, too large. Says the line.
    ConfigError, AxesError
        If an argument does not make sense.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "points.csv"
    >>> _ = file.write_text("index,axis-0,axis-1,axis-2\n0,4,10.5,20\n")
    >>> points = read_points(file)
    >>> points.axes, points.coordinates.tolist()
    ('ZYX', [[4.0, 10.5, 20.0]])
    """
    path = Path(path).expanduser()
    _check_columns_argument(columns)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise FileFormatError(f"{path.name} has {size:,} bytes; expected a table of at most {_MOST_BYTES:,}: split it")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(file, path, columns=columns, spacing_um=spacing_um, axes=axes)
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path.name} is no UTF-8 text (byte {error.start:,}); expected a CSV table: export it as CSV (UTF-8)"
        ) from error
    except csv.Error as error:
        raise FileFormatError(f"{path.name} is no CSV table: {error}; export it again") from error


def write_points(points: Points, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write points as CSV (UTF-8, comma, point as decimal mark), whole or not at all.

    Columns are t, z, y, x (voxels, those that there are), z_um, y_um, x_um if the voxel size is known, and annotator
    if it is.

    Raises
    ------
    OutputError
        If it cannot be written, or exists and `overwrite` is off.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "points.csv"
    >>> _ = write_points(Points([[4, 10.5, 20]], spacing_um=(2, 0.5, 0.5)), file)
    >>> file.read_text().splitlines()
    ['z,y,x,z_um,y_um,x_um', '4,10.5,20,8,5.25,10']
    """
    names = list(points.axes.lower())
    lengths = [None] * len(points) if points.spacing_um is None else points.coordinates_um.tolist()
    if points.spacing_um is not None:
        names += [f"{letter}_um" for letter in points.spatial_axes.lower()]
    if points.annotators:
        names.append("annotator")
    with beside(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row, (voxels, micrometres) in enumerate(zip(points.coordinates.tolist(), lengths, strict=True)):
            cells = [repr(value).removesuffix(".0") for value in voxels]
            cells += [f"{value:.12g}" for value in micrometres or ()]
            if points.annotators:
                cells.append(points.annotators[row])
            writer.writerow(cells)
    return Path(path)


# --- checks of what is given ------------------------------------------------------------------------------------------


def _checked_spacing(spacing_um: Sequence[float] | None, axes: str) -> tuple[float, ...] | None:
    if spacing_um is None:
        return None
    spacing = tuple(float(value) for value in spacing_um)
    rank = len(axes.replace("T", ""))
    if len(spacing) != rank or not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ConfigError(f"voxel size {spacing} of points with axes {axes}; expected {rank} positive numbers (um)")
    return spacing


def _check_columns_argument(columns: Mapping[str, str] | None) -> None:
    if columns is None:
        return
    known = {"t", "z", "y", "x", "z_um", "y_um", "x_um", "annotator"}
    if not set(columns) <= known:
        raise ConfigError(f"columns for {sorted(set(columns) - known)}; expected keys out of {sorted(known)}")
    if not all(letter in columns or f"{letter}_um" in columns for letter in "yx"):
        raise ConfigError(f"columns for {sorted(columns)} only; y and x are needed (or y_um and x_um)")


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(
    file: TextIO,
    path: Path,
    *,
    columns: Mapping[str, str] | None,
    spacing_um: Sequence[float] | None,
    axes: str | None,
) -> Points:
    lines = bounded_lines(file, path)
    header = next(lines, "")
    delimiter = max(",;\t", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if len(names) > MOST_COLUMNS:
        raise FileFormatError(f"{path.name} has {len(names):,} columns; expected {EXPECTED}")
    places, annotator = find_places(names, path, columns=columns, axes=axes)
    letters = "".join(place.letter for place in places).upper()
    spacing = _checked_spacing(spacing_um, letters)
    if spacing is None and any(place.in_um for place in places):
        raise FileFormatError(
            f"{path.name} has columns {shown(names)}: places in micrometres only; give the voxel size "
            f"(spacing_um) to turn them into voxels, or add columns in voxels"
        )
    # Voxels and micrometres in one table tell the voxel size.
    extra = [] if spacing is not None or columns is not None else find_lengths(names, letters)
    reader = csv.reader(lines, delimiter=delimiter)
    values, who = read_cells(reader, path, places=[*places, *extra], annotator=annotator, comma=delimiter != ",")
    coordinates = values[:, : len(places)].copy()
    if spacing is not None:
        steps = dict(zip(letters.replace("T", ""), spacing, strict=True))
        for axis, place in enumerate(places):
            if place.in_um:
                coordinates[:, axis] /= steps[place.letter.upper()]
    elif extra:
        spacing = voxel_size_of(coordinates[:, letters.startswith("T") :], values[:, len(places) :])
    return Points(coordinates, axes=letters, spacing_um=spacing, annotators=tuple(who))
