"""The button of the Graph dock, and how far the work is."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.graph_model import GraphModel
from napari_aprcnn._napari.views.button_styles import BLUE, RED
from napari_aprcnn._napari.views.inputs import WordsLabel

__all__ = ["GraphRunBox"]

_STEPS = 1000


class GraphRunBox(QWidget):
    """Build, Cancel, Cancelling: one button; below it how far the work is.

    Parameters
    ----------
    model
        What it shows and starts.
    """

    def __init__(self, model: GraphModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.button = QPushButton("Build graph")
        self.button.setObjectName("aprcnn_graph")
        self.button.setMinimumHeight(40)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.words = WordsLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        for widget in (self.button, self.bar, self.words):
            layout.addWidget(widget)
        self.button.clicked.connect(self._clicked)
        self.refresh("state")

    def _clicked(self, _checked: bool = False) -> None:
        if self._model.state == "ready":
            self._model.build()
        else:
            self._model.cancel()

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        if what not in ("state", "progress", "result", "layers"):
            return
        state, problem = self._model.state, self._model.choice.problem
        texts = {"ready": "Build graph", "running": "Cancel", "cancelling": "Cancelling…"}
        tips = {
            "ready": problem or "Measure the nuclei, find their neighbours, and describe the organoid.",
            "running": "Stop; the layers of an earlier graph stay.",
            "cancelling": "Waiting for what is in work.",
        }
        self.button.setText(texts[state])
        self.button.setToolTip(tips[state])
        self.button.setStyleSheet(BLUE if state == "ready" else RED)
        self.button.setEnabled(state == "running" or (state == "ready" and not problem))
        share, words = self._model.progress
        self.bar.setVisible(state != "ready")
        self.bar.setValue(round(_STEPS * share) if state != "ready" else 0)
        text = words if state != "ready" else problem or self._model.summary
        self.words.setText(text)
        self.words.setVisible(bool(text))
