"""What was edited in each labels layer, in one limit of memory; a layer takes its history along. No Qt here."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from napari_aprcnn.segment.edits import Edit, EditHistory

__all__ = ["Histories"]

_LIMIT_BYTES = 256 << 20
_Shape = tuple[int, ...]


class Histories:
    """A history of edits for each labels layer.

    Parameters
    ----------
    limit_bytes
        Memory of all edits. Layers that were not edited for longest are forgotten first, then the oldest edits.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        # Those that were edited last come last.
        self._of: WeakKeyDictionary[Any, tuple[_Shape, EditHistory]] = WeakKeyDictionary()

    def of(self, layer: Any | None) -> EditHistory:
        """Return the history of a layer; an empty one where its labels have another shape now."""
        known = self._of.get(layer) if layer is not None else None
        return known[1] if known is not None and known[0] == _shape(layer) else EditHistory(self._limit)

    def push(self, layer: Any, edit: Edit) -> None:
        """Add an edit that was just made to a layer."""
        history = self.of(layer)
        self._of.pop(layer, None)
        self._of[layer] = _shape(layer), history
        history.push(edit)
        others = [other for _, other in list(self._of.values())]
        while len(others) > 1 and sum(other.nbytes for other in others) > self._limit:
            others.pop(0).clear()

    def forget(self, layer: Any | None) -> None:
        """Start a new history of a layer."""
        if layer is not None:
            self._of.pop(layer, None)


def _shape(layer: Any) -> _Shape:
    return () if layer.multiscale else tuple(int(n) for n in layer.data.shape)
