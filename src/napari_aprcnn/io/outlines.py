"""Outlines of objects along the pixels' edges: ImageJ ROIs and GeoJSON.

The polygons run along the corners of pixels, so that filling one gives back exactly the pixels of the object.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError, OutputError
from napari_aprcnn.io.atomic import beside

__all__ = ["Outline", "outlines", "write_geojson", "write_rois"]

_MOST_ROIS = 1_000_000


@dataclass(frozen=True, eq=False)
class Outline:
    """One connected part of an object in a plane.

    Attributes
    ----------
    label
        The object.
    outer : (N, 2) int64
        Corners (y, x) in pixels, clockwise on the screen, not closed; pixel (0, 0) covers 0..1.
    holes : list of (M, 2) int64
        Corners of the holes, counter-clockwise.
    """

    label: int
    outer: NDArray[np.int64]
    holes: list[NDArray[np.int64]]


def outlines(plane: NDArray[Any]) -> list[Outline]:
    """Trace every object of a 2D label image.

    Pixels that touch only at a corner are separate parts.

    Parameters
    ----------
    plane : (Y, X) integers
        Label image.

    Returns
    -------
    list of Outline
        In the order of the labels.

    Examples
    --------
    >>> outlines(np.array([[0, 7]]))[0].outer.tolist()
    [[0, 1], [0, 2], [1, 2], [1, 1]]
    """
    from skimage.measure import label

    parts = label(np.asarray(plane), background=0, connectivity=1)
    owners, starts, directions = _edges(parts)
    if owners.size == 0:
        return []
    following = _link(owners, starts, directions, width=plane.shape[1] + 1)
    outer: dict[int, tuple[int, NDArray[np.int64]]] = {}
    holes: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    pixel = starts + _INSIDE[directions]
    for edge, corners in _loops(following, starts, directions):
        part = int(owners[edge])
        if _area(corners) > 0:
            outer[part] = int(plane[pixel[edge, 0], pixel[edge, 1]]), corners
        else:
            holes[part].append(corners)
    found = [Outline(name, corners, holes[part]) for part, (name, corners) in outer.items()]
    return sorted(found, key=lambda outline: outline.label)


def _loops(
    following: NDArray[np.int64], starts: NDArray[np.int64], directions: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Walk the edges and yield simple loops: one of their edges, and their corners.

    A loop that touches itself at a corner is split there, since a ring of GeoJSON must be simple.
    """
    # Only corners where the direction changes stay; the inverse of the permutation gives the edge before.
    steps = following.tolist()
    turns = (directions != directions[np.argsort(following)]).tolist()
    vertices = (starts[:, 0] * (int(starts[:, 1].max()) + 2) + starts[:, 1]).tolist()
    seen = [False] * len(steps)
    for first in range(len(steps)):
        if seen[first]:
            continue
        loop: list[int] = []
        places: dict[int, int] = {}
        edge = first
        while not seen[edge]:
            seen[edge] = True
            if turns[edge]:
                again = places.get(vertices[edge])
                if again is not None:
                    yield first, starts[loop[again:]]
                    for removed in loop[again:]:
                        places.pop(vertices[removed], None)
                    del loop[again:]
                places[vertices[edge]] = len(loop)
                loop.append(edge)
            edge = steps[edge]
        yield first, starts[loop]


# Directions: 0 right, 1 down, 2 left, 3 up; the object is on the right-hand side of the way (y points down).
_STEP = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]], np.int64)
# From the corner where an edge starts to its pixel.
_INSIDE = np.array([[0, 0], [0, -1], [-1, -1], [-1, 0]], np.int64)


def _edges(plane: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return part, start corner and direction of every pixel edge between different parts."""
    padded = np.pad(np.asarray(plane), 1).astype(np.int64)
    inner = padded[1:-1, 1:-1]
    labels, starts, directions = [], [], []
    # The neighbour beyond each side, and the corner where the edge along this side starts.
    for direction, (neighbour, corner) in enumerate(
        [
            (padded[:-2, 1:-1], (0, 0)),
            (padded[1:-1, 2:], (0, 1)),
            (padded[2:, 1:-1], (1, 1)),
            (padded[1:-1, :-2], (1, 0)),
        ]
    ):
        where = np.argwhere((inner != neighbour) & (inner != 0))
        labels.append(inner[where[:, 0], where[:, 1]])
        starts.append(where + corner)
        directions.append(np.full(len(where), direction, np.int64))
    return np.concatenate(labels), np.concatenate(starts), np.concatenate(directions)


def _link(
    labels: NDArray[np.int64], starts: NDArray[np.int64], directions: NDArray[np.int64], *, width: int
) -> NDArray[np.int64]:
    """Return for each edge the next one of the same outline."""
    ends = starts + _STEP[directions]
    n_corners = (int(starts[:, 0].max()) + 2) * (width + 1)

    def key(corners: NDArray[np.int64]) -> NDArray[np.int64]:
        return labels * n_corners + corners[:, 0] * (width + 1) + corners[:, 1]

    outgoing = key(starts) * 4 + directions
    order = np.argsort(outgoing)
    # Where two pixels of an object touch at a corner there are two ways out: turning right separates the pixels.
    found = np.full(labels.size, -1, np.int64)
    for turn in (1, 0, 3):
        wanted = key(ends) * 4 + (directions + turn) % 4
        place = np.minimum(np.searchsorted(outgoing, wanted, sorter=order), labels.size - 1)
        hit = (outgoing[order[place]] == wanted) & (found < 0)
        found[hit] = order[place[hit]]
    return found


def _area(loop: NDArray[np.int64]) -> float:
    """Signed area in pixels: positive around pixels, negative around a hole."""
    y, x = loop[:, 0], loop[:, 1]
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]) + x[-1] * y[0] - x[0] * y[-1]) / 2


def _planes(labels: Any, axes: str) -> Iterator[tuple[int | None, int | None, NDArray[Any]]]:
    """Yield (t, z, plane) with y, x axes for every plane of a label image."""
    axes = axes.upper()
    if len(axes) != labels.ndim or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes) <= set("TZYX"):
        raise AxesError(f"axes {axes!r} do not fit labels of shape {labels.shape}; expected letters out of T, Z, Y, X")
    order = [axes.index(letter) for letter in "TZYX" if letter in axes]
    labels = labels.transpose(order) if order != sorted(order) else labels
    leading = [letter for letter in "TZ" if letter in axes]
    for index in np.ndindex(*labels.shape[:-2]):
        place = dict(zip(leading, index, strict=True))
        yield place.get("T"), place.get("Z"), np.asarray(labels[index])


def write_rois(
    labels: Any, path: Path | str, *, axes: str | None = None, hyperstack: bool = False, overwrite: bool = False
) -> Path:
    """Write the outer outlines as an ImageJ ROI zip: one polygon for each object, plane and part.

    The names are ``LABEL``, ``LABEL-zZ`` or ``LABEL-tT-zZ``; the position in the stack is set. Holes are left out:
    ImageJ's polygon has none (GeoJSON keeps them).

    Parameters
    ----------
    labels : (T?, Z?, Y, X) integers
        Label image.
    path
        Where to, ``.zip``.
    axes
        One letter for each axis; by default the last of TZYX.
    hyperstack
        Whether the image has several channels: ImageJ then counts positions as channel, slice and frame.
    overwrite
        Replace what is there.

    Raises
    ------
    OutputError
        If it cannot be written, or there are more than a million outlines.
    """
    from roifile import ROI_TYPE, ImagejRoi

    axes = axes or "TZYX"[-labels.ndim :]
    used: dict[str, int] = defaultdict(int)
    with (
        beside(path, overwrite=overwrite) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for t, z, plane in _planes(labels, axes):
            for outline in outlines(plane):
                name = f"{outline.label:05d}" + (f"-t{t + 1:04d}" if t is not None else "")
                name += f"-z{z + 1:04d}" if z is not None else ""
                used[name] += 1
                name += f"-{used[name]}" if used[name] > 1 else ""
                if len(used) > _MOST_ROIS:
                    raise OutputError(
                        f"more than {_MOST_ROIS:,} outlines for one ROI zip; write GeoJSON or labels instead"
                    )
                roi = ImagejRoi.frompoints(outline.outer[:, ::-1].astype(np.int32), name=name)
                # What the wand of ImageJ makes: a polygon along the corners of pixels.
                roi.roitype = ROI_TYPE.TRACED
                if hyperstack or (t is not None and z is not None):
                    # Channel 0: shown on all of them.
                    roi.z_position, roi.t_position = (z or 0) + 1, (t or 0) + 1
                elif t is not None or z is not None:
                    roi.position = (t or 0) + (z or 0) + 1
                archive.writestr(f"{name}.roi", roi.tobytes())
    return Path(path)


def write_geojson(
    labels: Any,
    path: Path | str,
    *,
    axes: str | None = None,
    spacing_um: tuple[float, float, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the outlines as GeoJSON: one feature for each object and plane, with holes, as QuPath reads it.

    Coordinates are x, y in pixels, (0, 0) the corner of the first pixel.

    Parameters
    ----------
    labels : (T?, Z?, Y, X) integers
        Label image.
    path
        Where to, ``.geojson``.
    axes
        One letter for each axis; by default the last of TZYX.
    spacing_um
        Voxel size (z, y, x) in micrometres; adds the area in um2 to the properties.
    overwrite
        Replace what is there.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    axes = axes or "TZYX"[-labels.ndim :]
    with beside(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for t, z, plane in _planes(labels, axes):
            parts = defaultdict(list)
            for outline in outlines(plane):
                parts[outline.label].append(outline)
            for label, group in parts.items():
                file.write(separator + json.dumps(_feature(label, group, t=t, z=z, spacing_um=spacing_um)))
                separator = ",\n"
        file.write("\n]}\n")
    return Path(path)


def _feature(
    label: int, parts: list[Outline], *, t: int | None, z: int | None, spacing_um: tuple[float, float, float] | None
) -> dict[str, Any]:
    polygons = [[_ring(part.outer), *(_ring(hole) for hole in part.holes)] for part in parts]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": polygons[0]}
    if len(polygons) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
    area = sum(_area(part.outer) + sum(_area(hole) for hole in part.holes) for part in parts)
    properties: dict[str, Any] = {
        "objectType": "detection",
        "classification": {"name": "Nucleus", "color": [0, 158, 115]},
        "name": str(label),
        "label": label,
        "area_px": int(area),
    }
    if spacing_um is not None:
        properties["area_um2"] = area * spacing_um[1] * spacing_um[2]
    if t is not None or z is not None:
        geometry["plane"] = {"c": -1, "z": z or 0, "t": t or 0}
        properties |= {key: value for key, value in (("t", t), ("z", z)) if value is not None}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _ring(loop: NDArray[np.int64]) -> list[list[int]]:
    points = loop[:, ::-1].tolist()
    return [*points, points[0]]
