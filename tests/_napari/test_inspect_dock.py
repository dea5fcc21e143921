"""The Inspect dock in a real window: what a user sees, clicks and types."""

from __future__ import annotations

import gc
import os
import time

import numpy as np
import pytest

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


def scene():
    labels = np.zeros((8, 30, 40), np.uint16)
    labels[2:6, 4:12, 4:12], labels[2:6, 4:12, 12:20], labels[1:7, 16:26, 24:36], labels[0:3, 20:24, 2:6] = 1, 2, 3, 4
    return labels, (labels * 100 + 7).astype(np.uint16)


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A shown viewer with the dock and, unless told otherwise, the scene."""
    docks = []

    def open_dock(*, filled=True, labels=None):
        from napari_aprcnn._napari.inspect_dock import InspectDock

        viewer = make_napari_viewer(show=True)
        if filled:
            objects, image = scene()
            viewer.add_image(image, name="organoid", scale=(2, 0.5, 0.5), units=("um",) * 3)
            viewer.add_labels(objects, name="nuclei", scale=(2, 0.5, 0.5), units=("um",) * 3)
        if labels is not None:
            viewer.add_labels(labels, name="many")
        dock = InspectDock(viewer)
        viewer.window.add_dock_widget(dock, name="Inspect", area="right")
        docks.append(dock)
        qtbot.waitUntil(lambda: not dock.model.pending, timeout=30_000)
        return viewer, dock

    yield open_dock
    for dock in docks:
        dock.model.close()
        if dock.ortho is not None:
            dock.ortho.model.close()
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def click(qtbot, widget, where=None, modifier=None, *, double=False):
    from qtpy.QtCore import Qt

    press = qtbot.mouseDClick if double else qtbot.mouseClick
    options = {} if where is None else {"pos": where}
    press(widget, Qt.MouseButton.LeftButton, modifier or Qt.KeyboardModifier.NoModifier, **options)


def click_row(qtbot, dock, row, modifier=None, *, double=False):
    where = dock.table.visualRect(dock.table.objects.index(row, 0)).center()
    click(qtbot, dock.table.viewport(), where, modifier, double=double)


def shown_labels(dock):
    return [dock.table.objects.text(row, 0) for row in range(dock.table.objects.rowCount())]


def canvas_pixel(viewer, world):
    """Place of a point (y, x) in the window's canvas."""
    from qtpy.QtCore import QPoint

    canvas = viewer.window._qt_viewer.canvas
    size = np.array([canvas.native.width(), canvas.native.height()])
    middle = np.array(viewer.camera.center[-2:])
    y, x = (np.array(world) - middle) * viewer.camera.zoom
    return canvas.native, QPoint(*(int(v) for v in size / 2 + (x, y)))


def test_table_viewer_and_edits_are_one(window, qtbot):
    from qtpy.QtCore import Qt

    viewer, dock = window()
    layer = dock.model.layers.labels
    assert dock.words.text() == "4 objects"
    assert shown_labels(dock) == ["1", "2", "3", "4"]
    # Sorting by a click on a heading.
    header = dock.table.horizontalHeader()
    column = dock.table.objects.names.index("volume_um3")
    for _ in range(2):
        x = header.sectionViewportPosition(column) + 8
        from qtpy.QtCore import QPoint

        click(qtbot, header.viewport(), QPoint(x, header.height() // 2))
    assert shown_labels(dock) in (["3", "1", "2", "4"], ["4", "1", "2", "3"])
    first = int(shown_labels(dock)[0])
    # Selecting in the table selects the label; a double click goes there.
    click_row(qtbot, dock, 0)
    assert layer.selected_label == first
    click_row(qtbot, dock, shown_labels(dock).index("3"), double=True)
    assert viewer.camera.center[-2:] == pytest.approx((10.25, 14.75))
    # A click on an object in the viewer selects its row.
    viewer.reset_view()
    native, place = canvas_pixel(viewer, (8 * 0.5, 8 * 0.5))
    qtbot.mouseMove(native, place)
    qtbot.mouseClick(native, Qt.MouseButton.LeftButton, pos=place)
    qtbot.waitUntil(lambda: dock.model.sheet.selected == ((None, 1),), timeout=5000)
    selected = {index.row() for index in dock.table.selectionModel().selectedRows()}
    assert [shown_labels(dock)[row] for row in selected] == ["1"]
    # Two rows are merged; Ctrl+Z in the dock takes it back, Ctrl+Shift+Z makes it again.
    click_row(qtbot, dock, shown_labels(dock).index("2"), Qt.KeyboardModifier.ControlModifier)
    assert sorted(label for _, label in dock.model.sheet.selected) == [1, 2]
    click(qtbot, dock.edits.buttons["merge"])
    assert 2 not in layer.data
    assert "2" not in shown_labels(dock)
    dock.table.setFocus()
    qtbot.keyClick(dock.table, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert 2 in layer.data
    qtbot.keyClick(dock.table, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert 2 not in layer.data
    click(qtbot, dock.edits.undo)
    assert 2 in layer.data


def test_filter_histogram_colours(window, qtbot):
    from qtpy.QtCore import QPoint, Qt

    _, dock = window()
    layer = dock.model.layers.labels
    qtbot.keyClicks(dock.filter, "volume_um3 > 100")
    qtbot.keyClick(dock.filter, Qt.Key.Key_Return)
    assert shown_labels(dock) == ["1", "2", "3"]
    dock.filter.setText("volume_um3 >")
    qtbot.keyClick(dock.filter, Qt.Key.Key_Return)
    assert dock.filter_problem.isVisibleTo(dock)
    assert "expected" in dock.filter_problem.text()
    dock.filter.clear()
    qtbot.keyClick(dock.filter, Qt.Key.Key_Return)
    assert len(shown_labels(dock)) == 4
    plot = dock.histogram
    middle = plot.height() // 3
    ends = [QPoint(int(plot.x_of(value)), middle) for value in (100, 200)]
    qtbot.mousePress(plot, Qt.MouseButton.LeftButton, pos=ends[0])
    qtbot.mouseMove(plot, ends[1])
    qtbot.mouseRelease(plot, Qt.MouseButton.LeftButton, pos=ends[1])
    assert sorted(label for _, label in dock.model.sheet.selected) == [1, 2]
    click(qtbot, dock.to_filter)
    assert shown_labels(dock) == ["1", "2"]
    before = layer.colormap
    dock.colours.setChecked(True)
    qtbot.waitUntil(lambda: dock.model.painter.colouring is not None, timeout=30_000)
    picture = plot.grab().toImage()
    colours = {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())}
    assert len(colours) > 20
    dock.colours.setChecked(False)
    assert layer.colormap is before


def test_orthogonal_views_are_linked(window, qtbot):
    from qtpy.QtCore import QPoint, Qt

    viewer, dock = window()
    click(qtbot, dock.planes)
    views = dock.ortho
    qtbot.waitUntil(lambda: views.canvas.isVisible() and views.canvas.width() > 100, timeout=5000)
    panels = {p.name: p for p in views.canvas.panels()}
    place = QPoint(*(int(v) for v in panels["zy"].pixel((4, 20, 30))))
    qtbot.mouseClick(views.canvas, Qt.MouseButton.LeftButton, pos=place)
    assert views.model.cursor[:2] == (4, 20)
    assert viewer.dims.point[0] == pytest.approx(8.0)
    viewer.dims.set_current_step(0, 2)
    assert views.model.cursor[0] == 2
    place = QPoint(*(int(v) for v in panels["xy"].pixel((2, 20, 30))))
    qtbot.mouseClick(views.canvas, Qt.MouseButton.LeftButton, pos=place)
    assert dock.model.sheet.selected == ((None, 3),)
    assert "object 3" in views.words.text()
    qtbot.keyClick(views.canvas, Qt.Key.Key_PageDown)
    assert views.model.cursor[0] == 3
    picture = views.canvas.grab().toImage()
    assert len({picture.pixelColor(x, y).name() for x in range(0, 200, 3) for y in range(0, 100, 3)}) > 2
    click(qtbot, dock.planes)  # a second click opens no second one
    assert dock.ortho is views
    viewer.window.remove_dock_widget(dock)  # without the dock the views let go of the viewer too
    assert views.model.closed
    cursor = views.model.cursor
    viewer.dims.set_current_step(0, 6)
    assert views.model.cursor == cursor


def test_a_hundred_thousand_rows(window, qtbot):
    """Nothing that a user does in the table takes long."""
    labels = np.kron(np.arange(1, 100_001, dtype=np.uint32).reshape(250, 400), np.ones((4, 4), np.uint32))
    _, dock = window(filled=False, labels=labels)
    assert dock.table.objects.rowCount() == 100_000
    sheet, header = dock.model.sheet, dock.table.horizontalHeader()
    times = {}
    for name, work in {
        "sort": lambda: header.setSortIndicator(
            dock.table.objects.names.index("centroid_x_px"), header.sortIndicatorOrder()
        ),
        "filter": lambda: sheet.set_filter("label > 50000"),
        "unfilter": lambda: sheet.set_filter(""),
        "select": lambda: sheet.select_rows([77_777]),
        "select range": lambda: sheet.select_range(0, 1e9),
        "draw": lambda: dock.table.grab(),
    }.items():
        start = time.perf_counter()
        work()
        times[name] = time.perf_counter() - start
    assert max(times.values()) < 2.0, times


def test_every_input_explains_itself_and_fits(window):
    from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QPushButton, QToolButton

    _, dock = window(filled=False)
    assert "Segment an image" in dock.words.text()
    assert not dock.edits.undo.isEnabled()
    for kind in (QCheckBox, QComboBox, QDoubleSpinBox, QPushButton):
        assert [w for w in dock.findChildren(kind) if not w.toolTip() and w.isVisibleTo(dock)] == []
    assert dock.filter.toolTip()
    assert dock.findChildren(QLineEdit)
    assert dock.findChildren(QToolButton)
    assert dock.minimumSizeHint().width() < 420
