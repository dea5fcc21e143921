"""The checkpoint of a training on volumes: what it is of, how far it has come, and whether that was all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_aprcnn.errors import ConfigError, TrainingDataError
from napari_aprcnn.train.volume_identity import Identity, mark_of_arrays
from napari_aprcnn.train.volume_request import find_checkpoint
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = ["BEST", "NOTE", "Resumed", "lengths_of", "mark_of_weights", "note_of", "read_resumed"]

NOTE = "aprcnn"
BEST = "aprcnn_best"
_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")


class Resumed(NamedTuple):
    """What a checkpoint says.

    Attributes
    ----------
    epoch
        Epochs that are done.
    waited
        The last of them that had no better validation.
    epochs
        Of the whole training, as it was told when the checkpoint was written.
    state
        Weights, as the task's ``state_dict``.
    best
        Averaged weights of the epoch with the best validation, of a training with `patience`.
    """

    epoch: int
    waited: int
    epochs: int
    state: dict[str, Tensor]
    best: dict[str, Tensor] | None

    def ended(self, config: VolumeTrainConfig) -> bool:
        """Whether a training has nothing left to do."""
        return self.epoch >= config.epochs or 0 < config.patience <= self.waited

    def hand_over(self, task: nn.Module, path: Path) -> None:
        """Load the weights, read from `path`, into a task.

        Raises
        ------
        TrainingDataError
            If they are not those that it has.
        """
        try:
            task.load_state_dict(self.state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise _damaged(path, "its weights are not those of the network") from error


def note_of(identity: Identity, epoch: int, waited: int) -> str:
    """Text that a checkpoint holds as `NOTE`."""
    return json.dumps({**identity.to_json(), "epoch": epoch, "waited": waited})


def read_resumed(path: Path, identity: Identity) -> Resumed:
    """Read the checkpoint of a training.

    Raises
    ------
    TrainingDataError
        If it is damaged, of another version, or not of this training.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingDataError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except Exception as error:
        # What unpickles and unzips damaged bytes raises anything; all of it means: damaged.
        raise _damaged(path, "it cannot be read") from error
    try:
        note = json.loads(found[NOTE])
        was = Identity.from_json(note)
        differing = was.differs(identity)
        epoch, waited = int(note["epoch"]), int(note["waited"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingDataError(
            f"{path} was written by another version, which noted other things; {_remedy(path)}"
        ) from error
    if differing:
        raise TrainingDataError(
            f"{path} belongs to another configuration or other data: {', '.join(differing)} differ; {_remedy(path)}"
        )
    missing = [name for name in _PARTS if name not in found]
    if missing:
        raise _damaged(path, f"it has no {', '.join(missing)}")
    return Resumed(epoch, waited, was.config.epochs, found["state_dict"], found.get(BEST))


def lengths_of(resumed: Resumed, run_dir: Path, epochs: int) -> tuple[tuple[int, int], ...]:
    """Lengths that a training has had, as `volume_request.Checkpoint` has them, once it goes on with another.

    Raises
    ------
    ConfigError
        If more epochs are done.
    """
    if resumed.epoch > epochs:
        raise ConfigError(
            f"got {epochs} epochs, but {run_dir} holds a training of which {resumed.epoch} are done; ask for that many "
            "or more (--epochs), or give another name"
        )
    found = find_checkpoint(run_dir)
    lengths = (found.lengths if found is not None else ()) or ((0, resumed.epochs),)
    return lengths if lengths[-1][1] == epochs else (*lengths, (resumed.epoch, epochs))


def _damaged(path: Path, what: str) -> TrainingDataError:
    """Error of a checkpoint that cannot be gone on from."""
    return TrainingDataError(f"the checkpoint {path} is damaged: {what}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    """What `check_place` lets one do."""
    name = path.parent.name.removesuffix("_run")
    return (
        f"give another name, or start afresh: remove the folder {path.parent} and the model that it made "
        f"({name}.safetensors and {name}.json)"
    )


def mark_of_weights(module: nn.Module | None) -> str:
    """Mark of the weights that a training starts from; empty where they are random."""
    if module is None:
        return ""
    return mark_of_arrays((name, value.detach().cpu().numpy()) for name, value in module.state_dict().items())
