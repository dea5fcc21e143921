"""The Annotate dock in a real window: real clicks in the canvas, real keys, and what is in the folder afterwards."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from scipy import ndimage

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


@pytest.fixture
def window(make_napari_viewer, qtbot, tmp_path):
    """A shown viewer with an image, a prediction and the dock, as `(viewer, dock)`."""
    docks = []

    def open_dock(**options):
        from napari_aprcnn._napari.annotate_dock import AnnotateDock
        from napari_aprcnn._napari.annotate_settings import AnnotateSettings, save_annotate_settings

        values = {"annotator": "Ann", "folder": str(tmp_path / "a"), "n_slices": 4, "method": "even", "min_distance": 1}
        if options.pop("fresh", True):
            save_annotate_settings(AnnotateSettings(**{**values, **options}))
        viewer = make_napari_viewer(show=True)
        viewer.window._qt_window.resize(1200, 850)
        blobs = ndimage.gaussian_filter(np.random.default_rng(0).random((20, 64, 64)), 3)
        viewer.add_image(blobs, name="organoid", scale=(2, 0.5, 0.5))
        viewer.add_labels(ndimage.label(blobs > np.quantile(blobs, 0.9))[0], name="nuclei", scale=(2, 0.5, 0.5))
        dock = AnnotateDock(viewer)
        viewer.window.add_dock_widget(dock, name="Annotate", area="right")
        docks.append(dock)
        qtbot.wait(300)
        return viewer, dock

    yield open_dock
    for dock in docks:
        dock.model.close()
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def press(qtbot, button):
    from qtpy.QtCore import Qt

    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def canvas_of(viewer):
    return viewer.window._qt_viewer.canvas


def click(viewer, qtbot, y, x, *, to=None):
    """Click (or drag to `to`) in the canvas, at pixels of the image."""
    from qtpy.QtCore import QPoint, Qt

    canvas = canvas_of(viewer)

    def place(y, x):
        scene = canvas.view.scene.transform.map([x * 0.5, y * 0.5])
        return QPoint(round(scene[0] / scene[3]), round(scene[1] / scene[3]))

    qtbot.mouseMove(canvas.native, place(y, x))
    qtbot.mousePress(canvas.native, Qt.MouseButton.LeftButton, pos=place(y, x))
    if to is not None:
        for step in (0.5, 1.0):
            qtbot.mouseMove(canvas.native, place(y + step * (to[0] - y), x + step * (to[1] - x)))
            qtbot.wait(30)
    end = place(*(to or (y, x)))
    qtbot.mouseRelease(canvas.native, Qt.MouseButton.LeftButton, pos=end)
    qtbot.wait(50)


def key(viewer, qtbot, name, control=False):
    from qtpy.QtCore import Qt

    modifier = Qt.KeyboardModifier.ControlModifier if control else Qt.KeyboardModifier.NoModifier
    qtbot.keyClick(canvas_of(viewer).native, getattr(Qt.Key, f"Key_{name}"), modifier)
    qtbot.wait(50)


def saved(dock, qtbot):
    from napari_aprcnn.evaluate.annotations import AnnotationSession

    qtbot.waitUntil(lambda: not dock.model.pending, timeout=5000)
    return AnnotationSession.open(dock.model.session.folder, annotator="Ann")


def test_clicks_and_keys(window, qtbot):
    viewer, dock = window()
    assert dock.setup.isVisible()
    assert "4 of 20 slices evenly spaced" in dock.setup.plan.text()
    dock.model.images.select(viewer.layers["organoid"])
    press(qtbot, dock.setup.begin)
    assert dock.work.isVisible()
    assert not dock.setup.isVisible()
    assert dock.work.words.text() == "0 of 4 slices done"
    click(viewer, qtbot, 20, 30)
    click(viewer, qtbot, 40, 10)
    found = saved(dock, qtbot).points_on((2,))
    assert np.abs(found - [[20, 30], [40, 10]]).max() < 1.5
    assert "2 points" in dock.work.list.item(0).text()
    key(viewer, qtbot, "Z", control=True)
    assert len(saved(dock, qtbot).points_on((2,))) == 1
    key(viewer, qtbot, "D")
    assert dock.work.words.text() == "1 of 4 slices done"
    assert dock.work.list.item(0).text().startswith("z 2   done   1 point")
    assert dock.work.list.currentRow() == 1
    key(viewer, qtbot, "N")
    key(viewer, qtbot, "P")
    assert dock.model.editing.here == (7,)
    viewer.dims.set_point(0, 10.0)
    click(viewer, qtbot, 30, 30)
    assert "is not one of the chosen" in dock.work.here.text()
    assert len(saved(dock, qtbot).points()) == 1
    press(qtbot, dock.work.next)
    assert dock.model.editing.here == (7,)
    qtbot.keyClick(dock.work, "d")  # the dock has the same keys
    assert dock.work.words.text() == "2 of 4 slices done"
    press(qtbot, dock.work.evaluate)
    qtbot.waitUntil(lambda: "organoid annotated points" in viewer.layers, timeout=5000)
    assert viewer.layers["organoid annotated points"].metadata["aprcnn"]["slices"] == [[2], [7]]
    press(qtbot, dock.work.close_button)
    assert dock.setup.isVisible()
    assert dock.setup.go_on.text() == "Continue organoid"
    press(qtbot, dock.setup.go_on)
    assert dock.work.words.text() == "2 of 4 slices done"


def test_painting_and_taking_a_prediction(window, qtbot):
    viewer, dock = window(mode="labels", n_slices=2)
    dock.model.images.select(viewer.layers["organoid"])
    press(qtbot, dock.setup.begin)
    qtbot.waitUntil(lambda: not dock.model.pending, timeout=5000)
    layer = dock.model.editing.labels.layer
    qtbot.waitUntil(lambda: layer.mode == "paint", timeout=5000)
    click(viewer, qtbot, 20, 20, to=(20, 40))
    plane = saved(dock, qtbot).labels_on((5,))
    assert plane[20, 25:35].all()
    assert 20 < np.count_nonzero(plane) < 200
    layer.mode = "fill"
    click(viewer, qtbot, 50, 50)
    assert saved(dock, qtbot).labels_on((5,)).all()
    key(viewer, qtbot, "Z", control=True)
    assert np.array_equal(saved(dock, qtbot).labels_on((5,)), plane)
    dock.setup.guide.setCurrentIndex(1)
    dock.model.choose_guide(viewer.layers["nuclei"])
    press(qtbot, dock.work.take)
    assert np.array_equal(saved(dock, qtbot).labels_on((5,)), viewer.layers["nuclei"].data[5])
    viewer.dims.set_point(0, 2 * 4.0)  # the slice before: a stroke there must not reach the painted one
    before = saved(dock, qtbot).labels_on((5,))
    click(viewer, qtbot, 30, 20, to=(30, 40))
    assert np.array_equal(saved(dock, qtbot).labels_on((5,)), before)
    key(viewer, qtbot, "N")
    assert dock.model.editing.here == (5,)
    key(viewer, qtbot, "N")
    assert dock.model.editing.here == (15,)
    qtbot.waitUntil(lambda: layer.mode == "fill", timeout=5000)
    assert not layer.data.any()


def test_every_input_explains_itself_and_fits(window):
    from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QLineEdit, QPushButton

    _, dock = window()
    for box in (dock.setup, dock.work):
        for kind in (QComboBox, QDoubleSpinBox, QPushButton):
            assert [w for w in box.findChildren(kind) if not w.toolTip() and w.isVisibleTo(dock)] == []
    assert all(w.toolTip() for w in dock.work.findChildren(QPushButton))
    assert dock.setup.annotator.toolTip()
    assert dock.findChildren(QLineEdit)
    assert dock.minimumSizeHint().width() < 420
