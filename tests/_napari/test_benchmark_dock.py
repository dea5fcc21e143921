"""The Benchmark dock in a real window."""

from __future__ import annotations

import pytest

from napari_aprcnn.bench.run_log import COLUMNS
from readouts import make_readout

pytestmark = pytest.mark.gui


def test_runs_are_compared_and_the_machine_is_measured(make_napari_viewer, qtbot, monkeypatch):
    from qtpy.QtCore import Qt

    from napari_aprcnn._napari import benchmark_dock
    from napari_aprcnn._napari.benchmark_dock import BenchmarkDock
    from napari_aprcnn._napari.benchmark_model import BenchmarkModel
    from napari_aprcnn._napari.run_records import note_run
    from napari_aprcnn.segment.speeds import MachineSpeeds

    def calibrate(*, progress, should_cancel):
        progress(0.5, "a model")
        return MachineSpeeds()

    copied: list[str] = []
    monkeypatch.setattr(benchmark_dock, "copy_text", copied.append)
    waiting = []
    model = BenchmarkModel(launch=waiting.append, calibrate=calibrate, current=MachineSpeeds)
    viewer = make_napari_viewer(show=True)
    dock = BenchmarkDock(viewer, model=model)
    viewer.window.add_dock_widget(dock, name="Benchmark")
    assert "segment an image" in dock.words.text()
    assert not dock.table.isVisible()
    for name, seconds in (("slow", 20.0), ("quick", 3.0)):
        note_run(make_readout(model=name, seconds=seconds, stages={"network": seconds}), "embryo")
    qtbot.waitUntil(lambda: dock.table.isVisible() and dock.plot.isVisible())
    assert dock.table.rowCount() == 2
    # Sorted by time, not by the letters of it.
    dock.table.sortItems(COLUMNS.index("time"), Qt.SortOrder.AscendingOrder)
    assert dock.table.item(0, COLUMNS.index("model")).text() == "quick"
    place = dock.table.visualItemRect(dock.table.item(1, 1)).center()
    qtbot.mouseClick(dock.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert dock.words.text() == "1 of 2 runs"
    assert [words for words, _ in dock.plot.bars] == ["slow, embryo"]
    qtbot.wait(50)  # the layout has moved
    qtbot.mouseClick(dock.copy, Qt.MouseButton.LeftButton)
    assert "| slow |" in copied[0]
    qtbot.mouseClick(dock.remove, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dock.table.rowCount() == 1)
    qtbot.mouseClick(dock.measure, Qt.MouseButton.LeftButton)
    assert dock.measure.text() == "Cancel"
    waiting.pop()()
    qtbot.waitUntil(lambda: dock.measure.text() == "Measure this machine")
    assert "typical machine" in dock.speeds.text()
