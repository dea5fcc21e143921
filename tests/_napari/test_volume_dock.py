"""Models for volumes in a real window: which inputs are shown, sliders that are live, layers that are drawn."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from test_volume_models import Watched

from volume_fakes import balls

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


@pytest.fixture
def window(make_napari_viewer, qtbot):
    docks = []

    def open_dock(backend):
        from napari_aprcnn._napari.segment_dock import SegmentDock

        viewer = make_napari_viewer(show=True)
        dock = SegmentDock(viewer, backend=backend)
        viewer.window.add_dock_widget(dock, name="Segment nuclei", area="right")
        dock.model.set("threads", value=1)
        qtbot.waitUntil(lambda: not dock.model.pending, timeout=30_000)
        docks.append(dock)
        return viewer, dock

    yield open_dock
    for dock in docks:
        dock.model.close()
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def idle(qtbot, dock):
    qtbot.waitUntil(lambda: not dock.model.pending, timeout=60_000)


def test_each_kind_of_model_has_its_inputs(window, qtbot):
    viewer, dock = window(Watched().backend)
    viewer.add_image(balls(), name="embryo")
    idle(qtbot, dock)
    assert dock.models.apr.isChecked()
    assert dock.models.apr.text() == "CPU APR-CNN"
    shown = {
        True: [dock.volume.error, dock.volume.outline, dock.volume.grow, dock.volume.zoom, dock.particles],
        False: [dock.diameter, dock.preview],
    }
    dock.advanced_fold.unfold()
    advanced = dock.advanced.inputs
    planes_only = [advanced["dimensionality",], advanced["normalise", "lower"], advanced["tiles", "tile_px"]]
    volumes_only = [advanced["volume", "particle_stages"]]
    for volumes in (True, False):
        assert all(widget.isVisibleTo(dock) == volumes for widget in shown[True] + volumes_only)
        assert all(widget.isVisibleTo(dock) != volumes for widget in shown[False] + planes_only)
        dock.models.zoo.click()
        assert dock.model.get("model") == "fastercellpose-v3"
    dock.models.apr.click()
    assert dock.model.get("model") == "apr-tiny-3d"
    assert advanced["dimensionality",].findText("volume") < 0


def test_every_input_of_volumes_explains_itself(window, qtbot):
    from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QRadioButton, QSlider

    viewer, dock = window(Watched().backend)
    viewer.add_image(balls())
    idle(qtbot, dock)
    for kind in (QCheckBox, QDoubleSpinBox, QRadioButton, QSlider):
        assert [w for w in dock.findChildren(kind) if not w.toolTip() and w.isVisibleTo(dock)] == []


def test_sliders_are_live(window, qtbot):
    watched = Watched()
    viewer, dock = window(watched.backend)
    viewer.add_image(balls(), name="embryo")
    idle(qtbot, dock)
    before = dock.volume.reduction.text()
    assert before.startswith("PRR ")
    assert dock.volume.error_number.text() == "auto: 0.1"
    dock.volume.error.setValue(dock.volume.error.maximum())
    assert dock.model.get("volume", "relative_error") == 0.5
    assert dock.volume.error_number.value() == pytest.approx(0.5)
    assert "measuring" in dock.volume.reduction.text()
    idle(qtbot, dock)
    assert dock.volume.reduction.text().startswith("PRR ")
    assert dock.volume.reduction.text() != before
    dock.volume.error_number.setValue(0)
    assert dock.model.get("volume", "relative_error") is None
    idle(qtbot, dock)
    assert dock.volume.reduction.text() == before
    assert not dock.volume.live.isVisibleTo(dock)

    dock.run.button.click()
    idle(qtbot, dock)
    labels = viewer.layers["embryo nuclei"]
    small = (labels.data > 0).sum()
    assert dock.volume.live.isVisibleTo(dock)
    dock.volume.outline.setValue(0)
    dock.volume.grow.setValue(2)
    idle(qtbot, dock)
    assert (labels.data > 0).sum() > small
    assert watched.network.runs == 1
    assert dock.run.words.text().startswith("last run: 12 nuclei")


def test_layers_of_particles_are_drawn(window, qtbot):
    viewer, dock = window(Watched().backend)
    viewer.add_image(balls((32, 200, 220), step=40), name="embryo")
    for box in (dock.levels, dock.reconstruction, dock.particles):
        box.setChecked(True)
    idle(qtbot, dock)
    dock.run.button.click()
    idle(qtbot, dock)
    painted, points = viewer.layers["embryo reconstruction"], viewer.layers["embryo slice particles"]
    assert painted.multiscale
    for layer in viewer.layers:
        layer.visible = layer is painted
    viewer.dims.set_current_step(0, 8)
    assert viewer.screenshot(canvas_only=True, flash=False)[..., :3].max() > 100
    for layer in viewer.layers:
        layer.visible = layer is points
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 5
    viewer.dims.set_current_step(0, 1)
    assert not np.array_equal(viewer.screenshot(canvas_only=True, flash=False), picture)


def test_a_plane_disables_the_button_and_says_why(window, qtbot):
    from napari_fakes import blobs

    viewer, dock = window(Watched().backend)
    viewer.add_image(blobs((64, 64)), name="cells")
    idle(qtbot, dock)
    assert dock.run.button.isEnabled()
    dock.models.apr.click()
    idle(qtbot, dock)
    assert not dock.run.button.isEnabled()
    assert "is for volumes" in dock.run.words.text()
