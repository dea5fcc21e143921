"""The Evaluate dock: how good labels are, and where they are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_aprcnn._napari.dock_tools import Scroll, in_worker, notify
from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.views.evaluate_choice_box import EvaluateChoiceBox
from napari_aprcnn._napari.views.evaluate_errors_box import EvaluateErrorsBox
from napari_aprcnn._napari.views.evaluate_run_box import EvaluateRunBox
from napari_aprcnn._napari.views.evaluate_scores_box import EvaluateScoresBox

if TYPE_CHECKING:
    import napari

__all__ = ["EvaluateDock"]

POLL_MS = 50


class EvaluateDock(QWidget):
    """Compare labels with labels or points.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("aprcnn_evaluate_dock")
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.model = EvaluateModel(napari_viewer, launch=lambda f: in_worker(f, "Evaluate (napari-aprcnn)"))
        self._build()
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)

    def _build(self) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        self.choice = EvaluateChoiceBox(self.model)
        self.run = EvaluateRunBox(self.model)
        self.scores = EvaluateScoresBox(self.model)
        self.errors = EvaluateErrorsBox(self.model)
        for part in (self.choice, self.run, self.scores):
            layout.addWidget(part)
        layout.addWidget(self.errors, 1)
        layout.addStretch(0)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scroll(content))

    def _refresh(self, what: str) -> None:
        if what == "choice":
            self.choice.refresh()
        if what in ("choice", "state", "progress", "outdated", "result"):
            self.run.refresh()
        if what in ("shown", "state"):
            self.scores.refresh()
        if what == "shown":
            self.errors.refresh()
        if what == "state":
            self.choice.setEnabled(self.model.state == "ready")
        if what == "pending" and self.model.pending:
            self._timer.start()

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    # --- leaving -----------------------------------------------------------------------------------------------------

    def event(self, event: Any) -> bool:
        """Stop the work when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self.model.close()
        return bool(super().event(event))
