"""What is trained on: pairs of layers, folders and zips, one row each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.train_data_model import TrainData
from napari_aprcnn._napari.train_sources import Source
from napari_aprcnn._napari.views.inputs import ChoiceBox, WordsLabel

__all__ = ["TrainDataBox"]

_USES = [("train", False), ("check", True)]


class TrainDataBox(QWidget):
    """Layers to choose, and the rows that were added.

    Parameters
    ----------
    data
        What it shows and changes.
    """

    def __init__(self, data: TrainData, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._data = data
        self.image, self.labels = ChoiceBox(), ChoiceBox()
        self.image.setToolTip("An image layer: Z, Y, X, or Y, X. Only a copy of it is trained on.")
        self.image.setAccessibleName("image layer")
        self.labels.setToolTip("The labels of its nuclei, all of them labelled: 0 is taken for background.")
        self.labels.setAccessibleName("labels layer")
        self.add = QPushButton("Add pair")
        self.add.setToolTip("Train on this image with these labels. They are written beside the result at the start.")
        self.add_folder, self.add_zip = QPushButton("Add folder…"), QPushButton("Add zip…")
        words = "with images/NAME.tif and labels/NAME.tif, or NAME.tif and NAME_labels.tif."
        self.add_folder.setToolTip(f"Train on a folder {words}")
        self.add_zip.setToolTip("Train on a zip with images/NAME.tif, labels/NAME.tif and index.json.")
        choose, buttons, rows = QHBoxLayout(), QHBoxLayout(), QGridLayout()
        for widget in (self.image, self.labels):
            choose.addWidget(widget, 1)
        for button in (self.add, self.add_folder, self.add_zip):
            buttons.addWidget(button, 1)
        rows.setColumnStretch(0, 1)
        rows.setVerticalSpacing(2)
        self._grid, self.rows = rows, list[tuple[WordsLabel, ChoiceBox, QToolButton]]()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in (choose, buttons, rows):
            part.setSpacing(4)
            layout.addLayout(part)
        self.add.clicked.connect(self._add_pair)
        self.add_folder.clicked.connect(self._add_folder)
        self.add_zip.clicked.connect(self._add_zip)
        self.refresh("layers")
        self.refresh("rows")

    def _add_pair(self, _checked: bool = False) -> None:
        if self._data.add_pair(self.image.currentData(), self.labels.currentData()):
            self._show_layers(*self._data.suggestion())

    def _add_folder(self, _checked: bool = False) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of images and labels")
        if path:
            self._data.add_path(Path(path))

    def _add_zip(self, _checked: bool = False) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "A zip of images and labels", "", "Archive (*.zip)")
        if path:
            self._data.add_path(Path(path))

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        if what == "layers":
            suggested = self._data.suggestion()
            chosen = (self.image.currentData(), self.labels.currentData())
            there = all(one is not None and one in self._data.images + self._data.labels for one in chosen)
            self._show_layers(*(chosen if there else suggested))
        elif what == "rows":
            self._show_rows()

    def _show_layers(self, image: Any, labels: Any) -> None:
        for box, layers, current in ((self.image, self._data.images, image), (self.labels, self._data.labels, labels)):
            box.show_items([(layer.name, layer) for layer in layers], current)
            box.setEnabled(bool(layers))
            box.setPlaceholderText("no image layer" if box is self.image else "no labels layer")

    def _show_rows(self) -> None:
        while self._grid.count():
            widget = self._grid.takeAt(0).widget()
            widget.hide()  # it is deleted only when the event loop comes to it
            widget.deleteLater()
        self.rows = [self._row(index, source) for index, source in enumerate(self._data.rows)]
        if not self.rows:
            self._grid.addWidget(WordsLabel("nothing added yet", small=True), 0, 0)

    def _row(self, index: int, source: Source) -> tuple[WordsLabel, ChoiceBox, QToolButton]:
        name, use, remove = WordsLabel(source.words), ChoiceBox(), QToolButton()
        name.setToolTip(str(getattr(source, "path", source.words)))
        use.show_items(list(_USES), source.held_back)
        use.setMaximumWidth(90)
        use.setToolTip("train: learn from it. check: only measure the loss on it after every epoch (validation).")
        use.setAccessibleName(f"use of {source.words}")
        use.activated.connect(lambda _: self._data.hold_back(index, bool(use.currentData())))
        remove.setText("✕")
        remove.setToolTip("Take it out of the list; nothing is deleted.")
        remove.setAccessibleName(f"remove {source.words}")
        remove.clicked.connect(lambda _: self._data.remove(index))
        for column, widget in enumerate((name, use, remove)):
            self._grid.addWidget(widget, index, column)
        return name, use, remove
