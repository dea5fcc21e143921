"""Checkpoints of a training of the Cellpose family: what they hold, and whether they belong to what is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_aprcnn.errors import AprcnnError, TrainingDataError
from napari_aprcnn.models.family import CellposeFamily

if TYPE_CHECKING:
    from napari_aprcnn.config import TrainConfig
    from napari_aprcnn.frozen import Frozen

__all__ = ["CHECKPOINT", "RunState", "differences", "facts_of", "loaded", "undamaged", "weights_digest"]

CHECKPOINT = "checkpoint.pt"
START = "weights to start from"
_MOST_TOLD = 4


def weights_digest(state: Mapping[str, torch.Tensor] | None) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of names, types, shapes and values; ``random`` for ``None``.

    Examples
    --------
    >>> one = {"a": torch.zeros(2)}
    >>> weights_digest(one) == weights_digest({"a": torch.zeros(2)}), weights_digest(one) == weights_digest({})
    (True, False)
    """
    if state is None:
        return "random"
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def facts_of(config: Frozen, *, without: str = "") -> dict[str, str]:
    """Return the fields of a configuration as text by name."""
    return {name: repr(value) for name, value in config.model_dump(mode="json").items() if name != without}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say in words what differs between two sets of facts; empty if they are equal.

    Examples
    --------
    >>> differences({"seed": "0", "hard": "0.0"}, {"seed": "1", "hard": "0.0"})
    'seed was 0, is 1'
    """
    names = [name for name in dict.fromkeys((*then, *now)) if then.get(name) != now.get(name)]
    words = [f"{name} was {then.get(name, 'not there')}, is {now.get(name, 'not there')}" for name in names]
    more = f"; and {len(words) - _MOST_TOLD} more" if len(words) > _MOST_TOLD else ""
    return "; ".join(words[:_MOST_TOLD]) + more


@contextmanager
def undamaged(path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong with the contents of a file into a `TrainingDataError` that names a remedy."""
    try:
        yield
    except AprcnnError:
        raise
    except Exception as error:
        # What unpickles and unzips damaged bytes raises anything; all of it means: damaged.
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingDataError(f"{path} is damaged ({detail}); {remedy}") from error


def loaded(path: Path, remedy: str) -> Any:
    """Read tensors that `torch.save` wrote, to the CPU, weights only.

    Raises
    ------
    TrainingDataError
        If the file cannot be read.
    """
    with undamaged(path, remedy):
        return torch.load(path, map_location="cpu", weights_only=True)


@dataclass
class RunState:
    """A training's state, and the facts that decide its end.

    Attributes
    ----------
    folder
        Of the checkpoint.
    config
        The training.
    module, objective, optimiser
        What a step changes.
    average
        Running average of the weights by name.
    facts
        Whatever must be the same for a checkpoint to be gone on from, as text by name.
    """

    folder: Path
    config: TrainConfig
    module: CellposeFamily
    objective: torch.nn.Module
    optimiser: torch.optim.Optimizer
    average: dict[str, torch.Tensor]
    facts: dict[str, str]

    def averaged(self) -> CellposeFamily:
        """Return a network of the averaged weights, in evaluation mode."""
        module = CellposeFamily(self.config.architecture)
        module.load_state_dict(self.average)
        return module.eval()

    def save(self, step: int, *, ended: bool) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "facts": self.facts,
            "step": step,
            "ended": ended,
            "module": self.module.state_dict(),
            "objective": self.objective.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
        }
        beside = self.folder / (CHECKPOINT + ".part")
        torch.save(state, beside)
        beside.replace(self.folder / CHECKPOINT)

    def resume(self) -> int:
        """Take over the checkpoint in the folder, if there is one, and return the steps that are done.

        Raises
        ------
        TrainingDataError
            If it is damaged, or of another training.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return 0
        remedy = "remove it to start afresh"
        state = loaded(path, remedy)
        with undamaged(path, remedy):
            differ = differences(state["facts"], self.facts)
        if differ:
            raise TrainingDataError(
                f"{path} belongs to another configuration ({differ}); give another name or folder, or remove the "
                "checkpoint to start afresh"
            )
        with undamaged(path, remedy):
            self.module.load_state_dict(state["module"])
            self.objective.load_state_dict(state["objective"])
            self.optimiser.load_state_dict(state["optimiser"])
            for name, value in self.average.items():
                value.copy_(state["average"][name])
            return self.config.n_steps if state["ended"] else int(state["step"])
