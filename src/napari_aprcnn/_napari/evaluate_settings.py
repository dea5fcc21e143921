"""What the Evaluate dock remembers between sessions: one JSON file beside that of the Segment dock."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_aprcnn._napari.settings import settings_path
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text

__all__ = ["EvaluateSettings", "evaluate_settings_path", "load_evaluate_settings", "save_evaluate_settings"]

logger = logging.getLogger(__name__)


class EvaluateSettings(Frozen):
    """The state of the dock that is worth keeping.

    Attributes
    ----------
    iou
        IoU from which on an object counts as found. Higher asks for better outlines; 0.5 is usual, 0.1 counts nuclei.
    min_size
        Objects smaller than this are left out, on both sides.
    min_size_unit
        ``voxels`` or ``um`` (cubic micrometres; in 2D square micrometres).
    show_errors
        Add a layer that colours hits and errors.
    folder
        Folder that the file dialogs start in.
    """

    iou: float = Field(default=0.5, ge=0.1, le=0.95)
    min_size: float = Field(default=0.0, ge=0)
    min_size_unit: Literal["voxels", "um"] = "voxels"
    show_errors: bool = True
    folder: str = ""


def evaluate_settings_path() -> Path:
    """Return the settings file."""
    return settings_path().with_name("evaluate.json")


def load_evaluate_settings() -> EvaluateSettings:
    """Read the settings. A missing or damaged file gives the defaults: it never stops the dock from opening."""
    path = evaluate_settings_path()
    try:
        return EvaluateSettings(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return EvaluateSettings()
    except (OSError, ValueError, TypeError, ConfigError) as error:
        logger.warning("the settings in %s cannot be used, the defaults are: %s", path, error)
        return EvaluateSettings()


def save_evaluate_settings(settings: EvaluateSettings) -> bool:
    """Write the settings; a full or read-only disk is only logged."""
    path = evaluate_settings_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.model_dump_json(indent=2), path, overwrite=True)
    except OSError as error:
        logger.warning("the settings cannot be written to %s: %s", path, error)
        return False
    return True
