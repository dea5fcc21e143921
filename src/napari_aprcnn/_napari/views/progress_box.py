"""The big button and what happens after it was clicked."""

from __future__ import annotations

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.views.button_styles import BLUE, RED
from napari_aprcnn._napari.views.inputs import WordsLabel

__all__ = ["SHORTCUT", "ProgressBox"]

SHORTCUT = "Ctrl+Return"
_STEPS = 1000
_STAGES = {"reading": "reading", "diameter": "finding the diameter", "network": "network", "masks": "making masks"}


class ProgressBox(QWidget):
    """Segment, Cancel, Cancelling: one button; below it how far the run is.

    Parameters
    ----------
    model
        What it shows and starts.
    """

    def __init__(self, model: SegmentModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.estimate = WordsLabel()
        self.estimate.setToolTip("Time and memory that the run will take; after a first run measured on this machine.")
        self.button = QPushButton("Segment")
        self.button.setObjectName("aprcnn_segment")
        self.button.setMinimumHeight(40)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.words = WordsLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        for widget in (self.estimate, self.button, self.bar, self.words):
            layout.addWidget(widget)
        self.button.clicked.connect(self._clicked)
        self.refresh("state")
        self.refresh("estimate")

    def _clicked(self, _checked: bool = False) -> None:
        if self._model.state == "ready":
            self._model.segment()
        else:
            self._model.cancel()

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        if what == "estimate":
            self.estimate.setText(self._model.estimate_words)
            self.estimate.setVisible(bool(self._model.estimate_words))
        elif what == "progress":
            self._show_progress()
        elif what == "state":
            self._show_state()

    def _show_state(self) -> None:
        state, problem = self._model.state, self._model.problem
        texts = {"ready": "Segment", "running": "Cancel", "cancelling": "Cancelling…"}
        tips = {
            "ready": problem or f"Find the nuclei in the whole image ({SHORTCUT}).",
            "running": f"Stop the run; no layer is left behind ({SHORTCUT}).",
            "cancelling": "Waiting for what is in work.",
        }
        self.button.setText(texts[state])
        self.button.setShortcut(QKeySequence(SHORTCUT))  # setText takes it away
        self.button.setToolTip(tips[state])
        self.button.setStyleSheet(BLUE if state == "ready" else RED)
        self.button.setEnabled(state == "running" or (state == "ready" and not problem))
        busy = state != "ready"
        self.bar.setVisible(busy)
        summary = problem or self._summary()
        self.words.setVisible(busy or bool(summary))
        if not busy:
            self.bar.setValue(0)
            self.words.setText(summary)
        elif state == "cancelling":
            self.words.setText("cancelling: waiting for what is in work")
        elif self._model.runner.progress is None:
            self.words.setText("starting: loading the model")

    def _summary(self) -> str:
        """Say what the last run found; the whole readout is folded away below."""
        result = self._model.runner.result
        if result is None:
            return ""
        readout = result.readout
        where = "preview" if self._model.runner.activity == "preview" else "last run"
        return f"{where}: {readout.n_objects} nuclei in {_words(readout.seconds)}"

    def _show_progress(self) -> None:
        progress = self._model.runner.progress
        if progress is None or self._model.state != "running":
            return
        self.bar.setValue(round(_STEPS * progress.fraction))
        stage = _STAGES.get(progress.stage, progress.stage)
        message = progress.message if progress.stage != "done" else "showing the labels"
        self.words.setText(f"{stage}: {message}" if progress.stage in _STAGES else message)


def _words(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
