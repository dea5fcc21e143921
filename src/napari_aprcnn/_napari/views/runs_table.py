"""The runs as a table: sorted by clicking a head, compared by selecting rows."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_aprcnn._napari.benchmark_model import BenchmarkModel
from napari_aprcnn.bench.run_log import COLUMNS, RunRecord

__all__ = ["RunsTable"]

_SORTED_BY = {"time": "seconds", "Mvoxel/s": "voxels_per_s", "PRR": "prr", "memory": "memory_added_bytes",
              "nuclei": "n_objects", "F1": "f1"}  # fmt: skip
_TIPS = {
    "when": "When the run ended.",
    "time": "Time of the whole run, s.",
    "Mvoxel/s": "Million voxels of labels a second.",
    "PRR": "Particle reduction ratio: voxels a particle; only models for volumes have particles.",
    "memory": "Memory that the run added to the process at its peak.",
    "nuclei": "Number of nuclei found.",
    "F1": "F1 of the labels, once they were evaluated in the Evaluate dock.",
}


class _Cell(QTableWidgetItem):
    """A cell that sorts by its number."""

    def __init__(self, text: str, value: float | str) -> None:
        super().__init__(text)
        self.value = value
        self.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)

    def __lt__(self, other: QTableWidgetItem) -> bool:
        mine, theirs = self.value, getattr(other, "value", "")
        if isinstance(mine, float) and isinstance(theirs, float):
            return mine < theirs
        return str(mine) < str(theirs)


class RunsTable(QTableWidget):
    """The runs, the newest first.

    Parameters
    ----------
    model
        What it shows and selects.
    """

    def __init__(self, model: BenchmarkModel, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self._model = model
        self.setHorizontalHeaderLabels(list(COLUMNS))
        for column, name in enumerate(COLUMNS):
            self.horizontalHeaderItem(column).setToolTip(_TIPS.get(name, ""))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(round(1.5 * self.fontMetrics().height()))
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.setMinimumHeight(8 * self.fontMetrics().height())
        self.setAccessibleName("runs")
        self.setToolTip("Select rows to compare these runs (Ctrl and Shift select several).")
        self.itemSelectionChanged.connect(self._selected)
        self.refresh()

    def refresh(self) -> None:
        """Show the runs of the model; the selection stays."""
        blocked = self.blockSignals(True)
        self.setSortingEnabled(False)
        self.setRowCount(len(self._model.records))
        for row, record in enumerate(self._model.records):
            for column, (name, text) in enumerate(zip(COLUMNS, record.cells(), strict=True)):
                cell = _Cell(text, _value(record, name, text))
                cell.setData(Qt.ItemDataRole.UserRole, record.key)
                cell.setToolTip("\n".join(f"{what}: {value}" for what, value in record.readout.rows()))
                if name in _SORTED_BY:
                    cell.setTextAlignment(int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
                self.setItem(row, column, cell)
        self.setSortingEnabled(True)
        self.sortItems(0, Qt.SortOrder.DescendingOrder)
        for row in range(self.rowCount()):
            if self.item(row, 0).data(Qt.ItemDataRole.UserRole) in self._model.selected:
                self.selectRow(row)
        self.blockSignals(blocked)

    def _selected(self) -> None:
        rows = sorted({index.row() for index in self.selectedIndexes()})
        self._model.select(self.item(row, 0).data(Qt.ItemDataRole.UserRole) for row in rows)


def _value(record: RunRecord, name: str, text: str) -> float | str:
    if name == "when":
        return record.when
    if name in _SORTED_BY:
        value = record.value(_SORTED_BY[name])
        return -1.0 if value is None else value
    return text
