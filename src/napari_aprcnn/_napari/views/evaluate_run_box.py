"""Evaluate and Cancel: one button; below it how far it is, or why it cannot be pressed."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.views.button_styles import BLUE, RED
from napari_aprcnn._napari.views.inputs import WordsLabel

__all__ = ["EvaluateRunBox"]

_STEPS = 1000


class EvaluateRunBox(QWidget):
    """The button of the Evaluate dock.

    Parameters
    ----------
    model
        What it shows and starts.
    """

    def __init__(self, model: EvaluateModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.words = WordsLabel()
        self.button = QPushButton("Evaluate")
        self.button.setObjectName("aprcnn_evaluate")
        self.button.setMinimumHeight(40)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        for widget in (self.words, self.button, self.bar):
            layout.addWidget(widget)
        self.button.clicked.connect(self._clicked)
        self.refresh()

    def _clicked(self, _checked: bool = False) -> None:
        if self._model.state == "ready":
            self._model.evaluate()
        else:
            self._model.cancel()

    def refresh(self) -> None:
        """Show what the model says now."""
        model, state = self._model, self._model.state
        ready, problem = state == "ready", self._model.problem
        self.button.setText({"ready": "Evaluate", "running": "Cancel"}.get(state, "Cancelling…"))
        self.button.setToolTip(problem or "Compare the layers as they are now; edited labels are read again.")
        self.button.setStyleSheet(BLUE if ready else RED)
        self.button.setEnabled(state == "running" or (ready and not problem))
        outdated = "The labels were changed since; evaluate again to see what that did." if model.outdated else ""
        self.words.setText(problem or outdated)
        self.words.setVisible(ready and bool(problem or outdated))
        self.bar.setVisible(not ready)
        self.bar.setValue(round(_STEPS * model.progress))
