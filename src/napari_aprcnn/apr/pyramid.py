"""Images of a particle tree without painting it: slices are made when they are asked for, at any power of two.

A viewer asks for one plane at a time, often from several threads. `TreeArray` answers from the rows of the tree alone:
it holds no buffer, changes nothing and takes no lock, so that any number of threads may slice it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr import checks
from napari_aprcnn.apr.lazy_array import BoxArray, Span
from napari_aprcnn.errors import ParticleTreeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_aprcnn._kernels.trees import Rows
    from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["TreeArray", "plane_cells", "tree_pyramid"]

Box = tuple[Span, Span, Span]
# Viewers show the coarsest image in 3D: below this edge it would be a blur.
_SMALLEST_EDGE = 96


class TreeArray(BoxArray):
    """A read-only image of a tree, reconstructed where it is sliced. Made by `tree_pyramid`.

    A voxel has the value of the particle that covers it; in a coarser image, where the particles are finer than its
    voxels, the mean over them (`ParticleTree.node_means`), rounded for integers.

    Parameters
    ----------
    tree
        The particles.
    values
        One for each particle; [N].
    node_values
        One for each interior node, in the same dtype; [nodes]. Only coarser images look at them.
    reduced
        Edge of a voxel as a power of two: 0 are the voxels of the tree.
    axes
        Letters of the array's axes: Z, Y and X once, in any order; others are axes of length 1.

    Raises
    ------
    ParticleTreeError
        If the values are not one for each particle, or the tree has no such level.
    """

    def __init__(
        self,
        tree: ParticleTree,
        values: NDArray[Any],
        node_values: NDArray[Any],
        *,
        reduced: int = 0,
        axes: str = "ZYX",
    ) -> None:
        if not 0 <= reduced <= tree.level_max:
            raise ParticleTreeError(f"got a reduction by 2^{reduced}, expected 0 to {tree.level_max}")
        if sorted(letter for letter in axes if letter in "ZYX") != ["X", "Y", "Z"]:
            raise ParticleTreeError(f"got axes {axes!r}, expected Z, Y and X once each")
        self.tree = tree
        self.axes = axes
        self._values = checks.checked_values(values, len(tree))
        self._node_values = node_values
        self._level = tree.level_max - reduced
        sizes = dict(zip("ZYX", tree.grid_shape(self._level), strict=True))
        super().__init__(tuple(sizes.get(letter, 1) for letter in axes), self._values.dtype)

    def __repr__(self) -> str:
        return f"TreeArray(shape={self.shape}, axes={self.axes!r}, dtype={self.dtype}, of {self.tree!r})"

    def read_box(self, spans: Sequence[Span]) -> NDArray[Any]:
        """Paint a box of the array."""
        place = {letter: span for letter, span in zip(self.axes, spans, strict=True) if letter in "ZYX"}
        block = self._paint((place["Z"], place["Y"], place["X"]))
        ordered = block.transpose(["ZYX".index(letter) for letter in self.axes if letter in "ZYX"])
        return np.expand_dims(ordered, [i for i, letter in enumerate(self.axes) if letter not in "ZYX"])

    def _paint(self, box: Box) -> NDArray[Any]:
        """Voxels of a box (z, y, x; first and behind the last) of this level's grid: coarse cells first."""
        tree, top = self.tree, self._level
        before, out = box, np.zeros((1, 1, 1), self.dtype)
        for level in range(top + 1):
            here = _coarser(box, top - level)
            if level:
                for axis, ((low, high), (start, _)) in enumerate(zip(here, before, strict=True)):
                    out = out.take((np.arange(low, high) >> 1) - start, axis)
            before = here
            index, place = _select(tree, tree.particles, level, here)
            out[tuple(place)] = self._values[index]
            if level == top < tree.level_max:
                index, place = _select(tree, tree.nodes, level, here)
                out[tuple(place)] = self._node_values[index]
        return out


def tree_pyramid(
    tree: ParticleTree, values: ArrayLike | None = None, *, axes: str = "ZYX", smallest: int = _SMALLEST_EDGE
) -> list[TreeArray]:
    """Make the images of a tree for a viewer: full resolution first, each next one of half the edge.

    Parameters
    ----------
    tree
        The particles.
    values
        One for each; by default the intensities; [N].
    axes
        As for `TreeArray`.
    smallest
        No image whose longest edge would be below this, in voxels.

    Raises
    ------
    ParticleTreeError
        If there are no values, or not one for each particle.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_aprcnn.apr.tree import ParticleTree
    >>> tree = ParticleTree.from_levels(np.full((4, 4, 4), 2, np.uint8), shape=(8, 8, 8))
    >>> images = tree_pyramid(tree, np.arange(64), smallest=2)
    >>> [image.shape for image in images], int(images[0][7, 7, 7])
    ([(8, 8, 8), (4, 4, 4), (2, 2, 2)], 63)
    """
    found = checks.checked_values(tree.intensities if values is None else values, len(tree))
    count = 1
    while count < tree.level_max and max(tree.grid_shape(tree.level_max - count)) >= smallest:
        count += 1
    means: NDArray[Any] = np.zeros(tree.node_count, found.dtype)
    if count > 1:
        exact = tree.node_means(found)
        means = (exact if found.dtype.kind == "f" else np.rint(exact)).astype(found.dtype)
    return [TreeArray(tree, found, means, reduced=reduced, axes=axes) for reduced in range(count)]


def plane_cells(
    tree: ParticleTree, at: int, *, axis: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Find the particles whose cells a plane cuts.

    Parameters
    ----------
    tree
        The particles.
    at, axis
        Voxel along z (0), y (1) or x (2) where the plane lies; cut to the image.

    Returns
    -------
    index : (n,) int64
        Which particles.
    centres : (n, 3) float64
        Centres of their cells, z, y, x in voxels; the first voxel's centre is 0, 0, 0.
    sizes : (n,) float64
        Edges of their cells in voxels.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_aprcnn.apr.tree import ParticleTree
    >>> tree = ParticleTree.from_levels(np.full((4, 4, 4), 2, np.uint8), shape=(8, 8, 8))
    >>> index, centres, sizes = plane_cells(tree, 3)
    >>> len(index), centres[0].tolist(), float(sizes[0])
    (16, [2.5, 0.5, 0.5], 2.0)
    """
    at = min(max(int(at), 0), tree.shape[axis] - 1)
    whole = [(0, n) for n in tree.shape]
    whole[axis] = (at, at + 1)
    box: Box = (whole[0], whole[1], whole[2])
    indices, centres, sizes = [], [], []
    for level in range(tree.level_max + 1):
        shift = tree.level_max - level
        here = _coarser(box, shift)
        index, place = _select(tree, tree.particles, level, here)
        edge = float(1 << shift)
        corner = np.stack([part + low for part, (low, _) in zip(place, here, strict=True)], axis=1)
        indices.append(index)
        centres.append(corner * edge + (edge - 1) / 2)
        sizes.append(np.full(len(index), edge))
    return np.concatenate(indices), np.concatenate(centres), np.concatenate(sizes)


def _coarser(box: Box, shift: int) -> Box:
    z, y, x = ((low >> shift, ((high - 1) >> shift) + 1) for low, high in box)
    return z, y, x


def _select(tree: ParticleTree, rows: Rows, level: int, box: Box) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Find the cells of a level inside a box of its grid: their index, and z, y, x counted from the box's corner."""
    (z0, z1), (y0, y1), (x0, x1) = box
    none = np.zeros(0, np.int64)
    if rows.offsets[rows.level_rows[level]] == rows.offsets[rows.level_rows[level + 1]]:
        return none, [none, none, none]
    ny = tree.grid_shape(level)[1]
    row = (rows.level_rows[level] + np.arange(z0, z1)[:, None] * ny + np.arange(y0, y1)).ravel()
    first = rows.offsets[row]
    counts = rows.offsets[row + 1] - first
    behind = np.cumsum(counts)
    index = np.repeat(first - (behind - counts), counts) + np.arange(behind[-1])
    x = rows.x[index].astype(np.int64)
    local = np.repeat(np.arange(len(row)), counts)
    if x0 > 0 or x1 < tree.grid_shape(level)[2]:
        keep = (x >= x0) & (x < x1)
        index, x, local = index[keep], x[keep], local[keep]
    return index, [local // (y1 - y0), local % (y1 - y0), x - x0]
