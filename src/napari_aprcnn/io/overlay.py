"""A picture of the result: the image in grey with coloured outlines, as PNG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError
from napari_aprcnn.io.atomic import beside

__all__ = ["overlay", "write_overlay", "write_png"]

# Okabe and Ito's palette without its black: told apart by colour-blind eyes, and against grey.
_COLOURS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]],
    np.uint8,
)


def overlay(image: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw the outlines of labels on an image.

    Parameters
    ----------
    image : (Y, X) real
        Shown from its 0.5 to its 99.8 percentile.
    labels : (Y, X) integers
        Label image of the same shape.

    Returns
    -------
    (Y, X, 3) uint8
        Colours; the outline is the outermost pixel of each object.

    Raises
    ------
    AxesError
        If the shapes differ or are not planes.

    Examples
    --------
    >>> overlay(np.zeros((4, 4)), np.eye(4, dtype=int)).shape
    (4, 4, 3)
    """
    if image.shape != labels.shape or image.ndim != 2:
        raise AxesError(f"image {image.shape} and labels {labels.shape} differ; expected two planes of one shape")
    values = np.asarray(image, np.float32)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.8]) if finite.size else (0.0, 1.0)
    grey = np.clip((np.nan_to_num(values, nan=low) - low) / max(float(high - low), 1e-9), 0, 1)
    # Dark images of few bright nuclei are easier to read with a raised gamma.
    shown = np.repeat((255 * grey**0.7).astype(np.uint8)[..., None], 3, axis=2)
    padded = np.pad(labels, 1, mode="edge")
    edge = np.zeros(labels.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        edge |= padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] != labels
    edge &= labels > 0
    shown[edge] = _COLOURS[(labels[edge].astype(np.int64) * 3) % len(_COLOURS)]
    return shown


def write_overlay(
    image: Any, labels: Any, path: Path | str, *, axes: str | None = None, overwrite: bool = False
) -> Path:
    """Write the overlay of one plane: of a volume the plane with the most objects, of a series the first time point.

    Parameters
    ----------
    image, labels : (T?, Z?, Y, X)
        Image without channels, and labels of the same shape; only what is shown is loaded.
    path
        Where to, ``.png``.
    axes
        One letter for each axis; by default the last of TZYX.
    overwrite
        Replace what is there.

    Raises
    ------
    OutputError
        If it cannot be written.
    AxesError
        If the shapes differ.
    """
    axes = (axes or "TZYX"[-labels.ndim :]).upper()
    if len(axes) != labels.ndim or tuple(image.shape) != tuple(labels.shape):
        raise AxesError(f"axes {axes!r}, image {image.shape} and labels {labels.shape} do not fit; expected one shape")
    order = [axes.index(letter) for letter in "TZYX" if letter in axes]
    image, labels = image.transpose(order), labels.transpose(order)
    if "T" in axes:
        image, labels = image[0], labels[0]
    if "Z" in axes:
        best = max(range(labels.shape[0]), key=lambda z: np.unique(np.asarray(labels[z])).size)
        image, labels = image[best], labels[best]
    return write_png(overlay(np.asarray(image), np.asarray(labels)), path, overwrite=overwrite)


def write_png(pixels: NDArray[np.uint8], path: Path | str, *, overwrite: bool = False) -> Path:
    """Write an RGB picture as PNG.

    Parameters
    ----------
    pixels : (Y, X, 3) uint8
        Colours.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    height, width = pixels.shape[:2]
    # Each row starts with the number of its filter; 0 is none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1)
    with beside(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(_chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)))
        file.write(_chunk(b"IEND", b""))
    return Path(path)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
