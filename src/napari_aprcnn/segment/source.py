"""Untrusted arrays in, plain blocks out: axes mapped, voxel type and values checked, nothing read whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.segment.axes import check_axes, describe_axes, guess_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import AxisMapping

__all__ = ["MappedImage", "Region", "map_image"]

Region = tuple[slice, slice, slice]
"""Slices (z, y, x), starts and stops given."""


@dataclass(frozen=True)
class MappedImage:
    """An array of any kind seen as time points of (Z, Y, X) volumes.

    Attributes
    ----------
    data
        numpy, dask or zarr array, or anything with ``shape``, ``dtype`` and ``__getitem__``.
    mapping
        Meaning of its axes.
    n_times
        Number of time points, 1 without a T axis.
    shape
        (Z, Y, X) of a time point; Z is 1 without a Z axis.
    """

    data: Any
    mapping: AxisMapping
    n_times: int
    shape: tuple[int, int, int]

    @property
    def axes(self) -> str:
        """The axes of the labels: those of the image without C."""
        return self.mapping.order.replace("C", "")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the labels."""
        sizes = {"T": self.n_times, **dict(zip("ZYX", self.shape, strict=True))}
        return tuple(sizes[letter] for letter in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Voxel type of the array."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def whole(self) -> Region:
        """The region of a whole time point."""
        z, y, x = (slice(0, n) for n in self.shape)
        return z, y, x

    def read(self, time: int, region: Region) -> NDArray[Any]:
        """Read a part of one time point.

        Parameters
        ----------
        time
            Index of the time point.
        region
            Slices (z, y, x).

        Returns
        -------
        (z, y, x) array
            Real numbers in native byte order; no other voxel of the array is touched.

        Raises
        ------
        ImageValueError
            If a voxel is NaN or infinite.
        """
        where: dict[str, Any] = {"T": time, "C": self.mapping.channel, **dict(zip("ZYX", region, strict=True))}
        block = np.asarray(self.data[tuple(where[letter] for letter in self.mapping.order)])
        spatial = [letter for letter in self.axes if letter != "T"]
        expected = tuple(where[letter].stop - where[letter].start for letter in spatial)
        if block.shape != expected:
            raise ImageError(
                f"the array gave a block of shape {block.shape} where {expected} was asked for; "
                "expected an array that slices like numpy: convert it first"
            )
        block = block.transpose([spatial.index(letter) for letter in "ZYX" if letter in spatial])
        if "Z" not in spatial:
            block = block[None]
        return _finite(_plain(block), self, time, region)

    def to_output(self, array: NDArray[Any], *, lead: int = 0) -> NDArray[Any]:
        """Bring an array (lead axes, T, Z, Y, X) to the axes of the image without C; a view where possible."""
        present = [letter for letter in "TZYX" if letter in self.axes]
        absent = tuple(lead + "TZYX".index(letter) for letter in "TZYX" if letter not in self.axes)
        array = array.squeeze(axis=absent) if absent else array
        return array.transpose([*range(lead), *(lead + present.index(letter) for letter in self.axes)])

    def output_region(self, time: int, region: Region) -> tuple[slice, ...]:
        """Return where a region of a time point lies in the labels."""
        where = {"T": slice(time, time + 1), **dict(zip("ZYX", region, strict=True))}
        return tuple(where[letter] for letter in self.axes)


def map_image(image: Any, mapping: AxisMapping | None = None) -> MappedImage:
    """Check an image's rank, axes and voxel type without reading it.

    Parameters
    ----------
    image
        numpy, dask or zarr array, or anything with ``shape``, ``dtype`` and ``__getitem__``; lists of numbers become
        arrays.
    mapping
        Meaning of the axes; ``None``: guessed from the shape.

    Raises
    ------
    ImageError
        If the image is empty or a single pixel.
    AxesError
        If the axes do not fit the shape.
    ImageDtypeError
        If the voxels are no real numbers, or there are several images in a list.
    """
    if isinstance(image, (str, bytes)) or image is None:
        raise ImageDtypeError(f"got {image!r} for an image; expected an array: open a file with napari_aprcnn.io first")
    if isinstance(image, (list, tuple)) and any(hasattr(part, "shape") for part in image):
        raise ImageDtypeError(
            f"got a {type(image).__name__} of {len(image)} arrays, expected one image: call this for each of them, or "
            "join planes of one image with numpy.stack"
        )
    if not all(hasattr(image, name) for name in ("shape", "dtype", "__getitem__")) or _foreign_dtype(image):
        image = _as_array(image)
    dtype = np.dtype(image.dtype)
    if dtype.kind not in "biuf":
        remedy = "take the magnitude with numpy.abs" if dtype.kind == "c" else "convert it with .astype"
        raise ImageDtypeError(f"the image has voxel type {dtype}; expected integers, floats or bool: {remedy}")
    shape = tuple(int(n) for n in image.shape)
    if 0 in shape:
        raise ImageError(f"the image is empty (shape {shape}); expected at least 2 pixels: check the crop or the file")
    mapping = guess_axes(shape) if mapping is None else check_axes(shape, mapping)
    sizes = dict(zip(mapping.order, shape, strict=True))
    if sizes["Y"] * sizes["X"] == 1:
        raise ImageError(
            f"the image has a single pixel a plane ({describe_axes(shape, mapping)}); expected at least 2: "
            "check that the axes are mapped right"
        )
    return MappedImage(image, mapping, sizes.get("T", 1), (sizes.get("Z", 1), sizes["Y"], sizes["X"]))


def _foreign_dtype(image: Any) -> bool:
    try:
        np.dtype(image.dtype)
    except TypeError:
        return True  # a torch tensor, for example
    return False


def _as_array(image: Any) -> NDArray[Any]:
    try:
        return np.asarray(image)
    except (ValueError, TypeError) as error:
        raise ImageDtypeError(
            f"a {type(image).__name__} cannot be read as an image ({error}); expected an array"
        ) from error


def _plain(block: NDArray[Any]) -> NDArray[Any]:
    """Bring voxels to native byte order and to a type that the rest of the run computes with."""
    if block.dtype.kind == "b":
        return block.astype(np.uint8)
    if block.dtype.kind == "f" and block.dtype.itemsize not in (4, 8):
        return block.astype(np.float32 if block.dtype.itemsize == 2 else np.float64)
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def _finite(block: NDArray[Any], image: MappedImage, time: int, region: Region) -> NDArray[Any]:
    if block.dtype.kind != "f":
        return block
    # A finite sum proves finite voxels at the price of one pass; an overflowing one is looked at in full.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.sum()):
            return block
    bad = ~np.isfinite(block)
    count = int(bad.sum())
    if not count:
        return block
    z, y, x = (int(i[0]) for i in np.nonzero(bad))
    where = {"T": time, "Z": z + region[0].start, "Y": y + region[1].start, "X": x + region[2].start}
    position = ", ".join(f"{letter} {where[letter]}" for letter in "TZYX" if letter in image.axes)
    raise ImageValueError(
        f"{count} of {block.size} voxels read are NaN or infinite, the first at {position}; expected finite numbers: "
        "replace them first, for example with numpy.nan_to_num"
    )
