"""The table of objects: a model over numpy columns, so that a hundred thousand rows scroll like ten."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, QSize, Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QMenu, QTableView, QWidget

from napari_aprcnn._napari.inspect_colours import unit_of
from napari_aprcnn._napari.inspect_sheet import Sheet
from napari_aprcnn._napari.views.readout_box import copy_text

__all__ = ["ObjectTableModel", "ObjectTableView"]

_MOST_RANGES = 400  # of rows that are shown as selected: Qt takes long for more
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_HELP = {
    "label": "id of the object in the labels",
    "t": "time point",
    "area": "size",
    "volume": "size",
    "equivalent": "diameter of the circle or sphere of the same size",
    "axis": "axis of the ellipse or ellipsoid of the same second moments",
    "surface": "surface, from crossings with lines along 13 directions (Crofton)",
    "sphericity": "surface of the sphere of equal volume over the surface; 1 is round",
    "solidity": "area over the area of the convex hull; 1 is convex",
    "neighbours": "other objects that share a face of a voxel with it",
    "intensity": "of the chosen image within the object",
    "centroid": "middle, from the middle of the first voxel",
    "bbox": "bounding box: first voxel, one past the last",
    "touches": "1: it touches the border of the image and may be cut",
}


def _help(name: str) -> str:
    words = _HELP.get(name.split("_", 1)[0], "")
    unit = unit_of(name)
    return f"{name}: {words}{', in ' + unit if unit else ''}.\nClick to sort; right click for more."


class ObjectTableModel(QAbstractTableModel):
    """Rows of a sheet, in its order.

    Parameters
    ----------
    sheet
        What it shows.
    """

    def __init__(self, sheet: Sheet, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sheet = sheet
        self._names: tuple[str, ...] = ()
        self._columns: list[NDArray[Any]] = []
        self.reset()

    def reset(self) -> None:
        """Show other rows or another table."""
        self.beginResetModel()
        table = self._sheet.table
        self._names = () if table is None else table.names
        self._columns = [] if table is None else [table[name] for name in self._names]
        self.endResetModel()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self._names

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return the number of shown objects."""
        return 0 if parent is not None and parent.isValid() else len(self._sheet.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._names)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a number as text."""
        if role == Qt.ItemDataRole.DisplayRole:
            return self.text(index.row(), index.column())
        return _RIGHT if role == Qt.ItemDataRole.TextAlignmentRole else None

    def text(self, row: int, column: int) -> str:
        """Return a number of a shown row as text."""
        value = self._columns[column][self._sheet.rows[row]]
        return f"{value:.4g}" if isinstance(value, np.floating) else str(int(value))

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the name of a column, and what it means."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._names):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._names[section]
        return _help(self._names[section]) if role == Qt.ItemDataRole.ToolTipRole else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; none: by label."""
        name = self._names[column] if 0 <= column < len(self._names) else ""
        self._sheet.sort(name, descending=order == Qt.SortOrder.DescendingOrder)


class ObjectTableView(QTableView):
    """The table; its selection is that of the sheet.

    Parameters
    ----------
    sheet
        What it shows.

    Attributes
    ----------
    opened : Signal(int)
        A row of the table was double clicked: go there.
    delete_pressed : Signal()
        The Delete key.
    """

    opened = Signal(int)
    delete_pressed = Signal()

    def __init__(self, sheet: Sheet, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sheet, self._quiet = sheet, False
        self.objects = ObjectTableModel(sheet, self)
        self.setModel(self.objects)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setAlternatingRowColors(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setMinimumHeight(150)
        self.setAccessibleName("objects")
        self.setToolTip(
            "Click: select an object, here and in the viewer. Double click: go there. Ctrl, Shift: several.\n"
            "Click a heading to sort. Ctrl+C copies the selected rows, Delete deletes the objects."
        )
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        rows.setVisible(False)
        # Rows of one height: Qt need not measure any.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        columns.setSectionsMovable(True)
        # The headings have a selection of their own, which stays empty: else Qt asks every selected row, of a hundred
        # thousand, how to draw each heading.
        columns.setSelectionModel(QItemSelectionModel(self.objects, self))
        columns.setHighlightSections(False)
        columns.setSortIndicatorShown(True)
        columns.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        columns.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        columns.customContextMenuRequested.connect(self._column_menu)
        columns.sortIndicatorChanged.connect(self._sort)
        columns.setSectionsClickable(True)
        self.doubleClicked.connect(lambda index: self.opened.emit(int(self._sheet.rows[index.row()])))
        self.selectionModel().selectionChanged.connect(self._selection_changed)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the room of some rows."""
        return QSize(340, 240)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Stay narrow: columns scroll."""
        return QSize(200, 150)

    def _sort(self, column: int, order: Qt.SortOrder) -> None:
        self.objects.sort(column, order)

    def _column_menu(self, where: Any) -> None:
        column = self.horizontalHeader().logicalIndexAt(where)
        if not 0 <= column < len(self.objects.names):
            return
        menu = QMenu(self)
        use = menu.addAction("Histogram and colours of this column")
        unsort = menu.addAction("Back to the order of labels")
        chosen = menu.exec(self.horizontalHeader().mapToGlobal(where))
        if chosen is use:
            self._sheet.choose_column(self.objects.names[column])
        elif chosen is unsort:
            self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)

    # --- following the sheet -----------------------------------------------------------------------------------------

    def refresh(self, what: str) -> None:
        """Show what the sheet says now."""
        if what == "rows":
            names = self.objects.names
            self._quiet = True
            self.objects.reset()
            self._quiet = False
            if self.objects.names != names:
                self._fit_columns()
            self._show_selection(scroll=False)
        elif what == "selection":
            self._show_selection(scroll=True)

    def _fit_columns(self) -> None:
        header = self.horizontalHeader()
        width = self.fontMetrics().horizontalAdvance
        for column, name in enumerate(self.objects.names):
            header.resizeSection(column, max(width(name) + 26, width("0") * 9))

    def _show_selection(self, *, scroll: bool) -> None:
        if self._quiet:
            return
        table = self._sheet.table
        place = np.full(0 if table is None else len(table), -1)
        place[self._sheet.rows] = np.arange(len(self._sheet.rows))
        at = np.sort(place[self._sheet.selected_rows]) if table is not None else place
        at = at[at >= 0]
        selection = QItemSelection()
        last = self.objects.columnCount() - 1
        breaks = np.flatnonzero(np.diff(at) != 1) + 1
        for run in np.split(at, breaks)[:_MOST_RANGES] if len(at) else []:
            selection.select(self.objects.index(int(run[0]), 0), self.objects.index(int(run[-1]), last))
        self._quiet = True
        flags = QItemSelectionModel.SelectionFlag.ClearAndSelect
        self.selectionModel().select(selection, flags)
        if len(at):
            index = self.objects.index(int(at[0]), max(0, self.columnAt(0)))
            if scroll:
                self.scrollTo(index)
            self.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
        self._quiet = False

    def _selection_changed(self, *_: Any) -> None:
        if self._quiet:
            return
        ranges = list(self.selectionModel().selection())
        rows = sorted({row for r in ranges for row in range(r.top(), r.bottom() + 1)})
        current = self.selectionModel().currentIndex().row()
        if current in rows:  # the object that was clicked last is the one that the viewer selects
            rows.append(rows.pop(rows.index(current)))
        self._quiet = True
        self._sheet.select_rows(self._sheet.rows[np.asarray(rows, np.int64)])
        self._quiet = False

    # --- keys --------------------------------------------------------------------------------------------------------

    def selected_text(self) -> str:
        """Return the selected rows as tab-separated text with headings."""
        rows = self._sheet.selected_rows
        table = self._sheet.table
        if table is None:
            return ""
        lines = ["\t".join(table.names)]
        lines += ["\t".join(f"{table[name][row]:.7g}" for name in table.names) for row in rows]
        return "\n".join(lines)

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Copy, delete and open by keys."""
        if event.matches(QKeySequence.StandardKey.Copy):
            copy_text(self.selected_text())
        elif event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.delete_pressed.emit()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.opened.emit(int(self._sheet.rows[self.currentIndex().row()]))
        else:
            super().keyPressEvent(event)
