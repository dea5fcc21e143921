"""The errors as a list to walk through; the buttons above it choose kinds and are the legend of the colours."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.views.inputs import WordsLabel
from napari_aprcnn.evaluate.mistakes import ERRORS, Kind, Mistake
from napari_aprcnn.evaluate.paint import COLOURS

__all__ = ["SMALL_TABLE", "EvaluateErrorsBox", "MistakeTable"]

# napari's style gives headers and cells more room than a dock has.
SMALL_TABLE = "QHeaderView::section { padding: 2px 3px; font-size: 11px; } QAbstractItemView { font-size: 11px; }"
_COLUMNS = ("error", "place", "label", "true", "voxels", "IoU")
_WIDTHS = (108, 70, 38, 36, 44, 34)
_TIPS = {
    "error": "Split, merge, miss or false positive; click a row to go there.",
    "place": "Voxel of the object's centre: z, y, x (before them the time point).",
    "label": "Ids of the predicted objects.",
    "true": "Ids of the true objects; of points the number of the row.",
    "voxels": "Size of the true object of a split or miss, else of the predicted one.",
    "IoU": "Largest intersection over union with an object of the other side.",
}
_HELP = {
    Kind.HIT: "Objects that were found.",
    Kind.SPLIT: "True objects that are covered by several predicted ones.",
    Kind.MERGE: "Predicted objects that cover several true ones (or hold several points).",
    Kind.MISS: "True objects that were not found, and are in no split or merge.",
    Kind.FALSE_POSITIVE: "Predicted objects where nothing fits, and that are in no split or merge.",
}


class MistakeTable(QAbstractTableModel):
    """Errors for a table view; nothing is copied, so tens of thousands cost nothing."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.rows: list[Mistake] = []

    def show_rows(self, rows: list[Mistake]) -> None:
        """Show errors."""
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()

    def rowCount(self, _parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return the number of errors."""
        return len(self.rows)

    def columnCount(self, _parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return the number of columns."""
        return len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the words or the colour of a cell."""
        mistake, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return _cell(mistake, column)
        if role == Qt.ItemDataRole.DecorationRole and column == 0:
            return QColor(COLOURS[mistake.kind])
        if role == Qt.ItemDataRole.TextAlignmentRole and column >= 4:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.ToolTipRole:
            ids = {2: mistake.label_ids, 3: mistake.truth_ids}.get(column)
            return " ".join(str(i) for i in ids) if ids else _HELP[mistake.kind]
        return None

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        """Return the name or the explanation of a column."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[section]
        return _TIPS[_COLUMNS[section]] if role == Qt.ItemDataRole.ToolTipRole else None

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column."""
        keys: tuple[Any, ...] = (
            lambda m: ERRORS.index(m.kind), lambda m: (m.image, m.centroid), lambda m: m.label_ids,
            lambda m: m.truth_ids, lambda m: m.size_voxels, lambda m: m.iou,
        )  # fmt: skip
        self.layoutAboutToBeChanged.emit()
        self.rows = sorted(self.rows, key=keys[column], reverse=order == Qt.SortOrder.DescendingOrder)
        self.layoutChanged.emit()


def _cell(mistake: Mistake, column: int) -> str:
    if column == 0:
        return mistake.kind.words
    if column == 1:
        place = ", ".join(f"{value:.0f}" for value in mistake.centroid)
        return f"{mistake.image}: {place}" if mistake.image.startswith("t ") else place
    if column in (2, 3):
        ids = mistake.label_ids if column == 2 else mistake.truth_ids
        return " ".join(str(i) for i in ids[:6]) + (" …" if len(ids) > 6 else "")
    if column == 4:
        return f"{mistake.size_voxels:,}" if mistake.size_voxels else ""
    return f"{mistake.iou:.2f}" if mistake.iou else ""


class EvaluateErrorsBox(QWidget):
    """Counts, legend and list of the errors of the shown prediction.

    Parameters
    ----------
    model
        What it shows.
    """

    def __init__(self, model: EvaluateModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.hits = QLabel()
        self.hits.setToolTip(_HELP[Kind.HIT])
        self.kinds: dict[Kind, QCheckBox] = {kind: self._box(kind) for kind in ERRORS}
        swatch = QLabel()
        swatch.setPixmap(_swatch(Kind.HIT))
        swatch.setToolTip(_HELP[Kind.HIT])
        hits = QHBoxLayout()
        hits.setSpacing(6)
        hits.addWidget(swatch)
        hits.addWidget(self.hits, 1)
        legend = QGridLayout()
        legend.setContentsMargins(0, 0, 0, 0)
        legend.setSpacing(4)
        legend.addLayout(hits, 0, 0)
        for number, box in enumerate(self.kinds.values(), 1):
            legend.addWidget(box, number // 3, number % 3)
        self.rows = MistakeTable(self)
        self.table = QTableView()
        self.table.setModel(self.rows)
        self.table.setSortingEnabled(True)
        self.table.horizontalHeader().setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(22)
        self.table.horizontalHeader().setMinimumSectionSize(24)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.setAccessibleName("errors")
        self.table.setToolTip("Click an error, or go up and down with the arrow keys, to see it.")
        self.table.setMinimumSize(60, 180)
        self.table.setIconSize(QSize(10, 10))
        self.table.setStyleSheet(SMALL_TABLE)
        self.table.selectionModel().currentRowChanged.connect(self._moved)
        self.table.clicked.connect(lambda index: self._go(index.row()))
        self.empty = WordsLabel("No errors of these kinds.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(legend)
        layout.addWidget(self.empty)
        layout.addWidget(self.table)
        self.refresh()

    def _box(self, kind: Kind) -> QCheckBox:
        box = QCheckBox()
        box.setChecked(True)
        box.setIcon(QIcon(_swatch(kind)))
        box.setIconSize(QSize(12, 12))
        box.setToolTip(f"{_HELP[kind]} Untick to leave them out of the list.")
        box.toggled.connect(lambda _: self._show_rows())
        return box

    def _moved(self, current: QModelIndex, _before: QModelIndex) -> None:
        # Arrow keys move the current row; a click on it, which moves nothing, goes there once more.
        if current.isValid():
            self._go(current.row())

    def _go(self, row: int) -> None:
        if 0 <= row < len(self.rows.rows):
            self._model.go_to(self.rows.rows[row])

    def refresh(self) -> None:
        """Show the errors of the shown prediction."""
        evaluation = self._model.evaluation
        self.setVisible(evaluation is not None)
        if evaluation is None:
            self.rows.show_rows([])
            return
        n_hits = evaluation.headline.true_positives
        self.hits.setText(f"{n_hits} {Kind.HIT.words if n_hits == 1 else Kind.HIT.plural}")
        for kind, box in self.kinds.items():
            n = evaluation.counts[kind]
            box.setText(f"{n} {kind.words if n == 1 else kind.plural}")
            box.setVisible(kind is not Kind.SPLIT or evaluation.against == "labels")
        self._show_rows()

    def _show_rows(self) -> None:
        found = self._model.mistakes([kind for kind, box in self.kinds.items() if box.isChecked()])
        self.rows.show_rows(found)
        header = self.table.horizontalHeader()
        self.rows.sort(header.sortIndicatorSection(), header.sortIndicatorOrder())
        self.table.setVisible(bool(found))
        self.empty.setVisible(not found)
        for column, width in enumerate(_WIDTHS):
            self.table.setColumnWidth(column, width)


def _swatch(kind: Kind) -> QPixmap:
    picture = QPixmap(12, 12)
    picture.fill(QColor(COLOURS[kind]))
    return picture
