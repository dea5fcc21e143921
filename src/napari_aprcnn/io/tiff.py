"""TIFF files as lazy images: OME-TIFF, ImageJ hyperstacks, and plain TIFF.

Pixels are decoded by tifffile, strip by strip or tile by tile, when they are asked for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from napari_aprcnn.errors import FileFormatError, MissingDependencyError
from napari_aprcnn.io.source import ImageSource, lazy_dask, reading, settle_axes
from napari_aprcnn.io.tiff_check import check_tiff
from napari_aprcnn.io.units import in_um

__all__ = ["open_tiff"]

_log = logging.getLogger(__name__)

# Resolution tags of cameras and paint programs are about printing: 72 .. 1200 dots per inch are no voxel size.
_LARGEST_PLAIN_VOXEL_UM = 20.0
_RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
# Planes up to this size are read at once (one call of tifffile for all their strips or tiles), larger ones in parts.
_WHOLE_PLANE_BYTES = 64 << 20
_WHOLE_TILED_PLANE_BYTES = 8 << 20


@dataclass(frozen=True)
class _Meta:
    """What a TIFF file says about its image beside the pixels."""

    spacing_um: tuple[float | None, float | None, float | None] = (None, None, None)
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_tiff(path: Path, *, series: int = 0) -> ImageSource:
    """Open a TIFF file without loading it.

    Parameters
    ----------
    path
        The file.
    series
        Which image of a file with several.

    Returns
    -------
    ImageSource
        Axes, voxel size and channel names as far as the file gives them; pyramids as `multiscale`.

    Raises
    ------
    FileFormatError
        If the file is no TIFF, is truncated, or declares an absurd size.
    MissingDependencyError
        If its compression needs the optional imagecodecs package.
    """
    import tifffile

    with reading(path, "export it again as TIFF or OME-TIFF"):
        check_tiff(path)
    with reading(path, "export it again as TIFF or OME-TIFF"), tifffile.TiffFile(path) as tif:
        every = list(tif.series)
        if not every:
            raise FileFormatError(f"{path.name} holds no image; export it again")
        if not 0 <= series < len(every):
            raise FileFormatError(
                f"{path.name} has {len(every)} images, got series {series}; expected 0..{len(every) - 1}"
            )
        chosen = every[series]
        _check_series(tif, chosen, path)
        levels = [_level(chosen, index, path) for index in range(len(chosen.levels))]
        levels, axes, notes = settle_axes(levels, chosen.get_axes(False), path=path)
        kind, meta = _metadata(tif, chosen, index=series, n_series=len(every))
        notes += [note for note in meta.notes if "Z" in axes or "z spacing" not in note]
        spacing, guessed = _settle_spacing(meta.spacing_um, axes)
        named = not any(letter in "QI" for letter in chosen.axes)
        names = tuple(str(item.name or f"image {index}") for index, item in enumerate(every))
    return ImageSource(
        data=levels[0],
        axes=axes,
        spacing_um=spacing,
        channel_names=meta.channel_names,
        name=_name(path) if len(every) == 1 else f"{_name(path)} {names[series]}",
        path=path,
        units="px" if spacing is None else "um",
        kind=kind,
        axes_known=named,
        series=series,
        series_names=names,
        multiscale=tuple(levels),
        notes=tuple(notes + guessed),
    )


def _name(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tif", ".ome.tiff", ".ome.tf2", ".ome.btf", path.suffix):
        if suffix and name.lower().endswith(suffix.lower()):
            return name[: -len(suffix)]
    return name


def _check_series(tif: Any, series: Any, path: Path) -> None:
    """Check what only the whole file shows: data behind the last page, and the codec."""
    import tifffile

    page = series.keyframe
    size = path.stat().st_size
    if tif.is_imagej and series.kind != "imagej":
        meta = tif.imagej_metadata or {}
        planes = max(1, int(meta.get("images", 1)))
        if page.dataoffsets and page.dataoffsets[0] + planes * page.nbytes > size and len(tif.pages) < planes:
            raise FileFormatError(
                f"{path.name} is truncated: it declares {planes} planes of {page.nbytes:,} bytes but has {size:,}; "
                f"copy or export it again"
            )
    if series.dtype is None:
        raise FileFormatError(f"{path.name} holds samples of {page.bitspersample} bits that numpy has no type for")
    contiguous = series.dataoffset
    if contiguous is not None and contiguous + series.nbytes > size:
        raise FileFormatError(
            f"{path.name} is truncated: its image takes {series.nbytes:,} bytes from byte {contiguous:,} but the file "
            f"has {size:,}; copy or export it again"
        )
    n_pages = len(series.pages)
    if contiguous is None and series.kind != "ome" and series.size > page.size * n_pages:
        raise FileFormatError(
            f"{path.name} declares {series.shape} but holds {n_pages} planes of {page.shape}; it is truncated: "
            f"export it again"
        )
    try:
        decoder = tifffile.TIFF.DECOMPRESSORS[page.compression]
        if page.predictor != 1:
            _ = tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError as error:
        name = getattr(page.compression, "name", page.compression)
        raise MissingDependencyError(
            f"{path.name} is compressed with {name}, which needs the imagecodecs package; "
            f"run: pip install imagecodecs, or export the file uncompressed or with ZIP compression"
        ) from error
    _log.debug("%s: %s series, decoder %s", path.name, series.kind, decoder)


def _level(series: Any, index: int, path: Path) -> Any:
    """Wrap one resolution of a series as a lazy dask array, with all its axes (also those of length 1)."""
    import zarr

    page = series.levels[index].keyframe
    whole = page.nbytes <= (_WHOLE_TILED_PLANE_BYTES if page.is_tiled else _WHOLE_PLANE_BYTES)
    store = series.aszarr(level=index, squeeze=False, chunkmode=2 if whole else 0)
    array = zarr.open(store, mode="r")
    return lazy_dask(array, path, chunks=array.chunks, letters=series.get_axes(False))


def _metadata(tif: Any, series: Any, *, index: int, n_series: int) -> tuple[str, _Meta]:
    if tif.is_ome and series.kind == "ome":
        return "OME-TIFF", _ome(tif.ome_metadata, index, n_series)
    if tif.is_imagej:
        return "ImageJ TIFF", _imagej(tif.imagej_metadata or {}, series.keyframe)
    return "TIFF", _plain(series.keyframe)


def _ome(xml: str, index: int, n_series: int) -> _Meta:
    """Voxel size and channel names of an image of OME-XML."""
    try:
        root = ET.fromstring(xml)  # noqa: S314 - `check_tiff` refuses entities
    except ET.ParseError:
        return _Meta()
    pixels = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    if not pixels or (len(pixels) != n_series and index > 0):
        return _Meta(notes=("the voxel size of this image of the file is unknown",))
    chosen = pixels[index]
    zyx = [
        in_um(chosen.get(f"PhysicalSize{letter}"), chosen.get(f"PhysicalSize{letter}Unit"), default="µm")
        for letter in "ZYX"
    ]
    channels = [element for element in chosen if element.tag.rpartition("}")[2] == "Channel"]
    names = tuple(channel.get("Name") or f"channel {i}" for i, channel in enumerate(channels))
    return _Meta(spacing_um=(zyx[0], zyx[1], zyx[2]), channel_names=names)


def _imagej(meta: dict[str, Any], page: Any) -> _Meta:
    """Voxel size and channel names of ImageJ's description: pixels per unit in the tags, z spacing in the text."""
    unit = str(meta.get("unit") or "") or None
    pixels_per_y, pixels_per_x = _ratio(page, "YResolution"), _ratio(page, "XResolution")
    notes: tuple[str, ...] = ()
    x = in_um(1 / pixels_per_x, unit) if pixels_per_x else None
    y = in_um(1 / pixels_per_y, str(meta.get("yunit") or unit or "")) if pixels_per_y else None
    z = in_um(meta.get("spacing"), str(meta.get("zunit") or unit or ""))
    labels = meta.get("Labels") or []
    channels = int(meta.get("channels", 1))
    names = tuple(str(label) for label in labels[:channels]) if channels > 1 and len(labels) >= channels else ()
    return _Meta(spacing_um=(z, y, x), channel_names=names, notes=notes)


def _plain(page: Any) -> _Meta:
    """Voxel size of the resolution tags, where it can be one."""
    tag = page.tags.get("ResolutionUnit")
    unit = _RESOLUTION_UNITS.get(int(tag.value)) if tag is not None and isinstance(tag.value, int) else None
    sizes = []
    for key in ("YResolution", "XResolution"):
        ratio = _ratio(page, key)
        sizes.append(in_um(1 / ratio, unit) if ratio else None)
    if any(size is not None and size > _LARGEST_PLAIN_VOXEL_UM for size in sizes):
        return _Meta(notes=("the resolution in the file is one for printing and was not taken as voxel size",))
    return _Meta(spacing_um=(None, sizes[0], sizes[1]))


def _ratio(page: Any, key: str) -> float | None:
    """Return a RATIONAL tag as a number, or nothing where it is missing or zero."""
    tag = page.tags.get(key)
    if tag is None:
        return None
    try:
        numerator, denominator = tag.value
        ratio = float(numerator) / float(denominator)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return ratio if ratio > 0 else None


def _settle_spacing(
    zyx: tuple[float | None, float | None, float | None], axes: str
) -> tuple[tuple[float, float, float] | None, list[str]]:
    """Complete a voxel size: one of y and x stands for the other, z for neither without saying so."""
    z, y, x = zyx
    y, x = y or x, x or y
    if y is None or x is None:
        return None, []
    if "Z" not in axes:
        return (z or y, y, x), []
    if z is None:
        return (y, y, x), [
            f"the file gives no z spacing; {y:.4g} um is taken, as in y: set it if planes are further apart"
        ]
    return (z, y, x), []
