"""The particle convolution and its gradients on a GPU (APR-CNN paper, APRConv). No atomics: the same bits every run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_aprcnn._kernels.triton.configs import (
    GatherShape,
    OuterShape,
    gather_shape,
    outer_shape,
    precision_of,
    row_shape,
)
from napari_aprcnn._kernels.triton.device_gather import gather_gemm, gather_outer, reduce_partials, sum_rows
from napari_aprcnn._kernels.triton.launch import on_device, once, require
from napari_aprcnn._kernels.triton.tables import ConvTables, conv_tables, depth_runs, fine_selection, row_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "column_sums",
    "gather_conv",
    "gather_conv_input",
    "gather_conv_weight",
    "pack_filters",
    "reduce_groups",
    "tables_of",
]

#: Programs that fill the largest GPU several times over; partial sums are cut accordingly, on every GPU the same way.
_PROGRAMS = 2048


def pack_filters(filters: Tensor, shape: GatherShape, dtype: torch.dtype) -> Tensor:
    """[banks, taps, in, out] to [banks, out, taps * in], zero padded to whole blocks, in the type of the features."""
    banks, taps, cin, cout = filters.shape
    packed = torch.zeros(
        banks,
        shape.col_blocks * shape.cols,
        shape.groups * shape.tap_block,
        shape.chunks * shape.channel_block,
        dtype=dtype,
        device=filters.device,
    )
    packed[:, :cout, :taps, :cin] = filters.permute(0, 3, 1, 2).to(dtype)
    return packed.flatten(2)


def _gather(
    x: Tensor,
    tree: Tensor | None,
    table: Tensor,
    filters: Tensor,
    bias: Tensor | None,
    out: Tensor,
    out_rows: Tensor | None,
    tiles: Tensor,
    shape: GatherShape,
    *,
    accumulate: bool = False,
) -> None:
    if not len(tiles):
        return
    with on_device(x):
        gather_gemm[(len(tiles) * shape.col_blocks,)](
            x,
            x if tree is None else tree,
            table,
            filters,
            filters if bias is None else bias,
            out,
            table if out_rows is None else out_rows,
            tiles,
            len(x),
            **shape.constants(),
            HAS_TREE=tree is not None,
            HAS_BIAS=bias is not None,
            HAS_ROWS=out_rows is not None,
            ACCUMULATE=accumulate,
            PRECISION=precision_of(x.dtype),
            **shape.options(),
        )


def _tiles(segments: Tensor, rows: int, sources: tuple[int, int] | None, device: torch.device) -> Tensor:
    return once(
        segments,
        ("tiles", rows, sources, device),
        lambda: row_tiles(depth_runs(segments), rows, sources).to(device),
    )


def gather_conv(
    x: Tensor,
    tree: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor | None = None,
    cells: Tensor | None = None,
) -> Tensor:
    """Cross-correlate particles with the filter bank of their depth.

    Parameters
    ----------
    x : (R, Cin) float32, float16 or bfloat16
        Features.
    tree : (T + 1, Cin), as x
        Tree values; the last row stands for the outside and counts as zero.
    weight : (depths, Cout, Cin, kz, ky, kx)
        Filters of each depth, any float type; rounded to the type of x.
    bias : (Cout,) or None
    neighbours : (R, K) int32
        Extended index of the source of each row and tap.
    segments : (S, 3) int64, best on the CPU
        First row, end, depth.
    slabs, cells
        Not used by the forward on a GPU.

    Returns
    -------
    (R, Cout) tensor, as x
        Added up in float32. Products of float32 are TF32 where torch's convolutions are (see `configs.precision_of`).
    """
    depths, cout, cin, *kernel = weight.shape
    taps = kernel[0] * kernel[1] * kernel[2]
    x = require("x", x, (None, cin), None, x)
    tree = require("tree", tree, (None, cin), x.dtype, x)
    neighbours = require("neighbours", neighbours, (len(x), taps), torch.int32, x)
    shape = gather_shape(cin, cout, taps, x.dtype, precision_of(x.dtype))
    filters = weight.reshape(depths, cout, cin, taps).permute(0, 3, 2, 1)
    tiles = _tiles(segments, shape.rows, (0, len(x) + len(tree) - 1), x.device)
    out = x.new_empty(len(x), cout)
    offset = None if bias is None else require("bias", bias, (cout,), None, x)
    _gather(x, tree, neighbours, pack_filters(filters, shape, x.dtype), offset, out, None, tiles, shape)
    return out


def tables_of(neighbours: Tensor, cells: Tensor, tree_rows: int, kernel: tuple[int, int, int]) -> ConvTables:
    """The transposed tables of `conv_tables`, built once for each table of neighbours and kept while it lives."""
    return once(
        neighbours, ("conv_tables", tree_rows, kernel), lambda: conv_tables(neighbours, cells, tree_rows, kernel)
    )


def gather_conv_input(
    grad: Tensor,
    weight: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor | None,
    cells: Tensor | None,
    tree_rows: int,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to the features and the tree values.

    Three launches of the forward's kernel: sources and readers of the same level (rows of that level count, taps
    reversed); coarse particles that finer ones read, added to the first; tree rows. The tables of the last two are
    built when they are first asked for and kept as long as ``neighbours`` lives.

    Parameters
    ----------
    grad : (R, Cout)
        Gradient of the output, in the type of the features.
    weight, neighbours, segments
        As in `gather_conv`.
    slabs
        Not used on a GPU.
    cells : (R, 4) int32
        z, y, x of each row on its level, and its depth.
    tree_rows
        T.

    Returns
    -------
    grad_x : (R, Cin), grad_tree : (T + 1, Cin), as grad
        The last row of ``grad_tree`` is zero.

    Raises
    ------
    ValueError
        Without ``cells``, or if tables do not fit each other.
    """
    if cells is None:
        raise ValueError("got no cells, expected the table of the stage: gradients on a GPU need it")
    depths, cout, cin, kz, ky, kx = weight.shape
    kernel, taps = (kz, ky, kx), kz * ky * kx
    precision = precision_of(grad.dtype)
    tables = tables_of(neighbours, cells, tree_rows, kernel)
    grad = require("grad", grad, (None, cout), None, grad)
    neighbours = require("neighbours", neighbours, (len(grad), taps), torch.int32, grad)
    filters = weight.reshape(depths, cout, cin, taps).permute(0, 3, 1, 2)  # [depths, taps, Cout, Cin]
    shape = gather_shape(cout, cin, taps, grad.dtype, precision)
    reversed_taps = pack_filters(filters.flip(1), shape, grad.dtype)

    grad_x = grad.new_empty(len(grad), cin)
    tiles = _tiles(segments, shape.rows, None, grad.device)
    _gather(grad, None, neighbours, reversed_taps, None, grad_x, None, tiles, shape)

    if len(tables.fine_rows):
        table = require("fine_table", tables.fine_table, (len(tables.fine_rows), None), torch.int32, grad)
        wide = gather_shape(cout, cin, table.shape[1], grad.dtype, precision)
        summed = pack_filters(_summed_filters(filters, tables.fine_segments, kernel), wide, grad.dtype)
        tiles = _bank_tiles(tables.fine_segments, wide.rows, len(grad), grad.device)
        _gather(grad, None, table, summed, None, grad_x, tables.fine_rows, tiles, wide, accumulate=True)

    grad_tree = grad.new_zeros(tree_rows + 1, cin)
    if len(tables.tree_rows):
        table = require("tree_table", tables.tree_table, (len(tables.tree_rows), taps), torch.int32, grad)
        tiles = _tiles(tables.tree_segments, shape.rows, (0, len(grad)), grad.device)
        _gather(grad, None, table, reversed_taps, None, grad_tree, tables.tree_rows, tiles, shape)
    return grad_x, grad_tree


def _bank_tiles(segments: Tensor, rows: int, sources: int, device: torch.device) -> Tensor:
    def make() -> Tensor:
        runs = [(int(run[0]), int(run[1]), bank) for bank, run in enumerate(segments.tolist())]
        return row_tiles(runs, rows, (0, sources)).to(device)

    return once(segments, ("banks", rows, sources, device), make)


def _summed_filters(filters: Tensor, segments: Tensor, kernel: Sequence[int]) -> Tensor:
    """[runs, P, Cout, Cin]: for each run of coarse rows and fine position the sum of the taps that read the block."""
    device = filters.device

    def make() -> tuple[Tensor, Tensor]:
        taken = fine_selection((kernel[0], kernel[1], kernel[2]))[segments[:, 3].cpu()]
        return taken.to(device), segments[:, 2].to(device)

    taken, depths = once(segments, ("selection", tuple(kernel), device), make)
    _, taps, cout, cin = filters.shape
    flat = filters.float().reshape(len(filters), taps, cout * cin)[depths]
    return torch.bmm(taken.float(), flat).reshape(len(depths), -1, cout, cin)


def gather_conv_weight(
    grad: Tensor, x: Tensor, tree: Tensor, neighbours: Tensor, segments: Tensor, shape: Sequence[int]
) -> Tensor:
    """Gradient with respect to the filters of each depth.

    Partial sums over chunks of rows (none crosses a depth), then their sum in a fixed order.

    Parameters
    ----------
    grad : (R, Cout)
        Gradient of the output, in the type of x.
    x, tree, neighbours, segments
        As in `gather_conv`.
    shape
        (depths, Cout, Cin, kz, ky, kx).

    Returns
    -------
    (depths, Cout, Cin, kz, ky, kx) tensor, as grad
        Added up in float32. Zero for depths without rows.
    """
    depths, cout, cin, *kernel = shape
    taps = kernel[0] * kernel[1] * kernel[2]
    x = require("x", x, (None, cin), None, x)
    tree = require("tree", tree, (None, cin), x.dtype, x)
    grad = require("grad", grad, (len(x), cout), x.dtype, x)
    neighbours = require("neighbours", neighbours, (len(x), taps), torch.int32, x)
    precision = precision_of(x.dtype)
    cut = outer_shape(cin, cout, taps, x.dtype, precision)
    chunks, groups = once(
        segments,
        ("chunks", cut, depths, len(x), x.device),
        lambda: tuple(part.to(x.device) for part in _chunks(segments, cut, depths, len(x))),
    )
    width = cut.steps * cut.depth * cut.col_blocks * cut.cols
    partial = x.new_empty(len(chunks), width, dtype=torch.float32)
    if len(chunks):
        with on_device(x):
            gather_outer[(len(chunks) * cut.steps * cut.col_blocks,)](
                x,
                tree,
                neighbours,
                grad,
                partial,
                chunks,
                len(x),
                len(x) + len(tree) - 1,
                **cut.constants(),
                HAS_TREE=True,
                PRECISION=precision,
                **cut.options(),
            )
    total = reduce_groups(partial, groups, depths)
    padded = (depths, cut.groups * cut.tap_block, cut.chunks * cut.channel_block, cut.col_blocks * cut.cols)
    filters = total.reshape(padded)[:, :taps, :cin, :cout].permute(0, 3, 2, 1)
    return filters.reshape(tuple(shape)).to(grad.dtype).contiguous()


def _chunks(segments: Tensor, shape: OuterShape, depths: int, rows: int) -> tuple[Tensor, Tensor]:
    """Chunks of rows ([n, 2], those of one depth together) and the range of chunks of each depth ([depths, 2])."""
    number = max(1, _PROGRAMS // (shape.steps * shape.col_blocks))
    size = max(512, -(-rows // number))
    runs = sorted(depth_runs(segments), key=lambda run: (run[2], run[0]))
    chunks: list[tuple[int, int]] = []
    groups = [[0, 0] for _ in range(depths)]
    for depth in range(depths):
        groups[depth][0] = len(chunks)
        for row0, row1, _ in (run for run in runs if run[2] == depth):
            chunks += [(first, min(first + size, row1)) for first in range(row0, row1, size)]
        groups[depth][1] = len(chunks)
    as_table: Any = torch.tensor(chunks, dtype=torch.int32).reshape(-1, 2)
    return as_table, torch.tensor(groups, dtype=torch.int32).reshape(-1, 2)


def reduce_groups(partial: Tensor, groups: Tensor | None, number: int) -> Tensor:
    """Sum partial sums [n, W] float32 in order: of each group of ``groups``, or (None) of ``number`` equal groups."""
    width = partial.shape[1]
    out = partial.new_empty(number, width)
    block = 256
    if number and width:
        with on_device(partial):
            reduce_partials[(number * -(-width // block),)](
                partial,
                out,
                partial if groups is None else groups,
                width,
                len(partial) // number,
                BLOCK=block,
                UNIFORM=groups is None,
            )
    return out


def column_sums(values: Tensor) -> Tensor:
    """Sum of values [R, C] over the rows, in a fixed order and in float32: [C], as values."""
    values = require("values", values, (None, None), None, values)
    rows, channels = values.shape
    shape = row_shape(channels)
    share = shape.rows * max(1, -(-rows // (shape.rows * 512)))
    parts = max(1, -(-rows // share))
    partial = values.new_empty(parts, channels, dtype=torch.float32)
    if channels:
        with on_device(values):
            sum_rows[(parts * shape.col_blocks,)](values, partial, rows, share, **shape.constants())
    return reduce_groups(partial, None, 1)[0].to(values.dtype)
