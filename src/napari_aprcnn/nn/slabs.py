"""Slabs: rows whose gradients can be added to their neighbours in parallel, in an order that never changes.

The gradient of a convolution's input is added from every row to the rows around it. Two slabs of rows that are far
enough apart never touch the same row; so the even slabs of a level run together, then the odd ones. The cut depends on
the tree alone, and with it the order of every sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["slabs_of"]

_SMALL = 2048  # rows of a level that are not worth cutting


def slabs_of(
    tree: ParticleTree,
    finest: int,
    kernel: tuple[int, int, int],
    base: int,
    node_shift: int,
    item: int,
    *,
    with_nodes: bool,
) -> NDArray[np.int64]:
    """Slabs of one tree.

    Parameters
    ----------
    tree, finest
        The tree, and the finest level of the stage.
    kernel
        Taps along z, y, x.
    base
        Index of the tree's first feature row in the batch.
    node_shift
        What to add to a node's index to get its feature row in the tree.
    item
        Number of the tree in the batch.
    with_nodes
        Whether the nodes of the finest level are feature rows.

    Returns
    -------
    numpy.ndarray
        Phase, task, first row, last row + 1, depth; int64 [n, 5], sorted by phase and task.

    Notes
    -----
    Slabs of h planes with a reach of r: an even slab touches planes up to ``a + h - 1 + r``, the next even one from
    ``a + 2h - r``; one level coarser these must still differ after halving. ``h = 2r + 2`` suffices.
    """
    found: list[tuple[int, int, int, int, int]] = []
    for level in range(1, finest + 1):
        kinds = [(tree.particles, 0, 0)] + ([(tree.nodes, node_shift, 1)] if with_nodes and level == finest else [])
        for rows, shift, kind in kinds:
            nz, ny, _ = tree.grid_shape(level)
            first = int(rows.level_rows[level])
            offsets = rows.offsets[first : first + nz * ny + 1] + base + shift
            if offsets[-1] == offsets[0]:
                continue
            phase = (level * 2 + kind) * 2
            depth = finest - level
            if offsets[-1] - offsets[0] < _SMALL:
                found.append((phase, item << 32, int(offsets[0]), int(offsets[-1]), depth))
                continue
            along_z = nz >= min(ny, 16)
            n, reach = (nz, kernel[0] // 2) if along_z else (ny, kernel[1] // 2)
            thick = max(2 * reach + 2, -(-n // 128))
            for number, start in enumerate(range(0, n, thick)):
                end = min(n, start + thick)
                task = (item << 32) + number
                for z in [0] if along_z else range(nz):
                    span = (start * ny, end * ny) if along_z else (z * ny + start, z * ny + end)
                    a, b = int(offsets[span[0]]), int(offsets[span[1]])
                    if b > a:
                        found.append((phase + number % 2, task, a, b, depth))
    return np.array(sorted(found), np.int64).reshape(-1, 5)
