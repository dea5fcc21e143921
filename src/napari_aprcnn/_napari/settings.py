"""What the Segment dock remembers between sessions: one JSON file in the user's configuration folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

import platformdirs

from napari_aprcnn._napari.settings_file import read_values, write_settings
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.frozen import Frozen

__all__ = ["Preferences", "Settings", "load_settings", "preferences", "save_settings", "settings_path"]

logger = logging.getLogger(__name__)


class Settings(Frozen):
    """The state of the dock that is worth keeping.

    Attributes
    ----------
    config
        Parameters of a run; axes and voxel size belong to an image and are not kept.
    show_probability
        Add a layer with the probability of being nucleus.
    show_flows
        Add a layer with the flows as colours.
    show_levels, show_reconstruction, show_particles
        Of a model for volumes: add layers of the particles' levels, of the image that they are, and of those that the
        shown plane cuts.
    model_chosen
        The user has chosen the model; else the default follows the image.
    rerun
        ``replace``: a second run replaces the labels of the first; ``version``: it adds another layer.
    advanced_open
        The advanced options are unfolded.
    folder
        Folder that the file dialogs start in.
    guide
        The three steps of a first run are shown.
    """

    config: SegmentConfig = SegmentConfig()
    show_probability: bool = False
    show_flows: bool = False
    show_levels: bool = False
    show_reconstruction: bool = False
    show_particles: bool = False
    model_chosen: bool = False
    rerun: Literal["replace", "version"] = "replace"
    advanced_open: bool = False
    folder: str = ""
    guide: bool = True


class Preferences(Frozen):
    """Preferences in napari's own settings dialog (``configurations`` of the manifest).

    Attributes
    ----------
    remember
        Keep the dock's parameters between sessions.
    live_labels
        Show labels while tiles finish.
    """

    remember: bool = True
    live_labels: bool = True


def settings_path() -> Path:
    """Return the settings file; the environment variable ``APRCNN_CONFIG_DIR`` moves its folder."""
    folder = os.environ.get("APRCNN_CONFIG_DIR") or platformdirs.user_config_dir("napari-aprcnn", appauthor=False)
    return Path(folder) / "segment.json"


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings; a missing or damaged file gives the defaults, one of another version what is known of it."""
    settings, values = read_values(Settings, path or settings_path())
    # Files of versions whose default did not follow the image: another model than the default was chosen.
    if "model_chosen" not in values and settings.config.model != SegmentConfig().model:
        return settings.replace(model_chosen=True)
    return settings


def save_settings(settings: Settings, path: Path | None = None) -> bool:
    """Write the settings beside the old file, then rename; a full or read-only disk is only logged.

    Returns
    -------
    bool
        Whether the settings were written.
    """
    path = path or settings_path()
    config = settings.config.replace(axes=None, spacing_um=None)
    return write_settings(settings.replace(config=config), path)


def preferences() -> Preferences:
    """Return the preferences that napari keeps for this plugin; the defaults where napari is too old for them."""
    values: dict[str, Any] = {}
    try:
        from napari.settings import get_plugin_settings

        stored = get_plugin_settings("napari-aprcnn").segment
        values = {name: getattr(stored, name) for name in Preferences.model_fields}
    except (ImportError, AttributeError, KeyError, ValueError) as error:
        logger.debug("napari keeps no preferences for this plugin: %s", error)
    return Preferences(**values)
