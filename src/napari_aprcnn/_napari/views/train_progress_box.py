"""The button of the Training dock, what would happen, what happens, and the losses."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.train_model import TrainModel
from napari_aprcnn._napari.views.button_styles import BLUE, RED
from napari_aprcnn._napari.views.inputs import WordsLabel
from napari_aprcnn._napari.views.loss_plot import LossPlot, curves_of
from napari_aprcnn._napari.views.train_parameters_box import side_by_side

__all__ = ["TrainProgressBox"]

_STEPS = 1000


class TrainProgressBox(QWidget):
    """Train, Resume, Stop, Stopping: one button; below it how far the training is.

    Parameters
    ----------
    model
        What it shows and starts.

    Attributes
    ----------
    use_clicked : Signal()
        The user wants the model that was trained.
    """

    use_clicked = Signal()

    def __init__(self, model: TrainModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.plan = WordsLabel()
        self.plan.setToolTip("What the button would do, or why it cannot.")
        self.take = QPushButton("Take its parameters")
        self.take.setToolTip("Take the parameters of the training that is there under this name, to go on with it.")
        self.afresh = QPushButton("Start afresh")
        self.afresh.setToolTip("Move the former training and its model to NAME_old; nothing is deleted.")
        self._former = side_by_side((self.take, 1), (self.afresh, 1))
        self.button = QPushButton("Train")
        self.button.setObjectName("aprcnn_train")
        self.button.setMinimumHeight(40)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.words = WordsLabel()
        self.plot = LossPlot()
        self.use = QPushButton("Use the model")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        for widget in (self.plan, self._former, self.button, self.bar, self.words, self.plot, self.use):
            layout.addWidget(widget)
        self.button.clicked.connect(self._clicked)
        self.take.clicked.connect(lambda _: model.take_former())
        self.afresh.clicked.connect(lambda _: model.start_afresh())
        self.use.clicked.connect(lambda _: self.use_clicked.emit())
        for what in ("state", "progress", "epochs"):
            self.refresh(what)

    def _clicked(self, _checked: bool = False) -> None:
        if self._model.state == "ready":
            self._model.start()
        else:
            self._model.stop()

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        if what in ("state", "run", "parameters", "rows"):
            self._show_state()
        if what in ("progress", "state"):
            self.words.setText(self._model.progress_words)
            self.bar.setValue(round(_STEPS * self._model.fraction))
        if what in ("progress", "epochs", "state"):
            self._show_curves()

    def _show_state(self) -> None:
        model, state = self._model, self._model.state
        ready, problem = state == "ready", self._model.problem
        start = "Resume" if model.resumable else "Train"
        self.button.setText({"ready": start, "stopping": "Stopping…"}.get(state, "Stop"))
        tips = {
            "ready": problem or "Train in a process of its own; the viewer stays free.",
            "stopping": "Waiting for the step in work.",
        }
        self.button.setToolTip(tips.get(state, "Stop; the last whole epoch is kept, and Resume goes on from there."))
        self.button.setStyleSheet(BLUE if ready else RED)
        self.button.setEnabled(state in ("running", "writing") or (ready and not problem))
        self.plan.setText(problem or model.plan_words)
        self.plan.setVisible(ready)
        self._former.setVisible(ready and model.blocked)
        self.take.setVisible(model.checkpoint is not None)
        for widget in (self.bar, self.words):
            widget.setVisible(not ready)
        weights = model.weights
        self.use.setVisible(ready and weights is not None)
        if weights is not None:
            self.use.setText(f"Use {weights.stem} to segment")
            self.use.setToolTip(f"Make {weights} the model of the Segment dock.")

    def _show_curves(self) -> None:
        runner = self._model.runner
        curves = curves_of(runner.epochs, runner.points)
        epochs = runner.request.config.epochs if runner.request is not None else 1
        self.plot.setVisible(bool(curves) or self._model.state == "running")
        self.plot.show_curves(curves, epochs)
