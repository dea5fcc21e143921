"""What docks remember between sessions: one JSON file each, in the user's configuration folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TypeVar

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text

__all__ = ["read_settings", "write_settings"]

logger = logging.getLogger(__name__)
S = TypeVar("S", bound=Frozen)


def read_settings(kind: type[S], path: Path) -> S:
    """Read settings. A missing or damaged file gives the defaults: it never stops a dock from opening."""
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, TypeError, ConfigError) as error:
        logger.warning("the settings in %s cannot be used, the defaults are: %s", path, error)
        return kind()


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
