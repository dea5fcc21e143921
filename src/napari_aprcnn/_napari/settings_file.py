"""What docks remember between sessions: one JSON file each, in the user's configuration folder."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text

__all__ = ["read_settings", "read_values", "write_settings"]

logger = logging.getLogger(__name__)
S = TypeVar("S", bound=Frozen)
_told: set[Path] = set()


def read_settings(kind: type[S], path: Path) -> S:
    """Read settings; see `read_values`."""
    return read_values(kind, path)[0]


def read_values(kind: type[S], path: Path) -> tuple[S, dict[str, Any]]:
    """Read settings. A missing or damaged file gives the defaults: it never stops a dock from opening.

    Of the file of another version whatever is known and in range is taken. A file that was not taken whole is kept
    beside itself, with the ending ``.bak``, and the user is told once.

    Returns
    -------
    settings
        Valid in any case.
    values
        What the file holds; empty where it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return kind(), {}
    except OSError as error:
        logger.warning("the settings in %s cannot be read, the defaults are taken: %s", path, error)
        return kind(), {}
    except ValueError as error:  # not UTF-8
        return kind(), _set_aside(path, error)
    try:
        values = json.loads(text)
        return kind(**values), values
    except ConfigError as error:
        _set_aside(path, error)
        return _known(kind(), values), values
    except (ValueError, TypeError, RecursionError) as error:
        return kind(), _set_aside(path, error)


def _known(settings: S, values: dict[str, Any]) -> S:
    """Take over one value after the other, as far as they are valid."""
    left = {name: value for name, value in values.items() if name in type(settings).model_fields}
    while left:
        refused = {}
        for name, value in left.items():
            try:
                settings = settings.replace(**{name: value})
            except ConfigError:
                refused[name] = value
        if len(refused) == len(left):
            break
        left = refused  # some depend on others, which may be there now
    for name, value in left.items():
        inner = getattr(settings, name)
        if isinstance(inner, Frozen) and isinstance(value, dict):
            with suppress(ConfigError):
                settings = settings.replace(**{name: _known(inner, value)})
    return settings


def _set_aside(path: Path, error: Exception) -> dict[str, Any]:
    """Keep a file that is going to be overwritten."""
    logger.warning("the settings in %s cannot be used as they are: %s", path, error)
    old = path.with_name(f"{path.name}.bak")
    try:
        shutil.copyfile(path, old)
    except OSError as failure:
        logger.warning("%s cannot be kept as %s: %s", path, old, failure)
        return {}
    if path not in _told:
        from napari.utils.notifications import show_info

        _told.add(path)
        show_info(
            f"The settings in {path} are damaged, or of another version: what is known of them was taken, the file "
            f"is kept as {old.name}"
        )
    return {}


def write_settings(settings: Frozen, path: Path) -> bool:
    """Write settings beside the old file, then rename; a full or read-only disk is only logged.

    Returns
    -------
    bool
        Whether they were written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.model_dump_json(indent=2), path, overwrite=True)
    except OSError as error:
        logger.warning("the settings cannot be written to %s: %s", path, error)
        return False
    return True
