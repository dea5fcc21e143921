"""The Segment dock: one look tells what will happen, one click does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.dock_tools import Scroll, in_worker, notify
from napari_aprcnn._napari.first_run import FirstRun
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.settings import preferences
from napari_aprcnn._napari.views.advanced_box import AdvancedBox
from napari_aprcnn._napari.views.first_run_box import FirstRunBox
from napari_aprcnn._napari.views.fold import Fold
from napari_aprcnn._napari.views.image_box import ImageBox
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox
from napari_aprcnn._napari.views.model_box import ModelBox
from napari_aprcnn._napari.views.progress_box import ProgressBox
from napari_aprcnn._napari.views.readout_box import ReadoutBox
from napari_aprcnn._napari.views.volume_box import VolumeBox

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
        self.model = SegmentModel(napari_viewer, launch=_launch, backend=backend, preferences=preferences())
        self.guide = FirstRun(napari_viewer, self.model, open_dock=partial(_open_dock, napari_viewer))
        self._build()
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
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
        self.first_run = FirstRunBox(self.guide)
        layout.addWidget(self.first_run)
        layout.addLayout(form)
        self.images = ImageBox(self.model.images, form, self)
        self.models = ModelBox(self.model)
        form.addRow("Model", self.models)
        self._form = form
        self._add_diameter(form)
        self.volume = VolumeBox(self.model)
        form.addRow(self.volume)
        self._add_layers_row(form)
        self.run = ProgressBox(self.model)
        layout.addWidget(self.run)
        self._add_folds(layout)
        layout.addStretch(1)
        scroll = Scroll(content)
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
        self._planes_row = _side_by_side((self.diameter, 1), (self.preview, 0))
        form.addRow("Diameter", self._planes_row)

    def _add_layers_row(self, form: QFormLayout) -> None:
        self.probability = QCheckBox("probability")
        self.probability.setToolTip("Add a layer with the probability of each voxel to be nucleus, 0 to 1.")
        self.flows = QCheckBox("flows")
        self.flows.setToolTip(
            "Add a layer with the flows towards the nuclei's centres: hue is the direction in the y, x plane,\n"
            "brightness the strength."
        )
        self.levels = QCheckBox("levels")
        self.levels.setToolTip(
            "Add a layer with the level of the particle at each voxel: bright is fine, dark is coarse.\n"
            "Nuclei that lie in dark places were not resolved: take a smaller APR error."
        )
        self.reconstruction = QCheckBox("image")
        self.reconstruction.setToolTip(
            "Add a layer with the image that the particles are: what the network has seen.\n"
            "Painted where you look, at the resolution you look at."
        )
        self.particles = QCheckBox("in slice")
        self.particles.setToolTip(
            "Add a layer with a square for each particle that the shown plane cuts, of the size of its cell.\n"
            "It follows the slider; of more than 50,000 those nearest to the middle are shown."
        )
        self._options = {
            "show_probability": self.probability,
            "show_flows": self.flows,
            "show_levels": self.levels,
            "show_reconstruction": self.reconstruction,
            "show_particles": self.particles,
        }
        for name, box in self._options.items():
            box.toggled.connect(partial(self._set_option, name))
        form.addRow("Also show", _side_by_side((self.probability, 0), (self.flows, 1)))
        self._particles_row = _side_by_side((self.levels, 0), (self.reconstruction, 0), (self.particles, 1))
        form.addRow("Particles", self._particles_row)
        self.rerun = ChoiceBox()
        self.rerun.show_items(list(_RERUNS), "replace")
        self.rerun.setToolTip(
            "What a second run on the same image does with the labels of the first.\n"
            "Labels that you have edited are never replaced."
        )
        self.rerun.setAccessibleName("second run")
        self.rerun.activated.connect(lambda _: self.model.set_option(rerun=self.rerun.currentData()))
        form.addRow("Rerun", self.rerun)

    def _set_option(self, name: str, on: bool) -> None:
        self.model.set_option(**{name: on})

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
            self._show_kind()
        elif what == "reduction":
            self.volume.show_reduction()
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
            self.volume.show_reduction()

    def _show_parameters(self) -> None:
        settings = self.model.settings
        self.diameter.show_number(settings.config.diameter_px)
        for name, box in self._options.items():
            blocked = box.blockSignals(True)
            box.setChecked(getattr(settings, name))
            box.blockSignals(blocked)
        self.rerun.setCurrentIndex(self.rerun.findData(settings.rerun))
        self.models.refresh()
        self.advanced.refresh()
        self._show_kind()

    def _show_kind(self) -> None:
        """Show the inputs of the chosen kind of model only."""
        volumes = self.model.for_volumes
        for row, shown in ((self._planes_row, not volumes), (self.volume, volumes), (self._particles_row, volumes)):
            row.setVisible(shown)
            label = self._form.labelForField(row)
            if label is not None:
                label.setVisible(shown)
        self.volume.refresh()

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


def _open_dock(viewer: Any, name: str) -> None:
    holder, _ = viewer.window.add_plugin_dock_widget("napari-aprcnn", name, tabify=True)
    holder.raise_()


def _launch(function: Callable[[], None]) -> None:
    in_worker(function, "Segment (napari-aprcnn)")


def _side_by_side(*cells: tuple[QWidget, int]) -> QWidget:
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    for widget, stretch in cells:
        row.addWidget(widget, stretch)
    return holder
