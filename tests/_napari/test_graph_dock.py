"""The Graph dock in a real window: what a user sees and clicks."""

from __future__ import annotations

import gc
import os

import pytest
from graph_tools import boxes, shell

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


@pytest.fixture
def window(make_napari_viewer):
    """A shown viewer with the dock; the work is stopped before the window goes."""
    from napari_aprcnn._napari.graph_dock import GraphDock

    viewer = make_napari_viewer(show=True)
    docks = [GraphDock(viewer)]
    viewer.window.add_dock_widget(docks[0], name="Graph of nuclei", area="right")
    yield viewer, docks[0]
    docks[0].model.close()
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def click(qtbot, button):
    from qtpy.QtCore import Qt

    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_from_labels_to_a_graph(window, qtbot, tmp_path, monkeypatch):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication, QFileDialog

    viewer, dock = window
    assert not dock.run.button.isEnabled()
    assert "Segment an image first" in dock.run.words.text()
    assert not dock.results.isVisibleTo(dock)
    viewer.add_image(shell() * 2.0, name="raw", scale=(0.5, 0.5, 0.5), units=["um"] * 3)
    labels = viewer.add_labels(shell(), name="organoid", scale=(0.5, 0.5, 0.5), units=["um"] * 3)
    assert dock.inputs.labels.currentText() == "organoid"
    assert dock.inputs.image.currentText() == "raw"
    assert dock.inputs.gap.isVisibleTo(dock)
    assert not dock.inputs.radius.isVisibleTo(dock)
    # The kind of edges by the keyboard, the radius typed.
    dock.inputs.kind.setFocus()
    qtbot.keyClick(dock.inputs.kind, Qt.Key.Key_Down)
    dock.inputs.kind.activated.emit(dock.inputs.kind.currentIndex())
    assert dock.model.settings.edges == "distance"
    assert dock.inputs.radius.isVisibleTo(dock)
    assert dock.inputs.radius.suffix() == " µm"
    dock.inputs.radius.selectAll()
    qtbot.keyClicks(dock.inputs.radius, "7")
    qtbot.keyClick(dock.inputs.radius, Qt.Key.Key_Return)
    assert dock.model.settings.radius == 7
    click(qtbot, dock.run.button)
    assert dock.run.button.text() in ("Cancel", "Build graph")
    qtbot.waitUntil(lambda: dock.model.state == "ready" and dock.model.built is not None, timeout=30_000)
    assert dock.run.words.text().startswith("60 nuclei")
    assert dock.results.isVisibleTo(dock)
    assert dock.results.bars["cystic"][1].text() != "0 %"
    assert dock.results.table.rowCount() > 20
    dock.results.table.setFocus()
    qtbot.keyClick(dock.results.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QApplication.clipboard().text().startswith("n nuclei\t60")
    dock.model.nodes.selected_data = {4}
    assert labels.selected_label == 5
    assert dock.results.node.text().startswith("nucleus 5")
    viewer.dims.ndisplay = 3
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mine"), ""))
    click(qtbot, dock.results.graphml)
    qtbot.waitUntil(lambda: (tmp_path / "mine.graphml").exists(), timeout=10_000)
    qtbot.waitUntil(lambda: not dock.model.pending, timeout=10_000)
    viewer.layers.selection.active = labels
    viewer.add_labels(boxes(), name="others")
    assert dock.inputs.labels.count() == 2
    assert dock.inputs.labels.currentText() == "organoid"
