"""The Graph dock: from labels to the graph of nuclei, its layers, what it says of the organoid, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_aprcnn._napari.dock_tools import Scroll, in_worker, notify
from napari_aprcnn._napari.graph_model import GraphModel
from napari_aprcnn._napari.views.graph_input_box import GraphInputBox
from napari_aprcnn._napari.views.graph_result_box import GraphResultBox
from napari_aprcnn._napari.views.graph_run_box import GraphRunBox

if TYPE_CHECKING:
    import napari

__all__ = ["GraphDock"]

POLL_MS = 50


class GraphDock(QWidget):
    """Build and look at the graph of nuclei.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("aprcnn_graph_dock")
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.model = GraphModel(napari_viewer, launch=lambda f: in_worker(f, "Graph of nuclei (napari-aprcnn)"))
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        self.inputs, self.run = GraphInputBox(self.model), GraphRunBox(self.model)
        self.results = GraphResultBox(self.model)
        for part in (self.inputs, self.run, self.results):
            layout.addWidget(part)
        layout.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scroll(content))
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)

    def _refresh(self, what: str) -> None:
        if what == "pending":
            if self.model.pending:
                self._timer.start()
            return
        for part in (self.inputs, self.run, self.results):
            part.refresh(what)
        if what == "state":
            self.inputs.setEnabled(self.model.state == "ready")

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    def event(self, event: Any) -> bool:
        """Stop the work when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self.model.close()
        return bool(super().event(event))
