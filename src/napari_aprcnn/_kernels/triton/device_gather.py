"""Device code of the particle convolution: gathered matrix products. No atomics; every output has one writer.

Values that are known when a kernel is compiled are in capitals. Extended indices (see `tables`) below ``rows_x`` are
rows of ``x``, the others are rows of ``tree``.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["gather_gemm", "gather_outer", "reduce_partials", "sum_rows"]


@triton.jit
def _load_patches(
    x, tree, table, rows, rows_ok, step, lo, hi, rows_x,
    CIN: tl.constexpr, TAPS: tl.constexpr, TAP_BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, HAS_TREE: tl.constexpr,
):  # fmt: skip
    """[BLOCK_ROWS, TAP_BLOCK * CHANNEL_BLOCK]: what a step reads, zero where an index is not in [lo, hi)."""
    CHUNKS: tl.constexpr = (CIN + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    if TAP_BLOCK == 1:
        tap = step // CHUNKS
        channel = (step % CHUNKS) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
        index = tl.load(table + rows.to(tl.int64) * TAPS + tap, mask=rows_ok, other=-1)
        here = (index >= lo) & (index < hi)
        index = tl.where(here, index, 0).to(tl.int64)
        base = x + index * CIN
        if HAS_TREE:
            base = tl.where(index < rows_x, base, tree + (index - rows_x) * CIN)
        pointers = base[:, None] + channel[None, :]
        if CIN % CHANNEL_BLOCK == 0:
            patches = tl.load(pointers, mask=here[:, None], other=0.0)
        else:
            patches = tl.load(pointers, mask=here[:, None] & (channel < CIN)[None, :], other=0.0)
    else:
        # Few channels: several taps fill one step, so that the tensor cores have 32 products to add up.
        tap = step * TAP_BLOCK + tl.arange(0, TAP_BLOCK)
        channel = tl.arange(0, CHANNEL_BLOCK)
        index = tl.load(
            table + rows.to(tl.int64)[:, None] * TAPS + tap[None, :],
            mask=rows_ok[:, None] & (tap < TAPS)[None, :],
            other=-1,
        )
        here = (index >= lo) & (index < hi)
        index = tl.where(here, index, 0).to(tl.int64)
        base = x + index * CIN
        if HAS_TREE:
            base = tl.where(index < rows_x, base, tree + (index - rows_x) * CIN)
        pointers = base[:, :, None] + channel[None, None, :]
        if CIN == CHANNEL_BLOCK:
            wide = tl.load(pointers, mask=here[:, :, None], other=0.0)
        else:
            wide = tl.load(pointers, mask=here[:, :, None] & (channel < CIN)[None, None, :], other=0.0)
        patches = tl.reshape(wide, (BLOCK_ROWS, TAP_BLOCK * CHANNEL_BLOCK))
    return patches


@triton.jit(do_not_specialize=["rows_x"])
def gather_gemm(
    x, tree, table, weight, bias, out, out_rows, tiles, rows_x,
    CIN: tl.constexpr, COUT: tl.constexpr, TAPS: tl.constexpr, TAP_BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, HAS_TREE: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_ROWS: tl.constexpr, ACCUMULATE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[i, o] = bias[o] + sum over taps k, channels c of weight[bank, o, k, c] * source[table[i, k], c].

    x [rows_x, CIN] and tree [*, CIN]: the source. table [*, TAPS] int32. weight [banks, cols, steps * depth of a step],
    padded with zeros. tiles [n, 5] int32: first row, end, bank, and the range of indices that count; others are zero.
    out_rows [*] int32: where a row goes (HAS_ROWS), else to its own number. ACCUMULATE: add to what is there.
    """
    CHUNKS: tl.constexpr = (CIN + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    STEPS: tl.constexpr = CHUNKS * ((TAPS + TAP_BLOCK - 1) // TAP_BLOCK)
    COL_BLOCKS: tl.constexpr = (COUT + BLOCK_COLS - 1) // BLOCK_COLS
    BLOCK_K: tl.constexpr = TAP_BLOCK * CHANNEL_BLOCK
    tile = tiles + (tl.program_id(0) // COL_BLOCKS) * 5
    row0 = tl.load(tile)
    row1 = tl.load(tile + 1)
    bank = tl.load(tile + 2)
    lo = tl.load(tile + 3)
    hi = tl.load(tile + 4)
    rows = row0 + tl.arange(0, BLOCK_ROWS)
    rows_ok = rows < row1
    cols = (tl.program_id(0) % COL_BLOCKS) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    bank_rows = bank.to(tl.int64) * (COL_BLOCKS * BLOCK_COLS) + cols
    weights = weight + bank_rows[None, :] * (STEPS * BLOCK_K) + tl.arange(0, BLOCK_K)[:, None]

    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for step in range(STEPS):
        patches = _load_patches(
            x,
            tree,
            table,
            rows,
            rows_ok,
            step,
            lo,
            hi,
            rows_x,
            CIN,
            TAPS,
            TAP_BLOCK,
            CHANNEL_BLOCK,
            BLOCK_ROWS,
            HAS_TREE,
        )
        filters = tl.load(weights + step * BLOCK_K)
        total = tl.dot(patches, filters, total, input_precision=PRECISION)

    cols_ok = cols < COUT
    if HAS_BIAS:
        total += tl.load(bias + cols, mask=cols_ok, other=0.0).to(tl.float32)[None, :]
    target = rows
    if HAS_ROWS:
        target = tl.load(out_rows + rows, mask=rows_ok, other=0)
    pointers = out + target.to(tl.int64)[:, None] * COUT + cols[None, :]
    mask = rows_ok[:, None] & cols_ok[None, :]
    if ACCUMULATE:
        total += tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
    tl.store(pointers, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows_x", "limit"])
def gather_outer(
    x, tree, table, grad, partial, chunks, rows_x, limit,
    CIN: tl.constexpr, COUT: tl.constexpr, TAPS: tl.constexpr, TAP_BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, HAS_TREE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """partial[chunk, k * c, o] = sum over the rows i of a chunk of source[table[i, k], c] * grad[i, o], in float32.

    The programs of one chunk run side by side (its rows stay in cache). chunks [n, 2] int32: first row and end.
    partial [n, steps * depth of a step, cols].
    """
    COL_BLOCKS: tl.constexpr = (COUT + BLOCK_COLS - 1) // BLOCK_COLS
    BLOCK_K: tl.constexpr = TAP_BLOCK * CHANNEL_BLOCK
    STEPS: tl.constexpr = ((CIN + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK) * ((TAPS + TAP_BLOCK - 1) // TAP_BLOCK)
    part = tl.program_id(0) % (STEPS * COL_BLOCKS)
    chunk = tl.program_id(0) // (STEPS * COL_BLOCKS)
    step = part // COL_BLOCKS
    cols = (part % COL_BLOCKS) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    row0 = tl.load(chunks + chunk * 2)
    row1 = tl.load(chunks + chunk * 2 + 1)

    total = tl.zeros((BLOCK_K, BLOCK_COLS), dtype=tl.float32)
    for first in range(row0, row1, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        rows_ok = rows < row1
        patches = _load_patches(
            x,
            tree,
            table,
            rows,
            rows_ok,
            step,
            0,
            limit,
            rows_x,
            CIN,
            TAPS,
            TAP_BLOCK,
            CHANNEL_BLOCK,
            BLOCK_ROWS,
            HAS_TREE,
        )
        there = grad + rows.to(tl.int64)[:, None] * COUT + cols[None, :]
        if COUT % BLOCK_COLS == 0:
            back = tl.load(there, mask=rows_ok[:, None], other=0.0)
        else:
            back = tl.load(there, mask=rows_ok[:, None] & (cols < COUT)[None, :], other=0.0)
        total = tl.dot(tl.trans(patches), back, total, input_precision=PRECISION)

    place = (chunk.to(tl.int64) * STEPS + step) * BLOCK_K + tl.arange(0, BLOCK_K)
    tl.store(partial + place[:, None] * (COL_BLOCKS * BLOCK_COLS) + cols[None, :], total)


@triton.jit(do_not_specialize=["width", "quota"])
def reduce_partials(partial, out, groups, width, quota, BLOCK: tl.constexpr, UNIFORM: tl.constexpr):
    """out[g, w] = sum of partial[q, w] over the q of group g, one after the other: the same bits in every run.

    groups [n, 2] int32: first q and end; or, UNIFORM, ``quota`` of them a group. partial, out: float32.
    """
    blocks = tl.cdiv(width, BLOCK)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    place = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    ok = place < width
    if UNIFORM:
        first = group * quota
        end = first + quota
    else:
        first = tl.load(groups + group * 2).to(tl.int64)
        end = tl.load(groups + group * 2 + 1).to(tl.int64)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for q in range(first, end):
        total += tl.load(partial + q * width + place, mask=ok, other=0.0)
    tl.store(out + group * width + place, total, mask=ok)


@triton.jit(do_not_specialize=["rows", "share"])
def sum_rows(x, partial, rows, share, C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """partial[p, c] = sum of x[i, c] over share ``p`` of the rows, in float32. ``share``: a multiple of BLOCK_ROWS."""
    COL_BLOCKS: tl.constexpr = (C + BLOCK_COLS - 1) // BLOCK_COLS
    part = (tl.program_id(0) // COL_BLOCKS).to(tl.int64)
    cols = (tl.program_id(0) % COL_BLOCKS) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for first in range(0, share, BLOCK_ROWS):
        at = part * share + first + tl.arange(0, BLOCK_ROWS)
        mask = (at < rows)[:, None] & (cols < C)[None, :]
        total += tl.load(x + at[:, None] * C + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(partial + part * C + cols, tl.sum(total, axis=0), mask=cols < C)
