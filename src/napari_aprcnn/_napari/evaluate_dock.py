"""The Evaluate dock: how good labels are, and where they are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_aprcnn._napari.dock_tools import Dock, in_worker
from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.views.evaluate_choice_box import EvaluateChoiceBox
from napari_aprcnn._napari.views.evaluate_errors_box import EvaluateErrorsBox
from napari_aprcnn._napari.views.evaluate_run_box import EvaluateRunBox
from napari_aprcnn._napari.views.evaluate_scores_box import EvaluateScoresBox

if TYPE_CHECKING:
    import napari

__all__ = ["EvaluateDock"]

POLL_MS = 50


class EvaluateDock(Dock):
    """Compare labels with labels or points.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = EvaluateModel(napari_viewer, launch=lambda f: in_worker(f, "Evaluate (napari-aprcnn)"))
        super().__init__(model, "aprcnn_evaluate_dock", poll_ms=POLL_MS)
        self._build()
        self._follow()

    def _build(self) -> None:
        layout = self._column()
        self.choice = EvaluateChoiceBox(self.model)
        self.run = EvaluateRunBox(self.model)
        self.scores = EvaluateScoresBox(self.model)
        self.errors = EvaluateErrorsBox(self.model)
        for part in (self.choice, self.run, self.scores):
            layout.addWidget(part)
        layout.addWidget(self.errors, 1)
        layout.addStretch(0)

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
        if what == "pending":
            self._watch()
