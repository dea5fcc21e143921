"""What the last run did and took; every figure can be copied."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.views.inputs import WordsLabel

__all__ = ["ReadoutBox", "copy_text"]


def copy_text(text: str) -> None:
    """Put a text on the clipboard."""
    QApplication.clipboard().setText(text)


class ReadoutBox(QWidget):
    """The readout of the last run as a table.

    Parameters
    ----------
    model
        What it shows.
    """

    def __init__(self, model: SegmentModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._grid = QGridLayout()
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        layout.addLayout(self._grid)
        self.copy = QPushButton("Copy")
        self.copy.setToolTip("Copy the readout as a Markdown table.")
        self.copy.clicked.connect(self._copy)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.copy)
        layout.addLayout(row)
        self.refresh()

    def _copy(self, _checked: bool = False) -> None:
        if self._model.runner.result is not None:
            copy_text(self._model.runner.result.readout.markdown())

    def refresh(self) -> None:
        """Show the readout of the last run."""
        while self._grid.count():
            item = self._grid.takeAt(0)
            item.widget().deleteLater()
        result = self._model.runner.result
        self.copy.setEnabled(result is not None)
        rows = result.readout.rows() if result is not None else [("", "No run yet.")]
        for index, (name, value) in enumerate(rows):
            label = QLabel(name)
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(label, index, 0)
            self._grid.addWidget(WordsLabel(value), index, 1)
