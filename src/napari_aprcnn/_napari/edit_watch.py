"""Notices that layers were changed since work on them began. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["EditWatch", "tell_edited"]

_EVENTS = ("data", "paint", "scale", "translate", "rotate", "shear", "affine", "units")


class EditWatch:
    """Watches what layers hold and where they lie.

    Parameters
    ----------
    layers
        What is watched; ``None`` among them is left out.
    told
        Called after every change.

    Attributes
    ----------
    edited
        Whether there was one.
    """

    def __init__(self, layers: Iterable[Any], told: Callable[[], None]) -> None:
        self.edited = False
        self._told = told
        found: dict[Any, None] = dict.fromkeys(layer for layer in layers if layer is not None)
        events = [getattr(layer.events, name, None) for layer in found for name in _EVENTS]
        self._events = [event for event in events if event is not None]
        self._layers = found
        for layer in found:
            _watches.setdefault(layer, WeakSet()).add(self)
        for event in self._events:
            event.connect(self._changed)

    def _changed(self, _event: Any = None) -> None:
        self.edited = True
        self._told()

    def close(self) -> None:
        """Let go of the layers."""
        for event in self._events:
            event.disconnect(self._changed)
        for layer in self._layers:
            _watches.get(layer, WeakSet()).discard(self)
        self._events, self._layers = [], {}


# napari tells nothing of what is written into the array of a layer.
_watches: WeakKeyDictionary[Any, WeakSet[EditWatch]] = WeakKeyDictionary()


def tell_edited(layer: Any) -> None:
    """Tell whoever watches a layer that its voxels were changed in place."""
    for watch in list(_watches.get(layer, ())):
        watch._changed()
