"""The edits of the Inspect dock: on the chosen layer and the selected objects, with a history. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_aprcnn._napari.edit_watch import tell_edited
from napari_aprcnn._napari.inspect_history import Histories
from napari_aprcnn._napari.inspect_layers import InspectLayers
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn.errors import AprcnnError
from napari_aprcnn.io.object_table import ObjectTable
from napari_aprcnn.segment import edits
from napari_aprcnn.segment.edits import Edit, EditError, EditHistory

__all__ = ["InspectEdits", "Key", "count_objects", "count_voxels"]

Key = tuple[int | None, int]  # time point and label
_OF_OBJECTS: dict[str, Callable[..., Edit]] = {
    "merge": edits.merge_objects, "delete": edits.delete_objects, "fill": edits.fill_holes,
    "grow": edits.grow_objects, "shrink": edits.shrink_objects, "smooth": edits.smooth_objects,
}  # fmt: skip
_MEASURED = ("grow", "shrink", "smooth")


def count_voxels(box: Sequence[slice]) -> int:
    """Return how many voxels a box has."""
    return int(np.prod([s.stop - s.start for s in box]))


def count_objects(table: ObjectTable, labels: Sequence[int], t: int | None) -> int:
    """Return how many voxels the box around objects has; 0 where there are none of them."""
    rows = table.find(labels, t)
    rows = rows[rows >= 0]
    return count_voxels(table.box(rows)) if len(rows) else 0


class InspectEdits:
    """Makes edits, and takes them back.

    Parameters
    ----------
    layers
        The labels that are edited.

    Attributes
    ----------
    points
        Voxels (without T) that were clicked for the split that goes on.
    splitting
        ``seeds``, ``cut`` or an empty string: what clicks in the viewer are for.
    changed : Signal(str)
        ``edits``: other things can be undone; ``points``: clicks for a split.
    """

    changed = Signal(str)

    def __init__(self, layers: InspectLayers) -> None:
        self._layers = layers
        self._histories = Histories()
        self.points: list[tuple[float, ...]] = []
        self.splitting = ""
        self.target: Key | None = None

    @property
    def history(self) -> EditHistory:
        """What was done to the chosen labels; each layer has its own."""
        return self._histories.of(self._layers.labels)

    def turn(self) -> None:
        """Go on with the history of other labels: they were chosen."""
        self.stop_splitting()
        self.changed.emit("edits")

    def forget(self) -> None:
        """Start a new history of the chosen labels: all of them were replaced."""
        self._histories.forget(self._layers.labels)
        self.turn()

    # --- making edits ------------------------------------------------------------------------------------------------

    def need_array(self) -> Any:
        """Return the labels, if they can be edited.

        Raises
        ------
        EditError
            If they are not in memory, or cannot be written to.
        """
        layer = self._layers.labels
        if layer is None:
            raise EditError("there are no labels; segment an image, or open some")
        data = layer.data
        if layer.multiscale or not isinstance(data, np.ndarray):
            raise EditError(
                f"{layer.name} is read piece by piece from disk and cannot be edited; save it and open it as TIFF, "
                "or segment again"
            )
        if not layer.editable:
            raise EditError(f"{layer.name} is not editable; unlock it in the layer list")
        return data

    def prepare(self, kind: str, table: ObjectTable, keys: Sequence[Key], **options: Any) -> Callable[[], Edit]:
        """Return an edit of objects that has not been made yet, so that a large one can be made in another thread.

        Parameters
        ----------
        kind
            ``merge``, ``delete``, ``fill``, ``grow``, ``shrink``, ``smooth``, ``split``.
        table
            Where the objects are.
        keys
            The objects.
        **options
            Of the function in `segment.edits`.

        Raises
        ------
        EditError
            If it cannot be made on these labels or objects.
        """
        data, (t, ids) = self.need_array(), self._one_time(keys)
        frame = data if t is None else data[t]
        rows = table.find(ids, t)
        options["within"] = table.box(rows) if len(rows) and (rows >= 0).all() else None
        if kind in _MEASURED or kind == "split":
            options["spacing_um"] = self._layers.spacing_um
        if kind == "split":
            label = self._only(ids)
            above = int(table["label"].max(initial=0))
            return lambda: edits.split_into_parts(frame, label, above=above, **options).at_time(t)
        work = _OF_OBJECTS[kind]
        return lambda: work(frame, ids, **options).at_time(t)

    def prepare_renumber(self) -> Callable[[], Edit]:
        """Return the renumbering of all objects."""
        data = self.need_array()
        if self._layers.has_time:
            raise EditError("labels of a series are not renumbered: their ids may be tracks")
        return lambda: edits.relabel_objects(data)

    def done(self, edit: Edit, layer: Any) -> None:
        """Keep an edit that was made to a layer, which need not be the chosen one any more."""
        _mark(layer)
        self._histories.push(layer, edit)
        self.changed.emit("edits")

    def undo(self) -> Edit | None:
        """Take the newest edit back."""
        return self._replayed(self.history.undo(self.need_array()))

    def redo(self) -> Edit | None:
        """Make the edit again that was taken back last."""
        return self._replayed(self.history.redo(self.need_array()))

    def _replayed(self, edit: Edit | None) -> Edit | None:
        if edit is not None:
            _mark(self._layers.labels)
        self.changed.emit("edits")
        return edit

    # --- splitting by clicks -----------------------------------------------------------------------------------------

    def start_splitting(self, how: str, keys: Sequence[Key]) -> None:
        """Take clicks for a split of the selected object: ``seeds``, or two points of a ``cut``.

        Raises
        ------
        EditError
            If not exactly one object is selected, or the labels cannot be edited.
        """
        self.need_array()
        t, ids = self._one_time(keys)
        self.target = (t, self._only(ids))
        self.splitting, self.points = how, []
        self.changed.emit("points")

    def add_point(self, voxel: Sequence[float] | NDArray[np.float64]) -> None:
        """Take a click, in voxels along the axes of the labels."""
        if self.splitting:
            self.points.append(tuple(float(v) for v in voxel[1 if self._layers.has_time else 0 :]))
            self.changed.emit("points")

    def stop_splitting(self) -> None:
        """Forget the clicks."""
        if self.splitting or self.points:
            self.splitting, self.points, self.target = "", [], None
            self.changed.emit("points")

    def split_here(self, table: ObjectTable, axis: int) -> Edit:
        """Split at the clicks; `axis` (of Z, Y, X) is that of the slider.

        Raises
        ------
        AprcnnError
            If the clicks do not fit the object; they are kept, except those of a cut.
        """
        data, points = self.need_array(), list(self.points)
        if self.target is None:
            raise EditError("no object is being split; select one first")
        t, label = self.target
        frame, row = data if t is None else data[t], table.row(label, t)
        within = table.box([row]) if row is not None else None
        above = int(table["label"].max(initial=0))
        try:
            if self.splitting == "seeds":
                spacing = self._layers.spacing_um
                edit = edits.split_at_seeds(frame, label, points, spacing_um=spacing, within=within, above=above)
            else:
                edit = edits.split_by_plane(frame, label, points, axis=axis, within=within, above=above)
        except AprcnnError:
            self.points = []
            self.changed.emit("points")
            raise
        self.stop_splitting()
        return edit.at_time(t)

    @property
    def split_words(self) -> str:
        """What the next click does, or an empty string."""
        n, label = len(self.points), self.target[1] if self.target else 0
        if self.splitting == "seeds":
            return f"Click in each part of object {label}: {n} seed{'s' * (n != 1)} so far."
        if self.splitting == "cut":
            return f"Click {'the second' if n else 'two places'} of the line that cuts object {label}."
        return ""

    # --- which objects -----------------------------------------------------------------------------------------------

    def _one_time(self, keys: Sequence[Key]) -> tuple[int | None, list[int]]:
        if not keys:
            raise EditError("no object is selected; click one in the viewer or in the table")
        times = {t for t, _ in keys}
        if len(times) > 1:
            raise EditError(f"objects of {len(times)} time points are selected; edit one time point after the other")
        return times.pop(), [label for _, label in keys]

    def _only(self, ids: Sequence[int]) -> int:
        if len(ids) != 1:
            raise EditError(f"{len(ids)} objects are selected, expected one to split; select only that one")
        return ids[0]


def _mark(layer: Any) -> None:
    """Note that a layer was edited: a second segmentation leaves it alone, and what was made of it is outdated."""
    record = layer.metadata.get(KEY)
    if isinstance(record, dict):
        record["edited"] = True
    tell_edited(layer)
