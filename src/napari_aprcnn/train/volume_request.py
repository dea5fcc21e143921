"""A whole training on volumes as one file, and what an interrupted one has left. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from napari_aprcnn.errors import ConfigError, OutputError, TrainingDataError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = [
    "LAST",
    "Checkpoint",
    "TrainRequest",
    "find_checkpoint",
    "lasting",
    "note_checkpoint",
    "read_request",
    "set_aside",
]

LAST = "last.ckpt"
_NOTE = "last.json"
_REQUEST = "request.json"


class TrainRequest(Frozen):
    """Everything that a training on volumes is told.

    Attributes
    ----------
    output, name
        Folder of the result, and name of the model: ``output/NAME.safetensors``.
    config
        The training.
    labelled, validation
        Archives and folders of labelled images to train on, and to look at after every epoch.
    auto_form
        Whether the form of the network (`VolumeNetConfig.particle_stages`) is the one that is expected to be fastest on
        a few of the images, whatever `config` says; a training that goes on keeps the one it began with.
    initial
        Model or weights file to start from; ``None``: from scratch.
    accelerator
        ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
    data_words
        What the card says of the data.
    threads
        Of torch; ``None``: all.
    """

    output: Path
    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")
    config: VolumeTrainConfig = VolumeTrainConfig()
    auto_form: bool = False
    labelled: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    initial: str | None = None
    accelerator: Literal["auto", "cpu", "cuda"] = "cpu"
    data_words: str = ""
    threads: int | None = Field(default=None, ge=1)

    @property
    def run_dir(self) -> Path:
        """Folder of checkpoints, logs and simulated volumes."""
        return self.output / f"{self.name}_run"

    @property
    def weights(self) -> Path:
        """The weights file that it makes."""
        return self.output / f"{self.name}.safetensors"

    def write(self) -> Path:
        """Write the request into the folder of the run, whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        return write_text(self.model_dump_json(indent=2) + "\n", self.run_dir / _REQUEST, overwrite=True)


def read_request(run_dir: Path) -> TrainRequest:
    """Read the request of a run, from its folder or the file itself.

    Raises
    ------
    ConfigError
        If there is none, or it is damaged.
    """
    path = run_dir / _REQUEST if run_dir.is_dir() else run_dir
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return TrainRequest(**values)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as the request of a training: {error}") from error


class Checkpoint(NamedTuple):
    """What an interrupted training has left.

    Attributes
    ----------
    epoch
        Epochs that are done.
    config
        What was trained; ``None`` where the note of it is damaged or missing.
    lengths
        Pairs (epochs that were done, epochs of the whole training): one for each length that it was told, the first
        from 0.
    """

    epoch: int
    config: VolumeTrainConfig | None
    lengths: tuple[tuple[int, int], ...] = ()

    def continues(self, config: VolumeTrainConfig, *, any_form: bool = False) -> bool:
        """Whether a training with `config`, or with it in any form, goes on from here."""
        if self.config is None:
            return False
        return lasting(self.config) == lasting(self.with_form(config) if any_form else config)

    def with_form(self, config: VolumeTrainConfig) -> VolumeTrainConfig:
        """Return `config` with the network in the form of this training."""
        if self.config is None:
            return config
        stages = self.config.network.particle_stages
        return config.replace(network=config.network.replace(particle_stages=stages))


def lasting(config: VolumeTrainConfig) -> dict[str, Any]:
    """What must not change when a training goes on: all but its length and what it runs with."""
    values: dict[str, Any] = json.loads(config.model_dump_json())
    return {name: value for name, value in values.items() if name not in ("epochs", "patience", "workers")}


def note_checkpoint(
    run_dir: Path, epoch: int, config: VolumeTrainConfig, lengths: Sequence[tuple[int, int]] = ()
) -> None:
    """Note beside a checkpoint what it is of: readable without torch. For `lengths` see `Checkpoint`."""
    note = {"epoch": epoch, "config": json.loads(config.model_dump_json()), "lengths": list(lengths)}
    write_text(json.dumps(note, indent=2) + "\n", run_dir / _NOTE, overwrite=True)


def find_checkpoint(run_dir: Path) -> Checkpoint | None:
    """Look for an interrupted training; ``None``: there is no checkpoint.

    Raises
    ------
    TrainingDataError
        If the folder cannot be looked into.
    """
    try:
        if not (run_dir / LAST).is_file():
            return None
        note = json.loads((run_dir / _NOTE).read_text(encoding="utf-8"))
        lengths = tuple((int(done), int(epochs)) for done, epochs in note.get("lengths", ()))
        return Checkpoint(int(note["epoch"]), VolumeTrainConfig(**note["config"]), lengths)
    except FileNotFoundError:
        return Checkpoint(0, None)  # of a version that wrote no note
    except OSError as error:
        raise TrainingDataError(f"cannot look into {run_dir}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError):
        return Checkpoint(0, None)


def set_aside(request: TrainRequest) -> Path:
    """Move what is there under a name out of the way, so that a training starts afresh; nothing is deleted.

    Returns
    -------
    Path
        ``NAME_old``, ``NAME_old_2`` ...: the folder with the former run and its weights.

    Raises
    ------
    OutputError
        If it cannot be moved.
    """
    number = 1
    while True:
        old = request.output / (f"{request.name}_old" + (f"_{number}" if number > 1 else ""))
        if not old.exists():
            break
        number += 1
    try:
        old.mkdir()
        for path in (request.run_dir, request.weights, request.weights.with_suffix(".json")):
            if path.exists():
                path.rename(old / path.name)
    except OSError as error:
        raise OutputError(
            f"cannot move the former training to {old}: {error.strerror or error}; choose another name"
        ) from error
    return old
