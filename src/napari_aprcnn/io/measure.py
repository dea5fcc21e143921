"""Measurements of every object: size, place, shape and intensity, with the unit in each name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AxesError
from napari_aprcnn.io.atomic import beside

__all__ = ["measure", "write_measurements"]

Spacing = tuple[float, float, float]


def measure(
    labels: Any, *, axes: str | None = None, spacing_um: Spacing | None = None, image: Any = None
) -> list[dict[str, float | int]]:
    """Measure every object of a label image.

    Parameters
    ----------
    labels : (T?, Z?, Y, X) integers
        Label image; one time point is held in memory at a time.
    axes
        One letter for each axis; by default the last of TZYX.
    spacing_um
        Voxel size (z, y, x) in micrometres; without it there are no columns in micrometres.
    image : array of the shape of `labels`
        Intensities.

    Returns
    -------
    list of dict
        A row for each object and time point: ``label``, ``t``, ``area_px`` or ``volume_vox`` (``area_um2``,
        ``volume_um3``), ``centroid_*``, ``bbox_*`` (half open, pixels), ``equivalent_diameter_*``, ``solidity`` (2D:
        area over the area of the convex hull), ``sphericity`` (3D: surface of the sphere of equal volume over the
        surface of its mesh, at most 1; a digital sphere has about 0.92),
        ``intensity_mean``, ``_min``, ``_max`` and ``_sum``. Centroids count from the middle of the first voxel.

    Raises
    ------
    AxesError
        If the axes or the image do not fit the labels.

    Examples
    --------
    >>> row = measure(np.pad(np.ones((2, 3), np.uint8), 1), spacing_um=(1, 0.5, 0.5))[0]
    >>> row["area_px"], row["area_um2"], row["centroid_y_um"], row["solidity"]
    (6, 1.5, 0.75, 1.0)
    """
    return list(_rows(labels, axes=axes, spacing_um=spacing_um, image=image))


def write_measurements(
    labels: Any,
    path: Path | str,
    *,
    axes: str | None = None,
    spacing_um: Spacing | None = None,
    image: Any = None,
    overwrite: bool = False,
) -> Path:
    """Write the table of `measure` as CSV (UTF-8, comma, point as decimal mark).

    Raises
    ------
    OutputError
        If it cannot be written.
    AxesError
        If the axes or the image do not fit the labels.
    """
    rows = measure(labels, axes=axes, spacing_um=spacing_um, image=image)
    rank = 3 if "Z" in (axes or "TZYX"[-labels.ndim :]).upper() else 2
    names = list(rows[0]) if rows else ["label", "volume_vox" if rank == 3 else "area_px"]
    with beside(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _short(value) for name, value in row.items()})
    return Path(path)


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"


def _rows(labels: Any, *, axes: str | None, spacing_um: Spacing | None, image: Any) -> Iterator[dict[str, float | int]]:
    axes = (axes or "TZYX"[-labels.ndim :]).upper()
    if len(axes) != labels.ndim or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes) <= set("TZYX"):
        raise AxesError(f"axes {axes!r} do not fit labels of shape {labels.shape}; expected letters out of T, Z, Y, X")
    if image is not None and tuple(image.shape) != tuple(labels.shape):
        raise AxesError(
            f"the image has shape {image.shape}, the labels {labels.shape}; expected the same, without channels"
        )
    order = [axes.index(letter) for letter in "TZYX" if letter in axes]
    labels = labels.transpose(order)
    image = image.transpose(order) if image is not None else None
    for t in range(labels.shape[0]) if "T" in axes else [None]:
        volume = np.asarray(labels if t is None else labels[t])
        values = None if image is None else np.asarray(image if t is None else image[t])
        for row in _volume(volume, values, spacing_um):
            yield row if t is None else {"label": row.pop("label"), "t": t, **row}


def _volume(
    volume: NDArray[Any], values: NDArray[Any] | None, spacing_um: Spacing | None
) -> Iterator[dict[str, float | int]]:
    from scipy import ndimage

    largest = int(volume.max(initial=0))
    if largest > 2 * volume.size:
        # A few large ids would make the list of boxes huge.
        ids, dense = np.unique(volume, return_inverse=True)
        dense = dense.reshape(volume.shape) + (0 if ids[0] == 0 else 1)
        ids = ids if ids[0] == 0 else np.concatenate([[0], ids])
    else:
        ids, dense = np.arange(largest + 1), volume
    for index, box in enumerate(ndimage.find_objects(dense.astype(np.int64, copy=False)), start=1):
        if box is None:
            continue
        mask = dense[box] == index
        row = _object(mask, box, spacing_um)
        if values is not None:
            inside = values[box][mask]
            row |= {
                "intensity_mean": float(inside.mean(dtype=np.float64)),
                "intensity_min": _plain(inside.min()),
                "intensity_max": _plain(inside.max()),
                "intensity_sum": float(inside.sum(dtype=np.float64)),
            }
        yield {"label": int(ids[index]), **row}


def _plain(value: Any) -> float | int:
    return int(value) if np.issubdtype(type(value), np.integer) else float(value)


def _object(mask: NDArray[np.bool_], box: tuple[slice, ...], spacing_um: Spacing | None) -> dict[str, float | int]:
    """Size, place and shape of one object, from its mask within its bounding box."""
    rank, letters = mask.ndim, "zyx"[-mask.ndim :]
    size = int(np.count_nonzero(mask))
    steps = spacing_um[-rank:] if spacing_um is not None else None
    row: dict[str, float | int] = {"volume_vox" if rank == 3 else "area_px": size}
    if steps is not None:
        row["volume_um3" if rank == 3 else "area_um2"] = size * float(np.prod(steps))
    middle = [
        float(np.dot(np.arange(n), mask.sum(axis=tuple(a for a in range(rank) if a != axis)))) / size + box[axis].start
        for axis, n in enumerate(mask.shape)
    ]
    row |= {f"centroid_{letter}_px": value for letter, value in zip(letters, middle, strict=True)}
    if steps is not None:
        row |= {f"centroid_{letters[i]}_um": middle[i] * steps[i] for i in range(rank)}
    row |= {f"bbox_{letters[i]}0_px": int(box[i].start) for i in range(rank)}
    row |= {f"bbox_{letters[i]}1_px": int(box[i].stop) for i in range(rank)}
    row["equivalent_diameter_px"] = _diameter(size, rank)
    if steps is not None:
        row["equivalent_diameter_um"] = _diameter(size * float(np.prod(steps)), rank)
    if rank == 2:
        row["solidity"] = size / _hull_area(mask)
    else:
        row["sphericity"] = _sphericity(mask, steps or (1.0, 1.0, 1.0))
    return row


def _diameter(size: float, rank: int) -> float:
    return float((6 * size / np.pi) ** (1 / 3) if rank == 3 else (4 * size / np.pi) ** 0.5)


def _hull_area(mask: NDArray[np.bool_]) -> float:
    """Area of the convex hull of a mask's pixels (their corners), in pixels."""
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows][:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)])
    return float(ConvexHull(np.concatenate([ends, ends + np.array([1, 0])])).volume)


def _sphericity(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> float:
    """Surface of the sphere of equal volume over the mesh's surface."""
    from skimage.measure import marching_cubes, mesh_surface_area

    padded = np.pad(mask, 1).astype(np.float32)
    vertices, faces, *_ = marching_cubes(padded, 0.5, spacing=steps)
    volume = np.count_nonzero(mask) * float(np.prod(steps))
    # The mesh cuts the corners of voxels, which makes objects of a few voxels rounder than round.
    return min(1.0, float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / mesh_surface_area(vertices, faces)))
