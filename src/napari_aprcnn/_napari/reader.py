"""napari reader: images with their voxel size, axis labels and channels, lazily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_aprcnn.io.source import ImageSource

__all__ = ["get_reader", "layers_of", "read"]

LayerData = tuple[Any, dict[str, Any], str]
_SUFFIXES = (".tif", ".tiff", ".tf2", ".tf8", ".btf", ".lsm", ".stk", ".zarr", ".npy")
_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the reader for a path, or ``None`` where this plugin does not read it; names are looked at, no more.

    Examples
    --------
    >>> get_reader("notes.txt") is None, callable(get_reader("embryo.ome.tif"))
    (True, True)
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    return read if paths and all(_readable(Path(one)) for one in paths) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Open one or several images as napari layers; several images of one shape are stacked along Z.

    Particle trees (``.apr``) become layers of their own.

    Raises
    ------
    FileFormatError
        If a file cannot be read.
    MissingDependencyError
        If what ``.apr`` files need is not installed.
    """
    from napari_aprcnn.io.read import open_image

    paths = [path] if isinstance(path, str | Path) else list(path)
    trees = [one for one in paths if _is_tree(Path(one))]
    if trees:
        from napari_aprcnn._napari.apr_reader import read_apr_layers

        others = [one for one in paths if not _is_tree(Path(one))]
        return [layer for one in trees for layer in read_apr_layers(one)] + (read(others) if others else [])
    sources = [open_image(one) for one in paths]
    if len(sources) > 1 and len({(source.shape, str(source.data.dtype)) for source in sources}) == 1:
        stacked = _stack(sources)
        if stacked is not None:
            return stacked
    return [layer for source in sources for layer in layers_of(source)]


def layers_of(source: ImageSource) -> list[LayerData]:
    """Turn an opened image into layer data.

    Parameters
    ----------
    source
        What `open_image` gave.

    Returns
    -------
    list of (data, kwargs, "image")
        One layer; napari splits the channels. Scale, units (micrometres where the file gives them, else pixels) and
        axis labels come from the file; a pyramid becomes a multiscale layer.
    """
    levels = list(source.multiscale) if len(source.multiscale) > 1 else None
    return [_layer(levels or source.data, source, source.axes)]


def _layer(data: Any, source: ImageSource, axes: str) -> LayerData:
    multiscale = isinstance(data, list)
    kept = axes.replace("C", "")
    sizes = dict(zip("ZYX", source.spacing_um, strict=True)) if source.spacing_um else {}
    options: dict[str, Any] = {
        "name": source.name,
        "scale": [sizes.get(letter, 1.0) for letter in kept],
        "units": ["micrometer" if letter in sizes else "pixel" for letter in kept],
        "axis_labels": [letter.lower() for letter in kept],
        "multiscale": multiscale,
        "metadata": {
            "path": str(source.path),
            "kind": source.kind,
            "axes": axes,
            "spacing_um": source.spacing_um,
            "notes": list(source.notes),
        },
    }
    if "C" in axes:
        channel = axes.index("C")
        shape = (data[0] if multiscale else data).shape
        if _is_colour(axes, shape, data[0].dtype if multiscale else data.dtype) and not source.channel_names:
            options["rgb"] = True
            return data, options, "image"
        names = [*source.channel_names, *(f"channel {i}" for i in range(len(source.channel_names), shape[channel]))]
        options["channel_axis"] = channel
        options["name"] = [f"{source.name} {name}".strip() for name in names[: shape[channel]]]
    return data, options, "image"


def _is_colour(axes: str, shape: tuple[int, ...], dtype: Any) -> bool:
    return axes.endswith("C") and shape[-1] in (3, 4) and str(dtype) == "uint8"


def _stack(sources: Sequence[ImageSource]) -> list[LayerData] | None:
    import dask.array as da

    first = sources[0]
    letter = next((letter for letter in "ZT" if letter not in first.axes), None)
    if letter is None:
        return None
    return [_layer(da.stack([source.data for source in sources]), first, letter + first.axes)]


def _readable(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).exists() for name in _ZARR_FILES)
    return path.suffix.lower() in _SUFFIXES or _is_tree(path)


def _is_tree(path: Path) -> bool:
    return path.suffix.lower() == ".apr"
