"""The Annotate dock without its widgets: which slices, who annotates, how far it is, and where it is saved.

Works on a `napari.components.ViewerModel`, so it is tested without Qt. Views listen to `changed` and `notified` and
call `poll` from the GUI thread while `pending` is true.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from napari.layers import Labels

from napari_aprcnn._napari.annotate_choice import AnnotateChoice
from napari_aprcnn._napari.annotate_editing import Editing, words_here
from napari_aprcnn._napari.annotate_layers import Frame
from napari_aprcnn._napari.annotate_plan import choose, fewer_words, new_folder, plane_of, ranking, words_of
from napari_aprcnn._napari.annotate_results import centres, done_points, result_layers, show_results
from napari_aprcnn._napari.annotate_saver import Saver
from napari_aprcnn._napari.annotate_settings import AnnotateSettings, save_annotate_settings
from napari_aprcnn._napari.jobs import Job, Outcome
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.evaluate.annotations import AnnotationSession, State
from napari_aprcnn.evaluate.slice_choice import SliceIndex

__all__ = ["AnnotateModel"]

AnnotateState = Literal["ready", "choosing", "annotating"]


class AnnotateModel(AnnotateChoice):
    """State and actions of the Annotate dock.

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
    session
        The annotations that are open, or ``None``.
    editing
        The layer that is annotated in, or ``None``.
    changed : Signal(str)
        ``layers``, ``settings``, ``state``, ``rows``, ``here``, ``progress``, ``saved``, ``pending``.
    notified : Signal(str, str, object)
        Severity (``error``, ``info``), sentence, and the exception where it was an unexpected one.
    """

    def __init__(
        self,
        viewer: Any,
        *,
        launch: Callable[[Callable[[], None]], Any],
        settings: AnnotateSettings | None = None,
    ) -> None:
        super().__init__(viewer, settings)
        self.session: AnnotationSession | None = None
        self.editing: Editing | None = None
        self._launch = launch
        self._saver = Saver(launch)
        self._job: Job | None = None
        self._then: Callable[[Any], object] = lambda _value: None
        self._progress = (0, 0)
        self._closed = False
        viewer.layers.events.removed.connect(self._layer_removed)

    # --- how far it is -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> AnnotateState:
        """``ready``, ``choosing`` or ``annotating``."""
        if self._job is not None and self.session is None:
            return "choosing"
        return "annotating" if self.session is not None else "ready"

    @property
    def working(self) -> bool:
        """Whether slices are looked at, or a layer is read, in another thread."""
        return self._job is not None

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        loading = self.editing is not None and self.editing.loading
        return self._job is not None or self._saver.busy or loading

    # --- beginning ---------------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Choose slices and make a folder for their annotations."""
        return self.state == "ready" and self._choose(())

    def choose_more(self) -> bool:
        """Choose as many slices again, beside those that are chosen."""
        return self.session is not None and self._job is None and self._choose(self.session.slices)

    def _choose(self, taken: tuple[SliceIndex, ...]) -> bool:
        frame = self.frame if self.editing is None else self.editing.frame
        if frame is None or self.problem:
            self._refused(self.problem)
            return False
        settings = self.settings
        rank = ranking(settings, frame, self.guide)
        if rank is None:
            return self._chosen(settings, frame, None, taken)
        job = Job(lambda: rank.scores(self._tell, lambda: job.cancelled))
        self._work(job, lambda scores: self._chosen(settings, frame, scores, taken))
        return True

    def _tell(self, done: int, total: int) -> None:
        self._progress = (done, total)

    def cancel(self) -> None:
        """Stop looking through the slices."""
        if self._job is not None:
            self._job.cancel()

    @property
    def fraction(self) -> float:
        """Share of the slices that were looked at, 0..1."""
        return self._progress[0] / max(1, self._progress[1])

    def _chosen(self, settings: AnnotateSettings, frame: Frame, scores: Any, taken: tuple[SliceIndex, ...]) -> bool:
        try:
            slices = choose(settings, frame, scores, taken)
            if len(slices) < settings.n_slices and frame.shape[:-2]:
                self.notified.emit("info", fewer_words(settings, len(slices)), None)
            if self.session is not None:
                self.session.add_slices(slices)
                self.changed.emit("rows")
                return True
            spacing = frame.spacing_um
            session = AnnotationSession.create(
                new_folder(settings, frame.image.name),
                shape=frame.shape,
                axes=frame.axes,
                slices=slices,
                annotator=settings.annotator,
                image_name=frame.image.name,
                spacing_um=None if spacing is None else spacing[-len(frame.axes.replace("T", "")) :],
                mode=settings.mode,
                choice={"method": settings.method, "seed": settings.seed, "min_distance": settings.min_distance},
                write=self._saver.put,
            )
        except AprcnnError as error:
            self._refused(str(error))
            self.changed.emit("state")
            return False
        self._open(session, frame)
        return True

    def open(self, folder: Path | str) -> bool:
        """Go on with the annotations in a folder, by the name that is set."""
        frame = self.frame
        if frame is None:
            self._refused(self.images.problem)
            return False
        self.leave()
        try:
            session = AnnotationSession.open(folder, annotator=self.settings.annotator, write=self._saver.put)
            session.check_image(frame.shape, frame.axes)
            if not session.slices:
                raise ConfigError(f"no slices are chosen in {folder}; choose slices in a new folder")
        except (AprcnnError, OSError) as error:
            self._refused(words_of(error))
            return False
        self._open(session, frame)
        return True

    def go_on(self) -> bool:
        """Go on where the work was left."""
        folder = self.left_behind
        return folder is not None and self.open(folder)

    def _open(self, session: AnnotationSession, frame: Frame) -> None:
        self.session = session
        self.set(last=str(session.folder), mode=session.info.mode)
        self.editing = Editing(self._viewer, frame, session, launch=self._launch)
        self.editing.changed.connect(self.changed.emit)
        self.editing.refused.connect(self._refused)
        self.editing.failed.connect(self._failed)
        for key, action in (("n", self.next), ("p", self.previous), ("d", self.done), ("Control-Z", self.undo)):
            self.editing.canvas.bind(key, action)
        self.changed.emit("state")
        self.editing.start()
        for what in ("rows", "here", "pending"):
            self.changed.emit(what)

    def leave(self) -> None:
        """Close the annotations; everything is saved. The layer that was annotated in goes."""
        editing, self.editing = self.editing, None
        self.cancel()
        self.session = self._job = None
        if editing is not None:
            editing.close()
            self.changed.emit("state")

    # --- annotating --------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[tuple[SliceIndex, str, State, int]]:
        """The chosen slices: index, name, how far, number of points."""
        session, editing = self.session, self.editing
        if session is None or editing is None:
            return []
        return [(i, editing.words(i), session.state(i), len(session.points_on(i))) for i in session.slices]

    @property
    def progress_words(self) -> str:
        """``12 of 20 slices done``, or how far the choice is."""
        done, total = self._progress
        if self.state == "choosing":
            return f"looking at slice {done} of {total}" if total else "looking at the slices"
        return "" if self.session is None else f"{self.session.n_done} of {len(self.session.slices)} slices done"

    @property
    def here_words(self) -> str:
        """What the viewer shows."""
        return words_here(self.editing, self.session)

    @property
    def saved_words(self) -> str:
        """Whether everything is saved, and where."""
        return "" if self.session is None else self._saver.words(self.session.folder)

    def go(self, index: SliceIndex) -> None:
        """Show a slice."""
        if self.editing is not None:
            self.editing.go(index)

    def next(self) -> None:
        """Go to the next of the chosen slices."""
        self._step(1)

    def previous(self) -> None:
        """Go to the one before."""
        self._step(-1)

    def _step(self, direction: int) -> None:
        if self.session is None or self.editing is None:
            return
        slices, here = self.session.slices, self.editing.here or self.session.current or ()
        ahead = [i for i in slices if (i > here if direction > 0 else i < here)]
        if ahead:
            self.go(ahead[0] if direction > 0 else ahead[-1])
        else:
            self.notified.emit("info", f"This is the {'last' if direction > 0 else 'first'} of the chosen slices", None)

    def done(self) -> None:
        """Say that the slice is done, and go to the next that is not."""
        session, editing = self.session, self.editing
        if session is None or editing is None:
            return
        if editing.here is None or not editing.chosen_here:
            self._refused(self.here_words)
            return
        session.set_state(editing.here, "done")
        open_ones = session.in_state("todo", "doing")
        if open_ones:
            self.go(next((i for i in open_ones if i > editing.here), open_ones[0]))
        else:
            self.notified.emit("info", f"All {len(session.slices)} slices are done", None)
        self.changed.emit("rows")

    def set_state(self, index: SliceIndex, state: State) -> None:
        """Say how far a slice is."""
        if self.session is not None:
            self.session.set_state(index, state)
            self.changed.emit("rows")

    def undo(self) -> None:
        """Take the last step back."""
        if self.editing is not None and not self.editing.undo() and not self.editing.loading:
            self.notified.emit("info", "There is nothing to undo", None)

    def copy_guide(self) -> bool:
        """Take what the prediction has on this slice, to correct it. It replaces what is there; undo takes it back."""
        editing, guide = self.editing, self.guide
        if editing is None or self._job is not None or editing.loading:
            return False
        if not isinstance(guide, Labels):
            self._refused("Choose a labels layer of the image's size as prediction; then its nuclei can be taken over")
            return False
        index = editing.here
        if index is None or not editing.chosen_here:
            self._refused(self.here_words)
            return False
        points, frame = editing.points is not None, editing.frame

        def read() -> Any:
            plane = plane_of(guide, frame, index)
            return centres(plane) if points else plane

        self._work(
            Job(read), lambda value: (editing.replace_points if points else editing.replace_labels)(index, value)
        )
        return True

    def evaluate(self) -> bool:
        """Add the annotations of the slices that are done as a layer to evaluate against."""
        session, editing = self.session, self.editing
        if session is None or editing is None or self._job is not None:
            return False
        if not session.n_done:
            self._refused("No slice is done yet: press D on those that are annotated completely")
            return False

        def read() -> Any:
            self._saver.flush()
            return done_points(session)

        self._work(Job(read), lambda found: self._add_results(session, editing.frame, found))
        return True

    def _add_results(self, session: AnnotationSession, frame: Frame, coordinates: Any) -> None:
        layers = result_layers(session, frame, coordinates)
        show_results(self._viewer, layers)
        if self.editing is not None:
            self.editing.canvas.activate()  # clicks and keys go on to the annotations
        slices = ",".join(str(index[0]) for index in session.in_state("done") if len(index) == 1)
        on = f", on the slices {slices}" if slices else ""
        self.notified.emit("info", f"Evaluate against the layer {layers[0].name!r}{on}", None)

    # --- work in another thread --------------------------------------------------------------------------------------

    def _work(self, job: Job, then: Callable[[Any], object]) -> None:
        self._job, self._progress = job, (0, 0)
        self._then = then
        for what in ("state", "progress", "pending"):
            self.changed.emit(what)
        self._launch(job.run)

    def poll(self) -> None:
        """Take what threads have ready; call it on the GUI thread, about ten times a second."""
        if self.editing is not None:
            self.editing.poll()
        while (error := self._saver.take_error()) is not None:
            self._failed(error)
        job = self._job
        if job is not None:
            self.changed.emit("progress")
            if job.outcome is not None:
                self._job = None
                self._finish(job.outcome)
                self.changed.emit("state")
        self.changed.emit("saved")

    def _finish(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._failed(outcome.error)
        elif not outcome.cancelled:
            self._then(outcome.value)

    # --- passing on --------------------------------------------------------------------------------------------------

    def _layer_removed(self, event: Any) -> None:
        editing = self.editing
        if self.guide is not None and event.value is self.guide:
            self.choose_guide(None)
        if editing is not None and event.value in (editing.frame.layer, editing.canvas.layer):
            self.leave()
            self.notified.emit("info", "The annotations were closed; they are saved, Continue opens them again", None)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, AprcnnError | OSError):
            self._refused(words_of(error))
        else:
            self.notified.emit("error", str(error), error)

    def close(self) -> None:
        """Forget the viewer; what is not written yet is written now."""
        if self._closed:
            return
        self._closed = True
        self.cancel()
        self._saver.flush()
        save_annotate_settings(self.settings)
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        if self.editing is not None:
            self._viewer.dims.events.disconnect(self.editing._dims_changed)
        self.images.close()
