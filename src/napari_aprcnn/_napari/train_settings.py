"""What the Training dock remembers between sessions: one JSON file beside that of the Segment dock."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_aprcnn._napari.settings import settings_path
from napari_aprcnn._napari.settings_file import read_settings, write_settings
from napari_aprcnn.frozen import Frozen
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
    auto_form
        The form of the network is the one that is expected to be fastest on the data.
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
    auto_form: bool = False
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
    """Read the settings, or take the defaults."""
    return read_settings(TrainSettings, train_settings_path())


def save_train_settings(settings: TrainSettings) -> bool:
    """Write the settings; whether that was possible."""
    return write_settings(settings, train_settings_path())
