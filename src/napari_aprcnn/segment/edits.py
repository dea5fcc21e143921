"""Edit the objects of a label image: merge, split, delete, grow, shrink, fill, smooth, renumber, clean up.

Every function changes the array in place and returns an `Edit` that takes it back exactly. Arrays are (Z, Y, X) or
(Y, X); an object that survives keeps its id. Splitting is in `edits_split`, taking back in `edits_history`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.segment.edits_history import (
    Box,
    Edit,
    EditError,
    EditHistory,
    FullLabelsError,
    SeedError,
    UnknownObjectError,
    record,
)
from napari_aprcnn.segment.edits_split import split_at_seeds, split_by_plane, split_into_parts
from napari_aprcnn.segment.edits_tools import find_objects, need_labels, sampling

__all__ = [
    "Edit",
    "EditError",
    "EditHistory",
    "FullLabelsError",
    "SeedError",
    "UnknownObjectError",
    "delete_objects",
    "fill_holes",
    "grow_objects",
    "merge_objects",
    "relabel_objects",
    "remove_border_objects",
    "remove_small_objects",
    "shrink_objects",
    "smooth_objects",
    "split_at_seeds",
    "split_by_plane",
    "split_into_parts",
]

Spacing = tuple[float, float, float]
_Change = Callable[[NDArray[Any], int], NDArray[np.bool_]]


def merge_objects(labels: NDArray[Any], ids: Iterable[int], *, within: Box | None = None) -> Edit:
    """Make one object of several; it keeps the id of the largest.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
        Changed in place.
    ids
        Two objects or more; they need not touch.
    within
        Region where they lie, if it is known: only that is searched.

    Raises
    ------
    EditError
        If there is only one id.
    UnknownObjectError
        If there is no object of an id.

    Examples
    --------
    >>> labels = np.array([[1, 1, 0, 2]])
    >>> merge_objects(labels, [2, 1]).words, labels.tolist()
    ('Merge 1, 2', [[1, 1, 0, 1]])
    """
    wanted = sorted(set(ids))
    if len(wanted) < 2:
        raise EditError(f"got {_list(wanted)} to merge, expected two objects or more; select another one too")
    region, sizes = find_objects(labels, wanted, within=within)
    kept = max(wanted, key=lambda i: (sizes[i], -i))
    part = labels[region]
    values = np.where(np.isin(part, wanted), labels.dtype.type(kept), part)
    return record(labels, region, values, f"Merge {_list(wanted)}", (kept,))


def delete_objects(labels: NDArray[Any], ids: Iterable[int], *, within: Box | None = None) -> Edit:
    """Make background of objects.

    Raises
    ------
    UnknownObjectError
        If there is no object of an id.
    """
    wanted = sorted(set(ids))
    region, _ = find_objects(labels, wanted, within=within)
    part = labels[region]
    return record(labels, region, np.where(np.isin(part, wanted), 0, part), f"Delete {_list(wanted)}")


def grow_objects(
    labels: NDArray[Any],
    ids: Iterable[int],
    n_voxels: float = 1,
    *,
    spacing_um: Spacing | None = None,
    within: Box | None = None,
) -> Edit:
    """Grow objects into the background; other objects are never overwritten.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
        Changed in place.
    ids
        Objects to grow.
    n_voxels
        How far, in edges of a voxel along its finest axis.
    spacing_um
        Edges (z, y, x) of a voxel: coarse axes are grown along by fewer voxels.
    within
        Region where the objects lie, if it is known.

    Raises
    ------
    UnknownObjectError
        If there is no object of an id.
    EditError
        If nothing can grow.
    """
    from scipy import ndimage

    wanted = sorted(set(ids))
    steps, reach = _reach(labels, n_voxels, spacing_um)
    margin = [int(reach / step) + 1 for step in steps]
    region, _ = find_objects(labels, wanted, within=within, margin=margin)
    part = labels[region]
    chosen = np.isin(part, wanted)
    distance, nearest = ndimage.distance_transform_edt(~chosen, sampling=steps, return_indices=True)
    new = (part == 0) & (distance <= reach * (1 + 1e-9))
    values = np.where(new, part[tuple(nearest)], part)
    _drop_islands(values, new, wanted)
    return record(labels, region, values, f"Grow {_list(wanted)}", wanted)


def _drop_islands(values: NDArray[Any], new: NDArray[np.bool_], ids: Sequence[int]) -> None:
    """Take back what has grown past a neighbour and hangs on nothing."""
    from scipy import ndimage

    for label in ids:
        pieces, n = ndimage.label(values == label, np.ones((3,) * values.ndim))
        rooted = np.zeros(n + 1, bool)
        rooted[pieces[~new]] = True
        values[(pieces > 0) & ~rooted[pieces]] = 0


def shrink_objects(
    labels: NDArray[Any],
    ids: Iterable[int],
    n_voxels: float = 1,
    *,
    spacing_um: Spacing | None = None,
    within: Box | None = None,
) -> Edit:
    """Take a rim off objects, at neighbours too; at the image's border they are left as they are.

    Parameters as those of `grow_objects`.

    Raises
    ------
    UnknownObjectError
        If there is no object of an id.
    EditError
        If one would vanish.
    """
    from scipy import ndimage

    steps, reach = _reach(labels, n_voxels, spacing_um)

    def change(part: NDArray[Any], label: int) -> NDArray[np.bool_]:
        mask = part == label
        if mask.all():
            return np.asarray(mask)
        inner = mask & (ndimage.distance_transform_edt(mask, sampling=steps) > reach * (1 + 1e-9))
        if not inner.any():
            raise EditError(f"object {label} would vanish; shrink it by less than {n_voxels:g} voxels, or delete it")
        return np.asarray(inner)

    return _each(labels, ids, change, "Shrink", within=within, margin=1)


def fill_holes(labels: NDArray[Any], ids: Iterable[int], *, within: Box | None = None) -> Edit:
    """Fill the background that an object encloses.

    Raises
    ------
    UnknownObjectError
        If there is no object of an id.
    EditError
        If there is no hole.
    """
    from scipy import ndimage

    def change(part: NDArray[Any], label: int) -> NDArray[np.bool_]:
        mask = part == label
        return np.asarray(mask | (ndimage.binary_fill_holes(mask) & (part == 0)))

    return _each(labels, ids, change, "Fill holes of", within=within, margin=1)


def smooth_objects(
    labels: NDArray[Any],
    ids: Iterable[int],
    radius_voxels: float = 1.0,
    *,
    spacing_um: Spacing | None = None,
    within: Box | None = None,
) -> Edit:
    """Smooth the outline of objects with a Gaussian; they grow into background only.

    Parameters
    ----------
    labels, ids, spacing_um, within
        As those of `grow_objects`.
    radius_voxels
        Standard deviation, in edges of a voxel along its finest axis.

    Raises
    ------
    UnknownObjectError
        If there is no object of an id.
    EditError
        If one would vanish, or nothing changes.
    """
    from scipy import ndimage

    steps, reach = _reach(labels, radius_voxels, spacing_um)
    sigma = [reach / step for step in steps]

    def change(part: NDArray[Any], label: int) -> NDArray[np.bool_]:
        mask = part == label
        soft = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3.0) > 0.5
        smooth = soft & (mask | (part == 0))
        if not smooth.any():
            raise EditError(f"object {label} would vanish; smooth it by less than {radius_voxels:g} voxels")
        return np.asarray(smooth)

    return _each(labels, ids, change, "Smooth", within=within, margin=int(3 * max(sigma)) + 1)


def relabel_objects(labels: NDArray[Any]) -> Edit:
    """Number the objects 1, 2, ... in the order of their ids.

    Raises
    ------
    EditError
        If they are numbered so already.
    """
    need_labels(labels)
    ids, place = np.unique(labels, return_inverse=True)
    numbers = np.cumsum(ids > 0) * (ids > 0)
    values = numbers.astype(labels.dtype)[place.reshape(labels.shape)]
    return record(labels, _all_of(labels), values, f"Renumber {int(numbers.max(initial=0))} objects")


def remove_small_objects(labels: NDArray[Any], n_voxels: int) -> Edit:
    """Delete the objects of fewer than so many voxels.

    Raises
    ------
    EditError
        If there is none.
    """
    need_labels(labels)
    ids, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    small = (sizes < n_voxels) & (ids != 0)
    if not small.any():
        raise EditError(f"no object has fewer than {n_voxels} voxels; nothing to remove")
    values = np.where(small, 0, ids)[place.reshape(labels.shape)]
    return record(labels, _all_of(labels), values, f"Remove {np.count_nonzero(small)} small objects")


def remove_border_objects(labels: NDArray[Any]) -> Edit:
    """Delete the objects that touch the border of the image along any axis of more than one voxel.

    Raises
    ------
    EditError
        If there is none.
    """
    need_labels(labels)
    found: set[int] = set()
    for axis, n in enumerate(labels.shape):
        if n > 1:
            for face in (0, n - 1):
                found |= set(np.unique(np.take(labels, face, axis=axis)).tolist())
    found.discard(0)
    if not found:
        raise EditError("no object touches the border of the image; nothing to remove")
    values = np.where(np.isin(labels, sorted(found)), 0, labels)
    return record(labels, _all_of(labels), values, f"Remove {len(found)} objects at the border")


# --- parts of the above ----------------------------------------------------------------------------------------------


def _each(
    labels: NDArray[Any], ids: Iterable[int], change: _Change, verb: str, *, within: Box | None, margin: int
) -> Edit:
    """Give every object the mask that `change` makes of it, one after the other, as one edit."""
    wanted = sorted(set(ids))
    region, _ = find_objects(labels, wanted, within=within, margin=[margin] * labels.ndim)
    values = labels[region].copy()
    for label in wanted:
        box, _ = find_objects(values, [label], margin=[margin] * labels.ndim)
        part = values[box]
        mask = change(part, label)
        part[(part == label) & ~mask] = 0
        part[mask] = label
    return record(labels, region, values, f"{verb} {_list(wanted)}", wanted)


def _reach(labels: NDArray[Any], n_voxels: float, spacing_um: Spacing | None) -> tuple[tuple[float, ...], float]:
    if not n_voxels > 0:
        raise EditError(f"got {n_voxels} voxels, expected more than 0")
    steps = sampling(labels, spacing_um)
    return steps, n_voxels * min(steps)


def _all_of(labels: NDArray[Any]) -> Box:
    return tuple(slice(0, n) for n in labels.shape)


def _list(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:5])
    return f"{shown} and {len(ids) - 5} more" if len(ids) > 5 else shown or "nothing"
