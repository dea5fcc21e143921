"""Device code of the trees and cells: means of children, pooling, painting voxels. No atomics: one writer each."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "cells_to_voxels",
    "max_of_children",
    "mean_of_children",
    "share_among_children",
    "sum_of_children",
    "to_children",
    "to_winners",
    "voxels_to_cells",
    "voxels_to_partials",
]


@triton.jit
def _block(count, C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """Rows and channels of this program, and which of them exist."""
    COL_BLOCKS: tl.constexpr = (C + BLOCK_COLS - 1) // BLOCK_COLS
    rows = (tl.program_id(0) // COL_BLOCKS).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = (tl.program_id(0) % COL_BLOCKS) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    return rows, cols, rows < count, cols < C


@triton.jit(do_not_specialize=["first", "count", "rows_x", "limit"])
def mean_of_children(
    x, tree, children, first, count, rows_x, limit,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """tree[first + j] = mean of the children that exist. Children are rows of x, then of tree, then (limit) none."""
    rows, cols, rows_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    node = first + rows
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    number = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    for slot in tl.static_range(8):
        child = tl.load(children + node * 8 + slot, mask=rows_ok, other=limit)
        there = child < limit
        child = tl.where(there, child, 0).to(tl.int64)
        base = tl.where(child < rows_x, x + child * C, tree + (child - rows_x) * C)
        mask = there[:, None] & cols_ok[None, :]
        total += tl.load(base[:, None] + cols[None, :], mask=mask, other=0.0).to(tl.float32)
        number += there.to(tl.float32)
    total = total / tl.maximum(number, 1.0)[:, None]
    pointers = tree + node[:, None] * C + cols[None, :]
    tl.store(pointers, total.to(tree.dtype.element_ty), mask=rows_ok[:, None] & cols_ok[None, :])


@triton.jit(do_not_specialize=["first", "count", "rows_x", "limit"])
def share_among_children(
    total, grad_x, children, first, count, rows_x, limit,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """Hand the gradient of nodes on: a child gets total[node] / number of children; every child has one parent.

    total [tree rows, C] float32 is added to where the child is a node; grad_x is written where it is a feature row.
    """
    rows, cols, rows_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    node = first + rows
    number = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    for slot in tl.static_range(8):
        number += (tl.load(children + node * 8 + slot, mask=rows_ok, other=limit) < limit).to(tl.float32)
    mask = rows_ok[:, None] & cols_ok[None, :]
    share = tl.load(total + node[:, None] * C + cols[None, :], mask=mask, other=0.0)
    share = share / tl.maximum(number, 1.0)[:, None]
    for slot in tl.static_range(8):
        child = tl.load(children + node * 8 + slot, mask=rows_ok, other=limit).to(tl.int64)
        leaf = (child < rows_x)[:, None] & cols_ok[None, :]
        tl.store(grad_x + child[:, None] * C + cols[None, :], share.to(grad_x.dtype.element_ty), mask=leaf)
        inner = ((child >= rows_x) & (child < limit))[:, None] & cols_ok[None, :]
        pointers = total + (child - rows_x)[:, None] * C + cols[None, :]
        tl.store(pointers, tl.load(pointers, mask=inner, other=0.0) + share, mask=inner)


@triton.jit(do_not_specialize=["node0", "out0", "count", "limit"])
def max_of_children(
    x, out, slots, children, node0, out0, count, limit,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """out[out0 + j] = max over the children of node node0 + j; slots[node0 + j]: which won, the first on ties."""
    rows, cols, rows_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    best = tl.full((BLOCK_ROWS, BLOCK_COLS), float("-inf"), dtype=tl.float32)
    winner = tl.full((BLOCK_ROWS, BLOCK_COLS), 255, dtype=tl.int32)
    for slot in tl.static_range(8):
        child = tl.load(children + (node0 + rows) * 8 + slot, mask=rows_ok, other=limit)
        mask = (child < limit)[:, None] & cols_ok[None, :]
        pointers = x + tl.where(child < limit, child, 0).to(tl.int64)[:, None] * C + cols[None, :]
        value = tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
        # NaN wins over numbers and stays, as in torch; the first child that exists wins over nothing.
        wins = mask & ((winner == 255) | (value > best) | ((value != value) & (best == best)))
        best = tl.where(wins, value, best)
        winner = tl.where(wins, slot, winner)
    mask = rows_ok[:, None] & cols_ok[None, :]
    tl.store(out + (out0 + rows)[:, None] * C + cols[None, :], best.to(out.dtype.element_ty), mask=mask)
    tl.store(slots + (node0 + rows)[:, None] * C + cols[None, :], winner.to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=["node0", "out0", "count", "limit"])
def to_winners(
    grad, slots, grad_x, children, node0, out0, count, limit,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """grad_x[child] = grad[out0 + j] where the child won, else 0."""
    rows, cols, rows_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    mask = rows_ok[:, None] & cols_ok[None, :]
    back = tl.load(grad + (out0 + rows)[:, None] * C + cols[None, :], mask=mask, other=0.0)
    winner = tl.load(slots + (node0 + rows)[:, None] * C + cols[None, :], mask=mask, other=255).to(tl.int32)
    for slot in tl.static_range(8):
        child = tl.load(children + (node0 + rows) * 8 + slot, mask=rows_ok, other=limit)
        there = (child < limit)[:, None] & cols_ok[None, :]
        value = tl.where(winner == slot, back, 0.0).to(grad_x.dtype.element_ty)
        tl.store(grad_x + child.to(tl.int64)[:, None] * C + cols[None, :], value, mask=there)


@triton.jit(do_not_specialize=["node0", "row0", "count", "limit"])
def to_children(
    x, out, children, node0, row0, count, limit,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """out[child] = x[row0 + j] for all children of node node0 + j."""
    rows, cols, rows_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    mask = rows_ok[:, None] & cols_ok[None, :]
    value = tl.load(x + (row0 + rows)[:, None] * C + cols[None, :], mask=mask, other=0.0)
    for slot in tl.static_range(8):
        child = tl.load(children + (node0 + rows) * 8 + slot, mask=rows_ok, other=limit)
        there = (child < limit)[:, None] & cols_ok[None, :]
        tl.store(out + child.to(tl.int64)[:, None] * C + cols[None, :], value, mask=there)


@triton.jit(do_not_specialize=["node0", "row0", "count", "limit"])
def sum_of_children(
    grad, grad_x, children, node0, row0, count, limit,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """grad_x[row0 + j] = sum of grad over the children of node node0 + j, added in float32."""
    rows, cols, rows_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for slot in tl.static_range(8):
        child = tl.load(children + (node0 + rows) * 8 + slot, mask=rows_ok, other=limit)
        there = (child < limit)[:, None] & cols_ok[None, :]
        pointers = grad + tl.where(child < limit, child, 0).to(tl.int64)[:, None] * C + cols[None, :]
        total += tl.load(pointers, mask=there, other=0.0).to(tl.float32)
    mask = rows_ok[:, None] & cols_ok[None, :]
    tl.store(grad_x + (row0 + rows)[:, None] * C + cols[None, :], total.to(grad_x.dtype.element_ty), mask=mask)


@triton.jit
def _voxel(z, y, x, inside, shift, Z, Y, X):
    """Linear index of voxel ``inside`` (z, y, x order) of a cell, and whether the image has it."""
    low = (tl.full((), 1, tl.int64) << shift) - 1
    z = (z.to(tl.int64) << shift) + (inside >> (2 * shift))
    y = (y.to(tl.int64) << shift) + ((inside >> shift) & low)
    x = (x.to(tl.int64) << shift) + (inside & low)
    return (z * Y + y) * X + x, (z < Z) & (y < Y) & (x < X)


@triton.jit
def _corners(cells, row, ok):
    """z, y, x of the cells of a block of rows."""
    z = tl.load(cells + row * 4, mask=ok, other=0)
    y = tl.load(cells + row * 4 + 1, mask=ok, other=0)
    x = tl.load(cells + row * 4 + 2, mask=ok, other=0)
    return z, y, x


@triton.jit(do_not_specialize=["row0", "count", "shift", "Z", "Y", "X"])
def cells_to_voxels(
    x, dense, cells, row0, count, shift, Z, Y, X,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """dense[voxel] = x[row] for all voxels of ``count >> 3 shift`` cells of edge 2^shift from row0 on."""
    at, cols, at_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    row = row0 + (at >> (3 * shift))
    inside = at & ((tl.full((), 1, tl.int64) << (3 * shift)) - 1)
    cell_z, cell_y, cell_x = _corners(cells, row, at_ok)
    voxel, ok = _voxel(cell_z, cell_y, cell_x, inside, shift, Z, Y, X)
    mask = (ok & at_ok)[:, None] & cols_ok[None, :]
    value = tl.load(x + row[:, None] * C + cols[None, :], mask=mask, other=0.0)
    tl.store(dense + voxel[:, None] * C + cols[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["row0", "count", "shift", "Z", "Y", "X"])
def voxels_to_cells(
    dense, sums, cells, row0, count, shift, Z, Y, X,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """sums[row0 + j] = sum over the voxels of cell row0 + j, in their order. Small cells: one program, many cells."""
    at, cols, at_ok, cols_ok = _block(count, C, BLOCK_ROWS, BLOCK_COLS)
    row = row0 + at
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    cell_z, cell_y, cell_x = _corners(cells, row, at_ok)
    for inside in range(0, 1 << (3 * shift)):
        voxel, ok = _voxel(cell_z, cell_y, cell_x, inside, shift, Z, Y, X)
        mask = (ok & at_ok)[:, None] & cols_ok[None, :]
        total += tl.load(dense + voxel[:, None] * C + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(sums + row[:, None] * C + cols[None, :], total, mask=at_ok[:, None] & cols_ok[None, :])


@triton.jit(do_not_specialize=["row0", "shift", "Z", "Y", "X"])
def voxels_to_partials(
    dense, partial, cells, row0, shift, Z, Y, X,
    C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, SHARE: tl.constexpr,
):  # fmt: skip
    """partial[j, p] = sum over share ``p`` (SHARE voxels) of cell row0 + j. For large cells: many programs a cell."""
    COL_BLOCKS: tl.constexpr = (C + BLOCK_COLS - 1) // BLOCK_COLS
    part = (tl.program_id(0) // COL_BLOCKS).to(tl.int64)
    cols = (tl.program_id(0) % COL_BLOCKS) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    shares = (tl.full((), 1, tl.int64) << (3 * shift)) // SHARE
    cell = cells + (row0 + part // shares) * 4
    cell_z = tl.load(cell)
    cell_y = tl.load(cell + 1)
    cell_x = tl.load(cell + 2)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for first in range(0, SHARE, BLOCK_ROWS):
        inside = (part % shares) * SHARE + first + tl.arange(0, BLOCK_ROWS)
        voxel, ok = _voxel(cell_z, cell_y, cell_x, inside, shift, Z, Y, X)
        mask = ok[:, None] & (cols < C)[None, :]
        total += tl.load(dense + voxel[:, None] * C + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(partial + part * C + cols, tl.sum(total, axis=0), mask=cols < C)
