"""Zarr folders as lazy images: OME-Zarr 0.1 - 0.5, and plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from napari_aprcnn.errors import FileFormatError
from napari_aprcnn.io.source import ImageSource, guess_letters, lazy_dask, reading, settle_axes
from napari_aprcnn.io.units import in_um

__all__ = ["open_zarr"]

_OLD_AXES = "TCZYX"
_TYPES = {"time": "T", "channel": "C"}
_MOST_IMAGES = 10_000


def open_zarr(path: Path, *, series: int = 0) -> ImageSource:
    """Open a zarr folder without loading it.

    Parameters
    ----------
    path
        Folder of an OME-Zarr image, label image, bioformats2raw collection or plate, or of a zarr array.
    series
        Which image, where the folder holds several.

    Raises
    ------
    FileFormatError
        If the folder is damaged, holds no image, or declares an absurd size.
    """
    import zarr

    with reading(path, "check the zarr metadata, or export the image again as OME-Zarr 0.4 or 0.5"):
        node = zarr.open(str(path), mode="r")
        if isinstance(node, zarr.Array):
            return _plain_array(node, path)
        images = _images(node)
        if not images:
            raise FileFormatError(
                f"{path.name} is a zarr group without an image; expected OME-Zarr metadata or one array"
            )
        if not 0 <= series < len(images):
            raise FileFormatError(
                f"{path.name} has {len(images)} images, got series {series}; expected 0..{len(images) - 1}"
            )
        inner = images[series]
        chosen = node[inner] if inner else node
        if isinstance(chosen, zarr.Array):
            return _plain_array(chosen, path, series=series, names=tuple(images))
        return _multiscale(chosen, path, series=series, names=tuple(images))


def _attributes(group: Any) -> Mapping[str, Any]:
    """Return the OME metadata: under ``ome`` since 0.5, at the top before."""
    attributes = group.attrs.asdict()
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _images(group: Any) -> list[str]:
    """Return the paths of the images in a group; an empty path is the group itself."""
    import zarr

    ome = _attributes(group)
    if "multiscales" in ome:
        return [""]
    if "plate" in ome:
        found = []
        for well in list(ome["plate"].get("wells", []))[:_MOST_IMAGES]:
            inner = str(well["path"])
            found += [
                f"{inner}/{field['path']}" for field in _attributes(group[inner]).get("well", {}).get("images", [])
            ]
        return found
    names = sorted(group.keys(), key=lambda name: (len(name), name))[:_MOST_IMAGES]
    found = [
        name for name in names if isinstance(group[name], zarr.Group) and "multiscales" in _attributes(group[name])
    ]
    return found or [name for name in names if isinstance(group[name], zarr.Array)]


def _multiscale(group: Any, path: Path, *, series: int, names: tuple[str, ...]) -> ImageSource:
    ome = _attributes(group)
    image = ome["multiscales"][0]
    version = str(image.get("version") or ome.get("version") or "")
    datasets = image["datasets"]
    arrays = [group[str(dataset["path"])] for dataset in datasets]
    declared = image.get("axes") or list(_OLD_AXES[-arrays[0].ndim :])
    letters = "".join(_letter(axis) for axis in declared)
    levels = [_lazy(array, path, letters) for array in arrays]
    factors = [_scale(datasets[0], len(letters)), _scale(image, len(letters))]
    levels, axes, notes = settle_axes(levels, letters, path=path)
    zyx = [_spacing(declared, letters, letter, factors) for letter in "ZYX"]
    if zyx[1] is None and any(scale not in (0.0, 1.0) for scale in factors[0]):
        zyx = [_spacing(declared, letters, letter, factors, default="um") for letter in "ZYX"]
        notes.append("the file names no unit of length; micrometres are taken")
    spacing = None
    if zyx[1] is not None and zyx[2] is not None:
        spacing = (zyx[0] or zyx[1], zyx[1], zyx[2])
        if zyx[0] is None and "Z" in axes:
            notes.append(f"the file gives no z spacing; {zyx[1]:.4g} um is taken, as in y")
    channels = ome.get("omero", {}).get("channels", []) if isinstance(ome.get("omero"), dict) else []
    name = path.name.removesuffix(".zarr").removesuffix(".ome")
    return ImageSource(
        data=levels[0],
        axes=axes,
        spacing_um=spacing,
        channel_names=tuple(str(channel.get("label") or f"channel {i}") for i, channel in enumerate(channels)),
        name=name if len(names) == 1 else f"{name} {names[series]}",
        path=path,
        units="px" if spacing is None else "um",
        kind=f"OME-Zarr {version}".strip(),
        axes_known=bool(image.get("axes")),
        series=series,
        series_names=names,
        multiscale=tuple(levels),
        notes=tuple(notes),
    )


def _lazy(array: Any, path: Path, letters: str) -> Any:
    if len(letters) != array.ndim:
        raise FileFormatError(f"{path.name}: {array.ndim} axes, but the metadata name {len(letters)}; export it again")
    if prod(array.shape) == 0:
        raise FileFormatError(f"{path.name} is empty: its shape is {array.shape}; expected at least one pixel")
    return lazy_dask(array, path, chunks=array.chunks, letters=letters)


def _letter(axis: Any) -> str:
    """Return the letter of an axis: by its name, else by its type; anything else is an axis of unknown meaning."""
    name = str(axis.get("name", "") if isinstance(axis, dict) else axis).strip().upper()
    kind = str(axis.get("type", "")).lower() if isinstance(axis, dict) else ""
    if name in ("T", "C", "Z", "Y", "X"):
        return name
    return _TYPES.get(kind, "Q")


def _scale(holder: Mapping[str, Any], rank: int) -> list[float]:
    for transform in holder.get("coordinateTransformations") or []:
        values = transform.get("scale") if transform.get("type") == "scale" else None
        if isinstance(values, Sequence) and len(values) == rank:
            return [float(value) for value in values]
    return [1.0] * rank


def _spacing(
    declared: Sequence[Any], letters: str, letter: str, factors: list[list[float]], *, default: str | None = None
) -> float | None:
    """Return the voxel edge along an axis in micrometres, where the axis has a unit of length."""
    if letters.count(letter) != 1:
        return None
    axis = letters.index(letter)
    unit = declared[axis].get("unit") if isinstance(declared[axis], dict) else None
    return in_um(factors[0][axis] * factors[1][axis], unit, default=default)


def _plain_array(array: Any, path: Path, *, series: int = 0, names: tuple[str, ...] = ()) -> ImageSource:
    """Open an array without OME metadata: axis names from zarr 3 or xarray, else by the shape."""
    known = getattr(array.metadata, "dimension_names", None) or array.attrs.asdict().get("_ARRAY_DIMENSIONS")
    letters = "".join(_letter(name or "?") for name in known) if known and len(known) == array.ndim else None
    named = letters is not None and {"Y", "X"} <= set(letters)
    if not named:
        letters = guess_letters(array.shape)
    if letters is None:
        raise FileFormatError(f"{path.name} has {array.ndim} axes, expected 2 to 5 (T, C, Z, Y, X)")
    levels, axes, notes = settle_axes([_lazy(array, path, letters)], letters, path=path)
    return ImageSource(
        data=levels[0],
        axes=axes,
        spacing_um=None,
        channel_names=(),
        name=path.name.removesuffix(".zarr"),
        path=path,
        kind="zarr",
        axes_known=named,
        series=series,
        series_names=names or ("",),
        multiscale=tuple(levels),
        notes=tuple(notes),
    )
