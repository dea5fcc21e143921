"""Measure all objects of a plane or volume in a few passes over its runs of equal voxels.

A run is a stretch of one label along x. There are many times fewer runs than voxels, and sizes, moments and boxes
follow from their ends; intensities are summed run by run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.io.objects_shape import crossings, hull_areas, surface_weights

__all__ = ["Columns", "measure_columns"]

Columns = dict[str, NDArray[Any]]
_SLAB_VOXELS = 1 << 23


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of the objects: label, plane, line, first voxel and one past the last."""

    label: NDArray[np.int64]
    z: NDArray[np.int64]
    y: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def measure_columns(
    labels: NDArray[Any],
    values: NDArray[Any] | None = None,
    *,
    spacing_um: tuple[float, float, float] | None = None,
    origin: tuple[int, ...] | None = None,
    whole: tuple[int, ...] | None = None,
) -> Columns:
    """Measure every object; see `ObjectTable` for the columns.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
        0 and below is background.
    values : array of the same shape
        Intensities.
    spacing_um
        Edges (z, y, x) of a voxel.
    origin, whole
        Place of the labels in a larger image, and its shape: of a part, places and borders are those of the whole.

    Returns
    -------
    dict of (N,) arrays
        Ordered by label.
    """
    rank = labels.ndim
    volume = labels if rank == 3 else labels[None]
    image = values if values is None or rank == 3 else values[None]
    parts = list(_runs(volume, image))
    runs = _Runs(*(np.concatenate([getattr(part[0], name) for part in parts]) for name in _Runs.__annotations__))
    ids, index = _dense(runs.label)
    columns: Columns = {"label": ids}
    columns |= _geometry(runs, index, len(ids), rank, spacing_um, origin or (0,) * rank, whole or labels.shape)
    steps = spacing_um or (1.0, 1.0, 1.0)
    dense = _dense_image(volume, runs, index)
    surface, neighbours = crossings(dense, len(ids), surface_weights(steps) if rank == 3 else {})
    if rank == 3:
        columns["surface_um2" if spacing_um else "surface_px2"] = surface
        volumes = columns["volume_vox"] * float(np.prod(steps))
        # The estimate of a few voxels is rough: nothing is rounder than a sphere.
        columns["sphericity"] = np.minimum(1.0, np.pi ** (1 / 3) * (6 * volumes) ** (2 / 3) / surface)
    else:
        columns["solidity"] = columns["area_px"] / hull_areas(index + 1, runs.y, runs.first, runs.last)
    columns["neighbours"] = neighbours.astype(np.int64)
    if image is not None:
        size = columns["volume_vox" if rank == 3 else "area_px"]
        columns |= _intensities(np.concatenate([part[1] for part in parts], axis=1), index, size, image.dtype)
    return columns


# --- runs ------------------------------------------------------------------------------------------------------------


def _runs(volume: NDArray[Any], image: NDArray[Any] | None) -> Iterator[tuple[_Runs, NDArray[np.float64]]]:
    """Yield the runs of some planes at a time, with sum, shifted sum of squares, least and largest value of each."""
    depth, height, width = volume.shape
    step = max(1, _SLAB_VOXELS // max(1, height * width))
    # Squares of small whole numbers are summed without loss.
    shift = float(np.mean(image[depth // 2], dtype=np.float64)) if image is not None and image.size else 0.0
    shift = float(np.round(shift)) if np.isfinite(shift) and abs(shift) > 1 else 0.0
    for z0 in range(0, max(1, depth), step):
        slab = np.ascontiguousarray(volume[z0 : z0 + step])
        change = np.ones(slab.shape, bool)
        np.not_equal(slab[..., 1:], slab[..., :-1], out=change[..., 1:])
        starts = np.flatnonzero(change)
        label = slab.reshape(-1)[starts]
        ends = np.append(starts[1:], slab.size)
        inside = label > 0
        line, first = np.divmod(starts[inside], max(1, width))
        z, y = np.divmod(line, max(1, height))
        runs = _Runs(label[inside].astype(np.int64), z + z0, y, first, first + (ends - starts)[inside])
        yield runs, _sums(image, z0, step, starts, inside, shift)


def _sums(
    image: NDArray[Any] | None,
    z0: int,
    step: int,
    starts: NDArray[np.int64],
    inside: NDArray[np.bool_],
    shift: float,
) -> NDArray[np.float64]:
    """Sum, sum of the shifted squares, shifted sum, least and largest of the image in each run of an object."""
    if image is None or not len(starts):
        return np.zeros((5, 0))
    flat = np.ascontiguousarray(image[z0 : z0 + step]).reshape(-1)
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    exact = flat.astype(np.float64)
    low, high = np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)
    total = np.add.reduceat(exact, starts)
    exact -= shift  # small numbers, so that squares lose no digits
    about = np.add.reduceat(exact, starts)
    np.multiply(exact, exact, out=exact)
    squares = np.add.reduceat(exact, starts)
    return np.stack([part[inside].astype(np.float64) for part in (total, squares, about, low, high)])


def _dense(label: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels that there are, and the place of each run's label among them."""
    largest = int(label.max(initial=0))
    if largest > 4 * len(label) + 1_000_000:
        # A few large ids would make the table huge.
        return np.unique(label, return_inverse=True)
    seen = np.zeros(largest + 1, bool)
    seen[label] = True
    ids = np.flatnonzero(seen)
    place = np.cumsum(seen) - 1
    return ids, place[label]


def _dense_image(volume: NDArray[Any], runs: _Runs, index: NDArray[np.int64]) -> NDArray[np.int32]:
    """Objects numbered 1..N, painted run by run."""
    _, height, width = volume.shape
    out = np.zeros(volume.size, np.int32)
    lengths = runs.last - runs.first
    starts = (runs.z * height + runs.y) * width + runs.first
    # Differences at the ends of runs, summed up: one pass instead of a loop over runs.
    number = (index + 1).astype(np.int32)
    out[starts] += number
    ends = starts + lengths
    within = ends < out.size
    out[ends[within]] -= number[within]
    return np.cumsum(out, dtype=np.int32, out=out).reshape(volume.shape)


# --- what follows from runs ------------------------------------------------------------------------------------------


def _geometry(
    runs: _Runs,
    index: NDArray[np.int64],
    n: int,
    rank: int,
    spacing_um: tuple[float, float, float] | None,
    origin: tuple[int, ...],
    whole: tuple[int, ...],
) -> Columns:
    letters, names = "zyx"[-rank:], ("area_px", "area_um2") if rank == 2 else ("volume_vox", "volume_um3")
    steps = np.array((spacing_um or (1.0, 1.0, 1.0))[-rank:])
    length = runs.last - runs.first
    size = np.bincount(index, weights=length, minlength=n).astype(np.float64)
    columns: Columns = {names[0]: size.astype(np.int64)}
    if spacing_um:
        columns[names[1]] = size * float(np.prod(steps))
    diameter = (6 * size / np.pi) ** (1 / 3) if rank == 3 else (4 * size / np.pi) ** 0.5
    unit = "um" if spacing_um else "px"
    columns[f"equivalent_diameter_{unit}"] = diameter * float(np.prod(steps)) ** (1 / rank)
    middle, spread = _moments(runs, index, n, size, rank)
    axes = _axes(spread * steps[:, None] * steps[None, :], rank)
    for position, name in enumerate(("major", "middle", "minor") if rank == 3 else ("major", "minor")):
        columns[f"axis_{name}_{unit}"] = axes[:, position]
    for axis, letter in enumerate(letters):
        columns[f"centroid_{letter}_px"] = middle[:, axis] + origin[axis]
    if spacing_um:
        for axis, letter in enumerate(letters):
            columns[f"centroid_{letter}_um"] = (middle[:, axis] + origin[axis]) * steps[axis]
    border = np.zeros(n, bool)
    ends = ((runs.z, runs.z + 1), (runs.y, runs.y + 1), (runs.first, runs.last))[-rank:]
    for axis, ((first, last), letter) in enumerate(zip(ends, letters, strict=True)):
        low, high = np.full(n, np.iinfo(np.int64).max), np.zeros(n, np.int64)
        np.minimum.at(low, index, first)
        np.maximum.at(high, index, last)
        low, high = low + origin[axis], high + origin[axis]
        columns[f"bbox_{letter}0_px"], columns[f"bbox_{letter}1_px"] = low, high
        border |= (low == 0) | (high == whole[axis])
    columns["touches_border"] = border
    return columns


def _moments(
    runs: _Runs, index: NDArray[np.int64], n: int, size: NDArray[np.float64], rank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centroids (N, D) in voxels, and covariances (N, D, D) of the voxels' centres."""
    length = (runs.last - runs.first).astype(np.float64)
    places = [runs.z.astype(np.float64), runs.y.astype(np.float64), (runs.first + runs.last - 1) / 2][-rank:]
    middle = np.stack([np.bincount(index, weights=length * place, minlength=n) / size for place in places], axis=1)
    about = [place - middle[index, axis] for axis, place in enumerate(places)]
    spread = np.empty((n, rank, rank))
    for i in range(rank):
        for j in range(i, rank):
            weights = length * about[i] * about[j]
            if i == j == rank - 1:
                weights += length * (length**2 - 1) / 12  # of a run around its own middle
            spread[:, i, j] = spread[:, j, i] = np.bincount(index, weights=weights, minlength=n) / size
    return middle, spread


def _axes(spread: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Axes, longest first, of the ellipses or ellipsoids of the same second moments."""
    variances = np.linalg.eigvalsh(spread)[:, ::-1] if len(spread) else np.zeros((0, rank))
    factor = 4.0 if rank == 2 else 2.0 * np.sqrt(5.0)
    return np.asarray(factor * np.sqrt(np.maximum(variances, 0.0)))


def _intensities(
    parts: NDArray[np.float64], index: NDArray[np.int64], size: NDArray[np.int64], dtype: np.dtype[Any]
) -> Columns:
    n = len(size)
    least, largest = np.full(n, np.inf), np.full(n, -np.inf)
    with np.errstate(invalid="ignore"):
        np.minimum.at(least, index, parts[3])
        np.maximum.at(largest, index, parts[4])
    total, squares, about = (np.bincount(index, weights=part, minlength=n) for part in parts[:3])
    whole = dtype.kind in "iub"
    variance = (squares * size - about**2) / size.astype(np.float64) ** 2
    variance[variance <= 1e-13 * squares / size] = 0.0  # rounding, of objects of one value
    return {
        "intensity_mean": total / size,
        "intensity_std": np.sqrt(variance),
        "intensity_min": least.astype(np.int64) if whole else least,
        "intensity_max": largest.astype(np.int64) if whole else largest,
        "intensity_sum": total,
    }
