"""A table of all objects of a label image: named columns that sort, filter and follow edits."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError, ConfigError, ImageDtypeError
from napari_aprcnn.io.atomic import beside
from napari_aprcnn.io.objects_filter import filter_rows
from napari_aprcnn.io.objects_measure import Columns, measure_columns

__all__ = ["ObjectTable"]

Spacing = tuple[float, float, float]
_SHOWN = 7  # digits in files
_EARLY = (
    "label", "t", "volume_um3", "area_um2", "volume_vox", "area_px", "sphericity", "solidity", "intensity_mean",
    "neighbours",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Measurements of every object, one row an object and time point, in the order of time and label.

    Columns, in voxels (``px``, ``vox``) and, where the voxel size is known, in micrometres:

    - ``label``, ``t``;
    - ``area_px``, ``area_um2`` or ``volume_vox``, ``volume_um3``, ``equivalent_diameter_um``;
    - ``axis_major_um``, ``axis_middle_um`` (3D), ``axis_minor_um``: of the ellipse or ellipsoid of the same second
      moments;
    - ``surface_um2`` (3D): from the crossings of the border with lines along 13 directions (Crofton), within two
      per cent for round objects of a few hundred voxels, up to a tenth too small for flat faces along the axes;
    - ``sphericity`` (3D): surface of the sphere of equal volume over it, at most 1; ``solidity`` (2D): area over that
      of the convex hull;
    - ``neighbours``: other objects that share a face (2D: an edge) of a voxel with it;
    - ``intensity_mean``, ``_std``, ``_min``, ``_max``, ``_sum``;
    - ``centroid_*`` (from the middle of the first voxel), ``bbox_*`` (half open, voxels), ``touches_border``.

    Attributes
    ----------
    columns
        Arrays of equal length by name; read-only.
    shape
        Of the labels.
    axes
        Letters out of T, Z, Y, X, one for each axis of the labels.
    spacing_um
        Edges (z, y, x) of a voxel.

    Examples
    --------
    >>> labels = np.zeros((3, 6), int)
    >>> labels[:, 1:3], labels[1, 4] = 1, 2
    >>> table = ObjectTable.from_labels(labels, spacing_um=(1, 0.5, 0.5))
    >>> table["area_um2"].tolist(), table["neighbours"].tolist()
    ([1.5, 0.25], [0, 0])
    >>> table.where("area_px > 3 and touches_border").tolist()
    [True, False]
    """

    columns: Mapping[str, NDArray[Any]]
    shape: tuple[int, ...]
    axes: str
    spacing_um: Spacing | None = None

    # --- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_labels(
        cls, labels: Any, *, image: Any = None, spacing_um: Spacing | None = None, axes: str | None = None
    ) -> ObjectTable:
        """Measure a label image.

        Parameters
        ----------
        labels : (T?, Z?, Y, X) integers
            0 is background; one time point is held in memory at a time.
        image : array of the shape of `labels`
            Intensities.
        spacing_um
            Edges (z, y, x) of a voxel in micrometres.
        axes
            One letter for each axis, in the order T, Z, Y, X; by default the last of these.

        Raises
        ------
        AxesError
            If the axes or the image do not fit the labels.
        ImageDtypeError
            If the labels are no integers, or the image is no real numbers.
        """
        axes = _checked(labels, image, axes)
        parts = []
        for t in range(labels.shape[0]) if "T" in axes else [None]:
            volume = np.asarray(labels if t is None else labels[t])
            values = None if image is None else np.asarray(image if t is None else image[t])
            parts.append(_with_time(measure_columns(volume, values, spacing_um=spacing_um), t))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
        return cls(_fixed(_ordered(columns)), tuple(labels.shape), axes, spacing_um)

    def updated(self, labels: Any, *, box: Sequence[slice], image: Any = None, t: int | None = None) -> ObjectTable:
        """Measure again what an edit may have changed: the objects in and beside a box.

        Parameters
        ----------
        labels : array of the shape of the table's labels
            After the edit.
        box
            Slices of Z, Y, X (or Y, X) that hold every changed voxel.
        image
            As given to `from_labels`.
        t
            Time point, where there is a T axis.

        Returns
        -------
        ObjectTable
            Equal to a new measurement of everything.
        """
        frame = labels if t is None else labels[t]
        whole = tuple(frame.shape)
        ids, region = self._affected(frame, box, t)
        outer = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(region, whole, strict=True))
        values = None if image is None else np.asarray((image if t is None else image[t])[outer])
        origin = tuple(s.start for s in outer)
        fresh = _with_time(
            measure_columns(np.asarray(frame[outer]), values, spacing_um=self.spacing_um, origin=origin, whole=whole),
            t,
        )
        fresh = {name: column[np.isin(fresh["label"], ids)] for name, column in fresh.items()}
        stay = ~np.isin(self["label"], ids)
        if t is not None:
            stay |= self["t"] != t
        columns = {name: np.concatenate([column[stay], fresh[name]]) for name, column in self.columns.items()}
        order = np.lexsort([columns[name] for name in ("label", "t") if name in columns])
        columns = {name: column[order] for name, column in columns.items()}
        return ObjectTable(_fixed(columns), self.shape, self.axes, self.spacing_um)

    def _affected(self, frame: Any, box: Sequence[slice], t: int | None) -> tuple[NDArray[Any], tuple[slice, ...]]:
        """Objects that are or were in a box or beside it, and a region that holds all of them."""
        letters = self.axes.replace("T", "").lower()
        near = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, frame.shape, strict=True))
        there = np.unique(np.asarray(frame[near]))
        rows = np.ones(len(self), bool) if t is None else self["t"] == t
        for letter, s in zip(letters, near, strict=True):
            rows &= (self[f"bbox_{letter}0_px"] < s.stop) & (self[f"bbox_{letter}1_px"] > s.start)
        ids = np.union1d(there[there > 0].astype(np.int64), self["label"][rows])
        rows = np.isin(self["label"], ids) if t is None else np.isin(self["label"], ids) & (self["t"] == t)
        region = tuple(
            slice(min([s.start, *self[f"bbox_{letter}0_px"][rows]]), max([s.stop, *self[f"bbox_{letter}1_px"][rows]]))
            for letter, s in zip(letters, near, strict=True)
        )
        return ids, region

    # --- reading -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns.get("label", ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.columns)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        if name not in self.columns:
            raise ConfigError(f"there is no column {name!r}; expected one of {', '.join(self.columns)}")
        return self.columns[name]

    def row(self, label: int, t: int | None = None) -> int | None:
        """Return the row of an object, or ``None``; without `t` that of its first time point."""
        times: list[int | None] = [t]
        if t is None and "t" in self.columns:
            times = list(np.unique(self["t"]).tolist())
        for time in times:
            row = int(self.find([label], time)[0])
            if row >= 0:
                return row
        return None

    def find(self, labels: Sequence[int] | NDArray[np.integer], t: int | None = None) -> NDArray[np.int64]:
        """Return the rows of objects of a time point, -1 where there is none."""
        start, stop = 0, len(self)
        if t is not None and "t" in self.columns:
            start, stop = (int(np.searchsorted(self["t"], t, side)) for side in ("left", "right"))
        known, wanted = self["label"][start:stop], np.asarray(labels, np.int64)
        place = np.searchsorted(known, wanted)
        hit = (place < len(known)) & (known[np.minimum(place, len(known) - 1)] == wanted) if len(known) else None
        return np.full(len(wanted), -1) if hit is None else np.where(hit, place + start, -1).astype(np.int64)

    def box(self, rows: Sequence[int] | NDArray[np.integer]) -> tuple[slice, ...]:
        """Return the box around the objects of some rows, without T."""
        rows = np.asarray(rows, np.int64)
        letters = self.axes.replace("T", "").lower()
        return tuple(
            slice(int(self[f"bbox_{i}0_px"][rows].min()), int(self[f"bbox_{i}1_px"][rows].max())) for i in letters
        )

    # --- sorting and filtering ---------------------------------------------------------------------------------------

    def order(
        self, name: str, *, descending: bool = False, rows: NDArray[np.integer] | None = None
    ) -> NDArray[np.int64]:
        """Return rows sorted by a column: equal ones keep their order, what is no number comes last.

        Parameters
        ----------
        name
            The column.
        descending
            Largest first.
        rows
            Rows to sort; ``None``: all.
        """
        rows = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        values = self[name][rows]
        keys = values.astype(np.float64) if values.dtype.kind == "f" else values.astype(np.int64)
        place = np.argsort(-keys if descending else keys, kind="stable")  # NaN comes last, of either sign
        return np.asarray(rows[place], np.int64)

    def where(self, expression: str) -> NDArray[np.bool_]:
        """Return the rows for which a condition holds, for example ``volume_um3 > 100 and sphericity < 0.8``.

        Raises
        ------
        ConfigError
            If it cannot be read, see `filter_rows`.
        """
        return filter_rows(expression, self.columns, len(self))

    def between(self, **ranges: tuple[float, float]) -> NDArray[np.bool_]:
        """Return the rows whose values lie in ranges, both ends included."""
        keep = np.ones(len(self), bool)
        for name, (low, high) in ranges.items():
            keep &= (self[name] >= low) & (self[name] <= high)
        return keep

    def histogram(
        self, name: str, *, bins: int = 40, rows: NDArray[np.integer] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Count the finite values of a column.

        Returns
        -------
        counts : (bins,) int64
        edges : (bins + 1,) float64
            From the least to the largest value of the whole column, whichever rows are counted.
        """
        every = self[name].astype(np.float64)
        values = every if rows is None else every[rows]
        every = every[np.isfinite(every)]
        limits = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
        if limits[0] == limits[1]:
            limits = (limits[0] - 0.5, limits[1] + 0.5)
        counts, edges = np.histogram(values[np.isfinite(values)], bins=bins, range=limits)
        return counts.astype(np.int64), edges

    # --- files -------------------------------------------------------------------------------------------------------

    def to_csv(self, path: Path | str, *, rows: NDArray[np.integer] | None = None, overwrite: bool = False) -> Path:
        """Write the table as CSV (UTF-8, comma, point as decimal mark), whole or not at all.

        Parameters
        ----------
        path
            Where to.
        rows
            Rows to write, in this order; ``None``: all.
        overwrite
            Replace what is there.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        texts = [_texts(column if rows is None else column[rows]) for column in self.columns.values()]
        with beside(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.names)
            writer.writerows(zip(*texts, strict=True))
        return Path(path)


def _texts(column: NDArray[Any]) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{value:.{_SHOWN}g}" for value in column.tolist()]
    return [str(int(value)) for value in column.tolist()]


def _checked(labels: Any, image: Any, axes: str | None) -> str:
    axes = (axes or "TZYX"[-labels.ndim :]).upper()
    if len(axes) != labels.ndim or axes not in ("YX", "ZYX", "TYX", "TZYX"):
        raise AxesError(
            f"axes {axes!r} do not fit labels of shape {tuple(labels.shape)}; expected YX, ZYX, TYX or TZYX"
        )
    if np.dtype(labels.dtype).kind not in "iub":
        raise ImageDtypeError(f"labels are {labels.dtype}, expected integers; round them first")
    if image is not None and tuple(image.shape) != tuple(labels.shape):
        raise AxesError(
            f"the image has shape {tuple(image.shape)}, the labels {tuple(labels.shape)}; expected the same, without "
            "channels"
        )
    if image is not None and np.dtype(image.dtype).kind not in "iubf":
        raise ImageDtypeError(f"the image is {image.dtype}, expected real numbers; take its magnitude or a part of it")
    return axes


def _with_time(columns: Columns, t: int | None) -> Columns:
    if t is None:
        return columns
    return {"label": columns["label"], "t": np.full(len(columns["label"]), t, np.int64), **columns}


def _fixed(columns: Columns) -> Mapping[str, NDArray[Any]]:
    """Guard the columns from being written to."""
    for column in columns.values():
        column.flags.writeable = False
    return MappingProxyType(columns)


def _ordered(columns: Columns) -> Columns:
    """Put what is looked at first to the front, places last."""
    late = ("centroid_", "bbox_", "touches_")
    early = [name for name in _EARLY if name in columns]
    rest = [name for name in columns if name not in early]
    names = [
        *early,
        *(name for name in rest if not name.startswith(late)),
        *(name for name in rest if name.startswith(late)),
    ]
    return {name: columns[name] for name in names}
