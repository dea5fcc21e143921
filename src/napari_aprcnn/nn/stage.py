"""Pooling stages of a batch of trees, and their index tables: built when first asked for, shared by all layers."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.errors import StageError
from napari_aprcnn.nn.blocks import blocks_of, cubes_of, ranges_of, singles_of
from napari_aprcnn.nn.slabs import slabs_of

__all__ = ["Forest", "Kernel", "Stage"]

Kernel = tuple[int, int, int]
_MOST_ROWS = 2**31 - 2


class Forest:
    """The trees of a batch. Their particles are concatenated, never padded.

    Parameters
    ----------
    trees
        One tree, or several; they may differ in shape and in number of levels.

    Raises
    ------
    StageError
        Without a tree.
    """

    def __init__(self, trees: ParticleTree | Iterable[ParticleTree]) -> None:
        self.trees: tuple[ParticleTree, ...] = (trees,) if isinstance(trees, ParticleTree) else tuple(trees)
        if not self.trees:
            raise StageError("got no tree, expected at least one for a batch")
        self._stages: dict[int, Stage] = {}

    def __len__(self) -> int:
        return len(self.trees)

    @property
    def deepest(self) -> int:
        """Largest number of poolings that every tree of the batch has."""
        return min(tree.level_max for tree in self.trees) - 1

    def stage(self, depth: int = 0) -> Stage:
        """Stage after ``depth`` poolings; the same object every time.

        Raises
        ------
        StageError
            If a tree has not that many levels.
        """
        found = self._stages.get(depth)
        if found is None:
            if not 0 <= depth <= self.deepest:
                raise StageError(
                    f"got stage {depth}, expected 0 to {self.deepest}: the smallest image of the batch has "
                    f"{self.deepest + 1} levels; pool less often, or pad the image"
                )
            found = self._stages[depth] = Stage(self, depth)
        return found

    def release(self) -> None:
        """Free all tables; they are built again when they are needed."""
        for stage in self._stages.values():
            stage.release()

    def __repr__(self) -> str:
        return f"Forest({len(self)} trees, {sum(len(tree) for tree in self.trees)} particles)"


class Stage:
    """One pooling stage of a batch: what rows a feature tensor has, and the tables that layers need.

    Made by `Forest.stage`. After ``depth`` poolings the finest level of a tree is ``level_max - depth``; its feature
    rows
    are the particles up to that level and, after the first pooling, the interior nodes of that level. Tables are
    described in `napari_aprcnn._kernels.particles`.

    Attributes
    ----------
    forest, depth
        Where the stage belongs.
    finest
        Finest level of every tree.
    item_rows, rows
        Feature rows of every tree, and of all.
    tree_rows
        Interior nodes below the stage, of all trees.
    """

    def __init__(self, forest: Forest, depth: int) -> None:
        self.forest, self.depth = forest, depth
        self.finest = [tree.level_max - depth for tree in forest.trees]
        pairs = list(zip(forest.trees, self.finest, strict=True))
        self.particle_rows = [tree.level_range(finest)[1] for tree, finest in pairs]
        self._node_features = [_node_range(tree, finest) if depth else (0, 0) for tree, finest in pairs]
        self.item_rows = [p + b - a for p, (a, b) in zip(self.particle_rows, self._node_features, strict=True)]
        self.item_tree_rows = [
            nodes[0] if depth else tree.node_count
            for tree, nodes in zip(forest.trees, self._node_features, strict=True)
        ]
        self.rows, self.tree_rows = sum(self.item_rows), sum(self.item_tree_rows)
        if self.rows + self.tree_rows > _MOST_ROWS:
            raise StageError(
                f"got a batch of {self.rows} rows, expected at most {_MOST_ROWS}; use fewer or smaller images"
            )
        self._tables: dict[tuple[object, ...], Tensor] = {}

    # --- layout ---------------------------------------------------------------------------------------------
    @cached_property
    def starts(self) -> list[int]:
        """First feature row of every tree, and one more."""
        return [0, *np.cumsum(self.item_rows).tolist()]

    def grid_shape(self, item: int) -> Kernel:
        """Cells of the finest level of one tree along z, y, x."""
        return self.forest.trees[item].grid_shape(self.finest[item])

    def coarser(self) -> Stage:
        """Stage after one pooling more."""
        return self.forest.stage(self.depth + 1)

    def finer(self) -> Stage:
        """Stage after one pooling less."""
        return self.forest.stage(self.depth - 1)

    def items_of_rows(self, device: torch.device) -> Tensor:
        """Which tree each row belongs to; int64 [rows]."""

        def build() -> Tensor:
            return torch.repeat_interleave(torch.arange(len(self.forest)), torch.tensor(self.item_rows))

        return self._table("items", build, device)

    # --- tables ---------------------------------------------------------------------------------------------
    def _table(self, name: object, build: Callable[[], Tensor], device: torch.device | None = None) -> Tensor:
        where = torch.device("cpu") if device is None else device
        found = self._tables.get((name, where))
        if found is None:
            kept = self._tables.get((name, torch.device("cpu")))
            with torch.inference_mode(mode=False):  # a training may take the tables of an inference
                found = self._tables[(name, where)] = (build() if kept is None else kept).to(where)
        return found

    def _places(self) -> Iterator[tuple[int, Kernel, slice, slice]]:
        """Every tree: index, bases of its indices, its feature rows and its tree rows."""
        feature, tree = 0, 0
        outside = self.rows + self.tree_rows
        for item, (rows, nodes) in enumerate(zip(self.item_rows, self.item_tree_rows, strict=True)):
            places = (feature, self.rows + tree, outside)
            yield item, places, slice(feature, feature + rows), slice(tree, tree + nodes)
            feature, tree = feature + rows, tree + nodes

    def neighbours(self, kernel: Kernel, device: torch.device | None = None) -> Tensor:
        """Extended index of every tap; int32 [rows, taps]. Not kept where it is the row itself."""
        if kernel == (1, 1, 1):
            with torch.inference_mode(mode=False):
                return torch.arange(self.rows, dtype=torch.int32, device=device)[:, None]

        def build() -> Tensor:
            out = np.empty((self.rows, int(np.prod(kernel))), np.int32)
            for item, places, rows, _ in self._places():
                self.forest.trees[item].tables.neighbours(self.finest[item], kernel, places, out[rows])
            return torch.from_numpy(out)

        return self._table(("neighbours", kernel), build, device)

    def blocks(self) -> Tensor:
        """Tree rows with a feature row among their children; int32 [blocks]."""
        return self._table("blocks", lambda: torch.from_numpy(blocks_of(self.children().numpy(), self.rows)))

    def cubes(self) -> Tensor:
        """Blocks that lie 2 x 2 x 2, five of eight or more, in the order of children; int32 [cubes, 8], -1: none."""

        def build() -> Tensor:
            return torch.from_numpy(cubes_of(self.children().numpy(), self.rows, self.blocks().numpy()))

        return self._table("cubes", build)

    def singles(self) -> Tensor:
        """Blocks in no cube; int32 [singles]."""

        def build() -> Tensor:
            return torch.from_numpy(singles_of(self.cubes().numpy(), self.blocks().numpy()))

        return self._table("singles", build)

    def block_ranges(self) -> Tensor:
        """Blocks, rows in them, cubes and single blocks of every segment: firsts and ends; int64 [n, 7]."""

        def build() -> Tensor:
            below = self.children().numpy()[self.blocks().numpy()]
            groups = (self.cubes().numpy(), self.singles().numpy())
            return torch.from_numpy(ranges_of(self.segments().numpy(), below, self.rows, *groups))

        return self._table("block_ranges", build)

    def around(self) -> Tensor:
        """Extended indices around every block of siblings, on its own level; int32 [blocks, 27]."""

        def build() -> Tensor:
            blocks = self.blocks().numpy()
            out = np.empty((len(blocks), 27), np.int32)
            for item, places, _, nodes in self._places():
                first, last = np.searchsorted(blocks, [nodes.start, nodes.stop])
                own = blocks[first:last] - np.int32(nodes.start)
                self.forest.trees[item].tables.around(self.finest[item], places, own, out[first:last])
            return torch.from_numpy(out)

        return self._table("around", build)

    def cuts(self) -> Tensor:
        """Blocks that begin two planes of blocks along z, a cube's, of a level; ascending int64 [n]."""

        def build() -> Tensor:
            found = []
            for item, _, _, nodes in self._places():
                tree, finest = self.forest.trees[item], self.finest[item]
                for level in range(finest):
                    nz, ny, _ = tree.grid_shape(level)
                    planes = int(tree.nodes.level_rows[level]) + ny * np.arange(0, nz, 2)
                    found.append(nodes.start + tree.nodes.offsets[planes])
            first = np.searchsorted(self.blocks().numpy(), np.concatenate(found))
            return torch.from_numpy(np.unique(first).astype(np.int64))

        return self._table("cuts", build)

    def patch_tables(self) -> tuple[Tensor, ...]:
        """What `patch_conv` takes of a stage, in its order."""
        nodes, groups = (self.children(), self.node_ranges()), (self.cubes(), self.singles())
        return (*nodes, self.blocks(), self.block_ranges(), self.around(), *groups, self.segments(), self.cuts())

    def places_in_coarser(self) -> Tensor:
        """What every extended index becomes in the coarser stage; int32 [rows + tree rows + 1]."""

        def build() -> Tensor:
            coarse = self.coarser()
            out = np.empty(self.rows + self.tree_rows + 1, np.int32)
            rows, nodes = out[: self.rows], out[self.rows :]
            nodes[-1] = coarse.rows + coarse.tree_rows
            children, tree_row, coarse_row = self.pool_children().numpy(), 0, coarse.rows
            ranges = zip(self.pool_ranges().tolist(), coarse.item_tree_rows, strict=True)
            for (first, pooled, copied, first_node, count), kept in ranges:
                rows[first : first + copied] = np.arange(pooled, pooled + copied)
                became = np.arange(pooled + copied, pooled + copied + count, dtype=np.int32)
                for one in children[first_node : first_node + count].T:  # of eight: copies are small
                    there = one < self.rows
                    rows[one[there]] = became[there]
                nodes[tree_row : tree_row + kept] = np.arange(coarse_row, coarse_row + kept)
                nodes[tree_row + kept : tree_row + kept + count] = became
                tree_row, coarse_row = tree_row + kept + count, coarse_row + kept
            return torch.from_numpy(out)

        return self._table("places_in_coarser", build)

    def children(self, device: torch.device | None = None) -> Tensor:
        """Extended index of the children of every tree row; int32 [tree rows, 8]."""

        def build() -> Tensor:
            out = np.empty((self.tree_rows, 8), np.int32)
            for item, places, _, nodes in self._places():
                self.forest.trees[item].tables.children(self.finest[item], places, out[nodes])
            return torch.from_numpy(out)

        return self._table("children", build, device)

    def node_ranges(self) -> Tensor:
        """Tree rows that can be filled together, finest level first; int64 [n, 2]."""

        def build() -> Tensor:
            found = []
            for item, _, _, nodes in self._places():
                tree, finest = self.forest.trees[item], self.finest[item]
                for level in range(finest):
                    first, last = _node_range(tree, level)
                    found.append((finest - level, nodes.start + first, nodes.start + last))
            return torch.tensor([row[1:] for row in sorted(found)], dtype=torch.int64)

        return self._table("node_ranges", build)

    def segments(self) -> Tensor:
        """First row, last row + 1 and depth of the rows of one level of one tree; int64 [n, 3]."""

        def build() -> Tensor:
            found = []
            for item, _, rows, _ in self._places():
                tree, finest = self.forest.trees[item], self.finest[item]
                for level in range(1, finest + 1):
                    first, last = tree.level_range(level)
                    last = self.item_rows[item] if level == finest else last
                    if last > first:
                        found.append((rows.start + first, rows.start + last, finest - level))
            return torch.tensor(found, dtype=torch.int64)

        return self._table("segments", build)

    def item_starts(self, *, whole: bool = False) -> Tensor:
        """First feature row of every tree, and one more; int64 [trees + 1]. ``whole``: of all rows as one item, [2]."""
        starts = [0, self.rows] if whole else self.starts
        return self._table(("starts", whole), lambda: torch.tensor(starts, dtype=torch.int64))

    @property
    def depths(self) -> int:
        """Number of levels that hold rows of the stage."""
        return max(self.finest)

    def slabs(self, kernel: Kernel) -> Tensor:
        """Phase, task, first row, last row + 1, depth; int64 [n, 5]."""

        def build() -> Tensor:
            found = []
            for item, _, rows, _ in self._places():
                tree, finest = self.forest.trees[item], self.finest[item]
                shift = self.particle_rows[item] - self._node_features[item][0]
                found.append(slabs_of(tree, finest, kernel, rows.start, shift, item, with_nodes=self.depth > 0))
            every: NDArray[np.int64] = np.concatenate(found)
            return torch.from_numpy(every[np.lexsort((every[:, 2], every[:, 1], every[:, 0]))].copy())

        return self._table(("slabs", kernel), build)

    def cells(self, device: torch.device | None = None) -> Tensor:
        """Position and shift of every row on its own level; int32 [rows, 4]."""

        def build() -> Tensor:
            out = np.empty((self.rows, 4), np.int32)
            for item, _, rows, _ in self._places():
                self.forest.trees[item].tables.cells(self.finest[item], out[rows])
            return torch.from_numpy(out)

        return self._table("cells", build, device)

    def pool_children(self, device: torch.device | None = None) -> Tensor:
        """Feature rows under every node that the next stage gains; int32 [nodes, 8], ``rows`` where there is none."""

        def build() -> Tensor:
            parts = []
            for item, _, _, nodes in self._places():
                first, last = _node_range(self.forest.trees[item], self.finest[item] - 1)
                parts.append(self.children()[nodes.start + first : nodes.start + last])
            together = parts[0] if len(parts) == 1 else torch.cat(parts)
            whole = not together.numel() or int(together.max()) <= self.rows
            return together if whole else together.clamp_max(self.rows)

        return self._table("pool_children", build, device)

    def pool_ranges(self) -> Tensor:
        """First row, first pooled row, rows copied, first node, nodes; int64 [trees, 5]."""

        def build() -> Tensor:
            coarse = self.coarser()
            found, first_node = [], 0
            for item, _, rows, _ in self._places():
                nodes = coarse.item_rows[item] - coarse.particle_rows[item]
                found.append((rows.start, coarse.starts[item], coarse.particle_rows[item], first_node, nodes))
                first_node += nodes
            return torch.tensor(found, dtype=torch.int64)

        return self._table("pool_ranges", build)

    @property
    def table_bytes(self) -> int:
        """Bytes of the tables that stand now."""
        return sum(table.numel() * table.element_size() for table in self._tables.values())

    def release(self, *, but: Container[object] = ()) -> None:
        """Free the tables of this stage, but those of these names."""
        self._tables = {key: table for key, table in self._tables.items() if key[0] in but}

    def __repr__(self) -> str:
        return f"Stage(depth={self.depth}, rows={self.rows}, trees={len(self.forest)})"


def _node_range(tree: ParticleTree, level: int) -> tuple[int, int]:
    first, last = tree.nodes.offsets[tree.nodes.level_rows[level : level + 2]]
    return int(first), int(last)
