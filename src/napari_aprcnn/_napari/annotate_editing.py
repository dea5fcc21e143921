"""One person annotating one image: what is clicked and painted goes to the folder, step by step. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_aprcnn._napari.annotate_layers import Frame, LabelsCanvas, PointsCanvas
from napari_aprcnn._napari.jobs import Job
from napari_aprcnn.evaluate.annotations import AnnotationSession, slice_words
from napari_aprcnn.evaluate.slice_choice import SliceIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Editing", "words_here"]

_MOST_UNDO = 200


@dataclass(frozen=True, eq=False)
class _Step:
    """What a step has changed: the points that a slice had, or the labels of a part of it."""

    index: SliceIndex
    points: NDArray[np.float64] | None = None
    box: tuple[slice, slice] | None = None
    patch: NDArray[Any] | None = None


class Editing:
    """The layer that is annotated in, and what the user does in it.

    Parameters
    ----------
    viewer
        The viewer model.
    frame
        Of the image.
    session
        Where everything is saved.
    launch
        Runs a callable in another thread.

    Attributes
    ----------
    here
        The slice that the viewer shows, where it shows one.
    changed : Signal(str)
        ``here``, ``rows``, ``pending``.
    refused : Signal(str)
        Why something was not taken.
    failed : Signal(object)
        The error of a file that could not be read.
    """

    changed = Signal(str)
    refused = Signal(str)
    failed = Signal(object)

    def __init__(
        self, viewer: Any, frame: Frame, session: AnnotationSession, *, launch: Callable[[Callable[[], None]], Any]
    ) -> None:
        self.frame, self.session = frame, session
        self.here: SliceIndex | None = None
        self._viewer, self._launch = viewer, launch
        self._steps: list[_Step] = []
        self._load: tuple[SliceIndex, Job] | None = None
        self._painted: SliceIndex | None = None
        self._before: NDArray[Any] | None = None
        name = f"{frame.image.name} {session.info.mode} by {session.annotator}"
        self.points: PointsCanvas | None = None
        self.labels: LabelsCanvas | None = None
        if session.info.mode == "points":
            self.points = PointsCanvas(viewer, frame, name=name, edited=self._points_edited)
            self.points.show(session.points().coordinates)
        else:
            first = session.current or session.slices[0]
            self.labels = LabelsCanvas(viewer, frame, name=name, index=first, edited=self._labels_edited)
            self.labels.lock()
        viewer.dims.events.connect(self._dims_changed)

    @property
    def canvas(self) -> PointsCanvas | LabelsCanvas:
        """The layer that is annotated in."""
        found = self.points or self.labels
        if found is None:
            raise RuntimeError("there is no layer to annotate in")
        return found

    @property
    def chosen_here(self) -> bool:
        """Whether the slice that is shown is one of those to annotate."""
        return self.here is not None and self.here in self.session.slices

    @property
    def loading(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._load is not None

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._steps)

    def words(self, index: SliceIndex) -> str:
        """Name a slice."""
        return slice_words(index, self.session.info.axes)

    def start(self) -> None:
        """Go to the slice where the work was left, else to the first that is not done."""
        session = self.session
        left = session.current if session.current is not None and session.state(session.current) != "done" else None
        open_ones = session.in_state("doing", "todo")
        self.go(left if left is not None else (open_ones or list(session.slices))[0])

    # --- where -------------------------------------------------------------------------------------------------------

    def go(self, index: SliceIndex) -> None:
        """Show a slice."""
        if self._viewer.dims.ndisplay != 2:
            self._viewer.dims.ndisplay = 2
        self.frame.show(self._viewer, index)
        self._look()
        self.canvas.activate()

    def _dims_changed(self, event: Any) -> None:
        if event.type in ("point", "ndisplay", "order", "ndim"):
            self._look()

    def _look(self) -> None:
        here = self.frame.shown(self._viewer)
        if here == self.here:
            return
        self.here = here
        if here is not None and self.chosen_here:
            self.session.go_to(here)
        if self.labels is not None:
            if self.chosen_here and here != self._painted and here is not None:
                self._load_labels(here)
            elif here == self._painted and self._before is not None:
                self.labels.unlock()
            else:
                self.labels.lock()
        self.changed.emit("here")

    def _load_labels(self, index: SliceIndex) -> None:
        if self.labels is None:
            return
        self._labels_edited()  # whatever was changed without a stroke: by another plugin, or by redoing
        self._painted = self._before = None
        self.labels.lock()  # it stays where it was, out of sight, until the labels of this slice are read
        job = Job(lambda: self.session.labels_on(index))
        self._load = (index, job)
        self._launch(job.run)
        self.poll()
        self.changed.emit("pending")

    def poll(self) -> None:
        """Show labels that were read meanwhile."""
        if self._load is None or self.labels is None:
            return
        index, job = self._load
        if job.outcome is None:
            return
        self._load = None
        if job.outcome.error is not None:
            # The layer stays locked: nothing is painted over a file that cannot be read.
            self.failed.emit(job.outcome.error)
            return
        if index != self.here:
            return  # the viewer has gone on meanwhile; the slice is read again when it comes back
        self.labels.show(index, job.outcome.value)
        self._painted, self._before = index, self.labels.read().copy()

    # --- steps of the user -------------------------------------------------------------------------------------------

    def _points_edited(self) -> bool:
        if self.points is None:
            return False
        session, rows = self.session, self.points.read()
        leading, places = np.round(rows[:, :-2]), rows[:, -2:]
        limits = np.array(self.frame.plane_shape) - 0.5
        inside = ((places >= -0.5) & (places <= limits)).all(axis=1)
        kept = np.zeros(len(rows), bool)
        for index in session.slices:
            on = (leading == index).all(axis=1) & inside
            kept |= on
            before = session.points_on(index)
            if not np.array_equal(places[on], before):
                self._remember(_Step(index, points=before))
                session.set_points(index, places[on])
        if not kept.all():
            self.points.show(session.points().coordinates)
            self.refused.emit(
                "That place is outside the image."
                if not inside.all()
                else f"{self._here_words()} is not one of the chosen slices: press N for the next one."
            )
        self.changed.emit("rows")
        return True

    def _here_words(self) -> str:
        words = "This" if self.here is None else self.words(self.here)
        return words[:1].upper() + words[1:]

    def _labels_edited(self) -> bool:
        if self.labels is None or self._painted is None or self._before is None:
            return False
        plane = self.labels.read()
        different = plane != self._before
        rows = np.flatnonzero(different.any(axis=1))
        if not len(rows):
            return False
        columns = np.flatnonzero(different[rows[0] : rows[-1] + 1].any(axis=0))
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        self._remember(_Step(self._painted, box=box, patch=self._before[box].copy()))
        self._before[box] = plane[box]
        self.session.set_labels(self._painted, plane)
        self.changed.emit("rows")
        return True

    def _remember(self, step: _Step) -> None:
        self._steps = [*self._steps, step][-_MOST_UNDO:]

    def undo(self) -> bool:
        """Take the last step back, wherever it was made."""
        if not self._steps:
            return False
        step = self._steps[-1]
        if self.here != step.index:
            self.go(step.index)
        if self.loading:
            return False  # its labels are being read: press again in a moment
        self._steps = self._steps[:-1]
        if step.points is not None and self.points is not None:
            self.session.set_points(step.index, step.points)
            self.points.show(self.session.points().coordinates)
        elif step.box is not None and step.patch is not None and self.labels is not None and self._before is not None:
            self.labels.put(step.box, step.patch)
            self._before[step.box] = step.patch
            self.session.set_labels(step.index, self.labels.read())
        self.changed.emit("rows")
        return True

    def replace_points(self, index: SliceIndex, yx: NDArray[np.float64]) -> None:
        """Replace the points of a slice; it can be taken back."""
        self._remember(_Step(index, points=self.session.points_on(index)))
        self.session.set_points(index, yx)
        if self.points is not None:
            self.points.show(self.session.points().coordinates)
        self.changed.emit("rows")

    def replace_labels(self, index: SliceIndex, plane: NDArray[Any]) -> None:
        """Replace the labels of the slice that is shown; it can be taken back."""
        if self.labels is None or self._before is None or index != self._painted:
            return
        whole = (slice(0, plane.shape[0]), slice(0, plane.shape[1]))
        self._remember(_Step(index, box=whole, patch=self._before))
        self.session.set_labels(index, plane)
        self.labels.show(index, plane)
        self._before = self.labels.read().copy()
        self.changed.emit("rows")

    def close(self) -> None:
        """Let go of the viewer; the layer goes too, for what is saved is in the folder."""
        self._labels_edited()
        self._viewer.dims.events.disconnect(self._dims_changed)
        self.canvas.remove()


def words_here(editing: Any, session: AnnotationSession | None) -> str:
    """Say what the viewer shows, and what to do there."""
    if editing is None or session is None:
        return ""
    if editing.here is None:
        return "Show the image in 2D, with Y and X, to annotate it."
    words = editing.words(editing.here)
    if not editing.chosen_here:
        return f"{words} is not one of the chosen slices: N goes to the next one."
    if editing.points is None:
        return f"{words}: paint each nucleus with a label of its own (M takes a new one)."
    n = len(session.points_on(editing.here))
    return f"{words}: {n} point{'' if n == 1 else 's'}. Click the centre of each nucleus."
