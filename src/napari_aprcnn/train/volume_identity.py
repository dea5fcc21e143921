"""What a training on volumes learns from, as marks: whether a checkpoint is of the same training. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_aprcnn.train.volume_request import lasting
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.train.simulation import SimulationConfig
    from napari_aprcnn.train.volume_sources import LabelledVolume

__all__ = ["Identity", "mark_of_arrays", "mark_of_images", "mark_of_simulations"]

_VALIDATION = "validation images"


class Identity(NamedTuple):
    """What decides the weights of a training.

    Attributes
    ----------
    config
        The training.
    marks
        SHA-256 of ``training images``, ``validation images``, ``simulation`` and ``initial weights``; empty where
        there are none.
    """

    config: VolumeTrainConfig
    marks: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"config": json.loads(self.config.model_dump_json()), "marks": dict(self.marks)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Identity:
        """Read what `to_json` gave.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is of another version, or damaged.
        """
        return cls(VolumeTrainConfig(**values["config"]), {str(k): str(v) for k, v in values["marks"].items()})

    def differs(self, other: Identity) -> list[str]:
        """What keeps one from going on with the other, in words: parameters and sources that are not the same.

        Validation images decide nothing but when a training with `patience` ends.
        """
        mine, theirs = lasting(self.config), lasting(other.config)
        found = [name for name in mine if mine[name] != theirs[name]]
        names = set(self.marks) | set(other.marks)
        if not (self.config.patience and other.config.patience):
            names.discard(_VALIDATION)
        return found + [name for name in sorted(names) if self.marks.get(name, "") != other.marks.get(name, "")]


def mark_of_images(images: Sequence[LabelledVolume]) -> str:
    """Mark of labelled images: their voxels, and which of them share a source; not what they are called."""
    # Sources are drawn in the order of their names.
    order = sorted({item.source for item in images})
    return mark_of_arrays(
        (f"{order.index(item.source)} {part}", array)
        for item in images
        for part, array in (("image", item.image), ("labels", item.labels))
    )


def mark_of_simulations(configs: Iterable[SimulationConfig]) -> str:
    """Mark of simulations in their order."""
    return mark_of_arrays((one.model_dump_json(), np.zeros(0)) for one in configs)


def mark_of_arrays(named: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """SHA-256 over names, types, shapes and values of arrays in their order; empty without any."""
    digest, empty = hashlib.sha256(), True
    for name, array in named:
        empty = False
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        # A plane at a time: the array may be a view that has no memory of its own.
        for plane in array if array.ndim > 2 else (array,):
            digest.update(np.ascontiguousarray(plane).tobytes())
    return "" if empty else digest.hexdigest()
