"""A model that another dock has made, given to the Segment docks of the same viewer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from napari_aprcnn._napari.settings import load_settings, save_settings

__all__ = ["choose_model", "listen", "stop_listening"]

# viewer -> listeners by the dock they belong to; a window that was thrown away without being closed takes its own along
_listeners: WeakKeyDictionary[Any, WeakKeyDictionary[Any, str]] = WeakKeyDictionary()


def _docks(viewer: Any) -> WeakKeyDictionary[Any, str]:
    # napari gives every dock a proxy of its own of the same viewer
    return _listeners.setdefault(getattr(viewer, "__wrapped__", viewer), WeakKeyDictionary())


def listen(viewer: Any, dock: Any, method: str) -> None:
    """Call ``dock.method(model)`` when a model is chosen in a viewer, until `stop_listening`; holds no reference."""
    _docks(viewer)[dock] = method


def stop_listening(viewer: Any, dock: Any) -> None:
    """Undo `listen`."""
    _docks(viewer).pop(dock, None)


def choose_model(path: Path | str, viewer: Any) -> bool:
    """Make a weights file the model of the Segment docks of a viewer, and of the next session.

    Returns
    -------
    bool
        Whether a dock is open in that viewer and has taken it.
    """
    settings = load_settings()
    save_settings(settings.replace(config=settings.config.replace(model=str(path))))
    docks = list(_docks(viewer).items())
    for dock, method in docks:
        take: Callable[[str], None] = getattr(dock, method)
        take(str(path))
    return bool(docks)
