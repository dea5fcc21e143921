"""What the Training dock trains on: pairs of layers, folders and archives. No Qt here."""

from __future__ import annotations

import filecmp
import re
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn.errors import OutputError, TrainingDataError
from napari_aprcnn.io.atomic import make_folder

__all__ = ["LayerPair", "PathSource", "Snapshot", "Source", "check_path", "take_pair", "write_pairs"]

_AXES = {2: "YX", 3: "ZYX"}
_MOST_VERSIONS = 1000


@dataclass(frozen=True, eq=False)
class LayerPair:
    """An image layer and the labels of its nuclei.

    Attributes
    ----------
    image, labels
        The layers.
    held_back
        Looked at after every epoch, not trained on.
    """

    image: Any
    labels: Any
    held_back: bool = False

    @property
    def name(self) -> str:
        """Name of the image."""
        return str(self.image.name)

    @property
    def spacing_um(self) -> tuple[float, float, float] | None:
        """Voxel size (z, y, x), where the image tells it."""
        image = image_of(self.image)
        order = _AXES.get(image.data.ndim)
        return None if order is None else image.spacing(image.guess().replace(order=order, channel=0)).um

    @property
    def words(self) -> str:
        """Names and shape."""
        shape = " x ".join(str(n) for n in _full(self.image).shape)
        return f"{self.image.name} + {self.labels.name} ({shape})"


@dataclass(frozen=True, eq=False)
class PathSource:
    """A folder or zip of labelled images.

    Attributes
    ----------
    path
        Where it is.
    held_back
        Looked at after every epoch, not trained on.
    """

    path: Path
    held_back: bool = False

    @property
    def name(self) -> str:
        """Name of the folder or zip."""
        return self.path.name or str(self.path)

    @property
    def words(self) -> str:
        """What is shown."""
        return f"{'zip' if self.path.suffix == '.zip' else 'folder'} {self.name}"


Source = LayerPair | PathSource


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A pair as it was when the training was started: what is painted later does not change it.

    Attributes
    ----------
    name
        Of the files.
    image, labels
        Arrays, as lazy as the layers hold them.
    spacing_um
        Voxel size (z, y, x), where the image tells it.
    """

    name: str
    image: Any
    labels: Any
    spacing_um: tuple[float, float, float] | None = field(default=None)


def _full(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def check_pair(image: Any, labels: Any) -> None:
    """Check that two layers can be trained on.

    Raises
    ------
    TrainingDataError
        If one is missing, they differ in shape, are no volumes or planes, or there is no object.
    """
    if image is None or labels is None:
        missing = "an image layer" if image is None else "a labels layer"
        raise TrainingDataError(f"a pair needs an image and its labels; open or make {missing}, and choose it")
    pixels, objects = _full(image), _full(labels)
    if getattr(image, "rgb", False):
        raise TrainingDataError(
            f"{image.name} is a colour image; split it (right click, Split RGB) and pair the channel of the nuclei"
        )
    if pixels.ndim not in _AXES:
        raise TrainingDataError(
            f"{image.name} has shape {tuple(pixels.shape)}, expected Z, Y, X or Y, X; split channels and time points "
            "into layers of their own (right click, Split Stack)"
        )
    if tuple(pixels.shape) != tuple(objects.shape):
        raise TrainingDataError(
            f"{image.name} has shape {tuple(pixels.shape)}, its labels {labels.name} {tuple(objects.shape)}; expected "
            "the same shape: choose the labels that belong to the image"
        )
    # What is not in memory is read, and checked, off the GUI thread: when the pair is written.
    if isinstance(objects, np.ndarray) and not objects.any():
        raise TrainingDataError(f"{labels.name} has no object; there is nothing to learn from it: label nuclei first")


def take_pair(pair: LayerPair) -> Snapshot:
    """Check a pair and take a snapshot of it.

    Raises
    ------
    TrainingDataError
        As `check_pair`.
    """
    check_pair(pair.image, pair.labels)
    image, labels = image_of(pair.image), _full(pair.labels)
    copied = labels.copy() if isinstance(labels, np.ndarray) else labels
    return Snapshot(image.name, image.data, copied, pair.spacing_um)


def check_path(path: Path) -> PathSource:
    """Check that a folder or zip holds pairs; no image is read.

    Raises
    ------
    TrainingDataError
        If there is nothing to train on.
    """
    from napari_aprcnn.train.data import read_pairs

    next(iter(read_pairs(path)))
    return PathSource(path)


def write_pairs(pairs: Sequence[Snapshot], folder: Path) -> Path:
    """Write pairs as ``images/NAME.tif`` and ``labels/NAME.tif`` into a folder, whole or not at all.

    Annotations of earlier trainings stay: where `folder` holds other ones, ``folder_2`` is made, and so on; where it
    holds the same, it is used as it is.

    Parameters
    ----------
    pairs
        What to write.
    folder
        Where to.

    Returns
    -------
    Path
        The folder that holds these pairs.

    Raises
    ------
    TrainingDataError
        If labels have no object, or an image is not finite.
    OutputError
        If it cannot be written; nothing partial is left.
    """
    from napari_aprcnn.io.write import write_image, write_labels

    make_folder(folder.parent)
    beside = folder.with_name(f".{uuid.uuid4().hex[:8]}.part.{folder.name}")
    used: set[str] = set()
    try:
        for part in ("images", "labels"):
            make_folder(beside / part)
        for pair in pairs:
            name = _file_name(pair.name, used)
            image, labels = np.asarray(pair.image), np.asarray(pair.labels)
            if not labels.any():
                raise TrainingDataError(f"the labels of {pair.name} have no object; label nuclei first")
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                raise TrainingDataError(f"{pair.name} holds NaN or infinite values; replace them first")
            if image.dtype.kind in "iu" and image.dtype.itemsize == np.dtype(np.int64).itemsize:
                image = image.astype(np.float32)  # as float64: what trainings see is float32, and TIFF has no such type
            axes = _AXES[image.ndim]
            write_image(image, beside / "images" / name, axes=axes, spacing_um=pair.spacing_um)
            write_labels(labels, beside / "labels" / name, axes=axes, spacing_um=pair.spacing_um)
        return _settle(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _settle(beside: Path, folder: Path) -> Path:
    try:
        for version in range(1, _MOST_VERSIONS):
            place = folder if version == 1 else folder.with_name(f"{folder.name}_{version}")
            if not place.exists():
                return beside.rename(place)
            if _same(beside, place):
                return place
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    raise OutputError(f"{folder} has {_MOST_VERSIONS} versions; remove old ones or choose another name")


def _same(one: Path, other: Path) -> bool:
    names = [{str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} for root in (one, other)]
    if names[0] != names[1]:
        return False
    with suppress(OSError):
        return not any(filecmp.cmpfiles(one, other, names[0], shallow=False)[1:])
    return False


def _file_name(name: str, used: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "pair"
    for number in range(1, len(used) + 2):
        found = stem if number == 1 else f"{stem}_{number}"
        if found.lower() not in used:  # some disks do not tell cases apart
            stem = found
            break
    used.add(stem.lower())
    return f"{stem}.tif"
