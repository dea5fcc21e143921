"""The Evaluate dock without its widgets, on a viewer model: what is compared with what, how, and what came of it.

Views listen to `changed` and `notified` and call `poll` from the GUI thread while `pending` is true.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from napari.layers import Points
from psygnal import Signal

from napari_aprcnn._napari.edit_watch import EditWatch
from napari_aprcnn._napari.evaluate_layers import is_choice, likely_truth, look_at, show_errors_layer, warm_up
from napari_aprcnn._napari.evaluate_links import annotated_slices, note_scores, write_comparison
from napari_aprcnn._napari.evaluate_points import points_layer
from napari_aprcnn._napari.evaluate_settings import EvaluateSettings, load_evaluate_settings, save_evaluate_settings
from napari_aprcnn._napari.evaluate_sources import Source, picture_of, take_source
from napari_aprcnn._napari.jobs import Job
from napari_aprcnn._napari.units import viewer_place
from napari_aprcnn.cli.evaluate import parse_slices
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.evaluate.comparison import Comparison, compare
from napari_aprcnn.evaluate.config import EvaluateConfig
from napari_aprcnn.evaluate.mistakes import Kind, Mistake
from napari_aprcnn.evaluate.scores import Evaluation

__all__ = ["EvaluateModel", "EvaluateState"]

logger = logging.getLogger(__name__)

EvaluateState = Literal["ready", "running", "cancelling"]


class EvaluateModel:
    """State and actions of the Evaluate dock.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    launch
        Runs a callable in another thread; tests call it in place.
    settings
        ``None``: those of the last session.

    Attributes
    ----------
    predictions, truth, ignore
        The chosen layers; several predictions are compared.
    slices
        Slices that are looked at one by one, as text: ``0,4,10-12`` or ``all``; empty: whole volumes.
    comparison
        The last result, or ``None``.
    shown
        Name of the prediction whose errors are listed.
    progress
        Share that is done, 0..1.
    changed : Signal(str)
        ``layers``, ``choice``, ``state``, ``progress``, ``result``, ``shown``, ``pending``, ``outdated``.
    notified : Signal(str, str, object)
        Severity (``error``, ``info``), sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(
        self, viewer: Any, *, launch: Callable[[Callable[[], None]], Any], settings: EvaluateSettings | None = None
    ) -> None:
        self.settings = settings or load_evaluate_settings()
        self.predictions: list[Any] = []
        self.truth: Any | None = None
        self.ignore: Any | None = None
        self.slices = ""
        self.comparison: Comparison | None = None
        self.shown = ""
        self.progress = 0.0
        self.outdated = False
        self._viewer = viewer
        self._launch = launch
        self._job: Job | None = None
        self._finish: Callable[[Any], None] = lambda _: None
        self._sources: dict[str, Source] = {}
        self._watch: EditWatch | None = None  # of what was compared
        self._watch_next: EditWatch | None = None  # of what is being compared
        self._closed = False
        self._by_user: set[str] = set()
        self._sliced: Any = None
        events = viewer.layers.events
        self._events = (events.inserted, events.removed, events.renamed)
        for event in self._events:
            event.connect(self._layers_changed)
        self._suggest()

    # --- what is compared --------------------------------------------------------------------------------------------

    @property
    def labels(self) -> list[Any]:
        """Labels layers, but not pictures of errors; the topmost first."""
        return [layer for layer in reversed(self._viewer.layers) if is_choice(layer)]

    @property
    def truths(self) -> list[Any]:
        """Layers that can be the truth: labels and points; the topmost first."""
        return [layer for layer in reversed(self._viewer.layers) if is_choice(layer) or isinstance(layer, Points)]

    def choose(self, **layers: Any) -> None:
        """Choose ``predictions`` (a list), ``truth`` or ``ignore``; what is the truth is no prediction any more."""
        for name, value in layers.items():
            setattr(self, name, list(value) if name == "predictions" else value)
        self._by_user |= set(layers)
        self._suggest()
        self.predictions = [layer for layer in self.labels if layer in self.predictions and layer is not self.truth]
        self.changed.emit("choice")

    def open_points(self, path: Path | str, columns: str = "") -> bool:
        """Show a table of points (CSV) on the labels, and choose it as the truth; columns as ``z=slice,y=Y,x=X``."""
        try:
            data, options = points_layer(Path(path), columns, next(iter(self.predictions), None))
        except AprcnnError as error:
            self._refused(error)
            return False
        self.choose(truth=self._viewer.add_points(data, **options))
        return True

    def set_slices(self, text: str) -> bool:
        """Choose slices; a text that names none is told and not taken."""
        try:
            parse_slices(text.strip() or None)
        except ConfigError as error:
            self._refused(error)
            self.changed.emit("choice")
            return False
        self.slices = text.strip()
        self.changed.emit("choice")
        return True

    def set_option(self, **values: Any) -> bool:
        """Change a parameter; one out of range is told and not taken."""
        try:
            self.settings = self.settings.replace(**values)
        except ConfigError as error:
            self._refused(error)
            return False
        finally:
            self.changed.emit("choice")
        return True

    @property
    def against_points(self) -> bool:
        """Whether the truth is a layer of points."""
        return isinstance(self.truth, Points)

    @property
    def problem(self) -> str:
        """Why nothing can be evaluated, with what to do; empty if it can."""
        if not self.labels:
            return "There are no labels yet: segment an image, or open labels, and choose them here."
        if self.truth is None:
            return "Choose what is true: a layer of labels or of points (one in each nucleus)."
        if not self.predictions:
            return "Choose at least one layer of predicted labels that is not the truth."
        return ""

    def config(self) -> EvaluateConfig:
        """Return the parameters as chosen.

        Raises
        ------
        ConfigError
            If they do not make sense.
        """
        return EvaluateConfig(
            iou=self.settings.iou,
            min_size=self.settings.min_size,
            min_size_unit=self.settings.min_size_unit,
            slices=parse_slices(self.slices or None),
        )

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> EvaluateState:
        """``ready``, ``running`` or ``cancelling``."""
        if self._job is None:
            return "ready"
        return "cancelling" if self._job.cancelled else "running"

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._job is not None

    def evaluate(self) -> bool:
        """Start to evaluate the layers as they are now; edited labels are read again."""
        if self.state != "ready" or self._closed:
            return False
        if self.problem:
            self.notified.emit("error", self.problem, None)
            return False
        try:
            sources = [take_source(layer, self.truth, self.ignore) for layer in self.predictions]
            config = self.config()
        except AprcnnError as error:
            self._refused(error)
            return False
        name = self.shown if self.shown in {source.name for source in sources} else sources[0].name
        show_errors = self.settings.show_errors

        def work(job: Job) -> tuple[Comparison, Any]:
            predictions = {source.name: source.pairs for source in sources}
            comparison = compare(predictions, config=config, progress=self._tell, should_cancel=lambda: job.cancelled)
            for found in comparison.evaluations:
                _ = found.intervals, found.mistakes, found.counts  # here, not in the GUI thread
            if not show_errors:
                return comparison, None
            source = next(source for source in sources if source.name == name)
            evaluation = next(e for e in comparison.evaluations if e.name == name)
            warm_up()
            return comparison, picture_of(source, evaluation, lambda: job.cancelled)

        def finish(value: tuple[Comparison, Any]) -> None:
            self.comparison, picture = value
            self._sources = {source.name: source for source in sources}
            self.shown, self.outdated = name, self._watch_next is not None and self._watch_next.edited
            for note in dict.fromkeys(source.note for source in sources if source.note):
                self.notified.emit("info", note, None)
            self._show_picture(picture)
            note_scores([(source.name, source.layer) for source in sources], self.comparison)
            self._unwatch()
            self._watch, self._watch_next = self._watch_next, None
            self.changed.emit("result")
            self.changed.emit("shown")

        self._by_user |= {"truth", "predictions"}  # what was evaluated stays chosen, whatever layers come
        self.remember()
        self._watch_next = EditWatch([*(s.layer for s in sources), self.truth, self.ignore], self._edited)
        self._start(work, finish)
        return True

    def cancel(self) -> None:
        """Ask the work to stop; the last result stays."""
        if self._job is not None:
            self._job.cancel()
            self.changed.emit("state")

    def poll(self) -> None:
        """Take what the thread has ready; call it on the GUI thread, about ten times a second."""
        job = self._job
        if job is None:
            return
        if job.outcome is None:
            self.changed.emit("progress")
            return
        outcome, finish = job.outcome, self._finish
        self._job, self._finish = None, lambda _: None
        if self._closed:
            return
        if isinstance(outcome.error, AprcnnError):
            self._refused(outcome.error)
        elif outcome.error is not None:
            logger.error("an evaluation failed", exc_info=outcome.error)
            self.notified.emit("error", str(outcome.error), outcome.error)
        elif not outcome.cancelled:
            finish(outcome.value)
        self._unwatch_next()
        self.changed.emit("state")
        self.changed.emit("pending")

    def _start(self, work: Callable[[Job], Any], finish: Callable[[Any], None]) -> None:
        job = Job(lambda: work(job))
        self._job, self._finish, self.progress = job, finish, 0.0
        self.changed.emit("state")
        self.changed.emit("pending")
        self._launch(job.run)

    def _tell(self, share: float) -> None:
        self.progress = share  # from the worker thread: a single assignment

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def evaluation(self) -> Evaluation | None:
        """The shown prediction's scores."""
        return next((e for e in (self.comparison.evaluations if self.comparison else ()) if e.name == self.shown), None)

    def show(self, name: str) -> None:
        """List the errors of another prediction, and colour them."""
        source = self._sources.get(name)
        if source is None or name == self.shown:
            return
        self.shown = name
        self.changed.emit("shown")
        evaluation = self.evaluation
        if self.settings.show_errors and evaluation is not None and self.state == "ready":
            self._start(lambda job: picture_of(source, evaluation, lambda: job.cancelled), self._show_picture)

    def mistakes(self, kinds: Sequence[Kind] | None = None) -> list[Mistake]:
        """Errors of the shown prediction, all or of some kinds."""
        found = self.evaluation.mistakes if self.evaluation is not None else ()
        return [m for m in found if kinds is None or m.kind in kinds]

    def go_to(self, mistake: Mistake) -> bool:
        """Move sliders and camera to an error and select its label; false if its layer is gone."""
        source = self._sources.get(self.shown)
        if source is None or source.layer not in self._viewer.layers:
            self.notified.emit("info", f"the layer {self.shown} is gone; evaluate again", None)
            return False
        layer, ids = source.layer, mistake.label_ids
        if not ids and self.truth in self._viewer.layers:
            # Rows of points count within their time point.
            layer, ids = self.truth, () if self.against_points and source.times else mistake.truth_ids
        place = viewer_place(source.layer, self._viewer, source.world(mistake.image, mistake.centroid))
        look_at(self._viewer, place, layer, ids[0] if ids else None)
        return True

    def markdown(self) -> str:
        """The table of the predictions, to paste; empty without a result."""
        return self.comparison.markdown() if self.comparison is not None else ""

    def save(self, path: Path | str) -> bool:
        """Write the report (.html) or the scores and errors (.csv), in another thread; replaces what is there."""
        comparison, path = self.comparison, Path(path)
        if comparison is None or self.state != "ready":
            return False
        if path.suffix.lower() not in (".html", ".csv"):
            self.notified.emit("error", f"got the name {path.name}; expected one that ends in .html or .csv", None)
            return False
        self.set_option(folder=str(path.parent))
        self._start(
            lambda _: write_comparison(comparison, path),
            lambda written: self.notified.emit("info", f"{written} was written", None),
        )
        return True

    def _show_picture(self, picture: Any) -> None:
        source = self._sources.get(self.shown)
        if picture is not None and source is not None and source.layer in self._viewer.layers:
            show_errors_layer(self._viewer, picture, source)

    # --- following the layers ----------------------------------------------------------------------------------------

    def _suggest(self) -> None:
        """Choose what is likely, where the user has not chosen: a truth by its name or points, the topmost labels."""
        if "truth" not in self._by_user:
            self.truth = likely_truth(self.truths)
        if self.truth is not self._sliced:
            self._sliced, self.slices = self.truth, annotated_slices(self.truth) or self.slices
        if "predictions" not in self._by_user:
            self.predictions = [la for la in self.labels if la is not self.truth and la is not self.ignore][:1]

    def _layers_changed(self, _event: Any = None) -> None:
        there = list(self._viewer.layers)
        self.truth, self.ignore = (la if la in there else None for la in (self.truth, self.ignore))
        self.predictions = [layer for layer in self.predictions if layer in there]
        # What was chosen and is gone can be suggested again.
        self._by_user -= {name for name in ("truth", "predictions") if not getattr(self, name)}
        self._suggest()
        self.changed.emit("layers")
        self.changed.emit("choice")

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def _unwatch_next(self) -> None:
        if self._watch_next is not None:
            self._watch_next.close()
        self._watch_next = None

    def _edited(self) -> None:
        if not self.outdated and self._watch is not None and self._watch.edited:
            self.outdated = True
            self.changed.emit("outdated")

    def remember(self) -> None:
        """Write the settings for the next session."""
        save_evaluate_settings(self.settings)

    def close(self) -> None:
        """Let go of the viewer and its layers; what goes on is cancelled."""
        if self._closed:
            return
        self._closed = True
        self.remember()
        self.cancel()
        self._unwatch()
        self._unwatch_next()
        for event in self._events:
            event.disconnect(self._layers_changed)
        self.predictions, self.truth, self.ignore, self._sources = [], None, None, {}

    def _refused(self, error: Exception) -> None:
        self.notified.emit("error", str(error)[:1].upper() + str(error)[1:], None)
