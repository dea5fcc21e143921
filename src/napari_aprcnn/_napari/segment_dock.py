"""The Segment dock: one look tells what will happen, one click does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import Notification, notification_manager, show_error, show_info
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.settings import preferences
from napari_aprcnn._napari.views.advanced_box import AdvancedBox
from napari_aprcnn._napari.views.fold import Fold
from napari_aprcnn._napari.views.image_box import ImageBox
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox
from napari_aprcnn._napari.views.model_box import ModelBox
from napari_aprcnn._napari.views.progress_box import ProgressBox
from napari_aprcnn._napari.views.readout_box import ReadoutBox

if TYPE_CHECKING:
    import napari

    from napari_aprcnn._napari.backend import Backend

__all__ = ["SegmentDock"]

POLL_MS = 33
_RERUNS = [("replaces the labels", "replace"), ("adds another layer", "version")]


class SegmentDock(QWidget):
    """Find nuclei in an image layer.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    backend
        The functions that do the work; ``None``: those of the package.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, *, backend: Backend | None = None) -> None:
        super().__init__()
        self.setObjectName("aprcnn_segment_dock")
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.model = SegmentModel(napari_viewer, launch=_in_worker, backend=backend, preferences=preferences())
        self._build()
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(_notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)
        for what in ("parameters", "machine", "estimate", "state", "pending"):
            self._refresh(what)

    # --- building ----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        form = QFormLayout()
        form.setVerticalSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        layout.addLayout(form)
        self.images = ImageBox(self.model.images, form, self)
        self.models = ModelBox(self.model)
        form.addRow("Model", self.models)
        self._add_diameter(form)
        self._add_layers_row(form)
        self.run = ProgressBox(self.model)
        layout.addWidget(self.run)
        self._add_folds(layout)
        layout.addStretch(1)
        scroll = _Scroll(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)

    def _add_diameter(self, form: QFormLayout) -> None:
        self.diameter = NumberBox(0.0, 10_000.0, auto="auto", step=1.0, unit="px")
        self.diameter.setToolTip(
            "Typical diameter of a nucleus in the y, x plane, in pixels of the image (typically 5 to 150).\n"
            "auto: found by a first pass of the network; what it found is shown after the run.\n"
            "Type 0 for auto."
        )
        self.diameter.setAccessibleName("diameter")
        self.diameter.valueChanged.connect(lambda _: self.model.set("diameter_px", value=self.diameter.number()))
        self.preview = QPushButton("Preview view")
        self.preview.setToolTip(
            "Segment only what the camera shows, in the current plane (at most 1024 x 1024 pixels),\n"
            "into a layer of its own: a quick look at what the parameters do."
        )
        self.preview.clicked.connect(lambda _: self.model.preview())
        form.addRow("Diameter", _side_by_side((self.diameter, 1), (self.preview, 0)))

    def _add_layers_row(self, form: QFormLayout) -> None:
        self.probability = QCheckBox("probability")
        self.probability.setToolTip("Add a layer with the probability of each voxel to be nucleus, 0 to 1.")
        self.flows = QCheckBox("flows")
        self.flows.setToolTip(
            "Add a layer with the flows towards the nuclei's centres: hue is the direction in the y, x plane,\n"
            "brightness the strength."
        )
        self.probability.toggled.connect(lambda on: self.model.set_option(show_probability=on))
        self.flows.toggled.connect(lambda on: self.model.set_option(show_flows=on))
        form.addRow("Also show", _side_by_side((self.probability, 0), (self.flows, 1)))
        self.rerun = ChoiceBox()
        self.rerun.show_items(list(_RERUNS), "replace")
        self.rerun.setToolTip(
            "What a second run on the same image does with the labels of the first.\n"
            "Labels that you have edited are never replaced."
        )
        self.rerun.setAccessibleName("second run")
        self.rerun.activated.connect(lambda _: self.model.set_option(rerun=self.rerun.currentData()))
        form.addRow("Rerun", self.rerun)

    def _add_folds(self, layout: QVBoxLayout) -> None:
        self.advanced = AdvancedBox(self.model)
        self.save_run = QPushButton("Save run…")
        self.save_run.setToolTip("Write the parameters of this run as JSON: aprcnn segment IMAGE --config RUN.json")
        self.load_run = QPushButton("Load run…")
        self.load_run.setToolTip("Take the parameters of a run file, from here or from the command line.")
        self.save_run.clicked.connect(self._save_run)
        self.load_run.clicked.connect(self._load_run)
        self.readout = ReadoutBox(self.model)
        self.advanced_fold = Fold("Advanced", self.advanced, is_open=self.model.settings.advanced_open)
        self.readout_fold = Fold("Last run", self.readout)
        self.advanced_fold.toggled.connect(lambda on: self.model.set_option(advanced_open=on))
        layout.addWidget(self.advanced_fold)
        layout.addWidget(self.readout_fold)
        layout.addWidget(_side_by_side((self.save_run, 1), (self.load_run, 1)))

    # --- following the model -----------------------------------------------------------------------------------------

    def _refresh(self, what: str) -> None:
        if what in ("layers", "image"):
            self.images.refresh(what)
        elif what == "parameters":
            self._show_parameters()
        elif what == "machine":
            self.models.refresh()
        elif what == "result":
            self.readout.refresh()
            self._show_found_diameter()
        elif what == "pending" and self.model.pending:
            self._timer.start()
        self.run.refresh(what)
        if what == "state":
            ready = self.model.state == "ready"
            self.preview.setEnabled(ready and not self.model.problem)
            self.save_run.setEnabled(not self.model.problem)

    def _show_parameters(self) -> None:
        settings = self.model.settings
        self.diameter.show_number(settings.config.diameter_px)
        for box, on in ((self.probability, settings.show_probability), (self.flows, settings.show_flows)):
            blocked = box.blockSignals(True)
            box.setChecked(on)
            box.blockSignals(blocked)
        self.rerun.setCurrentIndex(self.rerun.findData(settings.rerun))
        self.models.refresh()
        self.advanced.refresh()

    def _show_found_diameter(self) -> None:
        result = self.model.runner.result
        readout = result.readout if result is not None else None
        found = readout is not None and not readout.diameter_given and readout.diameter_px
        self.diameter.setSpecialValueText(f"auto: {readout.diameter_px:.1f} px" if readout and found else "auto")

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    # --- files -------------------------------------------------------------------------------------------------------

    def _save_run(self, _checked: bool = False) -> None:
        start = str(Path(self.model.settings.folder or Path.home()) / "run.json")
        path, _ = QFileDialog.getSaveFileName(self, "Save the run's parameters", start, "Run file (*.json)")
        if path and self.model.export_config(path):
            self.model.set_option(folder=str(Path(path).parent))

    def _load_run(self, _checked: bool = False) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Load the parameters of a run", self.model.settings.folder, "Run file (*.json)"
        )
        if path and self.model.load_config(path):
            self.model.set_option(folder=str(Path(path).parent))

    # --- leaving -----------------------------------------------------------------------------------------------------

    def event(self, event: Any) -> bool:
        """Stop the run when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self.model.close()
        return bool(super().event(event))


class _Scroll(QScrollArea):
    """Scrolls up and down only; never so narrow that a part of the dock is cut."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return what the parts need in the style of the moment, and room for the scroll bar."""
        width = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(width, 200)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Follow the parts when the style or a longer text makes them wider."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the least width, and a height for a small screen."""
        return QSize(self.minimumSizeHint().width(), 600)


class _Named:
    """A callable that says in words what it does, for napari's list of tasks."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()

    def __repr__(self) -> str:
        return "Segment (napari-aprcnn)"


def _in_worker(function: Callable[[], None]) -> None:
    worker = create_worker(_Named(function), _start_thread=False, _ignore_errors=True)
    worker.start()


def _notify(severity: str, sentence: str, error: Exception | None) -> None:
    if error is not None:
        notification_manager.dispatch(Notification.from_exception(error))
    elif severity == "error":
        show_error(sentence)
    else:
        show_info(sentence)


def _side_by_side(*cells: tuple[QWidget, int]) -> QWidget:
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    for widget, stretch in cells:
        row.addWidget(widget, stretch)
    return holder
