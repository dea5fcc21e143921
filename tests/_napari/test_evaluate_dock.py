"""The Evaluate dock in a real window: what a user sees and clicks."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from evaluate_layers_tools import CENTRES, SPACING, TRUTH, add_layers

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A shown viewer with the dock, as `(viewer, dock)`; what goes on is finished before the window goes."""
    docks = []

    def open_dock(**settings):
        from napari_aprcnn._napari.evaluate_dock import EvaluateDock
        from napari_aprcnn._napari.evaluate_settings import EvaluateSettings, save_evaluate_settings

        save_evaluate_settings(EvaluateSettings(**{"iou": 0.6, **settings}))
        viewer = make_napari_viewer(show=True)
        dock = EvaluateDock(viewer)
        viewer.window.add_dock_widget(dock, name="Evaluate labels", area="right")
        docks.append(dock)
        return viewer, dock

    yield open_dock
    for dock in docks:
        dock.model.close()
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def click(qtbot, widget, pos=None):
    from qtpy.QtCore import Qt

    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton, pos=pos) if pos else qtbot.mouseClick(
        widget, Qt.MouseButton.LeftButton
    )


def click_row(qtbot, table, row):
    index = table.model().index(row, 1)
    table.scrollTo(index)
    click(qtbot, table.viewport(), table.visualRect(index).center())


def press_evaluate(qtbot, dock):
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=20_000)


def test_from_two_layers_to_the_error_in_the_view(window, qtbot):
    viewer, dock = window()
    assert "no labels yet" in dock.run.words.text()
    assert not dock.run.button.isEnabled()
    prediction, truth = add_layers(viewer)
    assert dock.choice.truth.currentText() == "truth"
    assert dock.choice.predictions.item(0).text() == "nuclei"
    press_evaluate(qtbot, dock)
    assert "0.20" in dock.scores.numbers["precision"].text()
    assert "±" in dock.scores.numbers["F1"].text()
    assert dock.errors.hits.text() == "1 hit"
    assert [box.text() for box in dock.errors.kinds.values()] == ["1 split", "1 merge", "1 miss", "1 false positive"]
    shown = [dock.errors.rows.index(row, 0).data() for row in range(dock.errors.rows.rowCount())]
    assert shown == ["split", "merge", "miss", "false positive"]
    assert "nuclei errors" in viewer.layers
    click_row(qtbot, dock.errors.table, 3)
    assert viewer.layers.selection.active is prediction
    assert prediction.selected_label == 5
    np.testing.assert_allclose(viewer.camera.center[1:], (18, 18))
    click_row(qtbot, dock.errors.table, 2)
    assert (viewer.layers.selection.active, truth.selected_label) == (truth, 5)
    from qtpy.QtCore import Qt

    qtbot.keyClick(dock.errors.table, Qt.Key.Key_Up)
    assert prediction.selected_label == 4
    # An edit is noticed, and the next evaluation reads it.
    prediction.fill((4, 36, 36), 0)
    qtbot.waitUntil(lambda: "evaluate again" in dock.run.words.text(), timeout=5_000)
    prediction.data = np.where(prediction.data == 5, 0, prediction.data)
    press_evaluate(qtbot, dock)
    assert dock.errors.kinds[5].text() == "0 false positives"
    assert not dock.run.words.isVisibleTo(dock)


def test_two_predictions_filters_and_the_clipboard(window, qtbot, tmp_path, monkeypatch):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication, QFileDialog

    viewer, dock = window()
    add_layers(viewer)
    viewer.add_labels(TRUTH.copy(), name="best", scale=SPACING)
    for row in range(2):
        dock.choice.predictions.item(row).setCheckState(Qt.CheckState.Checked)
    press_evaluate(qtbot, dock)
    assert [dock.scores.table.item(row, 0).text() for row in range(2)] == ["best", "nuclei"]
    assert [name for name, _ in dock.scores.plot.curves] == ["best", "nuclei"]
    click(qtbot, dock.scores.copy)
    assert QApplication.clipboard().text().startswith("| prediction |")
    row = 1 - [e.name for e in dock.model.comparison.evaluations].index(dock.model.shown)
    item = dock.scores.table.item(row, 0)
    other = item.text()
    click(qtbot, dock.scores.table.viewport(), dock.scores.table.visualItemRect(item).center())
    assert dock.model.shown == other
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=10_000)
    dock.model.show("nuclei")
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=10_000)
    assert dock.errors.rows.rowCount() == 4
    click(qtbot, dock.errors.kinds[4])
    assert dock.errors.rows.rowCount() == 3
    picture = dock.scores.plot.grab().toImage()
    colours = {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())}
    assert len(colours) > 8
    assert dock.scores.plot.table().splitlines()[0] == "IoU\tbest\tnuclei"
    path = tmp_path / "report"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    click(qtbot, dock.scores.save)
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=30_000)
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_points_and_errors_as_notifications(window, qtbot):
    from napari.utils.notifications import notification_manager

    viewer, dock = window()
    add_layers(viewer)
    points = viewer.add_points(CENTRES, name="clicked", scale=SPACING)
    dock.choice.truth.setCurrentText("clicked")
    dock.choice.truth.activated.emit(dock.choice.truth.currentIndex())
    assert not dock.choice.iou.isEnabled()
    dock.model.choose(predictions=[viewer.layers["nuclei"]])
    press_evaluate(qtbot, dock)
    assert "against points" in dock.scores.basis.text()
    assert not dock.scores.plot.isVisibleTo(dock)
    assert not dock.errors.kinds[4].isVisibleTo(dock)
    points.data = np.array([[400.0, 0, 0]])
    press_evaluate(qtbot, dock)
    assert "lie outside" in notification_manager.records[-1].message
    assert dock.run.button.isEnabled()


def test_every_input_explains_itself_and_fits(window, qtbot):
    from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QPushButton, QTableView

    viewer, dock = window()
    add_layers(viewer)
    press_evaluate(qtbot, dock)
    for kind in (QCheckBox, QComboBox, QDoubleSpinBox, QPushButton, QTableView):
        assert [w for w in dock.findChildren(kind) if not w.toolTip() and w.isVisibleTo(dock)] == []
    assert dock.choice.slices.toolTip()
    assert dock.findChildren(QLineEdit)
    assert dock.minimumSizeHint().width() < 420
    for box, value in ((dock.choice.iou, 0.3), (dock.choice.min_size, 12)):
        box.setValue(value)
    dock.choice.slices.setText("3,4")
    dock.choice.slices.editingFinished.emit()
    assert (dock.model.config().iou, dock.model.config().min_size, dock.model.config().slices) == (0.3, 12, (3, 4))
    viewer.theme = "light"
    assert not dock.grab().isNull()


def test_taking_the_dock_away_lets_go(window, qtbot):
    viewer, dock = window()
    add_layers(viewer)
    model = dock.model
    viewer.window.remove_dock_widget(dock)
    assert model.truth is None
    assert not model.evaluate()


def test_a_long_list_costs_nothing_on_the_gui_thread(window, qtbot):
    import time

    viewer, dock = window(show_errors=False)
    side = 200
    many = np.arange(1, side * side + 1, dtype=np.int32).reshape(side, side)
    viewer.add_labels(np.zeros((2 * side, 2 * side), np.int32), name="truth")
    viewer.add_labels(np.kron(many, np.array([[1, 0], [0, 0]], np.int32)), name="nuclei")
    press_evaluate(qtbot, dock)
    assert dock.errors.rows.rowCount() == side * side
    start = time.perf_counter()
    dock.errors.rows.sort(1)
    sorted_s = time.perf_counter() - start
    dock.errors.refresh()
    dock.errors.table.scrollToBottom()
    assert sorted_s < 0.5
    assert time.perf_counter() - start < 1.0


def test_a_table_of_points_is_opened_with_its_columns(window, qtbot, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    viewer, dock = window()
    _, truth = add_layers(viewer)
    viewer.layers.remove(truth)
    table = tmp_path / "clicked.csv"
    table.write_text("\n".join(["slice,Row,Col", *(f"{z},{y},{x}" for z, y, x in CENTRES)]))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *args, **kwargs: (str(table), ""))
    qtbot.keyClicks(dock.choice.columns, "z=slice,y=Row,x=Col")
    click(qtbot, dock.choice.open_points)
    assert dock.model.truth is viewer.layers["clicked"]
    assert dock.choice.truth.currentText() == "clicked"
    press_evaluate(qtbot, dock)
    assert dock.model.evaluation.headline.true_positives == 3
    assert dock.minimumSizeHint().width() < 420
