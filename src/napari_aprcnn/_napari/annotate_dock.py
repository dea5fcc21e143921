"""The Annotate dock: a few slices, one click for each nucleus, nothing ever lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_aprcnn._napari.annotate_model import AnnotateModel
from napari_aprcnn._napari.dock_tools import Scroll, in_worker, notify
from napari_aprcnn._napari.views.annotate_setup_box import AnnotateSetupBox
from napari_aprcnn._napari.views.annotate_work_box import AnnotateWorkBox

if TYPE_CHECKING:
    import napari

__all__ = ["AnnotateDock"]

POLL_MS = 50


class AnnotateDock(QWidget):
    """Choose slices of an image and annotate them.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("aprcnn_annotate_dock")
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.model = AnnotateModel(napari_viewer, launch=lambda run: in_worker(run, "Keep annotations (napari-aprcnn)"))
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        self.setup, self.work = AnnotateSetupBox(self.model), AnnotateWorkBox(self.model)
        layout.addWidget(self.setup)
        layout.addWidget(self.work, 1)
        layout.addStretch(0)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scroll(content))
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)
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
        if self.model.pending and not self._timer.isActive():
            self._timer.start()

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    def event(self, event: Any) -> bool:
        """Write everything when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self.model.leave()
            self.model.close()
        return bool(super().event(event))
