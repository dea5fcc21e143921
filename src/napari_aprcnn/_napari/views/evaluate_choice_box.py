"""What is compared with what: prediction layers, the truth, what is ignored, and from which IoU on."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QWidget,
)

from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox
from napari_aprcnn._napari.views.train_parameters_box import side_by_side

__all__ = ["EvaluateChoiceBox"]

_MOST_ROWS = 5


class EvaluateChoiceBox(QWidget):
    """The inputs of the Evaluate dock.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: EvaluateModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._rows: list[Any] = []
        self.predictions = QListWidget()
        self.predictions.setToolTip("Labels to evaluate; tick several to compare them.")
        self.predictions.setAccessibleName("predictions")
        self.predictions.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.predictions.itemChanged.connect(self._ticked)
        self.truth, self.ignore = ChoiceBox(), ChoiceBox()
        self.truth.setToolTip("What is true: labels of every nucleus, or a points layer with one point in each.")
        self.truth.setAccessibleName("truth")
        self.ignore.setToolTip(
            "A labels layer whose labels mark a region that counts for nobody: out of focus, not annotated.\n"
            "Objects with more than half of their voxels in it are left out on both sides."
        )
        self.ignore.setAccessibleName("ignore")
        self.truth.activated.connect(lambda _: model.choose(truth=self.truth.currentData()))
        self.ignore.activated.connect(lambda _: model.choose(ignore=self.ignore.currentData()))
        self.columns = QLineEdit()
        self.columns.setToolTip(
            "Which columns of the table hold the axes, as z=slice,y=Y,x=X (z_um=... for micrometres).\n"
            "Empty: columns named z, y, x (voxels) or z_um, y_um, x_um, or napari's own."
        )
        self.columns.setPlaceholderText("columns: by name")
        self.columns.setAccessibleName("columns of the points")
        self.open_points = QPushButton("Open points...")
        self.open_points.setToolTip("Show a table of points (CSV) on the ticked labels, and take it as the truth.")
        self.open_points.clicked.connect(self._open_points)
        self.iou = NumberBox(0.1, 0.95, step=0.05)
        self.iou.setToolTip(
            "Intersection over union from which on an object counts as found (0.1 to 0.95, usually 0.5).\n"
            "Against points it has no meaning: one point in an object is a hit."
        )
        self.iou.setAccessibleName("IoU")
        self.iou.valueChanged.connect(lambda value: model.set_option(iou=float(value)))
        self.slices = QLineEdit()
        self.slices.setToolTip(
            "Annotated slices of a volume, each taken by itself: 0,4,10-12, or all. Empty: the volume as a whole.\n"
            "Needed where points or labels were set slice by slice."
        )
        self.slices.setAccessibleName("slices")
        self.slices.editingFinished.connect(lambda: model.set_slices(self.slices.text()))
        self.min_size = NumberBox(0, 1e9, step=10)
        self.min_size.setToolTip("Objects smaller than this are left out on both sides (0: none).")
        self.min_size.setAccessibleName("minimum size")
        self.min_size.valueChanged.connect(lambda value: model.set_option(min_size=float(value)))
        self.unit = ChoiceBox()
        self.unit.show_items([("voxels", "voxels"), ("µm³", "um")], model.settings.min_size_unit)
        self.unit.setToolTip("Unit of the minimum size; µm³ needs the voxel size of the layer (in 2D: µm²).")
        self.unit.setAccessibleName("unit of the minimum size")
        self.unit.activated.connect(lambda _: model.set_option(min_size_unit=self.unit.currentData()))
        self.errors = QCheckBox("colour hits and errors in a layer")
        self.errors.setToolTip("Add a labels layer that colours hits, misses, merges, splits and false positives.")
        self.errors.toggled.connect(lambda on: model.set_option(show_errors=on))
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for name, widget in (
            ("Predictions", self.predictions), ("Truth", self.truth),
            ("", side_by_side((self.columns, 1), (self.open_points, 0))), ("Ignore", self.ignore),
            ("IoU", self.iou), ("Slices", self.slices),
            ("Min size", side_by_side((self.min_size, 1), (self.unit, 1))), ("", self.errors),
        ):  # fmt: skip
            form.addRow(name, widget)
        self.refresh()

    def _ticked(self, _item: Any) -> None:
        ticked = [self.predictions.item(row).checkState() == Qt.CheckState.Checked for row in range(len(self._rows))]
        self._model.choose(predictions=[layer for layer, on in zip(self._rows, ticked, strict=True) if on])

    def _open_points(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Open points", self._model.settings.folder, "Table (*.csv *.tsv *.txt)"
        )
        if path:
            self._model.open_points(path, self.columns.text())

    def refresh(self) -> None:
        """Show what is chosen."""
        model = self._model
        self._show_predictions()
        truths: list[tuple[str, Any]] = [(str(layer.name), layer) for layer in model.truths]
        self.truth.show_items(truths or [("no labels, no points yet", None)], model.truth)
        others = [la for la in model.labels if la is not model.truth and la not in model.predictions]
        self.ignore.show_items([("nothing", None), *((str(layer.name), layer) for layer in others)], model.ignore)
        for box, value in ((self.iou, model.settings.iou), (self.min_size, model.settings.min_size)):
            box.show_number(value)
        self.iou.setEnabled(not model.against_points)
        self.unit.setCurrentIndex(self.unit.findData(model.settings.min_size_unit))
        self.slices.setText(model.slices)
        volumes = not model.predictions or any(layer.ndim > 2 for layer in model.predictions)
        self.slices.setEnabled(volumes)
        self.slices.setPlaceholderText("whole volume" if volumes else "a single plane")
        blocked = self.errors.blockSignals(True)
        self.errors.setChecked(model.settings.show_errors)
        self.errors.blockSignals(blocked)

    def _show_predictions(self) -> None:
        model, box = self._model, self.predictions
        blocked = box.blockSignals(True)
        layers = [layer for layer in model.labels if layer is not model.truth]
        # A tick comes from an item: it must not be taken away while it tells of it.
        if layers != self._rows or box.count() != max(1, len(layers)):
            box.clear()
            self._rows = layers
            for _ in layers:
                item = QListWidgetItem()
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                box.addItem(item)
        for row, layer in enumerate(layers):
            item = box.item(row)
            item.setText(str(layer.name))
            item.setToolTip(str(layer.name))
            item.setCheckState(Qt.CheckState.Checked if layer in model.predictions else Qt.CheckState.Unchecked)
        if not layers and not box.count():
            empty = QListWidgetItem("no predicted labels yet")
            empty.setFlags(Qt.ItemFlag.NoItemFlags)
            box.addItem(empty)
        rows = min(_MOST_ROWS, max(1, len(layers)))
        box.setFixedHeight(rows * max(20, box.sizeHintForRow(0)) + 2 * box.frameWidth() + 4)
        box.blockSignals(blocked)
