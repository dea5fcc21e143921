"""Distances along rays in plain numpy: all rays of many points take their steps together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ray_distances"]

_POINTS = 4096  # at a time: about 20 bytes for each axis of each ray


def ray_distances(
    labels: NDArray[np.uint32],
    corners: NDArray[np.int64],
    own: NDArray[np.uint32],
    rays: NDArray[np.float64],
    out: NDArray[np.float32],
    poll: Callable[[float], bool] | None,
) -> bool:
    """As the compiled kernel, to the bit; false if stopped."""
    named = np.flatnonzero(own)
    for start in range(0, len(named), _POINTS):
        if poll is not None and poll(start / len(named)):
            return False
        rows = named[start : start + _POINTS]
        out[rows] = _reach(labels, corners[rows], own[rows], rays)
    return True


def _reach(
    labels: NDArray[np.uint32], corners: NDArray[np.int64], own: NDArray[np.uint32], rays: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances of some points; [points, rays]."""
    shape = np.array(labels.shape)
    at = np.repeat(corners * 0.5, len(rays), axis=0)
    direction = np.tile(rays, (len(corners), 1))
    back = direction < 0
    low = np.floor(at)
    # A point between two voxels starts in the one that the ray goes to.
    voxel = np.where(back & (low == at), low - 1, low).astype(np.int64)
    step = np.where(back, -1, 1)
    with np.errstate(divide="ignore"):
        between = 1.0 / np.abs(direction)
    with np.errstate(invalid="ignore"):
        ahead = np.where(back, at - voxel, voxel + 1 - at) * between
    ahead[direction == 0] = np.inf
    mine = np.repeat(own, len(rays))
    length = np.zeros(len(at))
    going = np.arange(len(at))
    while len(going):
        here = voxel[going]
        inside = ((here >= 0) & (here < shape)).all(1)
        going = going[inside]
        going = going[labels[tuple(here[inside].T)] == mine[going]]
        axis = np.argmin(ahead[going], axis=1)  # ties go to the first axis
        length[going] = ahead[going, axis]
        voxel[going, axis] += step[going, axis]
        ahead[going, axis] += between[going, axis]
    return length.reshape(len(corners), len(rays))
