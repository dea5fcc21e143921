"""Write results: label images, probability and flows, with the voxel size; outlines and tables beside them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError, ImageDtypeError, OutputError
from napari_aprcnn.io.atomic import beside, write_text
from napari_aprcnn.io.measure import write_measurements
from napari_aprcnn.io.outlines import write_geojson, write_rois
from napari_aprcnn.io.overlay import write_overlay

__all__ = [
    "write_geojson",
    "write_image",
    "write_labels",
    "write_measurements",
    "write_overlay",
    "write_rois",
    "write_text",
]

_TIFF_SUFFIXES = (".tif", ".tiff")
_CLASSIC_BYTES = 4_000_000_000
_OmeZarr = Literal["0.4", "0.5"]


def write_labels(
    labels: Any,
    path: Path | str,
    *,
    axes: str,
    spacing_um: tuple[float, float, float] | None = None,
    overwrite: bool = False,
    ome_zarr: _OmeZarr = "0.5",
) -> Path:
    """Write a label image; the suffix decides the format.

    ``.tif``: an ImageJ hyperstack (OME-TIFF where ImageJ cannot: 32-bit labels, more than 4 GB);
    ``.ome.tif``: OME-TIFF; ``.zarr``: an OME-Zarr label image with a pyramid. All compressed without loss.

    Parameters
    ----------
    labels : (T?, Z?, Y, X) integers
        Label image; dask and zarr arrays are read plane by plane (TIFF) or block by block (zarr).
    path
        Where to.
    axes
        One letter of T, Z, Y, X for each axis of `labels`.
    spacing_um
        Voxel size (z, y, x) in micrometres.
    overwrite
        Replace what is there.
    ome_zarr
        Version of OME-Zarr.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If it cannot be written; nothing partial is left.
    AxesError, ImageDtypeError
        If the axes do not fit, or the labels are no integers.
    """
    dtype = np.dtype(labels.dtype)
    if dtype.kind not in "ub" and not (dtype.kind == "i"):
        raise ImageDtypeError(f"labels are {dtype}, expected integers; round them first")
    return write_image(
        labels, path, axes=axes, spacing_um=spacing_um, overwrite=overwrite, ome_zarr=ome_zarr, are_labels=True
    )


def write_image(
    image: Any,
    path: Path | str,
    *,
    axes: str,
    spacing_um: tuple[float, float, float] | None = None,
    channel_names: tuple[str, ...] = (),
    overwrite: bool = False,
    ome_zarr: _OmeZarr = "0.5",
    are_labels: bool = False,
) -> Path:
    """Write an image (probability, flows, ...) as TIFF or OME-Zarr; see `write_labels`.

    Parameters
    ----------
    image : array
        One axis for each letter of `axes`.
    axes
        Letters out of T, C, Z, Y, X, each at most once.
    channel_names
        Names of the channels, where there is a C axis.
    are_labels
        Write as labels: integer type as small as the values allow, no interpolation in pyramids.

    Raises
    ------
    OutputError
        If it cannot be written; nothing partial is left.
    AxesError
        If the axes do not fit the array.
    """
    path = Path(path).expanduser()
    axes = axes.upper()
    if len(axes) != image.ndim or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes) <= set("TCZYX"):
        raise AxesError(
            f"axes {axes!r} do not fit the shape {image.shape}; expected one of T, C, Z, Y, X for each axis"
        )
    order = [axes.index(letter) for letter in "TCZYX" if letter in axes]
    image = image.transpose(order) if order != sorted(order) else image
    axes = "".join(axes[axis] for axis in order)
    name = path.name.lower()
    if name.endswith(".zarr"):
        from napari_aprcnn.io.omezarr_write import write_omezarr

        with beside(path, overwrite=overwrite) as temporary:
            write_omezarr(
                image, temporary, dtype=_stored_dtype(image, are_labels=are_labels), axes=axes, spacing_um=spacing_um,
                version=ome_zarr, name=path.stem,
                channel_names=channel_names, are_labels=are_labels,
            )  # fmt: skip
    elif name.endswith(_TIFF_SUFFIXES):
        with beside(path, overwrite=overwrite) as temporary:
            _write_tiff(
                image, temporary, axes=axes, spacing_um=spacing_um, channel_names=channel_names,
                ome=name.endswith((".ome.tif", ".ome.tiff")), are_labels=are_labels,
            )  # fmt: skip
    else:
        raise OutputError(
            f"cannot write {path.name}: unknown format; expected a name that ends in .tif, .ome.tif or .zarr"
        )
    return path


def _write_tiff(
    image: Any,
    path: Path,
    *,
    axes: str,
    spacing_um: tuple[float, float, float] | None,
    channel_names: tuple[str, ...],
    ome: bool,
    are_labels: bool,
) -> None:
    import tifffile

    dtype = _stored_dtype(image, are_labels=are_labels)
    n_bytes = prod(image.shape) * dtype.itemsize
    imagej = not ome and (dtype in (np.dtype("u1"), np.dtype("u2"), np.dtype("f4"))) and n_bytes < _CLASSIC_BYTES
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack", "maxworkers": 2}
    if imagej:
        # ImageJ orders planes T, Z, C.
        where = [axes.index(letter) for letter in "TZCYX" if letter in axes]
        image, axes = image.transpose(where), "".join(axes[axis] for axis in where)
        metadata: dict[str, Any] = {"axes": axes}
        if are_labels:
            metadata |= {"min": 0.0, "max": float(max(1, _largest(image))), "mode": "grayscale"}
        if spacing_um is not None:
            metadata |= {"unit": "um", "spacing": spacing_um[0]}
            options["resolution"] = (1 / spacing_um[2], 1 / spacing_um[1])
        if channel_names and "C" in axes:
            metadata["Labels"] = list(channel_names) * (prod(image.shape[:-2]) // len(channel_names))
    else:
        metadata = {"axes": axes}
        if spacing_um is not None:
            for letter, size in zip("ZYX", spacing_um, strict=True):
                metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": "µm"}
        if channel_names and "C" in axes:
            metadata["Channel"] = {"Name": list(channel_names)}
    tifffile.imwrite(
        path, _planes(image, dtype), shape=image.shape, dtype=dtype, metadata=metadata, imagej=imagej, ome=not imagej,
        bigtiff=not imagej and n_bytes > _CLASSIC_BYTES // 2, **options,
    )  # fmt: skip


def _stored_dtype(image: Any, *, are_labels: bool) -> np.dtype[Any]:
    """Return the type to store: labels as unsigned, as small as they fit (viewers show 8 and 16 bit best)."""
    dtype = np.dtype(image.dtype)
    if not are_labels:
        return np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    if dtype == np.uint8 or dtype == np.bool_:
        return np.dtype(np.uint8)
    largest = _largest(image)
    if dtype.kind == "i" and min(_extremes(image)) < 0:
        raise OutputError("the smallest label is below 0, expected 0 for background and 1..n; relabel first")
    if largest > np.iinfo(np.uint32).max:
        raise OutputError(
            f"the largest label is {largest:,}, expected at most {np.iinfo(np.uint32).max:,}; relabel first"
        )
    return np.dtype(np.uint16) if largest <= np.iinfo(np.uint16).max else np.dtype(np.uint32)


def _largest(image: Any) -> int:
    return max(_extremes(image))


def _extremes(image: Any) -> list[int]:
    """Smallest and largest value of each plane, one after the other."""
    if prod(image.shape) == 0:
        return [0]
    planes = (np.asarray(image[index]) for index in np.ndindex(*image.shape[:-2]))
    return [int(value) for plane in planes for value in (plane.min(), plane.max())]


def _planes(image: Any, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    for index in np.ndindex(*image.shape[:-2]):
        yield np.ascontiguousarray(np.asarray(image[index]), dtype)
