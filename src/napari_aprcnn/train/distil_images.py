"""Images to distil on: with labels or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import FileFormatError, ImageDtypeError, ImageError, TrainingDataError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.source import ImageSource, reading
from napari_aprcnn.segment.source import map_image
from napari_aprcnn.train.data import LabelledImage, is_of_kind, load_entry, normalised_half
from napari_aprcnn.train.data_files import DataFiles, checked_image, read_png
from napari_aprcnn.train.data_pairs import Entry, find_entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_images"]


def read_images(
    paths: Sequence[Path | str], *, kinds: Sequence[str] = (), channel: int | None = None
) -> list[LabelledImage]:
    """Read images to distil on, of archives and folders: every image that is no mask, with labels or without.

    Parameters
    ----------
    paths
        As `train.data` describes them, labels being optional; of images without labels, planes and time points are
        read each for itself.
    kinds
        Only images of such a kind or objective (``20x``; `is_of_kind`), for a model of one objective.
    channel
        Of images without labels that have several, from 0.

    Returns
    -------
    list of LabelledImage
        Images without labels have none of them, and a diameter of 0.

    Raises
    ------
    TrainingDataError
        If there is nothing to read, nothing of these kinds, a file is damaged, an image is not finite, labels have no
        image, or an image has channels and none or a missing one was asked for.
    MissingDependencyError
        If the compression of an image needs an optional package.
    """
    images: list[LabelledImage] = []
    for path in map(Path, paths):
        files = DataFiles(path)
        entries = find_entries(files)
        if not entries:
            there = sorted({Path(name).suffix.lower() for name in files.names} - {""})
            raise TrainingDataError(
                f"{path} holds no image that is read{f' (but {there[:5]})' if there else ''}; expected .tif, .tiff or "
                ".png: export other formats as TIFF"
            )
        for entry in entries:
            images += load_entry(files, entry) if entry.labels else _unlabelled(files, entry, channel)
    chosen = [item for item in images if is_of_kind(item, kinds)]
    if not chosen:
        there = sorted({word for item in images for word in (item.kind, item.objective) if word})
        raise TrainingDataError(
            f"got no image of the kinds {list(kinds)}; expected some of {there[:20] or 'no kind: the data name none'}"
        )
    return chosen


def _unlabelled(files: DataFiles, entry: Entry, channel: int | None) -> list[LabelledImage]:
    what = files.shown(entry.image)
    with files.on_disk(entry.image) as path:
        try:
            source = _open_png(path) if path.suffix.lower() == ".png" else open_image(path)
            planes = [checked_image(plane, what) for plane in _planes(source, channel, what)]
        except (FileFormatError, ImageDtypeError, ImageError) as error:
            raise TrainingDataError(f"{what}: {error}") from error
    return [_bare(entry, files.path.stem, plane) for plane in planes]


def _open_png(path: Path) -> ImageSource:
    with reading(path, "copy or export it again"):
        array = read_png(path)
    axes = "YX" if array.ndim == 2 else "YXC"
    return ImageSource(data=array, axes=axes, spacing_um=None, channel_names=(), name=path.stem, path=path)


def _planes(source: ImageSource, channel: int | None, what: str) -> list[NDArray[Any]]:
    """Every plane (H, W) of an image, of one channel."""
    order, has_channels = source.axes, "C" in source.axes
    if has_channels and channel is None:
        last = source.shape[order.index("C")] - 1
        raise TrainingDataError(
            f"{what} has {last + 1} channels (axes {order}, shape {source.shape}); expected one: say which "
            f"holds the nuclei with --channel (channel=), 0 to {last}. If these are planes, export the file as "
            "OME-TIFF or from ImageJ, which name the axes"
        )
    mapped = map_image(source.data, AxisMapping(order=order, channel=channel or 0 if has_channels else 0))
    return [plane for time in range(mapped.n_times) for plane in mapped.read(time, mapped.whole)]


def _bare(entry: Entry, source: str, plane: NDArray[Any]) -> LabelledImage:
    return LabelledImage(
        name=entry.name,
        kind=entry.kind,
        source=source,
        image=normalised_half(plane),
        labels=np.zeros(plane.shape, np.uint16),
        flows=np.zeros((2, *plane.shape), np.int8),
        diameter_px=0.0,
        objective=entry.objective,
        origin=entry.origin,
    )
