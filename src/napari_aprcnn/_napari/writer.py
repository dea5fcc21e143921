"""napari writer: labels with their voxel size, as TIFF or OME-Zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine, CompositeAffine

from napari_aprcnn._napari.geometry import edges, micrometres
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn.errors import AxesError
from napari_aprcnn.io.atomic import write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_labels_layer"]


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one labels layer; the suffix decides the format (.tif, .ome.tif, .zarr, .ome.zarr).

    Parameters
    ----------
    path
        Where to. An existing file is replaced: napari has asked.
    data
        Labels of the layer; of a multiscale layer the list of its levels.
    attributes
        The layer's attributes: transforms, units, axis labels.

    Returns
    -------
    list of str
        The paths that were written: the labels, and for labels of a run its configuration and readout,
        ``NAME_run.json``.

    Raises
    ------
    OutputError
        If it cannot be written; nothing partial is left.
    AxesError
        If the labels have axes that no file format of ours holds.
    """
    from napari_aprcnn.io.write import write_labels

    labels = data[0] if attributes.get("multiscale") or isinstance(data, list | tuple) else data
    names = [str(name).lower() for name in attributes.get("axis_labels") or ()]
    sizes = _edges(labels.ndim, attributes)
    units = list(attributes.get("units") or ["pixel"] * labels.ndim)
    channel = next((axis for axis, name in enumerate(names) if name in ("c", "channel", "channels")), None)
    if channel is not None and labels.shape[channel] == 1:
        # The one stretched over all channels, so that the labels follow the viewer's other sliders.
        labels = labels[(slice(None),) * channel + (0,)]
        sizes = np.delete(sizes, channel)
        del units[channel], names[channel]
    axes = _axes(labels.ndim, names)
    written = write_labels(labels, Path(path), axes=axes, spacing_um=_spacing(axes, sizes, units), overwrite=True)
    return [str(written), *_write_run(written, attributes.get("metadata") or {})]


def _write_run(path: Path, metadata: dict[str, Any]) -> list[str]:
    """Write what replays the run beside its labels, under the name that the command line gives it."""
    record = metadata.get(KEY)
    if not isinstance(record, dict) or "config" not in record:
        return []
    stem = path.name
    for suffix in (path.suffix, ".ome"):
        stem = stem.removesuffix(suffix)
    run = path.with_name(f"{stem.removesuffix('_labels')}_run.json")
    parts = {name: json.loads(record[name]) for name in ("config", "readout") if name in record}
    write_text(json.dumps(parts, indent=2) + "\n", run, overwrite=True)
    return [str(run)]


def _axes(rank: int, names: list[str]) -> str:
    letters = "".join(name[:1].upper() for name in names)
    if len(letters) == rank and set(letters) <= set("TZYX") and len(set(letters)) == rank:
        return letters
    if not 2 <= rank <= 4:
        raise AxesError(f"the labels have {rank} axes, expected 2 to 4 out of T, Z, Y, X; save a part of them")
    return "TZYX"[4 - rank :]


def _edges(rank: int, attributes: dict[str, Any]) -> NDArray[np.float64]:
    """Return the edges of a voxel in the layer's units, from all of its transforms."""
    given = {name: attributes[name] for name in ("scale", "rotate", "shear") if attributes.get(name) is not None}
    affine = attributes.get("affine")
    matrix = np.eye(rank + 1) if affine is None else np.asarray(getattr(affine, "affine_matrix", affine), float)
    return edges(CompositeAffine(**given, ndim=rank), Affine(affine_matrix=matrix))


def _spacing(axes: str, voxel: NDArray[np.float64], units: list[Any]) -> tuple[float, float, float] | None:
    sizes = {letter: float(edge) for letter, edge in zip(axes, voxel, strict=True)}
    factors = {letter: micrometres(unit) for letter, unit in zip(axes, units, strict=True)}
    known = all(factors[letter] is not None for letter in axes if letter != "T")
    if not known and all(np.isclose(sizes[letter], 1.0) for letter in axes if letter != "T"):
        return None
    y, x = (sizes[letter] * (factors[letter] or 1.0) for letter in "YX")
    z = sizes["Z"] * (factors["Z"] or 1.0) if "Z" in sizes else y
    return (z, y, x)
