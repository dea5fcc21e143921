"""The Training dock: annotated volumes in, a model of one's own out. The work is done in a process of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QFormLayout, QMainWindow, QMessageBox, QVBoxLayout, QWidget

from napari_aprcnn._napari.dock_tools import Scroll, in_worker, notify
from napari_aprcnn._napari.train_model import TrainModel
from napari_aprcnn._napari.views.fold import Fold
from napari_aprcnn._napari.views.train_data_box import TrainDataBox
from napari_aprcnn._napari.views.train_parameters_box import TrainAdvancedBox, TrainParametersBox
from napari_aprcnn._napari.views.train_progress_box import TrainProgressBox
from napari_aprcnn.train.process import TrainingProcess

if TYPE_CHECKING:
    import napari

    from napari_aprcnn._napari.train_runner import Child

__all__ = ["TrainDock"]

POLL_MS = 100


class TrainDock(QWidget):
    """Train a network for volumes on labels of one's own.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    start_child
        Starts the process that trains.
    """

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, *, start_child: Callable[[Path], Child] = TrainingProcess
    ) -> None:
        super().__init__()
        self.setObjectName("aprcnn_train_dock")
        self._viewer = napari_viewer
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.model = TrainModel(
            napari_viewer, launch=lambda f: in_worker(f, "Write training data (napari-aprcnn)"), start_child=start_child
        )
        self._build()
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)
        self._refresh("state")

    def _build(self) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        self._inputs = QWidget()
        form = QFormLayout(self._inputs)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.data = TrainDataBox(self.model.data)
        form.addRow("Train on", self.data)
        self.parameters = TrainParametersBox(self.model, form, self)
        self.run = TrainProgressBox(self.model)
        self.run.use_clicked.connect(self._use_model)
        self.advanced = TrainAdvancedBox(self.model)
        self.advanced_fold = Fold("Advanced", self.advanced, is_open=self.model.settings.advanced_open)
        self.advanced_fold.toggled.connect(lambda on: self.model.set_option(advanced_open=on))
        for part in (self._inputs, self.run, self.advanced_fold):
            layout.addWidget(part)
        layout.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scroll(content))

    # --- following the model -----------------------------------------------------------------------------------------

    def _refresh(self, what: str) -> None:
        if what in ("layers", "rows"):
            self.data.refresh(what)
        elif what == "parameters":
            self.parameters.refresh()
            self.advanced.refresh()
        elif what == "pending" and self.model.pending:
            self._timer.start()
        self.run.refresh(what)
        if what == "state":
            ready = self.model.state == "ready"
            for part in (self._inputs, self.advanced):
                part.setEnabled(ready)

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    def _use_model(self) -> None:
        if not self.model.use_model():
            self._viewer.window.add_plugin_dock_widget("napari-aprcnn", "Segment nuclei")
            self.model.use_model()  # a dock that remembers nothing between sessions has to be told

    # --- leaving -----------------------------------------------------------------------------------------------------

    def event(self, event: Any) -> bool:
        """Stop the training when napari takes the dock out of its window; watch the window that it is in."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            if self.model.pending:
                notify(
                    "info", f"the Training dock was closed: its training stops; {self.model.runner.kept_words}", None
                )
            self.model.close()
        elif event.type() == QEvent.Type.Show:
            self._watch_window()
        return bool(super().event(event))

    def _watch_window(self) -> None:
        main = self.parentWidget()
        while main is not None and not isinstance(main, QMainWindow):
            main = main.parentWidget()
        if main is not None and not any(guard.guards(self) for guard in main.findChildren(_CloseGuard)):
            _CloseGuard(main, self)

    def may_close(self) -> bool:
        """Whether napari may close: asks, if a training goes on, and stops it if that is the answer."""
        if not self.model.pending:
            return True
        if not self.ask_to_stop():
            return False
        self._timer.stop()
        self.model.close()
        return True

    def ask_to_stop(self) -> bool:
        """Ask whether the training may be stopped with the window."""
        words = f"{self.model.progress_words[:1].upper()}{self.model.progress_words[1:]}."
        kept = self.model.runner.kept_words
        box = QMessageBox(QMessageBox.Icon.Question, "A training goes on", f"A training goes on. {words}", parent=self)
        box.setInformativeText(f"If you close napari it is stopped; {kept}.")
        stop = box.addButton("Stop it and close", QMessageBox.ButtonRole.DestructiveRole)
        box.addButton("Keep training", QMessageBox.ButtonRole.RejectRole)
        box.exec()
        return bool(box.clickedButton() is stop)


class _CloseGuard(QObject):
    """Asks a dock before its window closes. It belongs to the window, and does not keep the dock."""

    def __init__(self, window: QMainWindow, dock: TrainDock) -> None:
        super().__init__(window)
        self._dock = weakref.ref(dock)
        window.installEventFilter(self)

    def guards(self, dock: TrainDock) -> bool:
        """Whether it is that dock's."""
        return self._dock() is dock

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Hold a close event back that the dock does not want."""
        if event.type() == QEvent.Type.Close and watched is self.parent():
            dock = self._dock()
            if dock is not None and not dock.may_close():
                event.ignore()
                return True
        return False
