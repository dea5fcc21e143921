"""Labelled images to train on: archives and folders of image and label TIFFs.

An archive is a zip with ``images/NAME.tif``, ``labels/NAME.tif`` and ``index.json``, a list of objects with at least
``name`` and optionally ``kind``. A folder holds the same three, or pairs ``NAME.tif`` and ``NAME_masks.tif`` (or
``NAME_labels.tif``) as annotation tools write them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.segment.flows import flows_from_masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LabelledImage", "median_diameter_px", "normalise_percentiles", "read_pairs", "read_training_data"]

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
    """

    name: str
    kind: str
    source: str
    image: NDArray[np.float16]
    labels: NDArray[Any]
    flows: NDArray[np.int8]
    diameter_px: float


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
    pairs = list(read_pairs(path))
    result: list[LabelledImage] = []
    for done, (name, kind, load) in enumerate(pairs):
        image, labels = load()
        if image.shape != labels.shape or image.ndim not in (2, 3):
            raise TrainingDataError(
                f"{name}: the image has shape {image.shape}, its labels {labels.shape}; expected equal 2D or 3D shapes"
            )
        planes = (
            [(image, labels)] if image.ndim == 2 else [(i, m) for i, m in zip(image, labels, strict=True) if m.any()]
        )
        result += [_prepare(name, kind, path.stem, i, m) for i, m in planes]
        progress(done + 1, len(pairs))
    return result


def read_pairs(path: Path | str) -> Iterator[tuple[str, str, Loader]]:
    """Name, kind and loader of every pair of an archive or folder; nothing but the index is read.

    Raises
    ------
    TrainingDataError
        If there is nothing to read.
    """
    path = Path(path)
    empty = True
    for pair in _pairs_of_archive(path) if path.suffix == ".zip" else _pairs_of_folder(path):
        empty = False
        yield pair
    if empty:
        raise TrainingDataError(
            f"{path} holds no pairs; expected images/NAME.tif with labels/NAME.tif, or NAME.tif with NAME_masks.tif"
        )


def _prepare(name: str, kind: str, source: str, image: NDArray[Any], labels: NDArray[Any]) -> LabelledImage:
    if labels.dtype.kind not in "iu":
        raise TrainingDataError(f"{name}: labels have dtype {labels.dtype}; expected integers, 0 being background")
    flows = flows_from_masks(labels)
    return LabelledImage(
        name=name,
        kind=kind,
        source=source,
        image=normalise_percentiles(image).astype(np.float16),
        labels=labels,
        flows=np.rint(flows * FLOW_UNIT).astype(np.int8),
        diameter_px=median_diameter_px(labels),
    )


def _pairs_of_archive(path: Path) -> Iterator[tuple[str, str, Loader]]:
    try:
        archive = zipfile.ZipFile(path)
        index = json.loads(archive.read("index.json"))
    except (OSError, zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise TrainingDataError(
            f"cannot read {path} ({error}); expected a zip with images/, labels/, index.json"
        ) from error

    def load(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        try:
            blobs = [io.BytesIO(archive.read(f"{part}/{name}.tif")) for part in ("images", "labels")]
            return tifffile.imread(blobs[0]), tifffile.imread(blobs[1])
        except (KeyError, tifffile.TiffFileError, ValueError) as error:
            raise TrainingDataError(f"{path}: cannot read the pair {name!r} ({error})") from error

    members = set(archive.namelist())
    for item in index:
        name = str(item["name"])
        if f"images/{name}.tif" not in members and f"labels/{name}.tif" in members:
            continue  # labels alone, as some archives hold them for other uses
        yield name, str(item.get("kind", "")), lambda name=name: load(name)  # type: ignore[misc]


def _pairs_of_folder(path: Path) -> Iterator[tuple[str, str, Loader]]:
    if not path.is_dir():
        raise TrainingDataError(f"{path} is neither a folder nor a zip; expected training data")

    def load(image: Path, labels: Path) -> tuple[NDArray[Any], NDArray[Any]]:
        try:
            return tifffile.imread(image), tifffile.imread(labels)
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
        yield image.stem, "", lambda image=image, mask=mask: load(image, mask)  # type: ignore[misc]
