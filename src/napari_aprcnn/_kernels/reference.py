"""The kernels in numpy: what runs without the compiled extension, and the yardstick that it is tested against.

Same arithmetic in the same order wherever that decides the result, so masks to flows are equal bit by bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["compact_labels", "flow_errors", "flows_from_labels"]


def compact_labels(labels: NDArray[Any]) -> tuple[NDArray[np.uint32], int]:
    """Integer labels of any kind as 1..n in the order of their first voxel; 0 stays 0.

    Raises
    ------
    ValueError
        If a label is negative.
    """
    if labels.size and labels.min() < 0:
        raise ValueError("negative label")
    ids, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.where(ids == 0, -1, first))
    rank = np.empty(len(ids), np.uint32)
    has_background = bool((ids == 0).any())
    rank[order] = np.arange(len(ids)) + (0 if has_background else 1)
    return rank[inverse].reshape(labels.shape), len(ids) - has_background


def _crops(labels: NDArray[np.uint32]) -> Iterator[tuple[int, tuple[slice, ...], NDArray[np.bool_]]]:
    """Yield number, place and mask (with a margin of one voxel) of each object."""
    for i, place in enumerate(ndimage.find_objects(labels.view(np.int32))):
        if place is not None:
            yield i, place, np.pad(labels[place] == i + 1, 1)


def _centre(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Voxel nearest to the mean of all voxels of a mask."""
    voxels = np.nonzero(mask)
    distance = np.zeros(len(voxels[0]))
    for axis in voxels:
        distance += (axis - axis.mean()) ** 2
    nearest = int(distance.argmin())
    return tuple(int(axis[nearest]) for axis in voxels)


def _heat(mask: NDArray[np.bool_], source: tuple[int, ...], *, rounds_3d: int = 6) -> NDArray[np.float64]:
    """Heat in a mask with a margin; by default after Cellpose's number of steps."""
    edges = [edge - 2 for edge in mask.shape]
    heat = np.zeros(mask.shape)
    inner = (slice(1, -1),) * mask.ndim
    if mask.ndim == 2:
        share = mask[inner] / 9.0
        for _ in range(2 * (sum(edges) + 4)):
            heat[source] += 1.0
            sums = (heat[:, :-2] + heat[:, 2:]) + heat[:, 1:-1]
            heat[inner] = ((sums[:-2] + sums[2:]) + sums[1:-1]) * share
        return heat
    share = mask[inner] / 7.0
    for _ in range(rounds_3d * (sum(edges) + 3)):
        heat[source] += 1.0
        faces = (heat[:-2, 1:-1, 1:-1] + heat[2:, 1:-1, 1:-1]) + (heat[1:-1, :-2, 1:-1] + heat[1:-1, 2:, 1:-1])
        heat[inner] = ((faces + (heat[1:-1, 1:-1, :-2] + heat[1:-1, 1:-1, 2:])) + heat[inner]) * share
    return heat


def _unit_gradient(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors of the central differences, margin cut off."""
    inner = (slice(1, -1),) * heat.ndim
    steps = []
    for axis in range(heat.ndim):
        ahead, behind = list(inner), list(inner)
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        steps.append(heat[tuple(ahead)] - heat[tuple(behind)])
    square = np.zeros(steps[0].shape)
    for step in steps:
        square += step * step
    return np.stack(steps) / (1e-60 + np.sqrt(square))


def flows_from_labels(
    labels: NDArray[np.uint32], n: int, flows: NDArray[np.float32], poll: Callable[[float], bool] | None = None
) -> bool:
    """Fill ``flows`` (D, *S) with unit vectors towards the centres of objects 1..n. False if stopped."""
    inner = (slice(1, -1),) * labels.ndim
    connected = ndimage.generate_binary_structure(labels.ndim, 2 if labels.ndim == 2 else 1)
    for i, place, mask in _crops(labels):
        if poll is not None and poll(i / n):
            return False
        heat = _heat(mask, _centre(mask))
        vectors = _unit_gradient(heat)
        # Pieces that the heat did not reach get their own centres.
        pieces, n_pieces = ndimage.label(mask & (heat == 0.0), connected)
        for piece in range(1, n_pieces + 1):
            own = pieces == piece
            vectors = np.where(own[inner], _unit_gradient(_heat(mask, _centre(own))), vectors)
        target = flows[(slice(None), *place)]
        target[:, mask[inner]] = vectors[:, mask[inner]]
    return True


def flow_errors(
    labels: NDArray[np.uint32],
    n: int,
    flows: NDArray[np.float32],
    errors: NDArray[np.float64],
    poll: Callable[[float], bool] | None = None,
) -> bool:
    """Fill ``errors`` (n,) with the mean squared difference of each object's own flow and ``flows`` (5 x unit)."""
    inner = (slice(1, -1),) * labels.ndim
    errors[:] = 0.0
    for i, place, mask in _crops(labels):
        if poll is not None and poll(i / n):
            return False
        own = _unit_gradient(_heat(mask, _centre(mask), rounds_3d=2))[:, mask[inner]]
        given = flows[(slice(None), *place)][:, mask[inner]].astype(np.float64)
        if labels.ndim == 2:
            given /= 5.0
        else:  # averaged over planes they are no unit vectors: directions are compared
            given /= 1e-60 + np.sqrt((given * given).sum(axis=0))
        errors[i] = ((own - given) ** 2).sum(axis=0).mean()
    return True
