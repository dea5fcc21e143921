"""What the Evaluate dock remembers between sessions: one JSON file beside that of the Segment dock."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_aprcnn._napari.settings import settings_path
from napari_aprcnn._napari.settings_file import read_settings, write_settings
from napari_aprcnn.frozen import Frozen

__all__ = ["EvaluateSettings", "evaluate_settings_path", "load_evaluate_settings", "save_evaluate_settings"]


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
    """Read the settings, or take the defaults."""
    return read_settings(EvaluateSettings, evaluate_settings_path())


def save_evaluate_settings(settings: EvaluateSettings) -> bool:
    """Write the settings; whether that was possible."""
    return write_settings(settings, evaluate_settings_path())
