"""A table of points as a layer on the labels that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Labels

from napari_aprcnn._napari.evaluate_sources import axes_of
from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn.cli.evaluate import parse_columns
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AxesError, ConfigError, FileFormatError
from napari_aprcnn.io.points import read_points

__all__ = ["points_layer"]


def points_layer(path: Path, columns: str, like: Labels | None) -> tuple[Any, dict[str, Any]]:
    """Read points (CSV) and say where their layer belongs.

    Parameters
    ----------
    path
        The table.
    columns
        Which column holds which axis, as ``z=slice,y=Y,x=X``; empty: found by their names.
    like
        Labels that the points are counted against: voxels are theirs.

    Returns
    -------
    coordinates : (N, D) float64
        Voxels of `like`.
    options : dict
        Name and place of a points layer.

    Raises
    ------
    FileFormatError, ConfigError, AxesError
        If the table cannot be read, or its axes are not those of the labels.
    """
    if like is None:
        raise ConfigError("got points and no labels; choose the labels first that the points are to be counted against")
    mapping = AxisMapping(order=axes_of(like))
    image = image_of(like)
    um = image.spacing(mapping).um
    spatial = sum(letter in "ZYX" for letter in mapping.order)
    try:
        points = read_points(path, columns=parse_columns(columns.strip() or None), spacing_um=um and um[-spatial:])
    except OSError as error:
        raise FileFormatError(f"{path} cannot be opened ({error.strerror or error}); choose another table") from error
    if points.axes != mapping.order:
        raise AxesError(
            f"{path.name} has points of the axes {points.axes}, {like.name} has {mapping.order}; say which columns "
            "hold them, as z=slice,y=Y,x=X, or choose other labels"
        )
    return points.coordinates, {
        "name": path.stem,
        "size": 5,
        "out_of_slice_display": True,
        **image.place(mapping).kwargs,
    }
