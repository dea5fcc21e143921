"""Tables that turn every scatter of the particle convolution's backward into a gather. Plain torch, any device.

The convolution reads, for row i and tap k, the source ``neighbours[i, k]``. Its gradient with respect to the sources
is a sum over the readers of each source. There are three kinds of (source, reader) pairs:

- The same level. Neighbourhood is symmetric there: the readers of row j are j's own neighbours, tap order reversed.
  No table is needed: `neighbours` serves, and the range of rows of that level tells who counts.
- A particle that is one level coarser than its reader. Seen from it, readers sit at up to 56 fine positions around its
  2x2x2 block of fine cells (kernel 3x3x3; 24 for 1x3x3, 208 for 5x5x5), and each reads it by 1, 2 or 4 taps, whose
  weights are added beforehand. Where the image ends within the block, fewer taps fall on it: eight variants.
- A tree row (finer there): its readers are particles of the node's level; one table row for each node that has any.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ConvTables", "conv_tables", "depth_runs", "fine_positions", "fine_selection", "row_tiles"]

#: Rows of the neighbour table that are looked at together: bounds the memory that building takes.
_BATCH = 1 << 19


class ConvTables(NamedTuple):
    """Transposed tables of one tree, stage and kernel shape.

    Attributes
    ----------
    fine_rows : (B,) int32
        Particles with finer readers, ordered by (depth, variant, row).
    fine_table : (B, P) int32
        The reader at each fine position, a feature row; R where none.
    fine_segments : (F, 4) int64 on the CPU
        Runs of ``fine_rows``: first, end, depth of the readers, variant (4 z + 2 y + x, bit set: two fine cells there).
    tree_rows : (Q,) int32
        Tree rows that have readers, ordered by (depth, row).
    tree_table : (Q, K) int32
        Readers in reversed tap order, feature rows; R where none.
    tree_segments : (G, 3) int64 on the CPU
        Runs of ``tree_rows``: first, end, depth.
    """

    fine_rows: Tensor
    fine_table: Tensor
    fine_segments: Tensor
    tree_rows: Tensor
    tree_table: Tensor
    tree_segments: Tensor


def conv_tables(neighbours: Tensor, cells: Tensor, tree_rows: int, kernel: tuple[int, int, int]) -> ConvTables:
    """Build the transposed tables of one stage.

    Parameters
    ----------
    neighbours : (R, K) int32
        Extended index of the source of each row and tap: [0, R) features, [R, R + T) tree, R + T outside.
    cells : (R, 4) int32
        z, y, x of each row on the grid of its level, and its depth.
    tree_rows
        T.
    kernel
        Extent (z, y, x), odd; K is their product.

    Returns
    -------
    ConvTables
        On the device of ``neighbours``, but for the segments. Order is fixed: the same input gives the same tables.

    Raises
    ------
    ValueError
        If the kernel does not fit the table, or a neighbour is coarser by more than one level or finer: that is no
        well-formed particle tree.
    """
    taps = kernel[0] * kernel[1] * kernel[2]
    if neighbours.ndim != 2 or neighbours.shape[1] != taps or any(edge % 2 == 0 for edge in kernel):
        raise ValueError(
            f"got neighbours of shape {tuple(neighbours.shape)} for a kernel {kernel}, expected [R, {taps}]"
        )
    if cells.shape != (neighbours.shape[0], 4):
        raise ValueError(f"got cells of shape {tuple(cells.shape)}, expected [{neighbours.shape[0]}, 4]")
    coarse, slot, fine, second = _fine_pairs(neighbours, cells, kernel)
    fine_part = _fine_table(coarse, slot, fine, second, cells, _slots(kernel))
    return ConvTables(*fine_part, *_tree_table(neighbours, cells, tree_rows))


def _tap_offsets(kernel: tuple[int, int, int]) -> Tensor:
    """[K, 3] int64: where each tap reads, relative to its row."""
    axes = [torch.arange(edge) - edge // 2 for edge in kernel]
    return torch.cartesian_prod(*axes).reshape(-1, 3)


def _reach(kernel: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """First fine position along each axis, relative to the block, and number of positions."""
    half = torch.tensor([edge // 2 for edge in kernel])
    return -half, 2 * half + 2


def fine_positions(kernel: tuple[int, int, int]) -> Tensor:
    """[P, 3] int64: fine positions around a 2x2x2 block (which is z, y, x in {0, 1}) from which a kernel reads it.

    Examples
    --------
    >>> len(fine_positions((3, 3, 3))), len(fine_positions((1, 3, 3))), len(fine_positions((5, 5, 5)))
    (56, 24, 208)
    """
    first, number = _reach(kernel)
    grid = torch.cartesian_prod(*[torch.arange(int(n)) + int(f) for f, n in zip(first, number, strict=True)])
    outside = ((grid < 0) | (grid > 1)).any(1)
    return grid.reshape(-1, 3)[outside]


def _slots(kernel: tuple[int, int, int]) -> int:
    return len(fine_positions(kernel))


def fine_selection(kernel: tuple[int, int, int]) -> Tensor:
    """[8, P, K] bool: the taps by which position p reads a block of each variant."""
    landing = fine_positions(kernel)[:, None] + _tap_offsets(kernel)[None]  # [P, K, 3]
    variants = torch.tensor([[v >> 2 & 1, v >> 1 & 1, v & 1] for v in range(8)])
    return ((landing >= 0) & (landing <= variants[:, None, None])).all(-1)


def _fine_pairs(
    neighbours: Tensor, cells: Tensor, kernel: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All (coarse row, slot, fine row) and, for each row, along which axes (3 columns) a second fine cell is read."""
    rows, device = len(neighbours), neighbours.device
    depth = cells[:, 3].contiguous()
    offsets = _tap_offsets(kernel).to(device)
    first, number = (part.to(device) for part in _reach(kernel))
    strides = torch.stack([number[1] * number[2], number[2], torch.ones_like(number[2])])
    slot_of = torch.full((int(number.prod()),), -1, device=device)
    places = ((fine_positions(kernel).to(device) - first) * strides).sum(1)
    slot_of[places] = torch.arange(len(places), device=device)
    second = torch.zeros(rows, 3, dtype=torch.bool, device=device)
    wrong = torch.zeros((), dtype=torch.bool, device=device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, rows, _BATCH):
        sources = neighbours[start : start + _BATCH]
        feature = (sources >= 0) & (sources < rows)
        jump = depth[torch.where(feature, sources, 0).long()] - depth[start : start + _BATCH, None]
        wrong |= (feature & (jump != 0) & (jump != 1)).any()
        reader, tap = (feature & (jump == 1)).nonzero(as_tuple=True)
        source = sources[reader, tap].long()
        reader = reader + start
        place = cells[reader, :3].long() - 2 * cells[source, :3].long()
        landing = place + offsets[tap]
        wrong |= ((landing < 0) | (landing > 1)).any()
        for axis in range(3):
            second[source[landing[:, axis] == 1], axis] = True
        cell = ((place - first) * strides).sum(1).clamp(0, len(slot_of) - 1)
        parts.append((source.int(), slot_of[cell].int(), reader.int()))
    if bool(wrong):
        raise ValueError(
            "a neighbour is finer, or coarser by more than one level, or not where its cell says; "
            "expected the tables of a well-formed particle tree"
        )
    empty = torch.zeros(0, dtype=torch.int32, device=device)
    columns = list(zip(*parts, strict=True)) if parts else [(empty,)] * 3
    coarse, slot, fine = (torch.cat(list(column)) for column in columns)
    return coarse, slot, fine, second


def _fine_table(
    coarse: Tensor, slot: Tensor, fine: Tensor, second: Tensor, cells: Tensor, slots: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, device = len(cells), cells.device
    read = torch.zeros(rows, dtype=torch.bool, device=device)
    read[coarse.long()] = True
    listed = read.nonzero().squeeze(1)
    variant = (second[listed] * torch.tensor([4, 2, 1], device=device)).sum(1)
    key = (cells[listed, 3].long() - 1) * 8 + variant
    key, order = torch.sort(key, stable=True)
    listed = listed[order]
    place = torch.zeros(rows, dtype=torch.int64, device=device)
    place[listed] = torch.arange(len(listed), device=device)
    table = torch.full((len(listed), slots), rows, dtype=torch.int32, device=device)
    table[place[coarse.long()], slot.long()] = fine  # a reader with several taps is written several times, the same
    runs = _runs(key)
    segments = torch.stack([runs[:, 0], runs[:, 1], runs[:, 2] // 8, runs[:, 2] % 8], 1)
    return listed.int(), table, segments


def _tree_table(neighbours: Tensor, cells: Tensor, tree_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    (rows, taps), device = neighbours.shape, neighbours.device
    depth = torch.full((tree_rows,), -1, dtype=torch.int64, device=device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, rows, _BATCH):
        sources = neighbours[start : start + _BATCH]
        reader, tap = ((sources >= rows) & (sources < rows + tree_rows)).nonzero(as_tuple=True)
        node = sources[reader, tap].long() - rows
        reader = reader + start
        depth[node] = cells[reader, 3].long()
        parts.append((node.int(), tap.short(), reader.int()))
    listed = (depth >= 0).nonzero().squeeze(1)
    key, order = torch.sort(depth[listed], stable=True)
    listed = listed[order]
    place = torch.zeros(tree_rows, dtype=torch.int64, device=device)
    place[listed] = torch.arange(len(listed), device=device)
    table = torch.full((len(listed), taps), rows, dtype=torch.int32, device=device)
    for node, tap, reader in parts:
        table[place[node.long()], taps - 1 - tap.long()] = reader
    return listed.int(), table, _runs(key)


def _runs(key: Tensor) -> Tensor:
    """[n, 3] int64 on the CPU: first, end and value of each run of equal keys."""
    values, counts = torch.unique_consecutive(key, return_counts=True)
    values, ends = values.cpu().long(), torch.cumsum(counts.cpu(), 0)
    return torch.stack([ends - counts.cpu(), ends, values], 1)


def depth_runs(segments: Tensor) -> list[tuple[int, int, int]]:
    """Segments (first row, end, depth) in order, neighbouring ones of the same depth as one, empty ones left out.

    Two items of a batch may meet in one run. That does no harm: no neighbour of an item lies in another.
    """
    runs: list[tuple[int, int, int]] = []
    for row0, row1, depth in segments.tolist():
        if row1 <= row0:
            continue
        if runs and runs[-1][1] == row0 and runs[-1][2] == depth:
            runs[-1] = (runs[-1][0], row1, depth)
        else:
            runs.append((row0, row1, depth))
    return runs


def row_tiles(runs: list[tuple[int, int, int]], block: int, sources: tuple[int, int] | None) -> Tensor:
    """Tiles of at most ``block`` rows for one launch over all levels.

    Parameters
    ----------
    runs
        First row, end and filter bank of each run.
    block
        Rows of a tile.
    sources
        Range of source indices that count; ``None``: those of the tile's own run (the same level).

    Returns
    -------
    (n, 5) int32 tensor on the CPU
        First row, end, bank, first source, end of sources..
    """
    parts = []
    for row0, row1, bank in runs:
        first = torch.arange(row0, row1, block)
        lo, hi = (row0, row1) if sources is None else sources
        end = torch.clamp(first + block, max=row1)
        rest = torch.tensor([bank, lo, hi]).expand(len(first), 3)
        parts.append(torch.cat([first[:, None], end[:, None], rest], 1))
    return torch.cat(parts).int() if parts else torch.zeros(0, 5, dtype=torch.int32)
