"""Images as OME-Zarr 0.4 (zarr 2) or 0.5 (zarr 3), with a pyramid, block by block."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["write_omezarr"]

_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_CHUNK_YX = 512
_CHUNK_Z = 16
_SMALLEST_LEVEL = 512
_MOST_LEVELS = 6


def write_omezarr(
    image: Any,
    path: Path,
    *,
    dtype: np.dtype[Any],
    axes: str,
    spacing_um: tuple[float, float, float] | None = None,
    version: Literal["0.4", "0.5"] = "0.5",
    name: str = "image",
    channel_names: tuple[str, ...] = (),
    are_labels: bool = False,
) -> None:
    """Write an image as an OME-Zarr group.

    Each level of the pyramid halves Y and X by taking every second pixel, so that labels stay labels.

    Parameters
    ----------
    image : array
        One axis for each letter of `axes`; read one block at a time.
    path
        Folder to make.
    dtype
        Type to store.
    axes
        Letters out of T, C, Z, Y, X in this order.
    spacing_um
        Voxel size (z, y, x) in micrometres.
    version
        Version of OME-Zarr.
    name
        Name of the image in the metadata.
    channel_names
        Names of the channels.
    are_labels
        Declare it a label image.
    """
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    edges = {"Y": _CHUNK_YX, "X": _CHUNK_YX, "Z": _CHUNK_Z}
    datasets = []
    for level in range(_MOST_LEVELS):
        step = 2**level
        chosen = image[tuple(slice(None, None, step) if letter in "YX" else slice(None) for letter in axes)]
        if level and max(image.shape[-2:]) // (step // 2) <= _SMALLEST_LEVEL:
            break
        array = group.create_array(
            str(level),
            shape=chosen.shape,
            dtype=dtype,
            chunks=tuple(min(n, edges.get(letter, 1)) for n, letter in zip(chosen.shape, axes, strict=True)),
            fill_value=0,
            **({"dimension_names": tuple(axes.lower())} if version == "0.5" else {"chunk_key_encoding": _nested()}),
        )
        for block in _blocks(array.shape, array.chunks):
            array[block] = np.asarray(chosen[block]).astype(dtype, copy=False)
        datasets.append({"path": str(level), "coordinateTransformations": [_scale(axes, spacing_um, step)]})
    multiscale: dict[str, Any] = {
        "name": name,
        "axes": [_axis(letter, with_unit=spacing_um is not None) for letter in axes],
        "datasets": datasets,
    }
    metadata: dict[str, Any] = {"multiscales": [multiscale]}
    if are_labels:
        metadata["image-label"] = {"version": version} if version == "0.4" else {}
    elif channel_names:
        metadata["omero"] = {
            "channels": [{"label": label, "color": "FFFFFF", "active": True} for label in channel_names]
        }
    if version == "0.4":
        multiscale["version"] = version
        group.attrs.update(metadata)
    else:
        group.attrs.update({"ome": {"version": version, **metadata}})


def _nested() -> dict[str, Any]:
    # OME-Zarr 0.4 stores chunks in nested folders.
    return {"name": "v2", "separator": "/"}


def _axis(letter: str, *, with_unit: bool) -> dict[str, str]:
    axis = {"name": letter.lower(), "type": _TYPES[letter]}
    if with_unit and axis["type"] == "space":
        axis["unit"] = "micrometer"
    return axis


def _scale(axes: str, spacing_um: tuple[float, float, float] | None, step: int) -> dict[str, Any]:
    sizes = dict(zip("ZYX", spacing_um or (1.0, 1.0, 1.0), strict=True))
    return {
        "type": "scale",
        "scale": [sizes.get(letter, 1.0) * (step if letter in "YX" else 1) for letter in axes],
    }


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Any:
    ranges = [range(0, n, chunk) for n, chunk in zip(shape, chunks, strict=True)]
    for starts in product(*ranges):
        yield tuple(slice(start, start + chunk) for start, chunk in zip(starts, chunks, strict=True))
