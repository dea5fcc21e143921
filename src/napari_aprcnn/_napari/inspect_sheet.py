"""The table as it is looked at: filtered, sorted, with a chosen column and selected objects. No Qt here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_aprcnn._napari.inspect_edits import Key
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.io.object_table import ObjectTable

__all__ = ["Sheet"]

_FIRST = ("volume_um3", "volume_vox", "area_um2", "area_px")


class Sheet:
    """What the dock shows of a table.

    Attributes
    ----------
    table
        Measurements, ``None`` before the first ones.
    rows : (N,) int64
        Rows of the table that the filter keeps, in the order of the sorted column.
    selected
        Time point (or ``None``) and label of the selected objects.
    filter_text, filter_problem
        The condition, and why it is not used.
    sorted_by, descending
        How the rows are sorted; an empty name: by time point and label.
    column
        Column of the histogram and the colours.
    changed : Signal(str)
        ``table``, ``rows``, ``column``, ``selection``.
    """

    changed = Signal(str)

    def __init__(self) -> None:
        self.table: ObjectTable | None = None
        self.rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self.selected: tuple[Key, ...] = ()
        self.filter_text = self.filter_problem = ""
        self.sorted_by, self.descending = "", False
        self.column = ""

    def take(self, table: ObjectTable | None) -> None:
        """Show another table; filter, order, column and selection stay as far as they fit."""
        self.table = table
        other = table is not None and self.column not in table.columns
        if table is not None and other:
            self.column = next((name for name in _FIRST if name in table.columns), table.names[0])
        if table is None or self.sorted_by not in table.columns:
            self.sorted_by = ""
        self.selected = tuple(self.keys(self.selected_rows))
        self._arrange()  # before anybody looks: the former rows may not be there any more
        for what in (*(("column",) if other else ()), "table", "rows", "selection"):
            self.changed.emit(what)

    @property
    def words(self) -> str:
        """How many objects there are, are shown, are selected."""
        n, shown = 0 if self.table is None else len(self.table), len(self.rows)
        if not n:
            return "The labels have no object: segment an image, or paint some."
        parts = [f"{n:,} objects" if n != 1 else "1 object"]
        parts += [f"{shown:,} shown"] if shown != n else []
        parts += [f"{len(self.selected):,} selected"] if self.selected else []
        return ", ".join(parts)

    # --- rows --------------------------------------------------------------------------------------------------------

    def set_filter(self, text: str) -> bool:
        """Show only the objects for which a condition holds; of one that cannot be read, all."""
        self.filter_text = text.strip()
        self._arrange()
        self.changed.emit("rows")
        return not self.filter_problem

    def sort(self, column: str, *, descending: bool) -> None:
        """Sort by a column; an empty name: by label."""
        self.sorted_by, self.descending = column, descending
        self._arrange()
        self.changed.emit("rows")

    def _arrange(self) -> None:
        table, self.filter_problem = self.table, ""
        if table is None:
            self.rows = np.zeros(0, np.int64)
        else:
            try:
                keep = np.flatnonzero(table.where(self.filter_text))
            except ConfigError as error:
                self.filter_problem = str(error)[:1].upper() + str(error)[1:]
                keep = np.arange(len(table))
            name = self.sorted_by
            self.rows = table.order(name, descending=self.descending, rows=keep) if name else keep

    @property
    def is_filtered(self) -> bool:
        """Whether some objects are not shown."""
        return self.table is not None and len(self.rows) < len(self.table)

    # --- the column --------------------------------------------------------------------------------------------------

    def choose_column(self, name: str) -> None:
        """Choose the column of the histogram and the colours."""
        if self.table is not None and name in self.table.columns and name != self.column:
            self.column = name
            self.changed.emit("column")

    def histogram(self) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Count the values of the chosen column among the shown objects."""
        if self.table is None or not len(self.table):
            return None
        return self.table.histogram(self.column, rows=self.rows)

    # --- selecting ---------------------------------------------------------------------------------------------------

    def key(self, row: int) -> Key:
        """Return time point and label of a row of the table.

        Raises
        ------
        ConfigError
            If there is no table.
        """
        table = self.table
        if table is None:
            raise ConfigError("there is no table yet; measure the labels first")
        return (int(table["t"][row]) if "t" in table.columns else None, int(table["label"][row]))

    def select(self, keys: Sequence[Key]) -> bool:
        """Select objects; returns whether others were selected before."""
        if tuple(keys) == self.selected:
            return False
        self.selected = tuple(keys)
        self.changed.emit("selection")
        return True

    def select_rows(self, rows: Iterable[int]) -> None:
        """Select the objects of rows of the table."""
        self.select(self.keys(rows))

    def keys(self, rows: Iterable[int]) -> list[Key]:
        """Return time points and labels of rows of the table."""
        table = self.table
        if table is None:
            return []
        chosen = np.fromiter(rows, np.int64)
        labels = table["label"][chosen].tolist()
        times = table["t"][chosen].tolist() if "t" in table.columns else [None] * len(labels)
        return list(zip(times, labels, strict=True))

    def select_range(self, low: float, high: float) -> None:
        """Select the shown objects whose value of the chosen column lies in a range, ends included."""
        if self.table is not None:
            values = self.table[self.column][self.rows]
            self.select_rows(self.rows[(values >= low) & (values <= high)])

    @property
    def selected_rows(self) -> NDArray[np.int64]:
        """Rows of the table of the selected objects that are still there."""
        if self.table is None or not self.selected:
            return np.zeros(0, np.int64)
        labels = np.array([label for _, label in self.selected], np.int64)
        found = np.full(len(labels), -1)
        for t in {t for t, _ in self.selected}:
            of_time = np.array([time == t for time, _ in self.selected])
            found[of_time] = self.table.find(labels[of_time], t)
        return found[found >= 0]
