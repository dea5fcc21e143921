"""What the Training dock remembers between sessions: one JSON file beside that of the Segment dock."""

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
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = [
    "FINE_TUNING",
    "FROM_SCRATCH",
    "TrainSettings",
    "load_train_settings",
    "save_train_settings",
    "train_settings_path",
]

logger = logging.getLogger(__name__)

# A few annotated volumes, many crops of each: weights that are good already are moved gently.
FINE_TUNING = {"epochs": 20, "learning_rate": 5e-4, "warmup_steps": 20}
FROM_SCRATCH = {"epochs": 40, "learning_rate": 2e-3, "warmup_steps": 50}


def _config() -> VolumeTrainConfig:
    network = VolumeNetConfig(head="flows", in_channels=2)
    return VolumeTrainConfig(
        network=network,
        simulated=0.5,
        simulated_volumes=100,
        steps_per_epoch=50,
        **FROM_SCRATCH,
    )


class TrainSettings(Frozen):
    """The state of the dock that is worth keeping.

    Attributes
    ----------
    config
        The training; its network is that of the model to start from, in the chosen form.
    start
        Name or file of the model to start from; empty: from scratch; ``None``: not chosen yet.
    mix
        Mix simulated volumes in, as many as `config` says.
    name, folder
        Of the result; an empty folder: ``aprcnn-models`` in the user's folder.
    accelerator
        ``cpu``, ``cuda`` or ``auto``.
    advanced_open
        The advanced options are unfolded.
    paths
        Folders and archives of labelled images that were added.
    """

    config: VolumeTrainConfig = Field(default_factory=_config)
    start: str | None = None
    mix: bool = True
    name: str = "my-model"
    folder: str = ""
    accelerator: Literal["auto", "cpu", "cuda"] = "cpu"
    advanced_open: bool = False
    paths: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """Folder of the result."""
        return Path(self.folder).expanduser() if self.folder.strip() else Path.home() / "aprcnn-models"


def train_settings_path() -> Path:
    """Return the settings file."""
    return settings_path().with_name("train.json")


def load_train_settings() -> TrainSettings:
    """Read the settings. A missing or damaged file gives the defaults: it never stops the dock from opening."""
    path = train_settings_path()
    try:
        return TrainSettings(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return TrainSettings()
    except (OSError, ValueError, TypeError, ConfigError) as error:
        logger.warning("the settings in %s cannot be used, the defaults are: %s", path, error)
        return TrainSettings()


def save_train_settings(settings: TrainSettings) -> bool:
    """Write the settings beside the old file, then rename; a full or read-only disk is only logged."""
    path = train_settings_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.model_dump_json(indent=2), path, overwrite=True)
    except OSError as error:
        logger.warning("the settings cannot be written to %s: %s", path, error)
        return False
    return True
