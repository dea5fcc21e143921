"""The Inspect dock: a table of the objects, linked with the viewer, and the tools to correct them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QMainWindow,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.dock_tools import Scroll, in_worker, notify
from napari_aprcnn._napari.inspect_model import InspectModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, WordsLabel
from napari_aprcnn._napari.views.inspect_edit_box import InspectEditBox
from napari_aprcnn._napari.views.inspect_histogram import HistogramPlot
from napari_aprcnn._napari.views.inspect_planes import OrthoViews
from napari_aprcnn._napari.views.inspect_table import ObjectTableView

if TYPE_CHECKING:
    import napari

__all__ = ["InspectDock"]

POLL_MS = 40
_FILTER_PAUSE_MS = 250


class InspectDock(QWidget):
    """Measure, sort, filter, colour and correct the objects of a labels layer.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("aprcnn_inspect_dock")
        self._viewer = napari_viewer
        self.ortho: OrthoViews | None = None
        self._timer = _timer(self, POLL_MS, self._poll)
        self._filter_timer = _timer(self, _FILTER_PAUSE_MS, self._filter)
        self._filter_timer.setSingleShot(True)
        self.model = InspectModel(napari_viewer, launch=_launch)
        self._build()
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)
        for what in ("layers", "table", "column", "rows", "state", "pending"):
            self._refresh(what)

    # --- building ----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(5)
        layout.addLayout(self._layers_form())
        layout.addLayout(self._state_row())
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("filter, for example: volume_um3 > 100 and sphericity < 0.8")
        self.filter.setClearButtonEnabled(True)
        self.filter.setAccessibleName("filter")
        self.filter.setToolTip(
            "Show only the objects for which this holds. Columns, numbers, < <= > >= == !=, + - * /, and, or, not,\n"
            "parentheses: 100 < volume_um3 < 900 and not touches_border"
        )
        self.filter.textChanged.connect(lambda _: self._filter_timer.start())
        self.filter.returnPressed.connect(self._filter)
        self.filter_problem = WordsLabel("", small=True)
        self.table = ObjectTableView(self.model.sheet)
        self.table.opened.connect(lambda row: self.model.go_to(self.model.sheet.key(row)))
        self.table.delete_pressed.connect(lambda: self.model.edit("delete"))
        self.histogram = HistogramPlot()
        self.histogram.range_chosen.connect(self._select_range)
        self.edits = InspectEditBox(self.model)
        for part in (self.filter, self.filter_problem):
            layout.addWidget(part)
        layout.addWidget(self.table, 1)
        layout.addLayout(self._column_row())
        for part in (self.histogram, self.edits):
            layout.addWidget(part)
        layout.addLayout(self._last_row())
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scroll(content))

    def _layers_form(self) -> QFormLayout:
        form = QFormLayout()
        form.setVerticalSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.labels, self.image = ChoiceBox(), ChoiceBox()
        self.labels.setToolTip("The labels layer whose objects are listed and edited: Y, X with Z and T or without.")
        self.image.setToolTip("An image layer of the same shape: its intensities are measured within the objects.")
        self.labels.setPlaceholderText("no labels layer")
        self.labels.setAccessibleName("labels layer")
        self.image.setAccessibleName("image layer")
        self.labels.activated.connect(lambda _: self.model.layers.choose_labels(self.labels.currentData()))
        self.image.activated.connect(lambda _: self.model.layers.choose_image(self.image.currentData()))
        form.addRow("Labels", self.labels)
        form.addRow("Image", self.image)
        return form

    def _state_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.words = WordsLabel("")
        self.measure = QPushButton("Measure")
        self.measure.setToolTip("Measure all objects again. Edits and strokes of the brush are measured by themselves.")
        self.measure.clicked.connect(lambda _: self.model.measure())
        row.addWidget(self.words, 1)
        row.addWidget(self.measure)
        return row

    def _column_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.column = ChoiceBox()
        self.column.setAccessibleName("column")
        self.column.setToolTip("Column of the histogram and of the colours.")
        self.column.activated.connect(lambda _: self.model.sheet.choose_column(self.column.currentText()))
        self.colours = QCheckBox("colour labels")
        self.colours.setToolTip(
            "Colour the labels by this column, dark to light (viridis); hidden objects are faint, those without a\n"
            "number grey. Off: the colours that they had."
        )
        self.colours.toggled.connect(self.model.set_colours)
        self.to_filter = QPushButton("To filter")
        self.to_filter.setToolTip("Add the range that was dragged in the histogram to the filter.")
        self.to_filter.clicked.connect(self._range_to_filter)
        row.addWidget(self.column, 1)
        row.addWidget(self.colours)
        row.addWidget(self.to_filter)
        return row

    def _last_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(4)
        self.planes = QPushButton("Orthogonal views")
        self.planes.setToolTip("Planes xy, zy and xz through one voxel, linked with the sliders of the viewer.")
        self.save_table, self.save_pair = QPushButton("Save table…"), QPushButton("Save as training data…")
        self.save_table.setToolTip("Write the shown rows, in their order, as CSV.")
        self.save_pair.setToolTip(
            "Add image and labels to a folder, as images/NAME.tif and labels/NAME.tif with the voxel size:\n"
            "add that folder in the Training dock, or give it to aprcnn train-volumes."
        )
        self.planes.clicked.connect(self.open_planes)
        self.save_table.clicked.connect(self._save_table)
        self.save_pair.clicked.connect(self._save_pair)
        for button in (self.planes, self.save_table, self.save_pair):
            row.addWidget(button, 1)
        return row

    # --- following the model -----------------------------------------------------------------------------------------

    def _refresh(self, what: str) -> None:
        model = self.model
        if what in ("layers", "choice"):
            self._show_layers()
        if what in ("rows", "selection"):  # other rows follow another table
            self.table.refresh(what)
        if what in ("table", "column"):
            names = model.sheet.table.names if model.sheet.table is not None else ()
            self.column.show_items([(name, name) for name in names], model.sheet.column)
        if what in ("table", "rows", "column", "colours"):
            self.histogram.show_counts(model.sheet.histogram(), model.sheet.column, model.painter.colouring)
            self.to_filter.setEnabled(self.histogram.range is not None)
        if what == "rows":
            self.filter_problem.setText(model.sheet.filter_problem)
            self.filter_problem.setVisible(bool(model.sheet.filter_problem))
        if what == "pending" and model.pending:
            self._timer.start()
        if what in ("table", "rows", "selection", "state", "edits", "points", "choice"):
            self.words.setText(model.words)
            self.edits.refresh()
            self._enable()

    def _show_layers(self) -> None:
        layers = self.model.layers
        self.labels.show_items([(layer.name, layer) for layer in layers.all_labels], layers.labels)
        self.labels.setEnabled(bool(layers.all_labels))
        images = [("none", None), *((layer.name, layer) for layer in layers.all_images)]
        self.image.show_items(images, layers.image)
        self.image.setEnabled(len(images) > 1)

    def _enable(self) -> None:
        model = self.model
        ready, has_rows = model.state == "ready", bool(len(model.sheet.rows))
        self.measure.setEnabled(ready and not model.layers.problem)
        self.save_table.setEnabled(ready and has_rows)
        self.save_pair.setEnabled(ready and has_rows and model.layers.image is not None)
        self.planes.setEnabled("Z" in model.layers.axes)

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    # --- inputs ------------------------------------------------------------------------------------------------------

    def _filter(self) -> None:
        self._filter_timer.stop()
        if self.filter.text().strip() != self.model.sheet.filter_text:
            self.model.sheet.set_filter(self.filter.text())

    def _select_range(self, low: float, high: float) -> None:
        self.to_filter.setEnabled(self.histogram.range is not None)
        if self.histogram.range is None:
            self.model.sheet.select([])
        else:
            self.model.sheet.select_range(low, high)

    def _range_to_filter(self, _checked: bool = False) -> None:
        if self.histogram.range is None:
            return
        low, high = self.histogram.range
        condition = f"{low:.6g} <= {self.model.sheet.column} <= {high:.6g}"
        before = self.filter.text().strip()
        self.filter.setText(f"({before}) and {condition}" if before else condition)
        self._filter()

    def open_planes(self, _checked: bool = False) -> None:
        """Open the orthogonal views below the viewer, once."""
        if self.ortho is not None and not self.ortho.model.closed:
            self.ortho.show()
            return
        self.ortho = OrthoViews(self._viewer, self.model, _launch)
        main = self.window()
        if isinstance(main, QMainWindow):  # below the canvas only: the docks at the sides keep their height
            main.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
            main.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea)
        self._viewer.window.add_dock_widget(self.ortho, name="Orthogonal views", area="bottom")

    def _save_table(self, _checked: bool = False) -> None:
        layer = self.model.layers.labels
        name = f"{layer.name}.csv" if layer is not None else "objects.csv"
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", str(Path.home() / name), "Table (*.csv)")
        if path:
            self.model.save_table(path if path.lower().endswith(".csv") else f"{path}.csv")

    def _save_pair(self, _checked: bool = False) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of training data, new or one to add to")
        if path:
            self.model.save_training(path)

    # --- keys and leaving --------------------------------------------------------------------------------------------

    def event(self, event: Any) -> bool:
        """Take Ctrl+Z before napari does; stop when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ShortcutOverride and _is_history(event):
            event.accept()
            return True
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self._filter_timer.stop()
            self.model.close()
            if self.ortho is not None:
                self.ortho.model.close()
        return bool(super().event(event))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Undo, redo, and leave a split."""
        if event.matches(QKeySequence.StandardKey.Undo):
            self.model.undo()
        elif event.matches(QKeySequence.StandardKey.Redo):
            self.model.redo()
        elif event.key() == Qt.Key.Key_Escape and self.model.edits.splitting:
            self.model.edits.stop_splitting()
        else:
            super().keyPressEvent(event)


def _is_history(event: Any) -> bool:
    return bool(event.matches(QKeySequence.StandardKey.Undo) or event.matches(QKeySequence.StandardKey.Redo))


def _timer(parent: QWidget, interval_ms: int, slot: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setInterval(interval_ms)
    timer.timeout.connect(slot)
    return timer


def _launch(function: Callable[[], None]) -> None:
    in_worker(function, "Inspect (napari-aprcnn)")
