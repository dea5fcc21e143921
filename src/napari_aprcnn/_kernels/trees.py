"""Building particle trees and their index tables: the extension, or numpy where there is none."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn._kernels import reference_tree
from napari_aprcnn._kernels.dispatch import default_threads, extension
from napari_aprcnn._kernels.reference_tree import Rows, grid_shape

__all__ = ["Rows", "TreeTables", "build_tree", "find_jump", "grid_shape", "paint_levels"]

Shape = tuple[int, int, int]


def build_tree(
    levels: NDArray[np.uint8], shape: Shape, level_max: int, *, threads: int | None = None
) -> tuple[Rows, Rows]:
    """Rows of particles and of interior nodes.

    Parameters
    ----------
    levels
        Level of the particle that covers each cell of 2x2x2 voxels; uint8, C-contiguous, ceil(shape / 2).
    shape
        Voxels along z, y, x.
    level_max
        Level of single voxels.
    """
    module = extension()
    if module is None:
        return reference_tree.build_tree(levels, shape, level_max)
    *arrays, _ = module.build_tree(levels, np.array(shape, np.int64), level_max, False, default_threads(threads))
    return Rows(*arrays[:3]), Rows(*arrays[3:])


def find_jump(
    levels: NDArray[np.uint8], shape: Shape, level_max: int, *, threads: int | None = None
) -> tuple[int, int, int, int] | None:
    """First cell (level, z, y, x) that touches a cell more than one level coarser, or ``None``."""
    module = extension()
    if module is None:
        return reference_tree.find_jump(levels, level_max)
    jump = module.build_tree(levels, np.array(shape, np.int64), level_max, True, default_threads(threads))[-1]
    return None if jump[0] < 0 else jump


def paint_levels(shape: Shape, level_max: int, rows: Rows) -> tuple[NDArray[np.uint8], int]:
    """Grid of levels that particles describe, and how many of its cells are not covered exactly once."""
    module = extension()
    if module is None:
        return reference_tree.paint_levels(shape, level_max, rows)
    levels = np.empty(grid_shape(shape, level_max, level_max - 1), np.uint8)
    bad = module.paint_levels(np.array(shape, np.int64), level_max, *rows, levels)
    return levels, int(bad)


class TreeTables:
    """Makes the index tables of one tree.

    Parameters
    ----------
    shape, level_max
        Of the tree.
    particles, nodes
        Its rows.
    """

    def __init__(self, shape: Shape, level_max: int, particles: Rows, nodes: Rows) -> None:
        self.shape, self.level_max = shape, level_max
        self.particles, self.nodes = particles, nodes

    @cached_property
    def _handle(self) -> Any:
        module = extension()
        return module.TreeHandle(np.array(self.shape, np.int64), self.level_max, *self.particles, *self.nodes)

    def neighbours(
        self, finest: int, kernel: Shape, places: Shape, out: NDArray[np.int32], *, threads: int | None = None
    ) -> None:
        """Fill ``out`` [rows, taps] with the extended index of every tap.

        ``places`` are the index of this tree's first feature row, of its first tree row, and of "outside".
        """
        if extension() is None:
            trees = (self.particles, self.nodes)
            out[...] = reference_tree.neighbours(self.shape, self.level_max, trees, finest, kernel, places)
        else:
            self._handle.neighbours(finest, np.array(kernel, np.int64), *places, out, default_threads(threads))

    def children(self, finest: int, places: Shape, out: NDArray[np.int32], *, threads: int | None = None) -> None:
        """Fill ``out`` [tree rows, 8] with the extended index of every child."""
        if extension() is None:
            trees = (self.particles, self.nodes)
            out[...] = reference_tree.children(self.shape, self.level_max, trees, finest, places)
        else:
            self._handle.children(finest, *places, out, default_threads(threads))

    def around(
        self,
        finest: int,
        places: Shape,
        blocks: NDArray[np.int32],
        out: NDArray[np.int32],
        *,
        threads: int | None = None,
    ) -> None:
        """Fill ``out`` [blocks, 27] with what lies around the blocks, ascending tree rows, on their own level."""
        if extension() is None:
            trees = (self.particles, self.nodes)
            out[...] = reference_tree.around(self.shape, self.level_max, trees, finest, places)[blocks]
        else:
            self._handle.around(finest, *places, blocks, out, default_threads(threads))

    def cells(self, finest: int, out: NDArray[np.int32], *, threads: int | None = None) -> None:
        """Fill ``out`` [rows, 4] with z, y, x and the shift to the finest level."""
        if extension() is None:
            out[...] = reference_tree.cells(self.shape, self.level_max, (self.particles, self.nodes), finest)
        else:
            self._handle.cells(finest, out, default_threads(threads))
