"""The Training dock in a real window: what a user sees and clicks."""

from __future__ import annotations

import gc
import os

import pytest
from train_tools import TINY, FakeChild, epoch, nuclei, step

os.environ.setdefault("QT_API", "pyqt6")
pytestmark = pytest.mark.gui


@pytest.fixture
def window(make_napari_viewer, qtbot, tmp_path):
    """A shown viewer with the dock, as `(viewer, dock, children)`; the training is stopped before the window goes."""
    docks = []

    def open_dock(*, config=TINY, start_child=None, **options):
        from napari_aprcnn._napari.train_dock import TrainDock
        from napari_aprcnn._napari.train_settings import TrainSettings, save_train_settings

        values = {"config": config, "start": "", "folder": str(tmp_path / "models"), "name": "mine"}
        save_train_settings(TrainSettings(**{**values, **options}))
        children = []

        def start(run_dir):
            children.append(FakeChild(run_dir))
            return children[-1]

        viewer = make_napari_viewer(show=True)
        dock = TrainDock(viewer, **({} if start_child == "real" else {"start_child": start}))
        viewer.window.add_dock_widget(dock, name="Train a model", area="right")
        docks.append(dock)
        return viewer, dock, children

    yield open_dock
    for dock in docks:
        dock.model.close()
    from qtpy.QtCore import QThreadPool

    QThreadPool.globalInstance().waitForDone(5000)
    docks.clear()
    gc.collect()


def click(qtbot, button):
    from qtpy.QtCore import Qt

    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def add_pair(viewer, name="organoid"):
    image, labels = nuclei()
    return viewer.add_image(image, name=name), viewer.add_labels(labels, name=f"{name} labels")


def test_the_real_thing(window, qtbot):
    """Two layers, a real training in a process of its own, the loss on the screen, the model in the Segment dock."""
    viewer, dock, _ = window(start_child="real", config=TINY.replace(epochs=2))
    add_pair(viewer)
    assert dock.data.labels.currentText() == "organoid labels"
    click(qtbot, dock.data.add)
    assert [row[0].text() for row in dock.data.rows] == ["organoid + organoid labels (16 x 40 x 40)"]
    assert dock.run.button.text() == "Train"
    click(qtbot, dock.run.button)
    assert dock.run.button.text() == "Stop"
    assert not dock.data.isEnabled()
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=180_000)
    assert dock.model.runner.weights is not None
    assert len(dock.run.plot.curves[0].epochs) == 2
    assert dock.run.plot.table().splitlines()[0] == "epoch\tflow\tprobability"
    assert dock.run.use.text() == "Use mine to segment"
    assert dock.data.isEnabled()
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    click(qtbot, dock.run.use)
    from napari_aprcnn._napari.segment_dock import SegmentDock

    segment = next(w for w in viewer.window._qt_window.findChildren(SegmentDock))
    assert segment.model.get("model") == str(dock.model.runner.weights)
    qtbot.waitUntil(lambda: not segment.model.pending, timeout=60_000)
    segment.model.close()


def test_what_is_seen_while_it_trains(window, qtbot):
    viewer, dock, children = window(config=TINY.replace(epochs=3, steps_per_epoch=10))
    add_pair(viewer)
    click(qtbot, dock.data.add)
    dock.data.rows[0][1].setCurrentIndex(1)
    dock.data.rows[0][1].activated.emit(1)
    assert "held back" in dock.run.plan.text()
    assert not dock.run.button.isEnabled()
    dock.data.rows[0][1].setCurrentIndex(0)
    dock.data.rows[0][1].activated.emit(0)
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: bool(children), timeout=10_000)
    children[0].say({"kind": "start", "history": []}, step(1), step(10), epoch(1), epoch(2), step(25))
    qtbot.waitUntil(lambda: "step 25 of 30" in dock.run.words.text(), timeout=10_000)
    assert dock.run.words.text().endswith("5 s left")
    assert dock.run.bar.value() == 833
    assert {curve.name for curve in dock.run.plot.curves} == {"flow", "probability", "validation"}
    picture = dock.run.plot.grab().toImage()
    colours = {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())}
    assert len(colours) > 8
    children[0].stubborn = True
    click(qtbot, dock.run.button)
    assert dock.run.button.text() == "Stopping…"
    assert not dock.run.button.isEnabled()
    qtbot.waitUntil(lambda: dock.run.button.text() == "Resume", timeout=10_000)
    assert children[0].killed
    assert dock.run.plan.text().startswith("epoch 2 of 3 is done")
    dock.parameters.seed.setValue(5)
    assert dock.run.button.text() == "Train"
    assert not dock.run.button.isEnabled()
    assert dock.run.take.isVisibleTo(dock)
    click(qtbot, dock.run.take)
    assert dock.parameters.seed.value() == 0
    assert dock.run.button.text() == "Resume"


def test_errors_are_notifications_and_the_dock_is_ready(window, qtbot):
    from napari.utils.notifications import notification_manager

    viewer, dock, children = window()
    image, _ = nuclei()
    viewer.add_image(image, name="a")
    viewer.add_labels(image[:4].astype(int), name="b")
    click(qtbot, dock.data.add)
    assert "expected the same shape" in notification_manager.records[-1].message
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: bool(children), timeout=10_000)
    children[0].say({"kind": "error", "type": "TrainingDataError", "message": "no good", "traceback": ""})
    children[0].code = 1
    qtbot.waitUntil(lambda: dock.model.state == "ready", timeout=10_000)
    assert notification_manager.records[-1].message == "No good"
    assert dock.run.button.isEnabled()


def choose(box, value):
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


def test_inputs_change_the_training(window, qtbot):
    _, dock, children = window()
    for box, value in ((dock.parameters.epochs, 4), (dock.parameters.seed, 9), (dock.parameters.crop["y"], 32)):
        box.setValue(value)
    dock.parameters.share.setValue(70)
    dock.parameters.channels.setValue(4)
    choose(dock.parameters.form, "hybrid1")
    choose(dock.parameters.head, "stardist")
    assert dock.advanced.rays["z"].isEnabled()
    dock.advanced.rays["z"].setValue(2.5)
    dock.parameters.name.setText("other")
    dock.parameters.name.editingFinished.emit()
    dock.advanced.inputs["learning_rate",].setValue(1e-4)
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: bool(children), timeout=10_000)
    request = children[0].request
    config = request.config
    assert (config.epochs, config.seed, config.crop, config.simulated) == (4, 9, (12, 32, 24), 0.7)
    assert (config.network.channels, config.network.form, config.learning_rate) == (4, "hybrid1", 1e-4)
    assert (config.network.head, config.network.ray_spacing) == ("stardist", (2.5, 1, 1))
    assert request.weights.name == "other.safetensors"


def test_every_input_explains_itself_and_fits(window):
    from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QPushButton

    viewer, dock, _ = window()
    add_pair(viewer)
    dock.data.add.click()
    dock.advanced_fold.unfold()
    for kind in (QCheckBox, QComboBox, QDoubleSpinBox, QPushButton):
        assert [w for w in dock.findChildren(kind) if not w.toolTip() and w.isVisibleTo(dock)] == []
    assert dock.parameters.name.toolTip()
    assert dock.findChildren(QLineEdit)
    assert dock.minimumSizeHint().width() < 420


def test_closing_asks_and_stops(window, qtbot, monkeypatch):
    viewer, dock, children = window()
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: bool(children), timeout=10_000)
    answers = [False, True]
    monkeypatch.setattr(dock, "ask_to_stop", lambda: answers.pop(0))
    model = dock.model
    dock.window().close()
    assert dock.window().isVisible()
    assert not children[0].stopped
    viewer.close()
    assert children[0].stopped
    assert answers == []
    assert not model.pending


def test_the_question_is_asked_in_words(window, qtbot):
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QMessageBox

    _, dock, children = window()
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: bool(children), timeout=10_000)
    seen = []

    def answer():
        box = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox))
        seen.append(f"{box.text()} {box.informativeText()}")
        next(b for b in box.buttons() if b.text() == "Stop it and close").click()

    QTimer.singleShot(200, answer)
    assert dock.ask_to_stop()
    assert "nothing of it is kept" in seen[0]


def test_taking_the_dock_away_stops_the_training(window, qtbot):
    viewer, dock, children = window()
    click(qtbot, dock.run.button)
    qtbot.waitUntil(lambda: bool(children), timeout=10_000)
    viewer.window.remove_dock_widget(dock)
    assert children[0].stopped


def test_napari_opens_the_dock_by_its_manifest(make_napari_viewer):
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-aprcnn", "Train a model")
    assert type(widget).__name__ == "TrainDock"
    widget.model.close()


def test_curves_leave_out_what_is_no_number(qtbot):
    from napari_aprcnn._napari.train_runner import StepPoint
    from napari_aprcnn._napari.views.loss_plot import LossPlot, curves_of, ticks
    from napari_aprcnn.train.reports import EpochReport

    fields = [{k: v for k, v in epoch(n).items() if k != "kind"} for n in (1, 2)]
    reports = [EpochReport(**fields[0]), EpochReport(**{**fields[1], "flow_loss": float("nan")})]
    curves = curves_of(reports, [StepPoint(0.5, float("inf"), 1.0), StepPoint(1.5, 2.0, 1.0)])
    assert [(c.name, len(c.epochs), len(c.steps)) for c in curves] == [
        ("flow", 1, 1),
        ("probability", 2, 2),
        ("validation", 2, 0),
    ]
    plot = LossPlot()
    qtbot.addWidget(plot)
    for shown in (curves, [], curves_of([], [])):
        plot.show_curves(shown, 2)
        assert not plot.grab().isNull()
    plot.show_curves(curves, 2)
    assert plot.table().splitlines()[1:] == ["1\t2\t0.5\t2.6", "2\t\t0.25\t1.3"]
    assert ticks(0.93) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(float("nan")) == [0.0]
