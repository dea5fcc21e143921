"""While annotating: how far it is, the slices, and the big buttons."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QKeySequence, QPainter, QPen, QPixmap, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.annotate_model import AnnotateModel
from napari_aprcnn._napari.views.button_styles import BLUE
from napari_aprcnn._napari.views.inputs import WordsLabel
from napari_aprcnn._napari.views.train_parameters_box import side_by_side

__all__ = ["AnnotateWorkBox"]

_STEPS = 1000
# A shape and a colour each (grey, and of Okabe-Ito orange and bluish green): either tells them apart.
_COLOURS = {"todo": "#8C8C8C", "doing": "#E69F00", "done": "#009E73"}
_FILLED = {"todo": 0, "doing": 180, "done": 360}
_WORDS = {"todo": "to do", "doing": "begun", "done": "done"}


def _mark(colour: str, degrees: int) -> QIcon:
    """Draw a circle that is filled so far."""
    picture = QPixmap(32, 32)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(colour), 4))
    painter.drawEllipse(5, 5, 22, 22)
    painter.setBrush(QColor(colour))
    if degrees:
        painter.drawPie(5, 5, 22, 22, -90 * 16, degrees * 16)
    painter.end()
    return QIcon(picture)


class AnnotateWorkBox(QWidget):
    """The slices with their states, and what can be done.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: AnnotateModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.words, self.here, self.saved = WordsLabel(), WordsLabel(), WordsLabel(small=True)
        self.words.setStyleSheet("QLabel { font-weight: bold; font-size: 14px; }")
        self.saved.setToolTip("Every click and stroke is saved at once; this is where.")
        self._add_list()
        self._add_buttons()
        for widget in (self.words, self.bar, self.here, self._buttons, self.list, self._more, self.saved):
            layout.addWidget(widget)

    def _add_list(self) -> None:
        self.list = QListWidget()
        self.list.setToolTip("The chosen slices. Click one to go there; double-click one to mark it as done or not.")
        self.list.setAccessibleName("chosen slices")
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # its own keys (type to search) would take N, P and D
        self.list.setMinimumHeight(150)
        self.list.setStyleSheet("QListWidget::item { padding: 2px; }")
        self._icons = {state: _mark(_COLOURS[state], _FILLED[state]) for state in _COLOURS}
        self.list.itemClicked.connect(lambda item: self._model.go(item.data(Qt.ItemDataRole.UserRole)))
        self.list.itemDoubleClicked.connect(self._toggle)

    def _add_buttons(self) -> None:
        model = self._model
        self.done = QPushButton("Done, next   (D)")
        self.previous, self.next = QPushButton("◀  Previous   (P)"), QPushButton("Next   (N)  ▶")
        self.undo = QPushButton("Undo   (Ctrl+Z)")
        keys = "The key works while the annotation layer is the active one, or this dock has the focus."
        tips = {
            self.done: f"This slice is annotated completely: go to the next one that is not (D).\n{keys}",
            self.previous: f"Go to the chosen slice before this one (P).\n{keys}",
            self.next: f"Go to the next chosen slice (N).\n{keys}",
            self.undo: f"Take the last click or stroke back, on whichever slice it was (Ctrl+Z).\n{keys}",
        }
        actions = {"D": model.done, "P": model.previous, "N": model.next, "Ctrl+Z": model.undo}
        buttons = (self.done, self.previous, self.next, self.undo)
        for button, (key, action) in zip(buttons, actions.items(), strict=True):
            button.setToolTip(tips[button])
            button.setMinimumHeight(38)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the keys go on to the image
            button.clicked.connect(lambda _checked=False, action=action: action())
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(action)
        self.done.setStyleSheet(BLUE)
        self._buttons = QWidget()
        grid = QGridLayout(self._buttons)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        grid.addWidget(self.done, 0, 0, 1, 2)
        grid.addWidget(self.previous, 1, 0)
        grid.addWidget(self.next, 1, 1)
        grid.addWidget(self.undo, 2, 0, 1, 2)
        self.take = QPushButton("Take prediction")
        self.take.setToolTip(
            "Replace what is on this slice by the nuclei of the prediction, to correct them. Undo takes it back.\n"
            "For a fair evaluation annotate without it."
        )
        self.choose_more = QPushButton("More slices")
        self.choose_more.setToolTip("Choose as many slices again, beside those that are chosen.")
        self.evaluate = QPushButton("Evaluate against this")
        self.evaluate.setToolTip(
            "Add a layer with the annotations of the slices that are done; choose it in the Evaluate dock.\n"
            "Its metadata say which slices were annotated."
        )
        self.close_button = QPushButton("Close")
        self.close_button.setToolTip("Go back to the choice of slices. Everything is saved; Continue opens it again.")
        self.take.clicked.connect(lambda _: model.copy_guide())
        self.choose_more.clicked.connect(lambda _: model.cancel() if model.working else model.choose_more())
        self.evaluate.clicked.connect(lambda _: model.evaluate())
        self.close_button.clicked.connect(lambda _: model.leave())
        self._more = QWidget()
        more = QVBoxLayout(self._more)
        more.setContentsMargins(0, 0, 0, 0)
        more.setSpacing(4)
        more.addWidget(side_by_side((self.take, 1), (self.choose_more, 1)))
        more.addWidget(side_by_side((self.evaluate, 2), (self.close_button, 1)))

    def _toggle(self, item: QListWidgetItem) -> None:
        index = item.data(Qt.ItemDataRole.UserRole)
        if self._model.session is not None:
            self._model.set_state(index, "doing" if self._model.session.state(index) == "done" else "done")

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        model = self._model
        if model.session is None:
            return
        if what in ("rows", "state", "here"):
            self._show_rows()
            self.here.setText(model.here_words)
            self.words.setText(model.progress_words)
            self.bar.setValue(round(_STEPS * model.session.n_done / max(1, len(model.session.slices))))
            self.undo.setEnabled(model.editing is not None and model.editing.can_undo)
            self.evaluate.setEnabled(model.session.n_done > 0)
        if what in ("state", "progress"):
            self.choose_more.setText(f"Cancel ({model.fraction:.0%})" if model.working else "More slices")
            for button in (self.take, self.close_button):
                button.setEnabled(not model.working)
        if what in ("settings", "layers", "state"):
            self.take.setVisible(bool(model.guides))
        if what in ("rows", "saved", "state", "here"):
            words = model.saved_words
            if words != self.saved.text():
                self.saved.setText(words)
                colour = "color: #D55E00; font-weight: bold; " if words.startswith("NOT") else ""
                self.saved.setStyleSheet(f"QLabel {{ {colour}font-size: 11px; }}")

    def _show_rows(self) -> None:
        rows, mode = self._model.rows, self._model.session.info.mode if self._model.session else "points"
        while self.list.count() > len(rows):
            self.list.takeItem(self.list.count() - 1)
        while self.list.count() < len(rows):
            self.list.addItem(QListWidgetItem())
        here = self._model.editing.here if self._model.editing is not None else None
        current = -1
        for number, (index, words, state, n) in enumerate(rows):
            item: Any = self.list.item(number)
            count = f"{n} point{'' if n == 1 else 's'}" if mode == "points" and (n or state != "todo") else ""
            text = f"{words}   {_WORDS[state]}{'   ' + count if count else ''}"
            if item.text() != text:
                item.setText(text)
            item.setData(Qt.ItemDataRole.UserRole, index)
            item.setIcon(self._icons[state])
            if index == here:
                current = number
        self.list.setCurrentRow(current)
