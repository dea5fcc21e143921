"""The Annotate dock: a few slices, one click for each nucleus, nothing ever lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_aprcnn._napari.annotate_model import AnnotateModel
from napari_aprcnn._napari.dock_tools import Dock, in_worker
from napari_aprcnn._napari.views.annotate_setup_box import AnnotateSetupBox
from napari_aprcnn._napari.views.annotate_work_box import AnnotateWorkBox

if TYPE_CHECKING:
    import napari

__all__ = ["AnnotateDock"]

POLL_MS = 50


class AnnotateDock(Dock):
    """Choose slices of an image and annotate them.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = AnnotateModel(napari_viewer, launch=lambda run: in_worker(run, "Keep annotations (napari-aprcnn)"))
        super().__init__(model, "aprcnn_annotate_dock", poll_ms=POLL_MS)
        layout = self._column()
        self.setup, self.work = AnnotateSetupBox(self.model), AnnotateWorkBox(self.model)
        layout.addWidget(self.setup)
        layout.addWidget(self.work, 1)
        layout.addStretch(0)
        self._follow()
        self._refresh("state")

    def _refresh(self, what: str) -> None:
        annotating = self.model.session is not None
        if what == "state":
            self.setup.setVisible(not annotating)
            self.work.setVisible(annotating)
        if annotating:
            self.work.refresh(what)
        else:
            self.setup.refresh(what)
        self._watch()

    def _leave(self) -> None:
        self.model.leave()  # write everything
        self.model.close()
