"""Labelled images to train on: archives and folders of image and label TIFFs.

An archive is a zip with ``images/NAME.tif``, ``labels/NAME.tif`` and ``index.json``, a list of objects with at least
``name`` and optionally ``kind``, ``mag`` (the objective) and ``group`` (images of one specimen, which are never parted
between training and validation). A folder holds images and labels likewise, or pairs ``NAME.tif`` and
``NAME_masks.tif`` (or ``NAME_labels.tif``) as annotation tools write them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.segment.flows import flows_from_masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LabelledImage",
    "is_of_kind",
    "median_diameter_px",
    "normalise_percentiles",
    "read_pairs",
    "read_training_data",
]

Loader = Callable[[], tuple["NDArray[Any]", "NDArray[Any]"]]

FLOW_UNIT = 127  # int8 holds a component of a unit vector to 0.4 %, at a quarter of float32's memory
LABEL_SUFFIXES = ("_masks", "_labels")


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


@dataclass(frozen=True)
class _Pair:
    """One entry of an archive or a folder, as `LabelledImage` has it, not loaded."""

    name: str
    kind: str
    objective: str
    origin: str
    load: Loader


def is_of_kind(item: LabelledImage, words: Sequence[str]) -> bool:
    """Whether an image's kind holds one of the words, or its objective begins with one or has one in it.

    ``20x`` is the objective ``20x`` and not ``120x``; ``40x`` is ``40x air`` and ``40x oil``; without words, all are.
    """
    objective = f" {item.objective}".casefold()
    return not words or any(word in item.kind or f" {word}".casefold() in objective for word in words)


def median_diameter_px(labels: NDArray[Any]) -> float:
    """Median over the objects of the diameter of the disk of equal area, in pixels; 0 without objects."""
    area = np.bincount(np.asarray(labels).ravel())[1:]
    area = area[area > 0]
    return float(np.median(2.0 * np.sqrt(area / np.pi))) if len(area) else 0.0


def normalise_percentiles(image: NDArray[Any], *, lower: float = 1.0, upper: float = 99.0) -> NDArray[np.float32]:
    """Map the lower percentile to 0 and the upper to 1, without clipping; a constant image becomes zeros."""
    low, high = np.percentile(image, (lower, upper))
    if high <= low:
        high = max(float(np.max(image)), low + 1e-6)
    return ((image - np.float32(low)) / np.float32(high - low)).astype(np.float32)


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
        If there is nothing to read, a label image is missing, or shapes differ.
    """
    path = Path(path)
    pairs = list(_pairs(path))
    result: list[LabelledImage] = []
    for done, pair in enumerate(pairs):
        name, (image, labels) = pair.name, pair.load()
        if image.shape != labels.shape or image.ndim not in (2, 3):
            raise TrainingDataError(
                f"{name}: the image has shape {image.shape}, its labels {labels.shape}; expected equal 2D or 3D shapes"
            )
        planes = (
            [(image, labels)] if image.ndim == 2 else [(i, m) for i, m in zip(image, labels, strict=True) if m.any()]
        )
        result += [_prepare(pair, path.stem, i, m) for i, m in planes]
        progress(done + 1, len(pairs))
    return result


def read_pairs(path: Path | str) -> Iterator[tuple[str, str, Loader]]:
    """Name, kind and loader of every pair of an archive or folder; nothing but the index is read.

    Raises
    ------
    TrainingDataError
        If there is nothing to read.
    """
    for pair in _pairs(Path(path)):
        yield pair.name, pair.kind, pair.load


def _pairs(path: Path) -> Iterator[_Pair]:
    empty = True
    for pair in _pairs_of_archive(path) if path.suffix == ".zip" else _pairs_of_folder(path):
        empty = False
        yield pair
    if empty:
        raise TrainingDataError(
            f"{path} holds no pairs; expected images/NAME.tif with labels/NAME.tif, or NAME.tif with NAME_masks.tif"
        )


def _prepare(pair: _Pair, source: str, image: NDArray[Any], labels: NDArray[Any]) -> LabelledImage:
    if labels.dtype.kind not in "iu":
        raise TrainingDataError(f"{pair.name}: labels have dtype {labels.dtype}; expected integers, 0 being background")
    flows = flows_from_masks(labels)
    return LabelledImage(
        name=pair.name,
        kind=pair.kind,
        source=source,
        image=normalise_percentiles(image).astype(np.float16),
        labels=labels,
        flows=np.rint(flows * FLOW_UNIT).astype(np.int8),
        diameter_px=median_diameter_px(labels),
        objective=pair.objective,
        origin=pair.origin,
    )


def _read_tiff(file: Path | io.BytesIO, name: str) -> NDArray[Any]:
    """Read a plane or a stack; the colours of a pixel would pass for columns."""
    with tifffile.TiffFile(file) as tif:
        if not tif.series:
            raise ValueError("it holds no image")
        if tif.series[0].axes.endswith("S"):
            raise TrainingDataError(
                f"{name} is a colour image of shape {tif.series[0].shape}; expected one channel: save the one with "
                "the nuclei alone"
            )
        return np.asarray(tif.asarray())


def _pairs_of_archive(path: Path) -> Iterator[_Pair]:
    try:
        archive = zipfile.ZipFile(path)
        index = json.loads(archive.read("index.json"))
    except (OSError, zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise TrainingDataError(
            f"cannot read {path} ({error}); expected a zip with images/, labels/, index.json"
        ) from error

    def load(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        try:
            image, labels = (archive.read(f"{part}/{name}.tif") for part in ("images", "labels"))
            return _read_tiff(io.BytesIO(image), f"image {name}"), _read_tiff(io.BytesIO(labels), f"labels {name}")
        except (KeyError, tifffile.TiffFileError, ValueError) as error:
            raise TrainingDataError(f"{path}: cannot read the pair {name!r} ({error})") from error

    members = set(archive.namelist())
    for item in index:
        name = str(item["name"])
        if f"images/{name}.tif" not in members and f"labels/{name}.tif" in members:
            continue  # labels alone, as some archives hold them for other uses
        origin = f"{path.resolve()}: {'group ' + str(item['group']) if 'group' in item else name}"
        kind, objective = str(item.get("kind", "")), str(item.get("mag", ""))
        yield _Pair(name, kind, objective, origin, partial(load, name))


def _pairs_of_folder(path: Path) -> Iterator[_Pair]:
    if not path.is_dir():
        raise TrainingDataError(f"{path} is neither a folder nor a zip; expected training data")

    def load(image: Path, labels: Path) -> tuple[NDArray[Any], NDArray[Any]]:
        try:
            return _read_tiff(image, image.name), _read_tiff(labels, labels.name)
        except (OSError, tifffile.TiffFileError, ValueError) as error:
            raise TrainingDataError(f"cannot read the pair {image.name}, {labels.name} ({error})") from error

    images, labels = path / "images", path / "labels"
    if images.is_dir() and labels.is_dir():
        found = [(image, labels / image.name) for image in sorted(images.glob("*.tif*"))]
        missing = [image.name for image, mask in found if not mask.exists()]
        if missing:
            raise TrainingDataError(f"{labels} has no labels for {missing[:3]}; expected a file of the same name")
    else:
        masks = [m for m in sorted(path.glob("*.tif*")) if m.stem.endswith(LABEL_SUFFIXES)]
        found = [(m.with_name(m.stem.rsplit("_", 1)[0] + m.suffix), m) for m in masks]
        found = [(image, mask) for image, mask in found if image.exists()]
    for image, mask in found:
        yield _Pair(image.stem, "", "", str(image.resolve()), partial(load, image, mask))
