"""Where the crops of a training on volumes come from: simulated volumes, and labelled images."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import OutputError, TrainingDataError
from napari_aprcnn.io.atomic import beside, make_folder
from napari_aprcnn.train.data import read_pairs
from napari_aprcnn.train.simulation import SimulationConfig, degrade, simulate_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pair = tuple[NDArray[Any], NDArray[Any]]

__all__ = ["LabelledVolume", "SimulatedVolumes", "read_volumes", "window"]

_log = logging.getLogger(__name__)
_KEPT = 8


@dataclass(frozen=True)
class LabelledVolume:
    """One labelled image.

    Attributes
    ----------
    name, source
        Of the image, and of the archive or folder that it came from.
    image : (Z, Y, X) real
    labels : (Z, Y, X) integer
        0 is background.
    """

    name: str
    source: str
    image: NDArray[Any]
    labels: NDArray[Any]


def read_volumes(paths: Sequence[Path | str]) -> list[LabelledVolume]:
    """Read archives or folders of labelled images (see `train.data`); 2D images become one plane.

    Raises
    ------
    TrainingDataError
        If there is nothing to read, shapes differ, labels are no integers, or no image has an object.
    """
    found = []
    for path in paths:
        for name, _, load in read_pairs(path):
            image, labels = load()
            if image.shape != labels.shape or image.ndim not in (2, 3):
                raise TrainingDataError(
                    f"{name}: the image has shape {image.shape}, its labels {labels.shape}; expected the same shape, "
                    "Y, X or Z, Y, X"
                )
            if labels.dtype.kind not in "iu":
                raise TrainingDataError(f"{name}: labels are {labels.dtype}, expected integers, 0 being background")
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                raise TrainingDataError(f"{name}: the image holds NaN or infinite values; expected finite ones")
            whole = (image, labels) if image.ndim == 3 else (image[None], labels[None])
            found.append(LabelledVolume(name, Path(path).stem, *whole))
    if found and not any(item.labels.any() for item in found):
        raise TrainingDataError(f"none of the {len(found)} label images has an object; there is nothing to learn")
    return found


class SimulatedVolumes:
    """Simulated volumes, made when first asked for and kept in a folder.

    Parameters
    ----------
    folder
        Where the noiseless volumes are kept.
    number
        How many there are.
    seed
        Of the whole set.
    config
        Of the simulation; of several, volumes take turns.

    Raises
    ------
    OutputError
        If a file is in the place of the folder.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        number: int,
        seed: int = 0,
        config: SimulationConfig | Sequence[SimulationConfig] | None = None,
    ) -> None:
        self.folder, self.number, self.seed = Path(folder), number, seed
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"{self.folder} is a file, expected a folder for simulated volumes; move it away")
        self.configs = (config,) if isinstance(config, SimulationConfig) else tuple(config or ())
        self.configs = self.configs or (SimulationConfig(),)
        self._marks = [hashlib.sha256(one.model_dump_json().encode()).hexdigest()[:8] for one in self.configs]
        self._kept: OrderedDict[int, Pair] = OrderedDict()

    def clean(self, index: int) -> Pair:
        """Noiseless volume, float32, and its labels."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        turn = index % len(self.configs)
        path = self.folder / f"{self.seed}-{self._marks[turn]}-{index:06d}.npz"
        pair = _load(path, self.configs[turn].shape)
        if pair is None:
            made = simulate_volume(self.configs[turn], seed=self.seed * 1_000_003 + index)
            pair = made.clean.astype(np.float16), made.labels
            _store(path, pair)
        self._kept[index] = pair = (pair[0].astype(np.float32), pair[1])
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return pair

    def draw(self, rng: np.random.Generator, crop: tuple[int, int, int]) -> Pair:
        """Crop of a random volume, with noise of its own."""
        index = int(rng.integers(self.number))
        clean, labels = self.clean(index)
        part = window(labels, crop, rng)
        return degrade(clean[part], rng, self.configs[index % len(self.configs)]), labels[part]


def window(labels: NDArray[Any], crop: tuple[int, int, int], rng: np.random.Generator) -> tuple[slice, ...]:
    """Place of a crop: at random, in two of three cases around a voxel of an object; of small images, all."""
    inside = None
    if rng.random() < 2 / 3:
        places = np.flatnonzero(labels)
        if len(places):
            inside = np.unravel_index(places[rng.integers(len(places))], labels.shape)
    parts = []
    for axis, (n, size) in enumerate(zip(labels.shape, crop, strict=True)):
        room = n - size
        if room <= 0:
            parts.append(slice(0, n))
            continue
        low, high = 0, room
        if inside is not None:
            low, high = max(0, int(inside[axis]) - size + 1), min(room, int(inside[axis]))
        at = int(rng.integers(low, high + 1))
        parts.append(slice(at, at + size))
    return tuple(parts)


def _load(path: Path, shape: tuple[int, ...]) -> Pair | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            clean, labels = data["clean"], data["labels"]
        if clean.shape != shape or labels.shape != shape:
            raise ValueError(f"its shapes are {clean.shape} and {labels.shape}")
    except Exception as error:  # noqa: BLE001 - what unzips damaged bytes raises anything
        _log.warning("%s cannot be read (%s) and is made again", path, error)
        return None
    return clean, labels


def _store(path: Path, pair: Pair) -> None:
    make_folder(path.parent)
    with beside(path, overwrite=True) as temporary:
        np.savez(temporary, clean=pair[0], labels=pair[1])
