"""The Benchmark dock: every run's time, speed and memory, side by side; and how fast this machine is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.benchmark_model import BenchmarkModel
from napari_aprcnn._napari.dock_tools import Dock, in_worker
from napari_aprcnn._napari.views.bar_plot import BarPlot
from napari_aprcnn._napari.views.inputs import ChoiceBox, WordsLabel
from napari_aprcnn._napari.views.readout_box import copy_text
from napari_aprcnn._napari.views.runs_table import RunsTable
from napari_aprcnn.bench.run_log import METRICS

if TYPE_CHECKING:
    import napari

__all__ = ["BenchmarkDock"]

POLL_MS = 100
_STEPS = 1000


class BenchmarkDock(Dock):
    """Compare runs, and measure this machine.

    Parameters
    ----------
    napari_viewer
        The viewer, given by napari.
    model
        What it shows; ``None``: the user's runs.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, *, model: BenchmarkModel | None = None) -> None:
        super().__init__(model or BenchmarkModel(launch=_launch), "aprcnn_benchmark_dock", poll_ms=POLL_MS)
        self._build()
        self._follow()
        for what in ("runs", "state", "speeds"):
            self._refresh(what)

    def _build(self) -> None:
        layout = self._column()
        self.words = WordsLabel()
        self.table = RunsTable(self.model)
        self.metric = ChoiceBox()
        self.metric.show_items([(words, name) for name, words in METRICS.items()], self.model.metric)
        self.metric.setToolTip("What the bars compare. Time is shown by stage.")
        self.metric.setAccessibleName("figure to compare")
        self.metric.activated.connect(lambda _: self.model.set_metric(self.metric.currentData()))
        self.plot = BarPlot()
        self.copy = QPushButton("Copy")
        self.copy.setToolTip("Copy the compared runs as a Markdown table.")
        self.copy.clicked.connect(lambda _: copy_text(self.model.markdown()))
        self.save = QPushButton("Save…")
        self.save.setToolTip("Write the compared runs with every figure as JSON, or the table as Markdown (.md).")
        self.save.clicked.connect(self._save)
        self.remove = QPushButton("Forget")
        self.remove.setToolTip("Forget the selected runs. Labels and images are not touched.")
        self.remove.clicked.connect(lambda _: self.model.remove_selected())
        layout.addWidget(self.words)
        layout.addWidget(self.table, 1)
        layout.addWidget(_row(self.copy, self.save, self.remove))
        layout.addWidget(self.metric)
        layout.addWidget(self.plot)
        self._add_machine(layout)

    def _add_machine(self, layout: QVBoxLayout) -> None:
        self.speeds = WordsLabel()
        self.measure = QPushButton("Measure this machine")
        self.measure.setToolTip(
            "Run every model for a moment on made-up nuclei, about 20 s in all. From then on the time that the\n"
            "Segment dock predicts is this machine's. Close other programs first."
        )
        self.measure.clicked.connect(self._measure)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.doing = WordsLabel()
        for widget in (self.speeds, self.measure, self.bar, self.doing):
            layout.addWidget(widget)

    # --- following the model -----------------------------------------------------------------------------------------

    def _refresh(self, what: str) -> None:
        if what == "runs":
            self.table.refresh()
        if what in ("runs", "selection", "metric"):
            self._show_comparison()
        elif what == "speeds":
            self.speeds.setText(self.model.speeds_words)
        elif what == "state":
            self._show_state()
        elif what == "progress":
            self.bar.setValue(round(_STEPS * self.model.share))
            self.doing.setText(f"measuring: {self.model.doing}")
        elif what == "pending":
            self._watch()

    def _show_comparison(self) -> None:
        self.words.setText(self.model.words())
        some = bool(self.model.records)
        for widget in (self.table, self.metric, self.copy, self.save, self.remove):
            widget.setVisible(some)
        self.remove.setEnabled(bool(self.model.selected))
        self.plot.show_bars(METRICS[self.model.metric], self.model.bars())

    def _show_state(self) -> None:
        state = self.model.state
        texts = {"ready": "Measure this machine", "measuring": "Cancel", "cancelling": "Cancelling…"}
        self.measure.setText(texts[state])
        self.measure.setEnabled(state != "cancelling")
        self.bar.setVisible(state != "ready")
        self.doing.setVisible(state != "ready")
        self.bar.setValue(0)

    def _measure(self, _checked: bool = False) -> None:
        if self.model.state == "ready":
            self.model.calibrate()
        else:
            self.model.cancel()

    def _save(self, _checked: bool = False) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save runs", "runs.json", "Runs (*.json);;Markdown table (*.md)")
        if path:
            self.model.save(path)


def _launch(function: Callable[[], None]) -> None:
    in_worker(function, "Measure this machine (napari-aprcnn)")


def _row(*widgets: QWidget) -> QWidget:
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget, 1)
    return holder
