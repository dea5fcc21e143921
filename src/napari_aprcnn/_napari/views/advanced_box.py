"""The advanced options, made from the configuration's fields and their docstrings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.fields import FieldSpec, field_specs
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, input_for, show_value
from napari_aprcnn.config import SegmentConfig

__all__ = ["AdvancedBox"]

# These have places of their own in the dock.
_ELSEWHERE = {
    ("model",),
    ("diameter_px",),
    ("keep_flows",),
    ("device",),
    *(("volume", name) for name in ("relative_error", "outline", "grow_vox", "zoom")),
}
_GROUPS: dict[str, str] = {
    "flows": "Masks", "normalise": "Normalisation", "tiles": "Tiles and memory", "volume": "3D"
}  # fmt: skip
_GROUP_OF = {"dimensionality": "3D", "stitch_iou": "3D", "smallest_share_3d": "3D"}
# What only one kind of model looks at.
_PLANES_ONLY = {
    ("dimensionality",),
    ("stitch_iou",),
    ("flows", "probability_threshold"),
    ("flows", "flow_threshold"),
    *(("normalise", name) for name in ("mode", "lower", "upper", "tile_px")),
    *(("tiles", name) for name in ("tile_px", "overlap", "border_px", "augment")),
}
_VOLUMES_ONLY = {("volume", "particle_stages")}
_ORDER = ("3D", "Masks", "Normalisation", "Tiles and memory", "Machine")
_UNITS = {"_px": "px", "_vox": "voxels", "_gb": "GB", "_um": "µm"}
# Where the field's name alone would not tell.
_WORDS = {
    "dimensionality": "mode",
    "stitch_iou": "stitch IoU",
    "n_steps": "steps",
    "lower": "lower percentile",
    "upper": "upper percentile",
    "flow_threshold_3d": "flow threshold 3D",
    "smallest_share_3d": "smallest share",
}
_DEVICES = ("auto", "cpu", "cuda", "mps")
_DEVICE_HELP = (
    "Where the network runs: auto takes the first GPU that works, else the CPU.\n"
    "A device asked for by name that cannot be used is an error, never a silent fallback.\n"
    "Default: auto. In the run file: device."
)


class AdvancedBox(QWidget):
    """One input for each field of a run's configuration that is not shown elsewhere.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: SegmentModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.inputs: dict[tuple[str, ...], QWidget] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        forms: dict[str, QFormLayout] = {}
        self._labels: dict[tuple[str, ...], QLabel] = {}
        self._headings: dict[str, QLabel] = {}
        for title in _ORDER:
            heading = QLabel(title)
            heading.setStyleSheet("QLabel { font-weight: bold; padding-top: 6px; }")
            layout.addWidget(heading)
            self._headings[title] = heading
            forms[title] = form = QFormLayout()
            form.setContentsMargins(6, 0, 0, 0)
            form.setVerticalSpacing(3)
            form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
            layout.addLayout(form)
        self._add_device(forms["Machine"])
        for spec in field_specs(SegmentConfig):
            if spec.path not in _ELSEWHERE and spec.kind != "text":
                self._add(forms[_group(spec)], spec)
        self.reset = QPushButton("Back to the defaults")
        self.reset.setToolTip("Set every parameter, the model and the diameter back to what a fresh installation has.")
        self.reset.clicked.connect(model.reset_parameters)
        layout.addWidget(self.reset)
        self.refresh()

    def _add(self, form: QFormLayout, spec: FieldSpec) -> None:
        path = spec.path

        def changed(value: Any) -> None:
            self._model.set(*path, value=value)

        words, unit = _label(spec)
        if path == ("dimensionality",):
            # Models for volumes have a place of their own: choosing one says it.
            spec = replace(spec, choices=tuple(choice for choice in spec.choices if choice != "volume"))
        self.inputs[path] = widget = input_for(spec, changed, unit=unit)
        label = QLabel(words)
        label.setToolTip(spec.tooltip)
        label.setBuddy(widget)
        self._labels[path] = label
        form.addRow(label, widget)

    def _add_device(self, form: QFormLayout) -> None:
        box = ChoiceBox()
        box.show_items([(name, name) for name in _DEVICES], "auto")
        box.setToolTip(_DEVICE_HELP)
        box.setAccessibleName("device")
        box.currentTextChanged.connect(lambda name: self._model.set("device", value=name))
        self.inputs["device",] = box
        form.addRow("device", box)

    def refresh(self) -> None:
        """Show the parameters as they are."""
        for path, widget in self.inputs.items():
            value = self._model.get(*path)
            if isinstance(widget, ChoiceBox) and widget.findData(value) < 0:
                blocked = widget.blockSignals(True)
                widget.addItem(str(value), value)  # a device such as cuda:1, from a run file
                widget.blockSignals(blocked)
            show_value(widget, value)
        self._show_kind()

    def _show_kind(self) -> None:
        """Hide what the chosen kind of model does not look at."""
        hidden = _PLANES_ONLY if self._model.for_volumes else _VOLUMES_ONLY
        for path, label in self._labels.items():
            label.setVisible(path not in hidden)
            self.inputs[path].setVisible(path not in hidden)
        self._headings["Normalisation"].setVisible(not self._model.for_volumes)


def _group(spec: FieldSpec) -> str:
    return _GROUPS.get(spec.path[0]) or _GROUP_OF.get(spec.path[0], "Machine")


def _label(spec: FieldSpec) -> tuple[str, str]:
    """Return the field's name in words, and its unit."""
    name = spec.path[-1]
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), unit
    return _WORDS.get(name) or name.replace("_", " "), ""
