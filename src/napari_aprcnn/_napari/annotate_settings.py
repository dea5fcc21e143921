"""What the Annotate dock remembers between sessions: one JSON file beside that of the Segment dock."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_aprcnn._napari.settings import settings_path
from napari_aprcnn._napari.settings_file import read_settings, write_settings
from napari_aprcnn.frozen import Frozen

__all__ = ["AnnotateSettings", "annotate_settings_path", "load_annotate_settings", "save_annotate_settings"]


def _user() -> str:
    try:
        return getpass.getuser()[:40] or "me"
    except (OSError, KeyError, ImportError):
        return "me"


class AnnotateSettings(Frozen):
    """The state of the dock that is worth keeping.

    Attributes
    ----------
    annotator
        Who annotates. Each annotator has files of their own in the folder of the annotations.
    mode
        points: click the centres of nuclei. labels: paint nuclei.
    method
        How slices are chosen.
    n_slices
        How many slices are chosen.
    min_distance
        Least distance between two chosen slices, in slices: with the height of a nucleus none is annotated twice.
    seed
        The same seed chooses the same slices.
    folder
        Where folders of annotations are made; empty: aprcnn-annotations in the user's folder.
    last
        Folder of the annotations that were open last.
    """

    annotator: str = Field(default_factory=_user)
    mode: Literal["points", "labels"] = "points"
    method: Literal["random", "even", "uncertainty", "density"] = "random"
    n_slices: int = Field(default=20, ge=1, le=10_000)
    min_distance: int = Field(default=3, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    folder: str = ""
    last: str = ""

    @property
    def root(self) -> Path:
        """Where folders of annotations are made."""
        return Path(self.folder).expanduser() if self.folder.strip() else Path.home() / "aprcnn-annotations"


def annotate_settings_path() -> Path:
    """Return the settings file."""
    return settings_path().with_name("annotate.json")


def load_annotate_settings() -> AnnotateSettings:
    """Read the settings, or take the defaults."""
    return read_settings(AnnotateSettings, annotate_settings_path())


def save_annotate_settings(settings: AnnotateSettings) -> bool:
    """Write the settings; whether that was possible."""
    return write_settings(settings, annotate_settings_path())
