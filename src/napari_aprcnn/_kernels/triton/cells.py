"""Between particles and voxels on a GPU: painting cells, and sums and means over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from napari_aprcnn._kernels.triton.configs import row_shape
from napari_aprcnn._kernels.triton.conv import reduce_groups
from napari_aprcnn._kernels.triton.device_rows import cells_to_voxels, voxels_to_cells, voxels_to_partials
from napari_aprcnn._kernels.triton.launch import on_device, once, require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cell_sums", "reconstruct"]

#: Voxels of a large cell that one program adds up; cells of edge 8 and more are cut.
SHARE = 512


class _Plan(NamedTuple):
    runs: list[tuple[int, int, int]]  # first row, end, shift
    voxels: Tensor  # [R] float32: in-image voxels of each cell
    covers: bool  # the cells together have as many voxels as the image


def _plan(cells: Tensor, shape: Sequence[int]) -> _Plan:
    def make() -> _Plan:
        shift = cells[:, 3].long()
        values, counts = torch.unique_consecutive(shift, return_counts=True)
        ends = torch.cumsum(counts, 0).tolist()
        starts = [0, *ends[:-1]]
        edges = [
            (
                torch.minimum((cells[:, a].long() + 1) << shift, torch.full_like(shift, shape[a]))
                - (cells[:, a].long() << shift)
            )
            for a in range(3)
        ]
        voxels = edges[0] * edges[1] * edges[2]
        covers = bool((voxels > 0).all()) and int(voxels.sum()) == shape[0] * shape[1] * shape[2]
        return _Plan(list(zip(starts, ends, values.tolist(), strict=True)), voxels.float(), covers)

    return once(cells, ("plan", tuple(shape)), make)


def reconstruct(x: Tensor, cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Piecewise constant image.

    Parameters
    ----------
    x : (R, C) float32, float16 or bfloat16
    cells : (R, 4) int32
        z, y, x, s: the cell covers voxels [z << s, (z + 1) << s) along z, and so on, clipped to the shape.
    shape
        Z, Y, X.

    Returns
    -------
    (Z, Y, X, C) tensor, as x
        Zero in voxels that no cell covers.
    """
    x = require("x", x, (None, None), None, x)
    cells = require("cells", cells, (len(x), 4), torch.int32, x)
    plan = _plan(cells, shape)
    blocks = row_shape(x.shape[1])
    dense = (x.new_empty if plan.covers else x.new_zeros)(*shape, x.shape[1])
    for row0, row1, shift in plan.runs:
        count = (row1 - row0) << (3 * shift)
        programs = -(-count // blocks.rows) * blocks.col_blocks
        with on_device(x):
            cells_to_voxels[(programs,)](x, dense, cells, row0, count, shift, *shape, **blocks.constants())
    return dense


def _sums(dense: Tensor, cells: Tensor) -> Tensor:
    """Sums over the in-image voxels of each cell, [R, C] float32, added in a fixed order."""
    dense = require("dense", dense, (None, None, None, None), None, dense)
    cells = require("cells", cells, (None, 4), torch.int32, dense)
    *shape, channels = dense.shape
    blocks = row_shape(channels)
    sums = dense.new_empty(len(cells), channels, dtype=torch.float32)
    for row0, row1, shift in _plan(cells, shape).runs:
        count = row1 - row0
        if 1 << (3 * shift) < SHARE:
            with on_device(dense):
                voxels_to_cells[(-(-count // blocks.rows) * blocks.col_blocks,)](
                    dense, sums, cells, row0, count, shift, *shape, **blocks.constants()
                )
            continue
        parts = count * ((1 << (3 * shift)) // SHARE)
        partial = dense.new_empty(parts, channels, dtype=torch.float32)
        with on_device(dense):
            voxels_to_partials[(parts * blocks.col_blocks,)](
                dense, partial, cells, row0, shift, *shape, **blocks.constants(), SHARE=SHARE
            )
        sums[row0:row1] = reduce_groups(partial, None, count)
    return sums


def cell_sums(dense: Tensor, cells: Tensor, mean: bool) -> Tensor:
    """Sum, or mean, over the in-image voxels of each cell, added in float32.

    Parameters
    ----------
    dense : (Z, Y, X, C) float32, float16 or bfloat16
    cells : (R, 4) int32
        As in `reconstruct`.
    mean
        Divide by the number of voxels.

    Returns
    -------
    (R, C) tensor, as dense
    """
    sums = _sums(dense, cells)
    if mean:
        sums = sums / _plan(cells, dense.shape[:3]).voxels[:, None]
    return sums.to(dense.dtype)
