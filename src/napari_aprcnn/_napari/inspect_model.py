"""The Inspect dock without its widgets: the table, what is selected and shown, edits, colours, files.

Works on a `napari.components.ViewerModel`, so it is tested without Qt. Views listen to `changed` and `notified` and
call `poll` from the GUI thread while `pending` is true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_aprcnn._napari.inspect_edits import InspectEdits, Key, count_objects, count_voxels
from napari_aprcnn._napari.inspect_export import prepare_training_pair
from napari_aprcnn._napari.inspect_layers import InspectLayers
from napari_aprcnn._napari.inspect_paint import Painter
from napari_aprcnn._napari.inspect_pointer import Marks, Pointer
from napari_aprcnn._napari.inspect_sheet import Sheet
from napari_aprcnn._napari.jobs import Job, Outcome
from napari_aprcnn._napari.latest import Latest
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.io.object_table import ObjectTable
from napari_aprcnn.segment.edits import Edit

__all__ = ["InspectModel"]

_AT_ONCE = 4_000_000  # voxels that are edited and measured without a thread: some tens of milliseconds
_PAUSE_S = 0.6
_BUSY = {"measuring": "measuring the objects ...", "editing": "editing ...", "saving": "writing ..."}


class InspectModel:
    """State and actions of the Inspect dock.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    launch
        Runs a callable in another thread; tests call it in place.

    Attributes
    ----------
    layers
        The chosen labels and image.
    edits
        Edits of the labels and their history.
    sheet, painter
        The table, filtered and sorted, and what is selected; the colours of the labels.
    state
        ``ready``, ``measuring``, ``editing`` or ``saving``.
    changed : Signal(str)
        ``layers``, ``choice``, ``table``, ``rows``, ``selection``, ``column``, ``colours``, ``edits``, ``points``,
        ``state``, ``pending``.
    notified : Signal(str, str, object)
        Severity (``error``, ``info``), sentence, and the exception where it was an unexpected one.
    clicked : Signal(object)
        Voxel (axes of the labels, not rounded) that was clicked in the viewer.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)
    clicked = Signal(object)

    def __init__(self, viewer: Any, *, launch: Callable[[Callable[[], None]], Any]) -> None:
        self._viewer, self._launch = viewer, launch
        self.sheet = Sheet()
        self.state = "ready"
        self._job: tuple[Job, Callable[[Any], None]] | None = None
        self._closed = False
        self._measuring = Latest(launch, self._measured, delay_s=0.0)
        self._after_paint = Latest(launch, self._measured, delay_s=_PAUSE_S)
        self.layers = InspectLayers(viewer)
        self.edits = InspectEdits(self.layers)
        self.painter = Painter(launch, self._told_colours)
        self.pointer = Pointer(viewer, self.layers, self._clicked, self._picked)
        self.layers.changed.connect(self._layers_changed)
        self.marks = Marks(viewer, self.layers)
        self.edits.changed.connect(self._edits_changed)
        self.sheet.changed.connect(self._sheet_changed)
        self.pointer.watch(self.layers.labels)
        if self.layers.in_memory:
            self.measure()

    def _edits_changed(self, what: str) -> None:
        if what == "points" and not self._closed:
            self.marks.show(self.edits.points, self.edits.target[0] if self.edits.target else None)
        self.changed.emit(what)

    def _sheet_changed(self, what: str) -> None:
        if what == "selection" and self.sheet.selected and self.layers.labels is not None:
            with self.pointer.quiet():
                self.layers.labels.selected_label = self.sheet.selected[-1][1]
        elif what in ("rows", "column"):
            self._colour()
        self.changed.emit(what)

    # --- measuring ---------------------------------------------------------------------------------------------------

    @property
    def words(self) -> str:
        """What goes on, or what there is."""
        if self.state != "ready":
            return _BUSY[self.state]
        if self.sheet.table is None:
            return self.layers.problem or "These labels are read from disk: click Measure to read them once."
        return self.sheet.words

    def measure(self) -> None:
        """Measure all objects, in the background."""
        self._ask_measure(self._measuring)

    def _ask_measure(self, which: Latest) -> None:
        if self.layers.problem:
            return
        labels, image = self.layers.data, self.layers.image_data
        spacing, axes, layer = self.layers.spacing_um, self.layers.axes, self.layers.labels

        def work(_should_cancel: Callable[[], bool]) -> Any:
            return layer, ObjectTable.from_labels(labels, image=image, spacing_um=spacing, axes=axes)

        which.ask(work)
        if which is self._measuring:
            self._after_paint.forget()
            if self._job is None:  # an edit of the labels before goes on
                self._set_state("measuring")
        self.changed.emit("pending")

    def _measured(self, outcome: Outcome) -> None:
        if self.state == "measuring":
            self._set_state("ready")
        if outcome.error is not None:
            self._told(outcome.error)
        elif outcome.value[0] is self.layers.labels:
            self.sheet.take(outcome.value[1])

    # --- selecting ---------------------------------------------------------------------------------------------------

    def go_to(self, key: Key) -> None:
        """Move sliders and camera to an object."""
        table = self.sheet.table
        row = None if table is None else table.row(key[1], key[0])
        if table is not None and row is not None:
            self.pointer.go_to(table, row, key[0])

    def _clicked(self, voxel: NDArray[np.float64], label: int, *, add: bool) -> None:
        self.clicked.emit(voxel)
        if self.edits.splitting:
            self.edits.add_point(voxel)
            if self.edits.splitting == "cut" and len(self.edits.points) == 2:
                self.split_here()
            return
        if label:
            key: Key = (int(np.clip(np.round(voxel[0]), 0, None)) if self.layers.has_time else None, label)
            before = self.sheet.selected
            others = [one for one in before if one != key]
            self.sheet.select([*others, key] if add and key not in before else others if add else [key])
        elif not add:
            self.sheet.select([])

    def _picked(self, label: int) -> None:
        """Follow the label that was chosen elsewhere in napari, if it is an object."""
        key: Key = (self.layers.shown_time, label)
        table = self.sheet.table
        if table is not None and table.row(label, key[0]) is not None:
            self.sheet.select([key])

    # --- editing -----------------------------------------------------------------------------------------------------

    def edit(self, kind: str, *, keys: Sequence[Key] | None = None, **options: Any) -> bool:
        """Merge, split, delete, grow, shrink, fill or smooth the selected objects; see `InspectEdits.prepare`."""
        chosen = self.sheet.selected if keys is None else tuple(keys)
        table = self._editable_table()
        if table is None:
            return False
        try:
            work = self.edits.prepare(kind, table, chosen, **options)
        except AprcnnError as error:
            return self._told(error)
        n_voxels = count_objects(table, [label for _, label in chosen], chosen[0][0])
        return self._start_edit(work) if n_voxels > _AT_ONCE else self._make(work)

    def renumber(self) -> bool:
        """Number all objects 1, 2, ..."""
        try:
            work = self.edits.prepare_renumber() if self._editable_table() is not None else None
        except AprcnnError as error:
            return self._told(error)
        return work is not None and self._start_edit(work)

    def _start_edit(self, work: Callable[[], Edit]) -> bool:
        layer = self.layers.labels
        return self._start("editing", work, partial(self._made, layer=layer, data=layer.data if layer else None))

    def remove(self, condition: str) -> bool:
        """Delete every object for which a condition holds, for example ``touches_border``."""
        table = self._editable_table()
        try:
            keys = self.sheet.keys(np.flatnonzero(table.where(condition))) if table is not None else []
        except AprcnnError as error:
            return self._told(error)
        if table is not None and not keys:
            return self._told(ConfigError(f"no object has {condition}; nothing to remove"))
        return table is not None and self.edit("delete", keys=keys)

    def _editable_table(self) -> ObjectTable | None:
        if self.state != "ready" or self.sheet.table is None:
            self.notified.emit("info", self.words[:1].upper() + self.words[1:], None)
            return None
        return self.sheet.table

    def start_splitting(self, how: str) -> bool:
        """Take clicks in the viewer for a split of the selected object: ``seeds`` or ``cut``."""
        try:
            if self._viewer.dims.ndisplay != 2:
                raise ConfigError("clicks split objects in the 2D view only; switch off the 3D view first")
            self.edits.start_splitting(how, self.sheet.selected)
        except AprcnnError as error:
            return self._told(error)
        return True

    def split_here(self) -> bool:
        """Split at the clicks."""
        table, axis = self._editable_table(), self.layers.slider_axis
        return table is not None and self._make(lambda: self.edits.split_here(table, axis))

    def undo(self) -> bool:
        """Take the newest edit back."""
        return self._replay(self.edits.undo)

    def redo(self) -> bool:
        """Make the edit again that was taken back last."""
        return self._replay(self.edits.redo)

    def _replay(self, step: Callable[[], Edit | None]) -> bool:
        if self.state != "ready":
            return False
        try:
            edit = step()
        except AprcnnError as error:
            return self._told(error)
        return edit is not None and self._show_edit(edit, edit.touched)

    def _make(self, work: Callable[[], Edit]) -> bool:
        try:
            edit = work()
        except AprcnnError as error:
            return self._told(error)
        self._made(edit, self.layers.labels, self.layers.data)
        return True

    def _made(self, edit: Edit, layer: Any, data: Any) -> None:
        if layer.data is not data:  # other labels were put into the layer while the former ones were edited
            self._told(ConfigError(f"{edit.words}: {layer.name} has other labels now; make the edit again"))
            return
        self.edits.done(edit, layer)
        if layer is self.layers.labels:
            self._show_edit(edit, edit.objects)
        else:  # another one was chosen meanwhile
            layer.refresh()

    def _show_edit(self, edit: Edit, ids: Sequence[int]) -> bool:
        layer, table = self.layers.labels, self.sheet.table
        if layer is None:
            return False
        layer.refresh(extent=False)
        if table is None or self._measuring.pending:  # measured while it was edited
            self.measure()
            return True
        self.sheet.selected = tuple((edit.t, label) for label in ids)
        if max(count_voxels(edit.box), count_objects(table, edit.touched, edit.t)) > _AT_ONCE:
            self.measure()
        else:
            if self._after_paint.pending:  # what it measures now is older than the edit
                self._ask_measure(self._after_paint)
            image = self.layers.image_data
            self.sheet.take(table.updated(self.layers.data, box=edit.box, image=image, t=edit.t))
        return True

    # --- colours -----------------------------------------------------------------------------------------------------

    def set_colours(self, on: bool) -> None:
        """Colour the labels by the chosen column, or by their ids again."""
        self.painter.on = on
        if on:
            self._colour()
        else:
            self.painter.reset()
            self.changed.emit("colours")

    def _colour(self) -> None:
        table, layer = self.sheet.table, self.layers.labels
        if self.painter.on and table is not None and layer is not None:
            shown = self.sheet.rows if self.sheet.is_filtered else None
            self.painter.ask(layer, table, self.sheet.column, np.dtype(self.layers.data.dtype), shown)
            self.changed.emit("pending")

    def _told_colours(self, error: Exception | None) -> None:
        if error is not None:
            self._told(error)
        self.changed.emit("colours")

    # --- files -------------------------------------------------------------------------------------------------------

    def save_table(self, path: Path | str) -> bool:
        """Write the shown rows, in their order, as CSV."""
        table, rows = self.sheet.table, self.sheet.rows
        if table is None or self.state != "ready":
            return False
        return self._start("saving", lambda: table.to_csv(path, rows=rows, overwrite=True), self._saved)

    def save_training(self, folder: Path | str) -> bool:
        """Add image and labels to a folder of training data."""
        try:
            return self.state == "ready" and self._start(
                "saving", prepare_training_pair(self.layers, folder), self._saved
            )
        except AprcnnError as error:
            return self._told(error)

    def _saved(self, path: Path) -> None:
        self.notified.emit("info", f"saved: {path}", None)

    # --- threads -----------------------------------------------------------------------------------------------------

    def _start(self, state: str, work: Callable[[], Any], then: Callable[[Any], None]) -> bool:
        job = Job(work)
        self._job = (job, then)
        self._set_state(state)
        self._launch(job.run)
        self.changed.emit("pending")
        return True

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        waiting = (self._measuring.pending, self._after_paint.pending, self.painter.pending)
        return not self._closed and (self._job is not None or any(waiting))

    def poll(self) -> None:
        """Take what the threads have ready; call it on the GUI thread, some twenty times a second."""
        if self._closed:
            return
        for waiting in (self._measuring, self._after_paint, self.painter):
            waiting.poll()
        job = self._job
        if job is not None and (outcome := job[0].outcome) is not None:
            self._job = None
            self._set_state("measuring" if self._measuring.pending else "ready")
            if outcome.error is not None:
                self._told(outcome.error)
            else:
                job[1](outcome.value)

    def _set_state(self, state: str) -> None:
        self.state = state
        self.changed.emit("state")

    def _told(self, error: Exception) -> bool:
        """Tell an error; one of ours as a sentence. Always false, for ``return``."""
        sentence, known = str(error), isinstance(error, AprcnnError)
        self.notified.emit("error", sentence[:1].upper() + sentence[1:], None if known else error)
        return False

    # --- layers ------------------------------------------------------------------------------------------------------

    def _layers_changed(self, what: str) -> None:
        if what == "voxels":
            if self.sheet.table is not None and self.layers.in_memory:
                same = self.sheet.table.shape == self.layers.shape
                if not same:  # other labels altogether
                    self.edits.forget()
                self._ask_measure(self._after_paint if same else self._measuring)
            return
        if what == "choice":
            self.pointer.watch(self.layers.labels)
            if self.pointer.is_new:
                self.edits.turn()
                self.painter.reset()
                self.sheet.take(None)
            if self.layers.in_memory:  # others are measured when they are asked to be
                self.measure()
        self.changed.emit(what)

    def close(self) -> None:
        """Forget the viewer; colours of the labels become those that they had."""
        if self._closed:
            return
        self._closed = True
        self._measuring.forget()
        self._after_paint.forget()
        self.painter.reset()
        self.marks.show([], None)
        self.pointer.close()
        self.layers.close()
