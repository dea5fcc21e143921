"""Corrected labels as training data: ``images/NAME.tif`` with ``labels/NAME.tif``, as ``train-volumes`` reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.io.atomic import make_folder
from napari_aprcnn.io.write import write_image, write_labels

if TYPE_CHECKING:
    from napari_aprcnn._napari.inspect_layers import InspectLayers

__all__ = ["prepare_training_pair", "write_training_pair"]

_MOST = 10_000


def prepare_training_pair(layers: InspectLayers, folder: Path | str) -> Callable[[], Path]:
    """Return the writing of the chosen layers, for another thread: it gives the last image that was written.

    Raises
    ------
    TrainingDataError
        If there is no image of the shape of the labels.
    """
    image = layers.image_data
    if image is None or layers.image is None:
        raise TrainingDataError("training data needs an image of the shape of the labels; open and choose one")
    labels = layers.data.copy() if isinstance(layers.data, np.ndarray) else layers.data
    name, axes, spacing = str(layers.image.name), layers.axes, layers.spacing_um
    return lambda: write_training_pair(image, labels, folder, name=name, axes=axes, spacing_um=spacing)[-1]


def write_training_pair(
    image: Any,
    labels: Any,
    folder: Path | str,
    *,
    name: str,
    axes: str,
    spacing_um: tuple[float, float, float] | None = None,
) -> list[Path]:
    """Add an image and its labels to a folder of training data; what is there already stays.

    Parameters
    ----------
    image, labels : (T?, Z?, Y, X)
        Of a series every time point with an object becomes a pair of its own.
    folder
        ``images`` and ``labels`` are made in it.
    name
        Of the files; a number is added where it is taken.
    axes
        Letters of the axes.
    spacing_um
        Edges (z, y, x) of a voxel, kept in the files.

    Returns
    -------
    list of Path
        The images written.

    Raises
    ------
    TrainingDataError
        If there is no object, or the image is not finite.
    OutputError
        If it cannot be written.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "image"
    folder = Path(folder).expanduser()
    written = []
    for t in range(labels.shape[0]) if axes.startswith("T") else [None]:
        objects = np.asarray(labels if t is None else labels[t])
        if not objects.any():
            continue
        pixels = np.asarray(image if t is None else image[t])
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise TrainingDataError(f"{name} holds NaN or infinite values; replace them first")
        written.append(_write(pixels, objects, folder, stem if t is None else f"{stem}_t{t:03d}", spacing_um))
    if not written:
        raise TrainingDataError(f"the labels of {name} have no object; there is nothing to learn from them")
    return written


def _write(pixels: Any, objects: Any, folder: Path, stem: str, spacing_um: tuple[float, float, float] | None) -> Path:
    images, targets = make_folder(folder / "images"), make_folder(folder / "labels")
    names = (f"{stem}.tif" if number == 1 else f"{stem}_{number}.tif" for number in range(1, _MOST))
    free = next(n for n in names if not (images / n).exists() and not (targets / n).exists())
    axes = "ZYX"[-pixels.ndim :]
    # The labels first: an image without labels would be half a pair, labels without an image are not looked at.
    target = write_labels(objects, targets / free, axes=axes, spacing_um=spacing_um)
    try:
        return write_image(pixels, images / free, axes=axes, spacing_um=spacing_um)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
