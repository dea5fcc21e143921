"""Particle trees without the compiled part: the same arrays by numpy, slower."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows", "block_max", "build_tree", "cells", "children", "find_jump", "neighbours", "paint_levels"]

Levels = NDArray[np.uint8]
Indices = NDArray[np.int32]


class Rows(NamedTuple):
    """Cells in the order level, z, y, x.

    Attributes
    ----------
    level_rows
        First row of every level, and one more; int64 [levels + 1].
    offsets
        First cell of every row, and one more; int64 [rows + 1].
    x
        Position of every cell in its row; uint16 [cells].
    """

    level_rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    x: NDArray[np.uint16]


def grid_shape(shape: tuple[int, ...], level_max: int, level: int) -> tuple[int, ...]:
    """Cells along every axis at a level."""
    size = 1 << (level_max - level)
    return tuple(-(-n // size) for n in shape)


def block_max(values: Levels) -> Levels:
    """Maximum of blocks of 2x2x2; blocks at an odd end are smaller."""
    padded = np.pad(values, [(0, n % 2) for n in values.shape], mode="edge")
    z, y, x = (n // 2 for n in padded.shape)
    largest: Levels = padded.reshape(z, 2, y, 2, x, 2).max(axis=(1, 3, 5))
    return largest


def pyramid(levels: Levels, level_max: int) -> dict[int, Levels]:
    """Grids of the levels level_max - 1 .. 0: the largest level inside every cell."""
    grids = {level_max - 1: levels}
    for level in range(level_max - 2, -1, -1):
        grids[level] = block_max(grids[level + 1])
    return grids


def _mask(
    grids: dict[int, Levels], shape: tuple[int, ...], level_max: int, level: int, *, nodes: bool
) -> NDArray[np.bool_]:
    if level == level_max:
        fine: NDArray[np.bool_] = grids[level - 1] == level_max
        for axis in range(3):
            fine = fine.repeat(2, axis=axis)
        return fine[tuple(slice(n) for n in shape)]
    return grids[level] > level if nodes else grids[level] == level


def _rows(grids: dict[int, Levels], shape: tuple[int, ...], level_max: int, *, nodes: bool) -> Rows:
    levels = level_max if nodes else level_max + 1
    counts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    positions: list[NDArray[np.uint16]] = []
    starts = [0]
    for level in range(levels):
        dims = grid_shape(shape, level_max, level)
        starts.append(starts[-1] + dims[0] * dims[1])
        if level == 0 and not nodes:
            counts.append(np.zeros(dims[0] * dims[1], np.int64))
            continue
        mask = _mask(grids, shape, level_max, level, nodes=nodes)
        counts.append(mask.sum(axis=2, dtype=np.int64).ravel())
        positions.append(np.nonzero(mask)[2].astype(np.uint16))
    return Rows(np.array(starts, np.int64), np.concatenate(counts).cumsum(), np.concatenate(positions))


def build_tree(levels: Levels, shape: tuple[int, ...], level_max: int) -> tuple[Rows, Rows]:
    """Rows of the particles and of the interior nodes of a grid of levels."""
    grids = pyramid(levels, level_max)
    return _rows(grids, shape, level_max, nodes=False), _rows(grids, shape, level_max, nodes=True)


def find_jump(levels: Levels, level_max: int) -> tuple[int, int, int, int] | None:
    """First cell (level, z, y, x) that touches one more than one level coarser."""
    for level, grid in pyramid(levels, level_max).items():
        if level == 0:
            continue
        padded = np.pad(grid, 1, mode="edge")
        lowest = grid.copy()
        for offset in np.ndindex(3, 3, 3):
            part = padded[tuple(slice(o, o + n) for o, n in zip(offset, grid.shape, strict=True))]
            np.minimum(lowest, part, out=lowest)
        own = (grid == level) | ((grid == level_max) if level == level_max - 1 else False)
        bad = np.argwhere(own & (lowest.astype(np.int16) + 1 < grid))
        if len(bad):
            z, y, x = (int(v) for v in bad[0])
            return level, z, y, x
    return None


def row_cells(rows: Rows, shape: tuple[int, ...], level_max: int, level: int) -> tuple[int, NDArray[np.int64]]:
    """Index of the first cell of a level, and the z, y, x of its cells; int64 [n, 3]."""
    ny = grid_shape(shape, level_max, level)[1]
    first, last = rows.level_rows[level], rows.level_rows[level + 1]
    ends = rows.offsets[first : last + 1]
    row = np.repeat(np.arange(last - first), np.diff(ends))
    return int(ends[0]), np.stack([row // ny, row % ny, rows.x[ends[0] : ends[-1]].astype(np.int64)], axis=1)


def paint_levels(shape: tuple[int, ...], level_max: int, rows: Rows) -> tuple[Levels, int]:
    """Grid of levels that particles describe, and the number of its cells that are not covered exactly once."""
    top = level_max - 1
    dims = grid_shape(shape, level_max, top)
    levels = np.zeros(dims, np.uint8)
    cover = np.zeros(dims, np.int64)
    bad = 0
    for level in range(1, level_max + 1):
        _, at = row_cells(rows, shape, level_max, level)
        inside = at[:, 2] < grid_shape(shape, level_max, level)[2]
        bad += int((~inside).sum())
        at = at[inside]
        if level == level_max:
            voxels = np.zeros(dims, np.int64)
            np.add.at(voxels, tuple((at >> 1).T), 1)
            sizes = [np.minimum(2, n - 2 * np.arange(d)) for n, d in zip(shape, dims, strict=True)]
            full = sizes[0][:, None, None] * sizes[1][None, :, None] * sizes[2][None, None, :]
            bad += int(((voxels > 0) & (voxels != full)).sum())
            cover += voxels > 0
            levels[voxels > 0] = level
            continue
        size = 1 << (top - level)
        for z, y, x in at * size:
            box = np.s_[z : z + size, y : y + size, x : x + size]
            cover[box] += 1
            levels[box] = level
    return levels, bad + int((cover != 1).sum())


class _Grids:
    """Dense index grids of the levels of one stage: where a cell of a level is found among the extended rows."""

    def __init__(
        self,
        shape: tuple[int, ...],
        level_max: int,
        trees: tuple[Rows, Rows],
        finest: int,
        places: tuple[int, int, int],
    ) -> None:
        self.shape, self.level_max, self.finest = shape, level_max, finest
        self.particles, self.nodes = trees
        self.feature_base, self.tree_base, self.outside = places
        self.particle_count = int(self.particles.offsets[self.particles.level_rows[finest + 1]])
        self.first_node = int(self.nodes.offsets[self.nodes.level_rows[finest]]) if finest < level_max else 0

    def particle_cells(self, level: int) -> tuple[int, NDArray[np.int64]]:
        return row_cells(self.particles, self.shape, self.level_max, level)

    def node_cells(self, level: int) -> tuple[int, NDArray[np.int64]]:
        return row_cells(self.nodes, self.shape, self.level_max, level)

    def grid(self, level: int) -> Indices:
        dims = grid_shape(self.shape, self.level_max, level)
        out = np.full(dims, self.outside, np.int32)
        if level > 1:
            first, at = self.particle_cells(level - 1)
            for offset in np.ndindex(2, 2, 2):
                child = 2 * at + np.array(offset)
                inside = (child < dims).all(axis=1)
                out[tuple(child[inside].T)] = (self.feature_base + first + np.arange(len(at)))[inside]
        if level >= 1:
            first, at = self.particle_cells(level)
            out[tuple(at.T)] = self.feature_base + first + np.arange(len(at))
        if level < self.level_max:
            first, at = self.node_cells(level)
            base = self.tree_base
            if level == self.finest:
                base = self.feature_base + self.particle_count - self.first_node
            out[tuple(at.T)] = base + first + np.arange(len(at))
        return out

    def centres(self, level: int) -> NDArray[np.int64]:
        """Cells of a level that are feature rows."""
        _, at = self.particle_cells(level)
        if level == self.finest < self.level_max:
            at = np.concatenate([at, self.node_cells(level)[1]])
        return at


def _box(grid: Indices, at: NDArray[np.int64], size: tuple[int, int, int]) -> Indices:
    """Values in the boxes that begin at cells (N, 3) of a grid; [N, cells of a box]."""
    return np.stack([grid[tuple((at + np.array(offset)).T)] for offset in np.ndindex(*size)], axis=1)


def neighbours(
    shape: tuple[int, ...],
    level_max: int,
    trees: tuple[Rows, Rows],
    finest: int,
    kernel: tuple[int, int, int],
    places: tuple[int, int, int],
) -> Indices:
    """Extended index of every tap of every feature row of a stage; int32 [rows, taps]."""
    grids = _Grids(shape, level_max, trees, finest, places)
    parts = []
    for level in range(1, finest + 1):
        half = np.array(kernel) // 2
        padded = np.pad(grids.grid(level), [(h, h) for h in half], constant_values=grids.outside)
        at = grids.centres(level)
        parts.append(_box(padded, at, kernel))
    return np.concatenate(parts).astype(np.int32)


def children(
    shape: tuple[int, ...], level_max: int, trees: tuple[Rows, Rows], finest: int, places: tuple[int, int, int]
) -> Indices:
    """Extended index of the eight children of every tree row of a stage; int32 [tree rows, 8]."""
    grids = _Grids(shape, level_max, trees, finest, places)
    parts = [np.zeros((0, 8), np.int32)]
    for level in range(finest):
        fine = grids.grid(level + 1)
        padded = np.pad(fine, [(0, n % 2) for n in fine.shape], constant_values=grids.outside)
        at = grids.node_cells(level)[1]
        parts.append(_box(padded, 2 * at, (2, 2, 2)))
    return np.concatenate(parts).astype(np.int32)


def around(
    shape: tuple[int, ...], level_max: int, trees: tuple[Rows, Rows], finest: int, places: tuple[int, int, int]
) -> Indices:
    """What lies around every tree row of a stage on its own level; int32 [tree rows, 27]."""
    grids = _Grids(shape, level_max, trees, finest, places)
    parts = [np.zeros((0, 27), np.int32)]
    for level in range(finest):
        padded = np.pad(grids.grid(level), 1, constant_values=grids.outside)
        at = grids.node_cells(level)[1]
        parts.append(_box(padded, at, (3, 3, 3)))
    return np.concatenate(parts).astype(np.int32)


def cells(shape: tuple[int, ...], level_max: int, trees: tuple[Rows, Rows], finest: int) -> Indices:
    """Position and size of every feature row: z, y, x, shift; int32 [rows, 4]."""
    grids = _Grids(shape, level_max, trees, finest, (0, 0, 0))
    parts = []
    for level in range(1, finest + 1):
        at = grids.centres(level)
        parts.append(np.concatenate([at, np.full((len(at), 1), finest - level)], axis=1))
    return np.concatenate(parts).astype(np.int32)
