"""Blocks of siblings and cubes of blocks: which rows of a stage are convolved together (docs/particles.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST_BLOCKS", "blocks_of", "cubes_of", "ranges_of", "singles_of"]

FEWEST_BLOCKS = 5  # of a cube: four take as long as a cube as they do one by one

Indices = NDArray[np.int32]


def blocks_of(children: Indices, rows: int) -> Indices:
    """Tree rows with a feature row among their children [tree rows, 8]; int32 [blocks]."""
    return np.flatnonzero((children < rows).any(axis=1)).astype(np.int32)


def cubes_of(children: Indices, rows: int, blocks: Indices) -> Indices:
    """Blocks that lie 2 x 2 x 2, at least `FEWEST_BLOCKS` of eight, in the order of the tree; int32 [cubes, 8].

    Parameters
    ----------
    children
        Extended indices [tree rows, 8].
    rows
        Feature rows of the stage.
    blocks
        Their tree rows.

    Returns
    -------
    numpy.ndarray
        Numbers of blocks, in the order of children; -1 where there is none.
    """
    number = np.full(rows + len(children) + 1, -1, np.int32)
    number[rows + blocks] = np.arange(len(blocks), dtype=np.int32)
    found: Indices = number[children]
    found = found[(found >= 0).sum(axis=1) >= FEWEST_BLOCKS]
    order = np.argsort(found.max(axis=1, initial=-1), kind="stable")
    ordered: Indices = found[order]
    return ordered


def singles_of(cubes: Indices, blocks: Indices) -> Indices:
    """Numbers of the blocks in no cube; int32 [singles]."""
    single = np.ones(len(blocks), bool)
    single[cubes[cubes >= 0]] = False
    return np.flatnonzero(single).astype(np.int32)


def ranges_of(
    segments: NDArray[np.int64], below: Indices, rows: int, cubes: Indices, singles: Indices
) -> NDArray[np.int64]:
    """Where the blocks, cubes and single blocks of every segment lie; int64 [segments, 7].

    Parameters
    ----------
    segments
        First row, last row + 1, depth [segments, 3].
    below
        Children of the blocks [blocks, 8].
    rows
        Feature rows of the stage.
    cubes, singles
        As `cubes_of` and `singles_of` give them.

    Returns
    -------
    numpy.ndarray
        First block and last block + 1, the rows in them, the same two of the cubes and of the single blocks.
    """
    is_row = below < rows
    first = np.where(is_row, below, rows).min(axis=1)
    owner = np.searchsorted(segments[:, 0], first, side="right") - 1
    count = np.bincount(owner, is_row.sum(axis=1), len(segments)).astype(np.int64)
    columns = []
    for owners in (owner, owner[cubes.max(axis=1, initial=-1)], owner[singles]):
        ends = np.searchsorted(owners, np.arange(len(segments)), side="right")
        columns += [np.concatenate([[0], ends[:-1]]), ends]
    return np.stack([*columns[:2], count, *columns[2:]], axis=1).astype(np.int64)
