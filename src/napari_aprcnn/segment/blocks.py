"""A volume in blocks with halos, where exactly one block owns an object.

The owner is the block whose core holds the object's centre. Halos are wider than nuclei, so every block sees the
objects it owns whole, and seams leave no trace: an object is written once, from one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.segment.source import Region

__all__ = ["Block", "adopt", "cut_blocks"]

# Two blocks may see an object's centre on their own side of a seam by a fraction of a voxel, or both on the other's:
# who comes first takes what lies this close, and who comes later finds the place taken.
NEAR_SEAM = 1.0
SAME_OBJECT = 0.5


@dataclass(frozen=True)
class Block:
    """A part of a volume.

    Attributes
    ----------
    core
        The region (z, y, x) whose objects the block owns; cores tile the volume.
    outer
        The region that is computed: the core and its halo, cut at the volume.
    """

    core: Region
    outer: Region

    @property
    def outer_shape(self) -> tuple[int, int, int]:
        """Shape of the computed region."""
        z, y, x = (part.stop - part.start for part in self.outer)
        return z, y, x


def cut_blocks(
    shape: tuple[int, int, int], *, parts: tuple[int, int, int], halo: tuple[int, int, int]
) -> tuple[Block, ...]:
    """Cut a volume into equal blocks.

    Parameters
    ----------
    shape
        (Z, Y, X).
    parts
        Number of blocks along each axis.
    halo
        Margin along each axis, in voxels.

    Examples
    --------
    >>> [block.outer[2] for block in cut_blocks((1, 8, 100), parts=(1, 1, 2), halo=(0, 0, 10))]
    [slice(0, 60, None), slice(40, 100, None)]
    """
    blocks = []
    for index in product(*(range(n) for n in parts)):
        core = tuple(slice(i * n // p, (i + 1) * n // p) for i, n, p in zip(index, shape, parts, strict=True))
        outer = tuple(
            slice(max(part.start - h, 0), min(part.stop + h, n)) for part, h, n in zip(core, halo, shape, strict=True)
        )
        blocks.append(Block((core[0], core[1], core[2]), (outer[0], outer[1], outer[2])))
    return tuple(blocks)


def adopt(target: NDArray[Any], found: NDArray[np.uint32], block: Block, *, n_objects: int) -> int:
    """Write the objects that a block owns into the labels of the volume.

    Parameters
    ----------
    target : (Z, Y, X)
        Labels of the volume so far.
    found : uint32
        Labels 1..n of the block's outer region.
    block
        The block.
    n_objects
        Objects in `target`; new ones are numbered from there on.

    Returns
    -------
    int
        Objects in `target` afterwards.

    Notes
    -----
    O(voxels) time; centres are means of voxel positions.
    """
    n = int(found.max(initial=0))
    if n == 0:
        return n_objects
    place = target[block.outer]
    sizes = np.maximum(np.bincount(found.ravel(), minlength=n + 1), 1)
    taken = np.bincount(found[place > 0], minlength=n + 1) / sizes
    inside, near = np.ones(n + 1, bool), np.ones(n + 1, bool)
    for axis, (core, outer, length) in enumerate(zip(block.core, block.outer, target.shape, strict=True)):
        centre = _centres(found, axis, sizes) + outer.start
        # The volume's own faces are no seams.
        low = -np.inf if core.start == 0 else core.start
        high = np.inf if core.stop == length else core.stop
        inside &= (centre >= low - 0.5) & (centre < high - 0.5)
        near &= (centre >= low - 0.5 - NEAR_SEAM) & (centre < high - 0.5 + NEAR_SEAM)
    keep = (inside & (taken <= SAME_OBJECT)) | (near & ~inside & (taken == 0))
    keep[0] = False
    names = np.zeros(n + 1, target.dtype)
    names[keep] = n_objects + 1 + np.arange(int(keep.sum()))
    named = names[found]
    np.copyto(place, named, where=(named > 0) & (place == 0))
    return n_objects + int(keep.sum())


def _centres(found: NDArray[np.uint32], axis: int, sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean position of each label along an axis, in voxels; summed plane by plane to need no array of positions."""
    total = np.zeros(len(sizes))
    for position, plane in enumerate(np.moveaxis(found, axis, 0)):
        total += position * np.bincount(plane.ravel(), minlength=len(sizes))
    return np.asarray(total / sizes)
