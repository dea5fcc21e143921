"""Find objects to edit, and ids for new ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.segment.edits_history import Box, EditError, FullLabelsError, UnknownObjectError

__all__ = ["find_objects", "free_ids", "need_labels", "sampling"]


def need_labels(labels: Any) -> None:
    """Check that labels can be edited in place.

    Raises
    ------
    EditError
        If they are no writable array of integers in memory, or no plane or volume.
    """
    if not isinstance(labels, np.ndarray):
        raise EditError(f"labels are {type(labels).__name__}, expected a numpy array; load them into memory first")
    if labels.dtype.kind not in "iu" or labels.ndim not in (2, 3):
        raise EditError(
            f"labels are {labels.dtype} of shape {labels.shape}, expected integers with axes Z, Y, X or Y, X"
        )
    if not labels.flags.writeable:
        raise EditError("labels are read-only, expected an array that can be written to; copy them first")


def find_objects(
    labels: NDArray[Any], ids: Sequence[int], *, within: Box | None = None, margin: Sequence[int] | None = None
) -> tuple[Box, dict[int, int]]:
    """Return the box around objects, and the voxels of each.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
    ids
        Objects to find.
    within
        Region to look in; where an object is missing there, everywhere.
    margin
        Voxels to add along each axis, as far as the image goes.

    Raises
    ------
    UnknownObjectError
        If there is no object of an id.
    """
    need_labels(labels)
    wanted = np.array(sorted(ids), dtype=object)
    limits = np.iinfo(labels.dtype)
    if not len(wanted):
        raise EditError("no object is selected; click one in the viewer or in the table")
    if min(wanted) < 1 or max(wanted) > limits.max:
        raise UnknownObjectError(f"there is no object {min(wanted) if min(wanted) < 1 else max(wanted)}")
    typed = wanted.astype(labels.dtype)
    whole = tuple(slice(0, n) for n in labels.shape)
    for region in (within, whole) if within is not None else (whole,):
        part = labels[region]
        mask = part == typed[0] if len(typed) == 1 else np.isin(part, typed)
        found, counts = np.unique(part[mask], return_counts=True)
        if len(found) == len(typed):
            break
    else:
        missing = sorted(set(typed.tolist()) - set(found.tolist()))
        raise UnknownObjectError(f"there is no object {missing[0]}; it may have been deleted: select another one")
    box = []
    for axis, s in enumerate(region):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        extra = margin[axis] if margin is not None else 0
        start, n = s.indices(labels.shape[axis])[0], labels.shape[axis]
        box.append(slice(max(0, start + int(line[0]) - extra), min(n, start + int(line[-1]) + 1 + extra)))
    return tuple(box), dict(zip(found.tolist(), counts.tolist(), strict=True))


def free_ids(labels: NDArray[Any], n: int, *, above: int = 0) -> list[int]:
    """Return `n` ids above every id of the labels, and above a number.

    Raises
    ------
    FullLabelsError
        If the type of the labels holds no more.
    """
    largest = max(int(labels.max(initial=0)), above)
    room = np.iinfo(labels.dtype).max
    if largest + n > room:
        raise FullLabelsError(
            f"{labels.dtype} labels hold ids up to {room:,}, and {largest:,} is in use; renumber the objects, or "
            "convert the labels to a larger type (right click on the layer, Convert data type)"
        )
    return list(range(largest + 1, largest + n + 1))


def sampling(labels: NDArray[Any], spacing_um: tuple[float, float, float] | None) -> tuple[float, ...]:
    """Return the edges of a voxel along the axes of the labels; equal ones where they are not known.

    Raises
    ------
    EditError
        If one is not positive.
    """
    steps = tuple(float(step) for step in (spacing_um or (1.0, 1.0, 1.0))[-labels.ndim :])
    if len(steps) != labels.ndim or not all(np.isfinite(steps)) or min(steps) <= 0:
        raise EditError(f"the voxel size is {spacing_um}, expected three positive lengths (z, y, x)")
    return steps
