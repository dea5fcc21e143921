"""Tree values, pooling and upsampling on a GPU. One writer for each output, so no atomics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_aprcnn._kernels.triton.configs import row_shape
from napari_aprcnn._kernels.triton.device_rows import (
    max_of_children,
    mean_of_children,
    share_among_children,
    sum_of_children,
    to_children,
    to_winners,
)
from napari_aprcnn._kernels.triton.launch import on_device, once, require

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "fill_tree",
    "fill_tree_back",
    "pool",
    "pool_back",
    "upsample",
    "upsample_back",
]


def _launch(kernel: Any, tensors: Iterable[Tensor], numbers: Iterable[int], x: Tensor, count: int) -> None:
    """One launch over ``count`` rows of as many channels as ``x`` has."""
    shape = row_shape(x.shape[1])
    programs = -(-count // shape.rows) * shape.col_blocks
    if programs:
        with on_device(x):
            kernel[(programs,)](*tensors, *numbers, **shape.constants())


def _lists(table: Tensor) -> list[list[int]]:
    """The rows of a small table, on the host; kept, as asking a GPU for them makes it wait."""
    return once(table, "list", table.tolist)


def fill_tree(x: Tensor, children: Tensor, node_ranges: Tensor) -> Tensor:
    """Values of the interior nodes: the mean over the children that exist.

    Parameters
    ----------
    x : (R, C) float32, float16 or bfloat16
    children : (T, 8) int32
        Extended index of each child, R + T where it does not exist.
    node_ranges : (Q, 2) int64, best on the CPU
        Ranges of tree rows, children before parents; one launch each.

    Returns
    -------
    (T + 1, C) tensor, as x
        The last row, which stands for the outside, is zero.
    """
    x = require("x", x, (None, None), None, x)
    children = require("children", children, (None, 8), torch.int32, x)
    tree = x.new_zeros(len(children) + 1, x.shape[1])
    limit = len(x) + len(children)
    for first, end in _lists(node_ranges):
        _launch(mean_of_children, (x, tree, children), (first, end - first, len(x), limit), x, end - first)
    return tree


def fill_tree_back(grad: Tensor, children: Tensor, node_ranges: Tensor, rows: int) -> Tensor:
    """Gradient of `fill_tree` with respect to x: (rows, C), as grad. Parents hand on to children in float32."""
    grad = require("grad", grad, (len(children) + 1, None), None, grad)
    children = require("children", children, (None, 8), torch.int32, grad)
    total = grad.to(torch.float32, copy=True)
    grad_x = grad.new_zeros(rows, grad.shape[1])
    limit = rows + len(children)
    for first, end in reversed(_lists(node_ranges)):
        _launch(share_among_children, (total, grad_x, children), (first, end - first, rows, limit), grad_x, end - first)
    return grad_x


def pool(x: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows_out: int) -> tuple[Tensor, Tensor]:
    """Max pooling by one level.

    Parameters
    ----------
    x : (R, C) float32, float16 or bfloat16
    pool_children : (M, 8) int32
        Feature rows under each node of the coarser level, R where missing.
    pool_ranges : (B, 5) int64, best on the CPU
        Per item: first source row, first output row, rows that are copied, first node, nodes.
    rows_out
        Rows of the output.

    Returns
    -------
    out : (rows_out, C), as x
    slot : (M, C) uint8
        Which child won, the first on ties.
    """
    x = require("x", x, (None, None), None, x)
    pool_children = require("pool_children", pool_children, (None, 8), torch.int32, x)
    out = x.new_empty(rows_out, x.shape[1])
    slot = x.new_empty(len(pool_children), x.shape[1], dtype=torch.uint8)
    for src, dst, copied, node, nodes in _lists(pool_ranges):
        out[dst : dst + copied] = x[src : src + copied]
        _launch(max_of_children, (x, out, slot, pool_children), (node, dst + copied, nodes, len(x)), x, nodes)
    return out, slot


def pool_back(grad: Tensor, slot: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows: int) -> Tensor:
    """Gradient of `pool` with respect to x: (rows, C), as grad. Only winners get any."""
    grad = require("grad", grad, (None, None), None, grad)
    slot = require("slot", slot, (len(pool_children), grad.shape[1]), torch.uint8, grad)
    pool_children = require("pool_children", pool_children, (None, 8), torch.int32, grad)
    grad_x = grad.new_zeros(rows, grad.shape[1])
    for src, dst, copied, node, nodes in _lists(pool_ranges):
        grad_x[src : src + copied] = grad[dst : dst + copied]
        numbers = (node, dst + copied, nodes, rows)
        _launch(to_winners, (grad, slot, grad_x, pool_children), numbers, grad, nodes)
    return grad_x


def upsample(x: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows_out: int) -> Tensor:
    """Copy coarse cells to their children: the way back of `pool`, with the tables of that stage.

    Parameters
    ----------
    x : (rows of the coarse stage, C)
    pool_children, pool_ranges
        As in `pool`: of the finer stage.
    rows_out
        Rows of the finer stage.

    Returns
    -------
    (rows_out, C) tensor, as x
    """
    x = require("x", x, (None, None), None, x)
    pool_children = require("pool_children", pool_children, (None, 8), torch.int32, x)
    out = x.new_zeros(rows_out, x.shape[1])
    for src, dst, copied, node, nodes in _lists(pool_ranges):
        out[src : src + copied] = x[dst : dst + copied]
        _launch(to_children, (x, out, pool_children), (node, dst + copied, nodes, rows_out), x, nodes)
    return out


def upsample_back(grad: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows: int) -> Tensor:
    """Gradient of `upsample` with respect to x: (rows, C), as grad: sums over children."""
    grad = require("grad", grad, (None, None), None, grad)
    pool_children = require("pool_children", pool_children, (None, 8), torch.int32, grad)
    grad_x = grad.new_empty(rows, grad.shape[1])
    for src, dst, copied, node, nodes in _lists(pool_ranges):
        grad_x[dst : dst + copied] = grad[src : src + copied]
        _launch(sum_of_children, (grad, grad_x, pool_children), (node, dst + copied, nodes, len(grad)), grad, nodes)
    return grad_x
