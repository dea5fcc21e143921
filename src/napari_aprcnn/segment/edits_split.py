"""Split an object: into a number of parts, from seeds, or along a line or plane. The largest part keeps the id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.segment.edits_history import Box, Edit, EditError, SeedError, record
from napari_aprcnn.segment.edits_tools import find_objects, free_ids, sampling

__all__ = ["split_at_seeds", "split_by_plane", "split_into_parts"]

Spacing = tuple[float, float, float]
_MOST_BASINS = 400


def split_into_parts(
    labels: NDArray[Any],
    label: int,
    n_parts: int = 2,
    *,
    spacing_um: Spacing | None = None,
    within: Box | None = None,
    above: int = 0,
) -> Edit:
    """Split an object at its necks, by a watershed on the distance to its outline.

    Of all basins of the watershed those that are told apart by the shallowest necks are joined until `n_parts` are
    left. An object without so many basins is cut into compact pieces of similar size.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
        Changed in place.
    label
        The object.
    n_parts
        2 or more.
    spacing_um
        Edges (z, y, x) of a voxel.
    within
        Region where it lies, if it is known.
    above
        New ids are above this number too.

    Raises
    ------
    EditError
        If it has too few voxels, or `n_parts` is less than 2.
    UnknownObjectError, FullLabelsError
        If there is no such object, or no id left.

    Examples
    --------
    >>> labels = np.array([[0, 3, 3, 3, 0, 0], [0, 3, 3, 3, 3, 3], [0, 3, 3, 3, 0, 3], [0, 0, 0, 0, 0, 3]])
    >>> split_into_parts(labels, 3, 2).objects
    (3, 4)
    """
    region, sizes = find_objects(labels, [label], within=within)
    if n_parts < 2:
        raise EditError(f"got {n_parts} parts, expected 2 or more")
    if sizes[label] < n_parts:
        raise EditError(f"object {label} has {sizes[label]} voxels and cannot be split into {n_parts} parts")
    steps = sampling(labels, spacing_um)
    mask = labels[region] == label
    parts = _by_necks(mask, n_parts, steps)
    if parts is None:
        parts = _compact(mask, n_parts, steps)
    return _number(labels, region, mask, parts, label, above)


def split_at_seeds(
    labels: NDArray[Any],
    label: int,
    seeds: Sequence[Sequence[float]],
    *,
    spacing_um: Spacing | None = None,
    within: Box | None = None,
    above: int = 0,
) -> Edit:
    """Split an object into the parts that belong to seeds, by a watershed on the distance to its outline.

    Parameters
    ----------
    seeds
        Two points or more in the object, in voxels along the axes of `labels`.
    labels, label, spacing_um, within, above
        As those of `split_into_parts`.

    Raises
    ------
    SeedError
        If there are fewer than two seeds, two in a voxel, or one outside the object.
    UnknownObjectError, FullLabelsError
        If there is no such object, or no id left.
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    region, _ = find_objects(labels, [label], within=within)
    places = [_voxel(labels, label, seed) for seed in seeds]
    if len(set(places)) < 2 or len(set(places)) < len(places):
        raise SeedError(f"got seeds {places}, expected two or more in different voxels; set another one")
    steps = sampling(labels, spacing_um)
    mask = labels[region] == label
    markers = np.zeros(mask.shape, np.int32)
    for number, place in enumerate(places, start=1):
        markers[tuple(p - s.start for p, s in zip(place, region, strict=True))] = number
    parts = watershed(-_depth(mask, steps), markers, mask=mask)
    lost = mask & (parts == 0)
    if lost.any():  # pieces of the object that no seed can reach
        nearest = ndimage.distance_transform_edt(
            markers == 0, sampling=steps, return_distances=False, return_indices=True
        )
        parts[lost] = markers[tuple(nearest)][lost]
    return _number(labels, region, mask, parts, label, above)


def split_by_plane(
    labels: NDArray[Any],
    label: int,
    points: Sequence[Sequence[float]],
    *,
    axis: int = 0,
    within: Box | None = None,
    above: int = 0,
) -> Edit:
    """Split an object along a line (2D), or along the plane through two points and an axis (3D).

    Parameters
    ----------
    points
        Two points, in voxels along the axes of `labels`; they may lie outside the object.
    axis
        Of volumes: the axis that the plane runs along: that of the slider where the points were clicked.
    labels, label, within, above
        As those of `split_into_parts`.

    Raises
    ------
    SeedError
        If the points make no line, or the whole object lies on one side.
    UnknownObjectError, FullLabelsError
        If there is no such object, or no id left.
    """
    region, _ = find_objects(labels, [label], within=within)
    ends = np.asarray(points, float)
    if ends.shape != (2, labels.ndim) or not np.isfinite(ends).all():
        raise SeedError(f"got points {points}, expected two with {labels.ndim} coordinates")
    line = ends[1] - ends[0]
    if labels.ndim == 3:
        along = np.zeros(3)
        along[axis] = 1.0
        normal = np.cross(line, along)
    else:
        normal = np.array([-line[1], line[0]])
    if np.linalg.norm(normal) < 1e-6:
        raise SeedError("both points lie at the same place; click two places that the cut runs through")
    mask = labels[region] == label
    grid = np.meshgrid(*(np.arange(s.start, s.stop, dtype=float) for s in region), indexing="ij", sparse=True)
    side = sum(n * (g - p) for n, g, p in zip(normal, grid, ends[0], strict=True))
    parts = np.where(mask, np.where(side < 0, 1, 2), 0)
    if not (parts == 1).any() or not (parts == 2).any():
        raise SeedError(f"the cut misses object {label}; click two places so that the line runs through it")
    return _number(labels, region, mask, parts, label, above)


# --- parts of the above ----------------------------------------------------------------------------------------------


def _voxel(labels: NDArray[Any], label: int, seed: Sequence[float]) -> tuple[int, ...]:
    place = tuple(int(np.floor(value + 0.5)) for value in seed)
    inside = len(place) == labels.ndim and all(0 <= p < n for p, n in zip(place, labels.shape, strict=False))
    there = int(labels[place]) if inside else None
    if there != label:
        where = "outside the image" if there is None else f"in object {there}" if there else "in the background"
        raise SeedError(f"the seed {place} lies {where}, expected one in object {label}; click inside it")
    return place


def _depth(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance to the outline; the box's border is outside too."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=steps)
    return np.asarray(distance[(slice(1, -1),) * mask.ndim])


def _by_necks(mask: NDArray[np.bool_], n_parts: int, steps: tuple[float, ...]) -> NDArray[Any] | None:
    """Basins of the depth, joined across the shallowest necks; ``None`` if there are too few."""
    from scipy import ndimage
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    depth = _depth(mask, steps)
    # Steps of the digital outline make many small tops; half a voxel of smoothing keeps the real ones.
    smooth = ndimage.gaussian_filter(depth, [0.7 * min(steps) / step for step in steps], mode="constant")
    tops, n = ndimage.label(local_maxima(np.where(mask, smooth, 0)) & mask, np.ones((3,) * mask.ndim))
    if not n_parts <= n <= _MOST_BASINS:
        return None
    basins = watershed(-smooth, tops, mask=mask, connectivity=mask.ndim)
    heights = np.concatenate([[0.0], ndimage.maximum(smooth, basins, np.arange(1, n + 1))])
    passes = _passes(basins, smooth, n)
    names = np.arange(n + 1)
    for _ in range(n - n_parts):
        rise = np.minimum(heights[:, None], heights[None, :]) - passes
        rise[passes < 0] = np.inf
        one, other = np.unravel_index(int(np.argmin(rise)), rise.shape)
        if not np.isfinite(rise[one, other]):
            return None
        keep, gone = (one, other) if heights[one] >= heights[other] else (other, one)
        names[names == gone] = keep
        passes[keep] = np.maximum(passes[keep], passes[gone])
        passes[:, keep] = passes[keep]
        passes[gone] = passes[:, gone] = passes[keep, keep] = -1.0
    return np.asarray(names[basins])


def _passes(basins: NDArray[Any], depth: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Deepest voxel of the neck between two basins, -1 where they do not touch; 0 between separate pieces."""
    found = np.full((n + 1, n + 1), -1.0)
    for axis in range(basins.ndim):
        cut = [slice(None)] * basins.ndim, [slice(None)] * basins.ndim
        cut[0][axis], cut[1][axis] = slice(None, -1), slice(1, None)
        a, b = basins[tuple(cut[0])], basins[tuple(cut[1])]
        near = (a != b) & (a > 0) & (b > 0)
        low = np.minimum(depth[tuple(cut[0])][near], depth[tuple(cut[1])][near])
        np.maximum.at(found, (a[near], b[near]), low)
        np.maximum.at(found, (b[near], a[near]), low)
    apart = found[1:, 1:] < 0
    np.fill_diagonal(apart, val=False)
    # Pieces that do not touch are joined last.
    found[1:, 1:][apart] = 0.0
    return found


def _compact(mask: NDArray[np.bool_], n_parts: int, steps: tuple[float, ...]) -> NDArray[Any]:
    """Cut into compact pieces: k-means on the voxels' places, from points far from each other."""
    places = np.argwhere(mask) * np.array(steps)
    first = places[np.argmax(((places - places.mean(axis=0)) ** 2).sum(axis=1))]
    centres = [first]
    distance = ((places - first) ** 2).sum(axis=1)
    for _ in range(n_parts - 1):
        centres.append(places[np.argmax(distance)])
        distance = np.minimum(distance, ((places - centres[-1]) ** 2).sum(axis=1))
    middle = np.array(centres)
    for _ in range(20):
        own = np.stack([((places - centre) ** 2).sum(axis=1) for centre in middle]).argmin(axis=0)
        moved = np.array([places[own == i].mean(axis=0) if (own == i).any() else middle[i] for i in range(n_parts)])
        if np.allclose(moved, middle):
            break
        middle = moved
    parts = np.zeros(mask.shape, np.int32)
    parts[mask] = own + 1
    return parts


def _number(
    labels: NDArray[Any], region: Box, mask: NDArray[np.bool_], parts: NDArray[Any], label: int, above: int
) -> Edit:
    """Give the largest part the old id and the others new ones, by size."""
    found, sizes = np.unique(parts[mask], return_counts=True)
    order = found[np.argsort(-sizes, kind="stable")]
    ids = [label, *free_ids(labels, len(order) - 1, above=above)]
    values = labels[region].copy()
    for part, new in zip(order.tolist(), ids, strict=True):
        values[mask & (parts == part)] = new
    return record(labels, region, values, f"Split {label} into {len(ids)}", ids)
