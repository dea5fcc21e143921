"""Labelled images to train on: archives and folders of image and label files, TIFF or PNG.

An archive is a zip with ``images/NAME.tif``, ``labels/NAME.tif`` and ``index.json``, a list of objects with at least
``name`` and optionally ``kind``, ``mag`` (the objective) and ``group`` (images of one specimen, which are never parted
between training and validation). A folder, or a zip without an index, holds images and labels likewise, or pairs
``NAME.tif`` and ``NAME_masks.tif`` (``NAME_labels.tif``, ``NAME_cp_masks.tif``) as annotation tools write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.segment.flows import flows_from_masks
from napari_aprcnn.train.data_files import DataFiles
from napari_aprcnn.train.data_pairs import Entry, find_entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LabelledImage",
    "is_of_kind",
    "load_entry",
    "median_diameter_px",
    "normalise_percentiles",
    "normalised_half",
    "read_pairs",
    "read_training_data",
]

Loader = Callable[[], tuple["NDArray[Any]", "NDArray[Any]"]]

FLOW_UNIT = 127  # int8 holds a component of a unit vector to 0.4 %, at a quarter of float32's memory
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """One 2D image with its instances.

    Attributes
    ----------
    name, kind, source
        Name of the image, type of image within its source, name of the source. Sampling is balanced by the last two.
    image : (H, W) float16
        Intensities, normalised by the 1st and 99th percentile.
    labels : (H, W) uint16 or uint32
        Instances, 0 is background.
    flows : (2, H, W) int8
        Unit vectors (y, x) towards each nucleus' centre, times 127.
    diameter_px
        Median diameter of the nuclei, in pixels; 0 without nuclei.
    objective
        Objective that it was taken with (``40x oil``), as far as the index says.
    origin
        Planes of one file, and images of one group of the index, have the same; empty: an image of its own.
    """

    name: str
    kind: str
    source: str
    image: NDArray[np.float16]
    labels: NDArray[Any]
    flows: NDArray[np.int8]
    diameter_px: float
    objective: str = ""
    origin: str = ""


def is_of_kind(item: LabelledImage, words: Sequence[str]) -> bool:
    """Whether an image's kind holds one of the words, or its objective begins with one or has one in it.

    ``20x`` is the objective ``20x`` and not ``120x``; ``40x`` is ``40x air`` and ``40x oil``; without words, all are.
    """
    objective = f" {item.objective}".casefold()
    return not words or any(word in item.kind or f" {word}".casefold() in objective for word in words)


def median_diameter_px(labels: NDArray[Any]) -> float:
    """Median over the objects of the diameter of the disk of equal area, in pixels; 0 without objects."""
    ids = np.asarray(labels).ravel()
    if ids.size and ids.max() > max(ids.size, 0xFFFF):
        area = np.unique(ids[ids > 0], return_counts=True)[1]  # counting up to the largest id would fill the memory
    else:
        area = np.bincount(ids)[1:]
        area = area[area > 0]
    return float(np.median(2.0 * np.sqrt(area / np.pi))) if len(area) else 0.0


def normalise_percentiles(image: NDArray[Any], *, lower: float = 1.0, upper: float = 99.0) -> NDArray[np.float32]:
    """Map the lower percentile to 0 and the upper to 1, without clipping; a constant image becomes zeros."""
    low, high = np.percentile(image, (lower, upper))
    if high <= low:
        high = max(float(np.max(image)), low + 1e-6)
    span = np.float32(high - low)
    if span <= 0:  # a difference that float32, or the size of the numbers, swallows
        return np.zeros(np.shape(image), np.float32)
    return ((image - np.float32(low)) / span).astype(np.float32)


def normalised_half(image: NDArray[Any]) -> NDArray[np.float16]:
    """Normalise by the 1st and 99th percentile; what float16 cannot hold becomes its largest number.

    That is of images of a few bright nuclei, whose 99th percentile is that of the dark background.
    """
    with np.errstate(over="ignore"):
        return np.clip(normalise_percentiles(image), -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)


def read_training_data(
    path: Path | str, *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> list[LabelledImage]:
    """Read an archive or a folder of labelled images into memory.

    Parameters
    ----------
    path
        A zip or a folder, as the module describes.
    progress
        Called with the number of images done and in all.

    Returns
    -------
    list of LabelledImage
        3D images give one entry for each z plane that holds nuclei.

    Raises
    ------
    TrainingDataError
        If there is nothing to read, a file is damaged, an image is not finite, labels or the image of labels are
        missing, or shapes differ.
    """
    files = DataFiles(Path(path))
    entries = _labelled(files)
    result: list[LabelledImage] = []
    for done, entry in enumerate(entries):
        result += load_entry(files, entry)
        progress(done + 1, len(entries))
    return result


def load_entry(files: DataFiles, entry: Entry) -> list[LabelledImage]:
    """Read an image with labels; of a volume, the planes that hold nuclei.

    Raises
    ------
    TrainingDataError
        If it cannot be read, has no labels, or shapes differ.
    """
    image, labels = _load(files, entry)
    if image.shape != labels.shape or image.ndim not in (2, 3):
        raise TrainingDataError(
            f"{entry.name}: the image has shape {image.shape}, its labels {labels.shape}; expected equal 2D or 3D "
            "shapes"
        )
    planes = [(image, labels)] if image.ndim == 2 else [(i, m) for i, m in zip(image, labels, strict=True) if m.any()]
    return [_prepare(entry, files.path.stem, i, m) for i, m in planes]


def read_pairs(path: Path | str) -> Iterator[tuple[str, str, Loader]]:
    """Name, kind and loader of every pair of an archive or folder; nothing but the index is read.

    Raises
    ------
    TrainingDataError
        If there is nothing to read, or it is not clear what belongs together.
    """
    files = DataFiles(Path(path))
    for entry in _labelled(files):
        yield entry.name, entry.kind, partial(_load, files, entry)


def _labelled(files: DataFiles) -> list[Entry]:
    """Entries to train on."""
    entries = find_entries(files)
    # What an index names is missed when it is loaded; images beside pairs are no training data, if nothing says so.
    missing = [] if files.is_indexed else [entry.unpaired for entry in entries if entry.unpaired]
    if missing:
        more = f" (and {len(missing) - 1} more such images)" if len(missing) > 1 else ""
        raise TrainingDataError(f"{files.path}: {missing[0]}{more}")
    if all(entry.labels is None for entry in entries):
        alone = f" ({len(entries)} images without labels, which serve `aprcnn distil` alone)" if entries else ""
        raise TrainingDataError(
            f"{files.path} holds no pairs{alone}; expected images/NAME.tif with labels/NAME.tif, or NAME.tif with "
            "NAME_masks.tif"
        )
    return [entry for entry in entries if entry.labels is not None or files.is_indexed]


def _load(files: DataFiles, entry: Entry) -> tuple[NDArray[Any], NDArray[Any]]:
    if entry.labels is None:
        raise TrainingDataError(f"{files.path}: cannot read the pair {entry.name!r}: {entry.unpaired}")
    return files.image(entry.image), files.labels(entry.labels)


def _prepare(entry: Entry, source: str, image: NDArray[Any], labels: NDArray[Any]) -> LabelledImage:
    if labels.dtype.kind not in "iu":
        raise TrainingDataError(
            f"{entry.name}: labels have dtype {labels.dtype}; expected integers, 0 being background"
        )
    flows = flows_from_masks(labels)
    return LabelledImage(
        name=entry.name,
        kind=entry.kind,
        source=source,
        image=normalised_half(image),
        labels=labels,
        flows=np.rint(flows * FLOW_UNIT).astype(np.int8),
        diameter_px=median_diameter_px(labels),
        objective=entry.objective,
        origin=entry.origin,
    )
