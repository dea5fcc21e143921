"""Flows to masks in numpy: the counterpart of ``cpu/follow.cpp``, ``cpu/group.cpp`` and ``cpu/clean.cpp``.

The same steps, roundings and ties, so that the labels are equal voxel by voxel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Positions = NDArray[np.float32]

__all__ = ["clean_labels", "follow_flows", "group_ends"]

FIELD_UNIT = np.float32(8192.0)
POSITION_UNIT = np.float32(2048.0)
FIRST_STEPS = 12
STAGE_STEPS = 4
SEED_COUNT = 10
MEMBER_COUNT = 2
PEAK_EDGE = 5
EXTEND_RADIUS = 5


class _Motion:
    """Euler steps through a field of displacements."""

    def __init__(self, flows: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
        shape = inside.shape
        field = np.where(inside, flows, np.float32(0)) * np.float32(FIELD_UNIT / 5)
        # 16-bit fixed point, as the compiled kernel stores it.
        field = np.asarray(np.rint(np.clip(field, -32767, 32767)) / FIELD_UNIT, np.float32)
        self.field = np.pad(np.moveaxis(field, 0, -1), [(1, 1)] * len(shape) + [(0, 0)])
        edges = np.array(shape, np.float32)
        self.top = edges - np.float32(1)
        # In a volume Cellpose samples at x W / (W - 1) - 1/2, in a plane at x; the margin adds 1.
        slices = np.array([len(shape) == 3 and edge > 1 for edge in shape])
        self.scale = np.where(slices, edges / np.where(slices, self.top, 1), 1).astype(np.float32)
        self.shift = np.where(slices, 0.5, 1.0).astype(np.float32)
        self.exact = len(shape) == 2

    def advance(self, at: Positions, steps: int) -> Positions:
        for _ in range(steps):
            sample = at if self.exact else np.asarray(at * self.scale + self.shift, np.float32)
            low = sample.astype(np.int32)
            part: Positions = np.asarray(sample - low.astype(np.float32), np.float32)[..., None]
            if self.exact:
                low = low + 1  # the margin
            at = at + self._interpolate(low, part)
            at = np.where(at > 0, at, np.float32(0))
            at = np.where(at < self.top, at, self.top)
        return at

    def _interpolate(self, low: NDArray[np.int32], part: Positions) -> Positions:
        """Linear in y first, then z, then x: the compiled kernel's order of roundings."""
        axes = low.shape[1]
        ways = [0] * axes

        def value(order: list[int]) -> Positions:
            if not order:
                corner = tuple(low[:, axis] + ways[axis] for axis in range(axes))
                return np.asarray(self.field[corner], np.float32)
            axis, rest = order[0], order[1:]
            ways[axis] = 0
            first = value(rest)
            ways[axis] = 1
            second = value(rest)
            return np.asarray(first + (second - first) * part[:, axis], np.float32)

        return value([1, 0] if axes == 2 else [2, 0, 1])


def _keys(at: Positions, shape: tuple[int, ...]) -> NDArray[np.int64] | NDArray[np.void]:
    """One sortable value a position."""
    edges = [int(edge * POSITION_UNIT) for edge in shape]
    if math.prod(edges) < 2**63:
        return np.asarray(np.ravel_multi_index(tuple((at * POSITION_UNIT).astype(np.int64).T), edges), np.int64)
    return np.ascontiguousarray(at).view(f"V{at.shape[1] * at.itemsize}").reshape(-1)


def follow_flows(
    flows: NDArray[np.float32],
    inside: NDArray[np.bool_],
    n_steps: int,
    ends: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    poll: Callable[[float], bool] | None = None,
) -> bool:
    """Fill ``ends`` (1 + flat index, 0 outside) and ``counts`` (voxels that end at a place). False if stopped.

    Raises
    ------
    ValueError
        If an inside flow is not finite.
    """
    if not np.isfinite(flows[:, inside]).all():
        raise ValueError("a flow is not finite")
    motion = _Motion(flows, inside)
    at = np.argwhere(inside).astype(np.float32)
    slot = np.arange(len(at))  # of each voxel in `at`
    # All stages but the first are of the same length: only they can tell that a point stands still.
    step, steps = 0, n_steps if n_steps <= FIRST_STEPS else FIRST_STEPS + n_steps % STAGE_STEPS
    while True:
        if poll is not None and poll(step / n_steps):
            return False
        moved = motion.advance(at, steps)
        scaled = moved * POSITION_UNIT + np.float32(0.5)
        rounded = np.where(scaled < 2**23, np.floor(scaled) / POSITION_UNIT, moved).astype(np.float32)
        still = (rounded == at).all(axis=1) & (step > 0)
        step, steps = step + steps, STAGE_STEPS
        if step >= n_steps or still.all():
            at = np.where(still[:, None], at, moved)
            break
        # Positions are rounded, and each distinct one goes on once.
        _, first, inverse = np.unique(_keys(rounded, inside.shape), return_index=True, return_inverse=True)
        at, slot = rounded[first], inverse[slot]
    place = np.asarray(np.ravel_multi_index(tuple(at.astype(np.int64).T), inside.shape), np.uint32)
    ends.fill(0)
    ends[inside] = place[slot] + 1
    counts[...] = np.bincount(place[slot], minlength=inside.size).reshape(inside.shape)
    return True


def group_ends(ends: NDArray[np.uint32], counts: NDArray[np.uint32], max_voxels: float) -> int:
    """Replace ends by labels 1..n, in place; returns n."""
    peaks = (counts > SEED_COUNT) & (counts == ndimage.maximum_filter(counts, PEAK_EDGE, mode="constant"))
    seeds = np.flatnonzero(peaks)
    seeds = seeds[np.argsort(counts.reshape(-1)[seeds], kind="stable")]
    owner = np.zeros(counts.shape, np.uint32)
    around = ndimage.generate_binary_structure(counts.ndim, counts.ndim)
    for number, seed in enumerate(seeds, start=1):
        centre = np.unravel_index(seed, counts.shape)
        window = tuple(slice(max(int(c) - EXTEND_RADIUS, 0), int(c) + EXTEND_RADIUS + 1) for c in centre)
        members = np.zeros(counts[window].shape, bool)
        members[tuple(int(c) - part.start for c, part in zip(centre, window, strict=True))] = True
        many = counts[window] > MEMBER_COUNT
        owner[window][ndimage.binary_dilation(members, around, iterations=EXTEND_RADIUS, mask=many)] = number
    ends[...] = np.concatenate([np.zeros(1, np.uint32), owner.reshape(-1)])[ends]
    voxels = np.bincount(ends.reshape(-1), minlength=len(seeds) + 1)
    ids, first = np.unique(ends, return_index=True)
    kept = [(start, i) for i, start in zip(ids, first, strict=True) if i != 0 and voxels[i] <= max_voxels]
    lookup = np.zeros(len(seeds) + 1, np.uint32)
    for new, (_, old) in enumerate(sorted(kept), start=1):
        lookup[old] = new
    ends[...] = lookup[ends]
    return len(kept)


def clean_labels(labels: NDArray[np.uint32], n: int, min_size: int, fill_holes: bool) -> int:
    """Drop objects below ``min_size`` voxels, fill holes plane by plane, number the rest 1..m in place; returns m."""
    needed = max(min_size, 1)
    small = []
    for i, place in enumerate(ndimage.find_objects(labels.view(np.int32), max_label=n), start=1):
        if place is None:
            continue
        mask = labels[place] == i
        if mask.sum() < needed:
            small.append(i)
        elif fill_holes:
            planes = mask[None] if mask.ndim == 2 else mask
            filled = np.stack([ndimage.binary_fill_holes(plane) for plane in planes])
            labels[place][filled.reshape(mask.shape)] = i
    # An object that others have swallowed, wholly or below the size, is gone.
    voxels = np.bincount(labels.reshape(-1), minlength=n + 1)
    grown = voxels >= needed
    grown[[0, *small]] = False
    lookup = np.where(grown, np.cumsum(grown), 0).astype(np.uint32)
    labels[...] = lookup[labels]
    return int(grown.sum())
