"""The checkpoint of a training on volumes: what it is of, how far it has come, and whether that was all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.train.volume_identity import Identity, mark_of_arrays
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = ["NOTE", "Resumed", "mark_of_weights", "note_of", "read_resumed"]

NOTE = "aprcnn"


class Resumed(NamedTuple):
    """What a checkpoint says.

    Attributes
    ----------
    epoch
        Epochs that are done.
    waited
        The last of them that had no better validation.
    state
        Weights, as the task's ``state_dict``.
    """

    epoch: int
    waited: int
    state: dict[str, Tensor]

    def ended(self, config: VolumeTrainConfig) -> bool:
        """Whether a training has nothing left to do."""
        return self.epoch >= config.epochs or 0 < config.patience <= self.waited


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
    except (OSError, RuntimeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise TrainingDataError(f"the checkpoint {path} is damaged ({error}); remove it to start afresh") from error
    remedy = f"give another name, or start afresh: remove the folder {path.parent} and the model that it made"
    try:
        note = json.loads(found[NOTE])
        differing = Identity.from_json(note).differs(identity)
        resumed = Resumed(int(note["epoch"]), int(note["waited"]), found["state_dict"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingDataError(f"{path} was written by another version, which noted other things; {remedy}") from error
    if differing:
        raise TrainingDataError(
            f"{path} belongs to another configuration or other data: {', '.join(differing)} differ; {remedy}"
        )
    return resumed


def mark_of_weights(module: nn.Module | None) -> str:
    """Mark of the weights that a training starts from; empty where they are random."""
    if module is None:
        return ""
    return mark_of_arrays((name, value.detach().cpu().numpy()) for name, value in module.state_dict().items())
