"""Particle trees of any sparsity and the tables of their stages, in plain torch: for benchmarks and tests of kernels.

A tree is given by its interior nodes: masks of cells that have finer ones, level by level. Growing the mask of a level
by one cell before it is coarsened keeps neighbours within one level of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Stage", "Tree", "batch", "nested_spheres", "scattered_boxes", "stage", "tree_from_fine_cells"]


@dataclass(frozen=True)
class Tree:
    """Level l has cells of edge 2^(L - l) voxels; ``exists[l]`` and ``node[l]`` are masks over its grid."""

    shape: tuple[int, int, int]
    exists: list[Tensor]  # levels 0..L
    node: list[Tensor]  # levels 0..L; none at L

    @property
    def level_max(self) -> int:
        """L: the level whose cells are voxels."""
        return len(self.exists) - 1

    @property
    def particles(self) -> int:
        """Cells without finer ones."""
        return sum(int((e & ~n).sum()) for e, n in zip(self.exists, self.node, strict=True))

    @property
    def prr(self) -> float:
        """Particle reduction ratio: voxels per particle."""
        return self.shape[0] * self.shape[1] * self.shape[2] / self.particles


def _grid(shape: Sequence[int], shift: int) -> tuple[int, int, int]:
    z, y, x = ((n + (1 << shift) - 1) >> shift for n in shape)
    return z, y, x


def _coarsen(mask: Tensor) -> Tensor:
    return F.max_pool3d(mask[None, None].float(), 2, ceil_mode=True)[0, 0] > 0


def _refine(mask: Tensor, shape: Sequence[int]) -> Tensor:
    for axis in range(3):
        mask = mask.repeat_interleave(2, axis).narrow(axis, 0, shape[axis])
    return mask


def tree_from_fine_cells(shape: tuple[int, int, int], fine: Tensor) -> Tree:
    """The coarsest tree whose cells of level L - 1 under ``fine`` (bool, that level's grid) are split into voxels."""
    level_max = max(1, (max(shape) - 1).bit_length())
    node = [torch.zeros(_grid(shape, 0), dtype=torch.bool, device=fine.device), fine]
    for _ in range(level_max - 1):
        grown = F.max_pool3d(node[-1][None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        node.append(_coarsen(grown))
    node.reverse()
    node[0] = torch.ones_like(node[0])
    finer = [_refine(node[level - 1], _grid(shape, level_max - level)) for level in range(1, level_max + 1)]
    exists = [torch.ones_like(node[0]), *finer]
    return Tree(shape, exists, node)


def nested_spheres(shape: tuple[int, int, int], prr: float, device: torch.device | str = "cpu") -> Tree:
    """Thin spherical shells, as many and as thick as bring the tree nearest to ``prr`` voxels per particle."""
    centre = [(n - 1) / 4 for n in shape]
    z, y, x = (torch.arange(n, device=device, dtype=torch.float32) for n in _grid(shape, 1))
    radius = ((z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2).sqrt()
    largest = float(radius.max())
    best: Tree | None = None
    lo, hi = 0.0, largest
    for _ in range(18):  # the filled share of the volume grows with the reach of the shells
        middle = (lo + hi) / 2
        shells = (radius <= middle) & ((radius % 12.0 < 1.0) | (radius <= middle * middle / largest))
        tree = tree_from_fine_cells(shape, shells)
        if best is None or abs(tree.prr - prr) < abs(best.prr - prr):
            best = tree
        lo, hi = (middle, hi) if tree.prr > prr else (lo, middle)
    assert best is not None
    return best


def scattered_boxes(shape: tuple[int, int, int], share: float, seed: int = 0) -> Tree:
    """About ``share`` of the cells of level L - 1 are split, at random places."""
    generator = torch.Generator().manual_seed(seed)
    return tree_from_fine_cells(shape, torch.rand(_grid(shape, 1), generator=generator) < share)


@dataclass(frozen=True)
class Stage:
    """Tables of one stage (see docs/gpu.md): what the operators of the particle layers take."""

    shape: tuple[int, int, int]
    rows: int
    neighbours: Tensor
    segments: Tensor
    children: Tensor
    node_ranges: Tensor
    cells: Tensor
    pool_children: Tensor
    pool_ranges: Tensor

    @property
    def tree_rows(self) -> int:
        """Number of interior nodes below the stage."""
        return len(self.children)


def _numbered(mask: Tensor, first: int) -> tuple[Tensor, int]:
    """Numbers first, first + 1, ... over the mask in z, y, x order, -1 elsewhere; and the next number."""
    flat = mask.flatten()
    numbers = torch.where(flat, torch.cumsum(flat, 0) - 1 + first, -1)
    return numbers.reshape(mask.shape), first + int(flat.sum())


def _at(table: Tensor, place: Tensor, outside: int) -> Tensor:
    """table[place] for places [..., 3], ``outside`` where they lie beyond the grid."""
    edge = torch.tensor(table.shape, device=table.device)
    ok = ((place >= 0) & (place < edge)).all(-1)
    z, y, x = torch.minimum(place.clamp(min=0), edge - 1).unbind(-1)
    return torch.where(ok, table[z, y, x], outside)


def stage(tree: Tree, depth: int, kernel: tuple[int, int, int]) -> Stage:
    """Tables of stage ``depth`` (number of poolings before it) for a kernel."""
    finest = tree.level_max - depth
    device = tree.node[0].device
    rows, tree_rows, leaf, inner = 0, 0, [], []
    for level in range(finest + 1):
        numbers, rows = _numbered(tree.exists[level] & ~tree.node[level], rows)
        leaf.append(numbers)
    appended, rows = _numbered(tree.node[finest], rows)
    for level in range(finest):
        numbers, tree_rows = _numbered(tree.node[level], tree_rows)
        inner.append(numbers)
    outside = rows + tree_rows
    extended = [torch.where(n >= 0, n + rows, f) for n, f in zip(inner, leaf[:-1], strict=True)]
    extended.append(torch.where(appended >= 0, appended, leaf[finest]))

    offsets = torch.cartesian_prod(*[torch.arange(k, device=device) - k // 2 for k in kernel]).reshape(-1, 3)
    corners = torch.cartesian_prod(*[torch.arange(2, device=device)] * 3)
    neighbours, cells, segments, children, node_ranges = [], [], [], [], []
    first_row = first_node = 0
    parts = [(level, leaf[level] >= 0) for level in range(finest + 1)] + [(finest, appended >= 0)]
    for level, mask in parts:
        place = mask.nonzero()
        table = torch.empty(len(place), len(offsets), dtype=torch.int32, device=device)
        for tap, offset in enumerate(offsets):
            source = _at(extended[level], place + offset, outside)
            if level:
                coarser = _at(extended[level - 1], (place + offset) >> 1, outside)
                source = torch.where(source < 0, coarser, source)
            table[:, tap] = source
        neighbours.append(table)
        shift = torch.full((len(place), 1), finest - level, device=device)
        cells.append(torch.cat([place, shift], 1))
        segments.append((first_row, first_row + len(place), finest - level))
        first_row += len(place)
    for level in range(finest):
        place = tree.node[level].nonzero()
        children.append(_at(extended[level + 1], 2 * place[:, None] + corners, outside))
        node_ranges.append((first_node, first_node + len(place)))
        first_node += len(place)

    ranges, pool_children = [], torch.zeros(0, 8, dtype=torch.int64, device=device)
    if finest:
        pool_children = _at(extended[finest], 2 * tree.node[finest - 1].nonzero()[:, None] + corners, rows)
        ranges = [(0, 0, segments[finest][0], 0, len(pool_children))]
    grid = _grid(tree.shape, depth)
    return Stage(
        grid,
        rows,
        torch.cat(neighbours),
        torch.tensor(segments),
        torch.cat([*children, torch.zeros(0, 8, dtype=torch.int64, device=device)]).int(),
        torch.tensor(node_ranges[::-1], dtype=torch.int64).reshape(-1, 2),
        torch.cat(cells).int(),
        pool_children.int(),
        torch.tensor(ranges, dtype=torch.int64).reshape(-1, 5),
    )


def batch(items: Sequence[Stage]) -> Stage:
    """Items one after the other: rows of all, then tree rows of all. ``shape`` is the first item's."""
    rows, tree_rows = sum(i.rows for i in items), sum(i.tree_rows for i in items)
    row = node = pooled = out = 0
    parts: dict[str, list[Tensor]] = {name: [] for name in ("n", "s", "c", "r", "k", "p", "q")}

    def moved(table: Tensor, item: Stage) -> Tensor:
        inner = torch.where(table < item.rows + item.tree_rows, table - item.rows + rows + node, rows + tree_rows)
        return torch.where(table < item.rows, table + row, inner).int()

    for item in items:
        parts["n"].append(moved(item.neighbours, item))
        parts["c"].append(moved(item.children, item))
        parts["s"].append(item.segments + torch.tensor([row, row, 0]))
        parts["r"].append(item.node_ranges + node)
        parts["k"].append(item.cells)
        parts["p"].append(torch.where(item.pool_children < item.rows, item.pool_children + row, rows).int())
        copied, nodes = int(item.pool_ranges[0, 2]), int(item.pool_ranges[0, 4])
        parts["q"].append(torch.tensor([[row, out, copied, pooled, nodes]]))
        row, node, pooled, out = row + item.rows, node + item.tree_rows, pooled + nodes, out + copied + nodes
    n, s, c, r, k, p, q = (torch.cat(part) for part in parts.values())
    return Stage(items[0].shape, rows, n, s, c, r, k, p, q)
