"""The buttons that edit objects: merge, split, delete, grow, shrink, fill, smooth, clean up, undo, redo."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QMenu, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.inspect_model import InspectModel
from napari_aprcnn._napari.views.inputs import NumberBox, WordsLabel

__all__ = ["InspectEditBox"]

_BUTTONS = (
    ("merge", "Merge", "Make one object of the selected ones; it keeps the id of the largest."),
    ("delete", "Delete", "Make background of the selected objects (Delete key in the table)."),
    ("fill", "Fill holes", "Fill the background that a selected object encloses; other objects stay."),
    ("grow", "Grow", "Grow the selected objects into the background; other objects are never overwritten."),
    ("shrink", "Shrink", "Take a rim off the selected objects."),
    ("smooth", "Smooth", "Smooth the outlines of the selected objects."),
)
_BY_VOXELS = {"grow": "n_voxels", "shrink": "n_voxels", "smooth": "radius_voxels"}


class InspectEditBox(QWidget):
    """Edits of the selected objects.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: InspectModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        grid = QGridLayout()
        grid.setSpacing(4)
        self.buttons: dict[str, QPushButton] = {}
        for kind, text, words in _BUTTONS:
            button = QPushButton(text)
            button.setToolTip(words)
            button.clicked.connect(partial(self._edit, kind))
            self.buttons[kind] = button
        self._add_split()
        self._add_clean_up()
        self.undo, self.redo = QPushButton("Undo"), QPushButton("Redo")
        self.undo.clicked.connect(lambda _: self._model.undo())
        self.redo.clicked.connect(lambda _: self._model.redo())
        first = (self.buttons["merge"], self._split_cell, self.buttons["delete"], self.buttons["fill"])
        second = (self.buttons["grow"], self.buttons["shrink"], self.buttons["smooth"], self.voxels)
        third = (self.undo, self.redo, self.clean_up, self.parts)
        for row, widgets in enumerate((first, second, third)):
            for column, widget in enumerate(widgets):
                grid.addWidget(widget, row, column)
        for column in range(4):
            grid.setColumnStretch(column, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(grid)
        layout.addWidget(self._splitting_row())
        self.refresh()

    def _add_split(self) -> None:
        self.voxels = NumberBox(0.5, 50.0, step=1.0, unit="vox").plain()
        self.voxels.show_number(1)
        self.voxels.setAccessibleName("voxels")
        self.voxels.setToolTip(
            "How far to grow, shrink or smooth, in edges of a voxel along its finest axis (0.5 to 50).\n"
            "Along coarser axes fewer voxels are the same way."
        )
        self.parts = NumberBox(2, 50, integer=True, unit="parts").plain()
        self.parts.show_number(2)
        self.parts.setAccessibleName("parts")
        self.parts.setToolTip("Into how many parts Split splits (2 to 50).")
        self.split, self.split_menu = QPushButton("Split"), QToolButton()
        self.split.setToolTip(
            "Split the selected object at its necks into so many parts (watershed on the distance to the outline).\n"
            "The largest part keeps the id. The arrow: other ways to split."
        )
        self.split_menu.setText("▾")
        self.split_menu.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.split_menu.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.split_menu.setToolTip("Split from seeds that you click, or along a line through two clicks.")
        self.split_menu.setAccessibleName("other ways to split")
        self._split_cell = QWidget()
        cell = QHBoxLayout(self._split_cell)
        cell.setContentsMargins(0, 0, 0, 0)
        cell.setSpacing(1)
        cell.addWidget(self.split, 1)
        cell.addWidget(self.split_menu)
        menu = QMenu(self.split_menu)
        menu.addAction("Into parts", self._split_parts)
        menu.addAction("At seeds that I click…", lambda: self._model.start_splitting("seeds"))
        menu.addAction("Along a line that I click…", lambda: self._model.start_splitting("cut"))
        self.split_menu.setMenu(menu)
        self.split.clicked.connect(self._split_parts)

    def _add_clean_up(self) -> None:
        self.clean_up = QPushButton("Clean up")
        self.clean_up.setToolTip("Delete objects at the border, or all that the filter shows; renumber.")
        menu = QMenu(self.clean_up)
        menu.addAction("Delete objects at the border", lambda: self._model.remove("touches_border"))
        menu.addAction("Delete all that the filter shows", self._delete_shown)
        menu.addAction("Renumber objects 1, 2, …", self._model.renumber)
        self.clean_up.setMenu(menu)

    def _splitting_row(self) -> QWidget:
        self._splitting = QWidget()
        row = QHBoxLayout(self._splitting)
        row.setContentsMargins(0, 0, 0, 0)
        self.split_words = WordsLabel("")
        self.split_here, self.stop = QPushButton("Split here"), QPushButton("Cancel")
        self.split_here.setToolTip("Split the object into the parts that belong to the seeds.")
        self.stop.setToolTip("Forget the clicks; nothing is split.")
        self.split_here.clicked.connect(lambda _: self._model.split_here())
        self.stop.clicked.connect(lambda _: self._model.edits.stop_splitting())
        row.addWidget(self.split_words, 1)
        row.addWidget(self.split_here)
        row.addWidget(self.stop)
        return self._splitting

    # --- doing -------------------------------------------------------------------------------------------------------

    def _edit(self, kind: str, _checked: bool = False) -> None:
        options: dict[str, Any] = {_BY_VOXELS[kind]: self.voxels.number()} if kind in _BY_VOXELS else {}
        self._model.edit(kind, **options)

    def _split_parts(self, _checked: bool = False) -> None:
        self._model.edit("split", n_parts=int(self.parts.number() or 2))

    def _delete_shown(self) -> None:
        if self._model.sheet.filter_text and not self._model.sheet.filter_problem:
            self._model.remove(self._model.sheet.filter_text)
        else:
            self._model.notified.emit("info", "Write a filter first, for example: volume_um3 < 20", None)

    # --- showing -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show what can be done now."""
        model, n = self._model, len(self._model.sheet.selected)
        ready = model.state == "ready" and model.sheet.table is not None
        for kind, button in self.buttons.items():
            button.setEnabled(ready and n >= (2 if kind == "merge" else 1))
        for button in (self.split, self.split_menu):
            button.setEnabled(ready and n == 1)
        self.clean_up.setEnabled(ready)
        for button, words, key in (
            (self.undo, model.edits.history.undo_words, "Ctrl+Z"),
            (self.redo, model.edits.history.redo_words, "Ctrl+Shift+Z"),
        ):
            button.setEnabled(ready and bool(words))
            button.setToolTip(f"{button.text()}: {words} ({key})" if words else f"Nothing to {button.text().lower()}.")
        words = model.edits.split_words
        self._splitting.setVisible(bool(words))
        self.split_words.setText(words)
        self.split_here.setVisible(model.edits.splitting == "seeds")
        self.split_here.setEnabled(len(model.edits.points) > 1)
