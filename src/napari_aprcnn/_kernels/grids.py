"""Between particles and voxels, on numpy arrays: paint cells, average over cells."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn._kernels.dispatch import default_threads, extension

__all__ = ["average_cells", "paint_cells", "voxels_in_cells"]

T = TypeVar("T", bound=np.generic)
Shape = tuple[int, int, int]


def voxels_in_cells(cells: NDArray[np.int32], shape: Shape) -> NDArray[np.int64]:
    """Number of voxels inside the image of every cell; int64 [cells].

    Parameters
    ----------
    cells
        z, y, x and the shift to voxels; int32 [cells, 4].
    shape
        Voxels of the grid along z, y, x.
    """
    shift = cells[:, 3].astype(np.int64)
    count = np.ones(len(cells), np.int64)
    for axis in range(3):
        start = cells[:, axis].astype(np.int64) << shift
        count *= np.minimum(start + (1 << shift), shape[axis]) - start
    return count


def paint_cells(
    values: NDArray[T], cells: NDArray[np.int32], shape: Shape, *, threads: int | None = None
) -> NDArray[T]:
    """Every voxel gets the value of the cell that it lies in.

    Parameters
    ----------
    values
        One value for each cell, any dtype; [cells].
    cells
        z, y, x and the shift to voxels, tiling the grid; int32 [cells, 4].
    shape
        Voxels of the grid along z, y, x.

    Returns
    -------
    numpy.ndarray
        ``shape``, dtype of ``values``.
    """
    out = np.empty(shape, values.dtype)
    module = extension()
    if module is not None and values.dtype.itemsize in {1, 2, 4, 8}:
        raw = np.dtype(f"u{values.dtype.itemsize}")
        threads = default_threads(threads)
        module.paint_cells(np.ascontiguousarray(values).view(raw), cells, out.view(raw), threads)
        return out
    for value, (z, y, x, shift) in zip(values, cells.astype(np.int64), strict=True):
        box = (z << shift, (z + 1) << shift, y << shift, (y + 1) << shift, x << shift, (x + 1) << shift)
        out[box[0] : box[1], box[2] : box[3], box[4] : box[5]] = value
    return out


def average_cells(image: NDArray[Any], cells: NDArray[np.int32], *, threads: int | None = None) -> NDArray[np.float64]:
    """Mean over the voxels of every cell that lie inside the image; float64 [cells]."""
    module = extension()
    if module is not None:
        out = np.empty(len(cells), np.float64)
        if image.dtype not in (np.uint8, np.uint16, np.float32):
            image = image.astype(np.float64)
        module.average_cells(np.ascontiguousarray(image), cells, out, default_threads(threads))
        return out
    # Sums over boxes from a summed-volume table, whose first plane, row and column are zero.
    table = np.pad(image.astype(np.float64), [(1, 0)] * 3).cumsum(0).cumsum(1).cumsum(2)
    at = cells[:, :3].astype(np.int64) << cells[:, 3:4].astype(np.int64)
    end = np.minimum(at + (1 << cells[:, 3:4].astype(np.int64)), image.shape)
    total = np.zeros(len(cells))
    for corner in np.ndindex(2, 2, 2):
        where = np.where(np.array(corner, bool), end, at)
        total += (-1) ** (3 - sum(corner)) * table[tuple(where.T)]
    return total / voxels_in_cells(cells, (image.shape[0], image.shape[1], image.shape[2]))
