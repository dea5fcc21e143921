"""The Segment dock in a real window: what a user sees and clicks."""

from __future__ import annotations

import gc
import os
import time

import numpy as np
import pytest
from napari_fakes import FakeSegment, blobs, fake_backend

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A shown viewer with the dock, as `(viewer, dock)`; the run is stopped before the window goes."""
    docks = []

    def open_dock(*, backend=None, **options):
        from napari_aprcnn._napari.segment_dock import SegmentDock

        viewer = make_napari_viewer(show=True, **options)
        dock = SegmentDock(viewer, backend=backend)
        viewer.window.add_dock_widget(dock, name="Segment nuclei", area="right")
        qtbot.waitUntil(lambda: not dock.model.pending, timeout=30_000)
        docks.append(dock)
        return viewer, dock

    yield open_dock
    for dock in docks:
        dock.model.close()
    from napari.qt.threading import create_worker  # noqa: F401 - workers belong to napari's pool
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def click(qtbot, button):
    from qtpy.QtCore import Qt

    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_open_segment_cancel(window, qtbot, tmp_path):
    """The way of a user: open a TIFF, click Segment, see labels; click again, Cancel: no half layer."""
    import tifffile

    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, blobs((128, 128)), imagej=True, resolution=(4.0, 4.0), metadata={"axes": "YX", "unit": "um"})
    segment = FakeSegment()
    viewer, dock = window(backend=fake_backend(segment))
    viewer.open(str(path), plugin="napari-aprcnn")
    assert dock.images.words.text() == "Y 128 x X 128"
    assert dock.images.spacing["y"].value() == pytest.approx(0.25)
    assert dock.run.button.text() == "Segment"
    click(qtbot, dock.run.button)
    assert dock.run.button.text() == "Cancel"
    qtbot.waitUntil(lambda: "cells nuclei" in names(viewer), timeout=20_000)
    assert dock.run.button.text() == "Segment"
    assert viewer.layers["cells nuclei"].data.max() == 64
    np.testing.assert_allclose(viewer.layers["cells nuclei"].scale, (0.25, 0.25))
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20

    segment.hold = True
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: "cells nuclei (running)" in names(viewer), timeout=10_000)
    assert "tile 1 of 4" in dock.run.words.text()
    since = time.perf_counter()
    click(qtbot, dock.run.button)
    assert dock.run.button.text() == "Cancelling…"
    qtbot.waitUntil(lambda: dock.run.button.text() == "Segment", timeout=10_000)
    assert time.perf_counter() - since < 1.0
    assert names(viewer) == ["cells", "cells nuclei"]
    assert dock.run.button.isEnabled()
    window_picture = viewer.window.screenshot(flash=False)
    assert window_picture[..., :3].std() > 10


def test_the_real_thing(window, qtbot):
    """Shipped weights, shipped sample, nothing replaced: nuclei are found; a run in 3D is cancelled in its middle."""
    from napari_aprcnn.io.samples import sample_path

    viewer, dock = window()
    viewer.open(str(sample_path("culture")), plugin="napari-aprcnn")
    qtbot.waitUntil(lambda: dock.run.estimate.text().startswith("about"), timeout=30_000)
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=60_000)
    assert names(viewer) == ["culture", "culture nuclei"]
    assert 42 <= dock.model.runner.result.readout.n_objects <= 62
    assert dock.run.words.text().startswith("last run: ")
    viewer.layers.clear()
    viewer.open(str(sample_path("ovule-3d")), plugin="napari-aprcnn")
    assert dock.images.spacing["z"].value() == pytest.approx(0.28372, abs=1e-4)
    dock.model.set("model", value="fastercellpose-v3")
    dock.model.set("diameter_px", value=23.0)
    for _ in range(3):  # and again: what a cancelled run leaves behind must not harm the next
        click(qtbot, dock.run.button)
        qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=60_000)
        assert dock.model.state == "running"
        since = time.perf_counter()
        click(qtbot, dock.run.button)
        qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=20_000)
        assert time.perf_counter() - since < 1.0
        assert names(viewer) == ["ovule-3d"]


def test_a_network_for_volumes_is_cancelled_between_its_layers(window, qtbot):
    """One block, nothing provisional to see: a cancel is heard while the network runs, before it is through."""
    from napari_aprcnn.io.samples import sample_path

    viewer, dock = window()
    viewer.open(str(sample_path("ovule-3d")), plugin="napari-aprcnn")
    dock.model.set("model", value="apr-unet-nuclei-3d")
    for wait_ms in (0, 200):  # the first cancel comes while the model is being loaded
        click(qtbot, dock.run.button)
        qtbot.wait(wait_ms)
        if wait_ms:
            qtbot.waitUntil(lambda: dock.model.runner.progress is not None, timeout=60_000)
        assert dock.model.state == "running"
        since = time.perf_counter()
        click(qtbot, dock.run.button)
        qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=20_000)
        assert time.perf_counter() - since < 1.0
        assert names(viewer) == ["ovule-3d"]
        assert dock.model.runner.result is None
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=60_000)
    assert names(viewer) == ["ovule-3d", "ovule-3d nuclei"]


def test_an_error_is_a_notification_and_the_dock_is_ready(window, qtbot):
    from napari.utils.notifications import notification_manager

    from napari_aprcnn.errors import NotEnoughMemoryError

    error = NotEnoughMemoryError("the run needs 9 GB but 1 GB is free; set smaller tiles")
    viewer, dock = window(backend=fake_backend(FakeSegment(error=error)))
    viewer.add_image(blobs((64, 64)), name="cells")
    records = len(notification_manager.records)
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: len(notification_manager.records) > records, timeout=10_000)
    assert "needs 9 GB" in notification_manager.records[-1].message
    qtbot.waitUntil(lambda: dock.run.button.text() == "Segment", timeout=5000)
    assert dock.run.button.isEnabled()
    assert names(viewer) == ["cells"]


def test_the_event_loop_never_waits(window, qtbot):
    """Gaps of the event loop while tiles come in. Adding and removing layers is napari's own work and not counted."""
    from qtpy.QtCore import QTimer

    viewer, dock = window(backend=fake_backend(FakeSegment(tiles=400, seconds_a_tile=0.05)))
    viewer.add_image(blobs((512, 512)), name="cells")
    gaps, last, layers = [], time.perf_counter(), names(viewer)

    def tick():
        nonlocal last, layers
        if names(viewer) == layers and dock.model.state == "running":
            gaps.append(time.perf_counter() - last)
        last, layers = time.perf_counter(), names(viewer)

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(5)
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: len(gaps) >= 15, timeout=30_000)
    timer.stop()
    dock.model.cancel()
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=10_000)
    # The first draw of a new layer type compiles shaders: one gap is the graphics driver's.
    assert sorted(gaps)[-2] < 0.3


def test_what_is_shown_can_be_copied_and_every_input_explains_itself(window, qtbot, monkeypatch):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLabel, QPushButton, QRadioButton

    from napari_aprcnn._napari.views import readout_box

    viewer, dock = window(backend=fake_backend())
    viewer.add_image(blobs((64, 64)), name="cells")
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: "cells nuclei" in names(viewer), timeout=10_000)
    dock.advanced_fold.unfold()
    dock.readout_fold.unfold()
    for kind in (QCheckBox, QComboBox, QDoubleSpinBox, QPushButton, QRadioButton):
        assert [w for w in dock.findChildren(kind) if not w.toolTip() and w.isVisibleTo(dock)] == []
    qtbot.waitUntil(lambda: dock.readout.copy.height() > 10, timeout=5000)
    # X11 refuses the clipboard to a click that no mouse made, so the text is caught on its way.
    copied = []
    monkeypatch.setattr(readout_box, "copy_text", copied.append)
    click(qtbot, dock.readout.copy)
    assert "| nuclei | 16 |" in copied[0]
    figures = [label for label in dock.readout.findChildren(QLabel) if any(c.isdigit() for c in label.text())]
    assert figures
    selectable = Qt.TextInteractionFlag.TextSelectableByMouse
    assert all(label.textInteractionFlags() & selectable for label in figures)
    assert dock.diameter.text() == "auto: 21.5 px"


def test_inputs_change_the_run(window, qtbot):
    segment = FakeSegment()
    viewer, dock = window(backend=fake_backend(segment))
    viewer.add_image(blobs((5, 64, 64)), name="cells")
    dock.images.axes.setCurrentIndex(dock.images.axes.findData("TYX"))
    dock.images.axes.activated.emit(dock.images.axes.currentIndex())
    dock.images.spacing["y"].setValue(0.3)
    dock.diameter.setValue(31)
    dock.advanced.inputs["flows", "n_steps"].setValue(60)
    dock.advanced.inputs["threads",].setValue(2)
    dock.flows.setChecked(True)
    dock.models.variant.setCurrentIndex(1)
    dock.models.variant.activated.emit(1)
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: "cells flows" in names(viewer), timeout=10_000)
    (config,) = segment.configs
    assert config.axes.order == "TYX"
    assert config.spacing_um == (0.3, 0.3, 1.0)
    assert (config.diameter_px, config.flows.n_steps, config.threads, config.keep_flows) == (31.0, 60, 2, True)
    assert config.model == "fastcellpose"


def test_devices_and_models_are_told_truly(window):
    _, dock = window(backend=fake_backend())
    assert dock.models.device.text() == "runs on CPU, 2 threads · no GPU found: there is none in this test"
    assert not dock.models.apr.isEnabled()
    assert dock.models.apr.text() == "CPU APR-CNN"
    assert dock.models.zoo.text() == "CPU FasterCellpose"
    assert dock.models.apr_words.text() == "none is installed"


def test_a_weights_file_is_a_model(window, qtbot, tmp_path):
    segment = FakeSegment()
    viewer, dock = window(backend=fake_backend(segment))
    viewer.add_image(blobs((64, 64)), name="cells")
    dock.models.use_file(str(tmp_path / "cyto3.pth"))
    assert dock.models.own.isChecked()
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: "cells nuclei" in names(viewer), timeout=10_000)
    assert segment.configs[0].model.endswith("cyto3.pth")


def test_the_keyboard_is_enough(window, qtbot):
    from qtpy.QtGui import QKeySequence
    from qtpy.QtWidgets import QLabel

    viewer, dock = window(backend=fake_backend())
    viewer.add_image(blobs((64, 64)), name="cells")
    assert dock.run.button.shortcut() == QKeySequence("Ctrl+Return")
    order, widget = [], dock.images.layer
    for _ in range(120):
        order.append(widget)
        widget = widget.nextInFocusChain()
    wanted = [
        dock.images.layer,
        dock.images.axes,
        dock.images.spacing["y"],
        dock.models.zoo,
        dock.diameter,
        dock.run.button,
    ]
    places = [order.index(one) for one in wanted]
    assert places == sorted(places)
    from qtpy.QtCore import Qt

    labels = dock.findChildren(QLabel)
    assert not [label for label in labels if label.focusPolicy() & Qt.FocusPolicy.TabFocus]


def test_closing_the_viewer_in_the_middle_of_a_run(window, qtbot):
    segment = FakeSegment(hold=True)
    viewer, dock = window(backend=fake_backend(segment))
    viewer.add_image(blobs((64, 64)), name="cells")
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: segment.thread is not None, timeout=10_000)
    runner = dock.model.runner
    viewer.close()
    qtbot.waitUntil(lambda: not runner.busy, timeout=5000)
    segment.release.wait(0.2)
    assert "cells nuclei" not in names(viewer)


def test_closing_the_dock_in_the_middle_of_a_run(window, qtbot):
    segment = FakeSegment(hold=True)
    viewer, dock = window(backend=fake_backend(segment))
    viewer.add_image(blobs((64, 64)), name="cells")
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: segment.thread is not None, timeout=10_000)
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: not dock.model.runner.busy, timeout=5000)
    qtbot.wait(100)
    assert names(viewer)[0] == "cells"
    assert "cells nuclei" not in names(viewer)


def test_napari_opens_the_dock_by_its_manifest(make_napari_viewer, qtbot):
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-aprcnn", "Segment nuclei")
    qtbot.waitUntil(lambda: not widget.model.pending, timeout=60_000)
    assert type(widget).__name__ == "SegmentDock"
    widget.model.close()
