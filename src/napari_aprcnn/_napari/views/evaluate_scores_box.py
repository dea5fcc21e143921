"""The scores: three numbers with their intervals, the curve, and the predictions side by side."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.views.evaluate_errors_box import SMALL_TABLE
from napari_aprcnn._napari.views.evaluate_plot import AccuracyPlot
from napari_aprcnn._napari.views.inputs import WordsLabel
from napari_aprcnn._napari.views.readout_box import copy_text
from napari_aprcnn._napari.views.train_parameters_box import side_by_side
from napari_aprcnn.evaluate.scores import Evaluation

__all__ = ["EvaluateScoresBox"]

_EMPTY = "Nothing was evaluated yet: choose labels and what is true, and press Evaluate."
_HEADLINE = (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
# Columns of the table, and their names where there is little room.
_SHORT = {
    "prediction": "prediction", "F1": "F1", "precision": "prec.", "recall": "recall", "splits": "split",
    "merges": "merge", "misses": "miss", "false positives": "false",
}  # fmt: skip
_TIPS = {
    "precision": "Share of the predicted objects that are right: TP / (TP + FP).",
    "recall": "Share of the true objects that were found: TP / (TP + FN).",
    "F1": "Both in one: 2 TP / (2 TP + FP + FN).",
    "accuracy": "TP / (TP + FP + FN); some call it average precision.",
    "panoptic quality": "F1 times the mean IoU of what was found.",
}


class EvaluateScoresBox(QWidget):
    """Scores of the shown prediction, and all of them in a table.

    Parameters
    ----------
    model
        What it shows.
    """

    def __init__(self, model: EvaluateModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.basis = WordsLabel(small=True)
        self.numbers = {name: QLabel() for name, _ in _HEADLINE}
        for name, label in self.numbers.items():
            label.setTextFormat(Qt.TextFormat.RichText)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            label.setToolTip(f"{_TIPS[name]} ± half the 95 % interval, by bootstrap.")
            label.setAccessibleName(name)
        self.headline = side_by_side(*((label, 1) for label in self.numbers.values()))
        self.plot = AccuracyPlot()
        self.table = _table()
        self.table.cellClicked.connect(self._clicked)
        self.table.setToolTip("The predictions side by side; click one to list and colour its errors.")
        self.copy, self.save = QPushButton("Copy table"), QPushButton("Save report…")
        self.copy.setToolTip("Copy the table as Markdown.")
        self.save.setToolTip("Write a report (.html, one file with the plot) or the scores and errors (.csv).")
        self.copy.clicked.connect(lambda _: copy_text(model.markdown()))
        self.save.clicked.connect(self._save)
        self.buttons = side_by_side((self.copy, 1), (self.save, 1))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        for widget in (self.headline, self.basis, self.plot, self.table, self.buttons):
            layout.addWidget(widget)
        self.refresh()

    def _clicked(self, row: int, _column: int) -> None:
        if self._model.comparison is not None:
            self._model.show(self._model.comparison.evaluations[row].name)

    def _save(self, _checked: bool = False) -> None:
        start = str(Path(self._model.settings.folder or Path.home()) / "evaluation.html")
        path, _ = QFileDialog.getSaveFileName(self, "Save the evaluation", start, "Report (*.html);;Scores (*.csv)")
        if path:
            self._model.save(path if Path(path).suffix else f"{path}.html")

    def refresh(self) -> None:
        """Show the last result."""
        comparison, evaluation = self._model.comparison, self._model.evaluation
        there = comparison is not None and evaluation is not None
        several = comparison is not None and len(comparison.evaluations) > 1
        for widget, shown in (
            (self.headline, there), (self.buttons, there), (self.table, several),
            (self.plot, there and comparison is not None and comparison.against == "labels"),
        ):  # fmt: skip
            widget.setVisible(shown)
        self.save.setEnabled(self._model.state == "ready")
        if comparison is None or evaluation is None:
            self.basis.setText(_EMPTY)
            return
        name = f"{evaluation.name} " if several else ""
        self.basis.setText(" ".join([f"{name}{comparison.basis}.", *(f"{note}." for note in evaluation.notes)]))
        for label, (title, field) in zip(self.numbers.values(), _HEADLINE, strict=True):
            interval = evaluation.intervals.get(field)
            spread = f" ± {interval.half_width:.2f}" if interval is not None else ""
            value = getattr(evaluation.headline, field)
            label.setText(f"{title}<br><span style='font-size: 17px; font-weight: bold'>{value:.2f}</span>{spread}")
        self.plot.show_comparison(comparison)
        self._show_table()

    def _show_table(self) -> None:
        comparison = self._model.comparison
        if comparison is None:
            return
        columns = [name for name in _SHORT if name in comparison.columns()]
        rows = [_row(e, columns) for e in comparison.evaluations]
        self.table.setColumnCount(len(columns))
        self.table.setRowCount(len(rows))
        self.table.setHorizontalHeaderLabels([_SHORT[name] for name in columns])
        for y, row in enumerate(rows):
            for x, cell in enumerate(row):
                item = QTableWidgetItem(cell)
                item.setToolTip(_TIPS.get(columns[x], cell))
                if x:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(y, x, item)
            if comparison.evaluations[y].name == self._model.shown:
                self.table.selectRow(y)
        self.table.resizeColumnsToContents()
        self.table.setColumnWidth(0, min(110, self.table.columnWidth(0)))
        height = self.table.horizontalHeader().sizeHint().height() + sum(
            self.table.rowHeight(y) for y in range(len(rows))
        )
        bar = self.table.horizontalScrollBar().sizeHint().height()
        self.table.setFixedHeight(min(220, height + bar + 4))


def _row(evaluation: Evaluation, columns: list[str]) -> list[str]:
    """Cells of a prediction; the copied table and the report have more digits and columns."""
    match, spread = evaluation.headline, evaluation.intervals.get("f1")
    cells = {
        "prediction": evaluation.name,
        "F1": f"{match.f1:.2f}" + (f" ± {spread.half_width:.2f}" if spread is not None else ""),
        "precision": f"{match.precision:.2f}",
        "recall": f"{match.recall:.2f}",
        **{kind.plural: str(n) for kind, n in evaluation.counts.items()},
    }
    return [cells[name] for name in columns]


def _table() -> QTableWidget:
    table = QTableWidget()
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(24)
    table.horizontalHeader().setMinimumSectionSize(24)
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
    table.setAccessibleName("predictions side by side")
    table.setMinimumWidth(60)
    table.setStyleSheet(SMALL_TABLE)
    return table
