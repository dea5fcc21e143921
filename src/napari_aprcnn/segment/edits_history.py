"""Edits of a label image that can be taken back, and the list of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AprcnnError

__all__ = ["Edit", "EditError", "EditHistory", "FullLabelsError", "SeedError", "UnknownObjectError", "record"]

Box = tuple[slice, ...]


class EditError(AprcnnError, ValueError):
    """An edit of objects that cannot be made, or that would change nothing."""


class UnknownObjectError(EditError, LookupError):
    """An id that no object has."""


class SeedError(EditError):
    """Seeds or points of a split that do not lie in the object, or coincide."""


class FullLabelsError(EditError, OverflowError):
    """No id is left above the largest one in the type of the labels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Edit:
    """What an edit has changed: voxels of a bounding box, with their ids before and after.

    Attributes
    ----------
    words
        What was done, for menus.
    box
        Slices (z, y, x or y, x) around the changed voxels.
    places : (N,) uint32 or int64
        Flat places of the changed voxels in the box.
    before, after : (N,)
        Their ids.
    objects
        Ids that are worth selecting afterwards.
    t
        Time point of the labels that it belongs to; ``None``: they have no time axis.

    Examples
    --------
    >>> labels = np.array([[1, 1, 2]])
    >>> edit = record(labels, (slice(0, 1), slice(0, 3)), np.array([[1, 1, 1]]), "Merge 1, 2")
    >>> labels.tolist(), edit.box[1]
    ([[1, 1, 1]], slice(2, 3, None))
    >>> edit.undo(labels)
    >>> labels.tolist()
    [[1, 1, 2]]
    """

    words: str
    box: Box
    places: NDArray[Any]
    before: NDArray[Any]
    after: NDArray[Any]
    objects: tuple[int, ...] = ()
    t: int | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return int(self.places.nbytes + self.before.nbytes + self.after.nbytes)

    @property
    def touched(self) -> tuple[int, ...]:
        """Ids that it has changed, 0 left out."""
        ids = np.union1d(self.before, self.after)
        return tuple(int(i) for i in ids if i)

    def at_time(self, t: int | None) -> Edit:
        """Return the same edit of a time point."""
        return replace(self, t=t)

    def undo(self, labels: NDArray[Any]) -> None:
        """Put the former ids back.

        Raises
        ------
        EditError
            If the voxels were changed by something else since; nothing is written then.
        """
        self._write(labels, self.after, self.before)

    def redo(self, labels: NDArray[Any]) -> None:
        """Make the edit again.

        Raises
        ------
        EditError
            If the voxels were changed by something else since; nothing is written then.
        """
        self._write(labels, self.before, self.after)

    def _write(self, labels: NDArray[Any], expected: NDArray[Any], values: NDArray[Any]) -> None:
        frame = labels if self.t is None else labels[self.t]
        part = frame[self.box]
        where = np.unravel_index(self.places, part.shape)
        if not np.array_equal(part[where], expected):
            raise EditError(
                f"{self.words}: its voxels were changed since by other means (painted?); take that back first"
            )
        part[where] = values


def record(labels: NDArray[Any], region: Box, values: NDArray[Any], words: str, objects: Sequence[int] = ()) -> Edit:
    """Write new ids into a region of the labels, and return what that has changed.

    Raises
    ------
    EditError
        If nothing changes.
    """
    part = labels[region]
    differ = part != values
    if not differ.any():
        raise EditError(f"{words}: no voxel would change")
    inner = []
    for axis in range(differ.ndim):
        line = np.flatnonzero(differ.any(axis=tuple(a for a in range(differ.ndim) if a != axis)))
        inner.append(slice(int(line[0]), int(line[-1]) + 1))
    cut = tuple(inner)
    differ, new, old = differ[cut], values[cut], part[cut]
    places = np.flatnonzero(differ)
    kind = np.uint32 if differ.size < 2**32 else np.int64
    edit = Edit(
        words=words,
        box=tuple(slice(r.start + c.start, r.start + c.stop) for r, c in zip(region, cut, strict=True)),
        places=places.astype(kind),
        before=old[differ],
        after=new[differ].astype(labels.dtype),
        objects=tuple(int(i) for i in objects),
    )
    old[differ] = edit.after
    return edit


class EditHistory:
    """Edits to take back and to make again, in limited memory.

    Parameters
    ----------
    limit_bytes
        Memory of all edits; the oldest ones are forgotten. The newest one is always kept.
    """

    def __init__(self, limit_bytes: int = 256 << 20) -> None:
        self._limit = limit_bytes
        self._done: deque[Edit] = deque()
        self._undone: list[Edit] = []

    def push(self, edit: Edit) -> None:
        """Add an edit that was just made; those that were taken back can no longer be made again."""
        self._undone.clear()
        self._done.append(edit)
        while len(self._done) > 1 and self.nbytes > self._limit:
            self._done.popleft()

    @property
    def nbytes(self) -> int:
        """Memory that the edits take."""
        return sum(edit.nbytes for edit in (*self._done, *self._undone))

    @property
    def undo_words(self) -> str:
        """What `undo` would take back, or an empty string."""
        return self._done[-1].words if self._done else ""

    @property
    def redo_words(self) -> str:
        """What `redo` would make again, or an empty string."""
        return self._undone[-1].words if self._undone else ""

    def undo(self, labels: NDArray[Any]) -> Edit | None:
        """Take the newest edit back and return it, or ``None`` if there is none.

        Raises
        ------
        EditError
            If its voxels were changed by something else since.
        """
        if not self._done:
            return None
        self._done[-1].undo(labels)
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self, labels: NDArray[Any]) -> Edit | None:
        """Make the edit again that was taken back last, or return ``None`` if there is none.

        Raises
        ------
        EditError
            If its voxels were changed by something else since.
        """
        if not self._undone:
            return None
        self._undone[-1].redo(labels)
        self._done.append(self._undone.pop())
        return self._done[-1]

    def clear(self) -> None:
        """Forget everything."""
        self._done.clear()
        self._undone.clear()
