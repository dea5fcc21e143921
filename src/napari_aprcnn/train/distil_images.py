"""Images to distil on: with labels or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import FileFormatError, ImageDtypeError, ImageError, TrainingDataError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.segment.source import map_image
from napari_aprcnn.train.data import LabelledImage, is_of_kind, normalise_percentiles, read_training_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.io.source import ImageSource

__all__ = ["read_images"]


def read_images(
    paths: Sequence[Path | str], *, kinds: Sequence[str] = (), channel: int | None = None
) -> list[LabelledImage]:
    """Read images to distil on: archives and folders of pairs, or folders of images without labels.

    Parameters
    ----------
    paths
        As `train.data` describes them; a folder without a single label is read as images alone, planes and time points
        each for itself.
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
        If there is nothing to read, nothing of these kinds, or an image has channels and none or a missing one was
        asked for.
    MissingDependencyError
        If the compression of an image needs an optional package.
    """
    images: list[LabelledImage] = []
    for path in map(Path, paths):
        images += _unlabelled(path, channel) if _is_bare(path) else read_training_data(path)
    chosen = [item for item in images if is_of_kind(item, kinds)]
    if not chosen:
        there = sorted({word for item in images for word in (item.kind, item.objective) if word})
        raise TrainingDataError(
            f"got no image of the kinds {list(kinds)}; expected some of {there[:20] or 'no kind: the data name none'}"
        )
    return chosen


def _is_bare(path: Path) -> bool:
    if not path.is_dir() or (path / "labels").is_dir():
        return False
    return not any(p.stem.endswith(("_masks", "_labels")) for p in path.glob("*.tif*"))


def _unlabelled(folder: Path, channel: int | None) -> list[LabelledImage]:
    found: list[LabelledImage] = []
    for path in sorted((folder / "images" if (folder / "images").is_dir() else folder).glob("*.tif*")):
        try:
            found += [_bare(path, folder.stem, plane) for plane in _planes(open_image(path), channel)]
        except (FileFormatError, ImageDtypeError, ImageError) as error:
            raise TrainingDataError(f"{path}: {error}") from error
    if not found:
        raise TrainingDataError(f"{folder} holds no TIFF; expected images")
    return found


def _planes(source: ImageSource, channel: int | None) -> list[NDArray[Any]]:
    """Every plane (H, W) of an image, of one channel."""
    order, has_channels = source.axes, "C" in source.axes
    if has_channels and channel is None:
        last = source.shape[order.index("C")] - 1
        raise TrainingDataError(
            f"{source.path} has {last + 1} channels (axes {order}, shape {source.shape}); expected one: say which "
            f"holds the nuclei with --channel (channel=), 0 to {last}. If these are planes, export the file as "
            "OME-TIFF or from ImageJ, which name the axes"
        )
    mapped = map_image(source.data, AxisMapping(order=order, channel=channel or 0 if has_channels else 0))
    return [plane for time in range(mapped.n_times) for plane in mapped.read(time, mapped.whole)]


def _bare(path: Path, source: str, plane: NDArray[Any]) -> LabelledImage:
    return LabelledImage(
        name=path.stem,
        kind="",
        source=source,
        image=normalise_percentiles(plane).astype(np.float16),
        labels=np.zeros(plane.shape, np.uint16),
        flows=np.zeros((2, *plane.shape), np.int8),
        diameter_px=0.0,
        origin=str(path.resolve()),
    )
