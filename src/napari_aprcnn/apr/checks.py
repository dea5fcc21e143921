"""Checks of what is to become a particle tree."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_aprcnn._kernels.trees import Rows, find_jump, grid_shape, paint_levels
from napari_aprcnn.errors import ImageError, ParticleTreeError

__all__ = ["Shape", "check_levels", "checked_rows", "checked_values", "half_grid", "level_max_of", "shape_of"]

Shape: TypeAlias = tuple[int, int, int]
_MOST_CELLS_A_SIDE = 65536  # positions along x are uint16


def level_max_of(shape: Shape) -> int:
    """Level of single voxels: ``max(1, ceil(log2(longest edge)))``."""
    return max(1, (max(shape) - 1).bit_length())


def shape_of(shape: tuple[int, ...]) -> Shape:
    """Check a shape and give it as z, y, x; 2D is one slice.

    Raises
    ------
    ImageError
        For other than 2 or 3 axes, an empty axis, or one longer than 65,536 voxels.
    """
    if len(shape) not in {2, 3}:
        raise ImageError(f"got {len(shape)} axes, expected 2 (y, x) or 3 (z, y, x); choose one channel and time point")
    if min(shape) < 1:
        raise ImageError(f"got an image of shape {tuple(shape)}, expected no empty axis")
    if max(shape) > _MOST_CELLS_A_SIDE:
        raise ImageError(f"got a side of {max(shape)} voxels, expected at most {_MOST_CELLS_A_SIDE}; cut the image")
    full = (1,) * (3 - len(shape)) + tuple(int(n) for n in shape)
    return full[0], full[1], full[2]


def half_grid(levels: NDArray[np.integer], shape: Shape, level_max: int, *, check: bool) -> NDArray[np.uint8]:
    """Level of each cell of 2x2x2 voxels, of levels given for each cell or for each voxel.

    Parameters
    ----------
    levels
        Levels 1..level_max; ``shape``, or half of it (rounded up) along every axis; leading axes of one may be absent.
    shape, level_max
        Of the image.
    check
        Whether to check that the voxels of a cell agree.

    Raises
    ------
    ParticleTreeError
        If levels are out of range, of another shape, or differ within a cell.
    """
    half = grid_shape(shape, level_max, level_max - 1)
    grid = levels.reshape((1,) * (3 - levels.ndim) + levels.shape) if levels.ndim < 3 else levels
    if not np.issubdtype(grid.dtype, np.integer) or grid.min() < 1 or grid.max() > level_max:
        raise ParticleTreeError(
            f"got levels of dtype {grid.dtype} from {grid.min()} to {grid.max()}, expected integers 1 to "
            f"{level_max} for an image of shape {shape}"
        )
    if grid.shape == shape and shape != half:
        cells = grid[::2, ::2, ::2]
        whole = cells.repeat(2, 0).repeat(2, 1).repeat(2, 2)[tuple(slice(n) for n in shape)]
        if check and not np.array_equal(whole, grid):
            raise ParticleTreeError("got levels that differ within a cell of 2x2x2 voxels; such cells tile no tree")
        grid = cells
    if grid.shape != half:
        raise ParticleTreeError(f"got levels of shape {grid.shape}, expected {shape} or {half}")
    return np.ascontiguousarray(grid, np.uint8)


def checked_values(values: ArrayLike | None, particles: int) -> NDArray[Any]:
    """Values that are one for each particle.

    Raises
    ------
    ParticleTreeError
        If there are none, or not one for each particle.
    """
    if values is None:
        raise ParticleTreeError("got a tree without intensities, expected values; give them, or make it with to_apr")
    found = np.asarray(values)
    if found.shape != (particles,):
        raise ParticleTreeError(f"got values of shape {found.shape}, expected one for each of {particles} particles")
    return found


def check_levels(shape: Shape, level_max: int, particles: Rows, grid: NDArray[np.uint8], threads: int | None) -> None:
    """Check that a grid of levels, and the particles made of it, are a tree.

    Raises
    ------
    ParticleTreeError
        If cells are not covered once, or neighbours differ by more than one level.
    """
    painted, bad = paint_levels(shape, level_max, particles)
    if bad or not np.array_equal(painted, grid):
        wrong = int((painted != grid).sum())
        raise ParticleTreeError(
            f"got levels that do not tile the image: {max(bad, wrong)} of {grid.size} cells of 2x2x2 voxels are "
            "covered by no particle or by several; a particle of level l fills an aligned cube "
            "of 2^(level_max - l) voxels"
        )
    jump = find_jump(grid, shape, level_max, threads=threads)
    if jump is not None:
        level, *at = jump
        raise ParticleTreeError(
            f"got a cell of level {level} at {tuple(at)} that touches one more than one level coarser; neighbours may "
            "differ by one level at most"
        )


def checked_rows(shape: Shape, level_max: int, x: ArrayLike, offsets: ArrayLike) -> tuple[Rows, NDArray[np.uint8]]:
    """Rows of particles that are known to fit the shape, and the grid of levels that they describe.

    Raises
    ------
    ParticleTreeError
        If they do not fit, or do not tile the image.
    """
    level_rows = np.zeros(level_max + 2, np.int64)
    for level in range(level_max + 1):
        dims = grid_shape(shape, level_max, level)
        level_rows[level + 1] = level_rows[level] + dims[0] * dims[1]
    ends, at = np.asarray(offsets), np.asarray(x)
    if ends.shape != (level_rows[-1] + 1,):
        raise ParticleTreeError(f"got {ends.size} row offsets, expected {level_rows[-1] + 1} for shape {shape}")
    ends = np.ascontiguousarray(ends, np.int64)
    if ends[0] != 0 or ends[-1] != at.size or at.ndim != 1 or (np.diff(ends) < 0).any():
        raise ParticleTreeError(
            f"got row offsets that run from {ends[0]} to {ends[-1]} for {at.size} particles, expected 0 to the number "
            "of particles, never falling"
        )
    if at.size == 0 or at.min() < 0 or at.max() >= shape[2]:
        raise ParticleTreeError(f"got {at.size} particles with positions outside the rows of shape {shape}")
    rows = Rows(level_rows, ends, np.ascontiguousarray(at, np.uint16))
    levels, bad = paint_levels(shape, level_max, rows)
    if bad:
        raise ParticleTreeError(
            f"got particles that do not tile the image: {bad} of {levels.size} cells of 2x2x2 voxels are not "
            "covered once"
        )
    return rows, levels
