"""The Graph dock: from labels to the graph of nuclei, its layers, what it says of the organoid, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_aprcnn._napari.dock_tools import Dock, in_worker
from napari_aprcnn._napari.graph_model import GraphModel
from napari_aprcnn._napari.views.graph_input_box import GraphInputBox
from napari_aprcnn._napari.views.graph_result_box import GraphResultBox
from napari_aprcnn._napari.views.graph_run_box import GraphRunBox

if TYPE_CHECKING:
    import napari

__all__ = ["GraphDock"]

POLL_MS = 50


class GraphDock(Dock):
    """Build and look at the graph of nuclei.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = GraphModel(napari_viewer, launch=lambda f: in_worker(f, "Graph of nuclei (napari-aprcnn)"))
        super().__init__(model, "aprcnn_graph_dock", poll_ms=POLL_MS)
        layout = self._column()
        self.inputs, self.run = GraphInputBox(self.model), GraphRunBox(self.model)
        self.results = GraphResultBox(self.model)
        for part in (self.inputs, self.run, self.results):
            layout.addWidget(part)
        layout.addStretch(1)
        self._follow()

    def _refresh(self, what: str) -> None:
        if what == "pending":
            self._watch()
            return
        for part in (self.inputs, self.run, self.results):
            part.refresh(what)
        if what == "state":
            self.inputs.setEnabled(self.model.state == "ready")
