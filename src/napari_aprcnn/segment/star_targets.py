"""What a star-convex network learns: object probability and distances along rays, on particles or on a grid.

APR-CNN paper, section StarDist segmentation: the probability of a voxel is its normalised distance to the nearest
voxel outside its object, averaged onto the cells; the distances go from the centre of a cell to the border of the
object. The decoder stops one upsampling early, so the cells are those of stage 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import Stopped, compact_labels
from napari_aprcnn._kernels.grids import average_cells
from napari_aprcnn._kernels.stars import ray_distances
from napari_aprcnn.errors import CancelledError, ImageDtypeError, ImageError, ImageValueError, StageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.segment.star_rays import StarRays

__all__ = [
    "StarTargets",
    "cell_centres",
    "centre_labels",
    "object_probability",
    "particle_cells",
    "star_targets",
    "voxel_cells",
]

HEAD_DEPTH = 1  # poolings of the grid that the StarDist head answers on


@dataclass(frozen=True, kw_only=True, eq=False)
class StarTargets:
    """Targets of one image, a row for each cell.

    Attributes
    ----------
    probability : (N,) float32
        Mean of `object_probability` over the cell, 0..1.
    distances : (N, R) float32
        Voxels from the cell's centre to the border of the object there; all 0 where there is none.
    objects : (N,) uint32
        The object at the cell's centre, numbered 1..n in the order of first voxels; 0 for none.
    """

    probability: NDArray[np.float32]
    distances: NDArray[np.float32]
    objects: NDArray[np.uint32]


def particle_cells(tree: ParticleTree, depth: int = HEAD_DEPTH) -> NDArray[np.int32]:
    """Cells of the feature rows after ``depth`` poolings, in the order of `napari_aprcnn.nn.Stage`.

    Returns
    -------
    (N, 4) int32
        z, y, x on the cell's own grid and the shift to voxels, as `ParticleTree.cells` gives.

    Raises
    ------
    StageError
        If the tree has not that many levels.
    """
    if not 0 <= depth < tree.level_max:
        raise StageError(f"got stage {depth}, expected 0 to {tree.level_max - 1} for a tree of {tree.level_max} levels")
    if depth == 0:
        return tree.cells()
    finest = tree.level_max - depth
    first, last = tree.nodes.offsets[tree.nodes.level_rows[finest : finest + 2]]
    out = np.empty((tree.level_range(finest)[1] + int(last - first), 4), np.int32)
    tree.tables.cells(finest, out)
    out[:, 3] += depth
    return out


def voxel_cells(shape: tuple[int, int, int], depth: int = HEAD_DEPTH) -> NDArray[np.int32]:
    """Cells of a dense grid after ``depth`` poolings by two, in the order z, y, x: the rows of a pixel network."""
    grid = [-(-edge >> depth) for edge in shape]
    out = np.full((int(np.prod(grid)), 4), depth, np.int32)
    out[:, :3] = np.indices(grid).reshape(3, -1).T
    return out


def cell_centres(cells: NDArray[np.int32]) -> NDArray[np.float64]:
    """Centres z, y, x in voxels, where the first voxel's centre is 0, 0, 0; float64 (N, 3)."""
    return (_corners(cells) - 1) / 2


def _corners(cells: NDArray[np.int32]) -> NDArray[np.int64]:
    """Twice the centre, where voxel i covers [i, i + 1): odd for single voxels, even for larger cells."""
    wide = cells.astype(np.int64)
    return ((2 * wide[:, :3] + 1) << wide[:, 3:]).astype(np.int64)


def centre_labels(labels: NDArray[np.uint32], cells: NDArray[np.int32]) -> NDArray[np.uint32]:
    """Label at the centre of every cell: of its voxel, or the most frequent of the up to eight that meet there.

    Background is chosen only where nothing else is; the smallest label wins a tie. Centres outside the image (of cells
    that its border cuts) are background.

    Parameters
    ----------
    labels : (Z, Y, X) uint32
        Labels.
    cells : (N, 4) int32
        As `particle_cells` gives them.

    Returns
    -------
    (N,) uint32
    """
    corners, padded = _corners(cells), np.pad(labels, 1)
    low = np.minimum((corners - 1) >> 1, labels.shape)
    odd = corners & 1
    found = np.empty((len(cells), 8), np.uint32)
    for slot in range(8):
        up = np.array([slot >> 2 & 1, slot >> 1 & 1, slot & 1]) * (1 - odd)
        # Padding moves every voxel by one; a centre beyond the image reads the padding.
        at = np.minimum(low + up + 1, np.array(padded.shape) - 1)
        found[:, slot] = padded[tuple(at.T)]
    mixed = np.flatnonzero((found != found[:, :1]).any(1))
    some = np.sort(found[mixed], axis=1)
    votes = (some[:, :, None] == some[:, None, :]).sum(2) * (some > 0)
    found[mixed, 0] = some[np.arange(len(mixed)), votes.argmax(1)]
    return found[:, 0].copy()


def object_probability(
    labels: NDArray[Any], *, anisotropy: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> NDArray[np.float32]:
    """Distance to the nearest voxel outside the own object, over the largest such distance of the object.

    The border of the image is no border of an object: what is cut there keeps its high values, unless nothing else
    bounds the object.

    Parameters
    ----------
    labels : (Z, Y, X) bool or any integer type
        0 is background; ids may be huge and have gaps.
    anisotropy
        Voxel sizes z, y, x; only ratios matter.

    Returns
    -------
    (Z, Y, X) float32
        1 in the middle of every object, 0 in the background.

    Raises
    ------
    ImageError, ImageDtypeError, ImageValueError
        If the labels have not three axes, are no integers, or negative.

    Examples
    --------
    >>> labels = np.zeros((5, 5, 5), np.uint8)
    >>> labels[1:4, 1:4, 1:4] = 7
    >>> probability = object_probability(labels)
    >>> float(probability[2, 2, 2]), float(probability[1, 2, 2]), float(probability[0, 0, 0])
    (1.0, 0.5, 0.0)
    """
    from scipy.ndimage import distance_transform_edt, find_objects

    compact = _checked(labels)
    out = np.zeros(compact.shape, np.float32)
    for number, box in enumerate(find_objects(compact.view(np.int32)), 1):
        # One voxel around is enough: the nearest voxel outside is within the box or touches it.
        wide = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, edge))
            for part, edge in zip(box, compact.shape, strict=True)
        )
        mask = compact[wide] == number
        if mask.all():  # it fills the image
            distance = distance_transform_edt(np.pad(mask, 1), sampling=anisotropy)[1:-1, 1:-1, 1:-1]
        else:
            distance = distance_transform_edt(mask, sampling=anisotropy)
        out[wide][mask] = (distance / distance.max())[mask]
    return out


def star_targets(
    labels: NDArray[Any],
    cells: NDArray[np.int32],
    rays: StarRays,
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> StarTargets:
    """Targets of the rows of a StarDist head.

    Parameters
    ----------
    labels : (Z, Y, X) bool or any integer type
        0 is background; ids may be huge and have gaps.
    cells : (N, 4) int32
        Of the rows: `particle_cells` of a tree, or `voxel_cells` of a pixel network.
    rays
        Directions; their anisotropy also weighs the axes of the probability.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    should_cancel
        Asked about every 50 ms while distances are measured.

    Returns
    -------
    StarTargets

    Raises
    ------
    ImageError, ImageDtypeError, ImageValueError
        If the labels have not three axes, are one slice, are no integers, or negative.
    CancelledError
        If ``should_cancel`` said yes.

    Examples
    --------
    >>> from napari_aprcnn.segment.star_rays import golden_spiral
    >>> labels = np.zeros((8, 8, 8), np.uint8)
    >>> labels[2:6, 2:6, 2:6] = 3
    >>> targets = star_targets(labels, voxel_cells((8, 8, 8), 1), golden_spiral(6))
    >>> targets.distances[targets.objects > 0].shape, float(targets.distances[21, 0]), float(targets.distances[21, 5])
    ((8, 6), 1.0, 3.0)
    """
    compact = _checked(labels)
    require_volume(compact.shape)
    objects = centre_labels(compact, cells)
    try:
        distances = ray_distances(
            compact, _corners(cells), objects, rays.vertices, threads=threads, should_cancel=should_cancel
        )
    except Stopped as stop:
        raise CancelledError("cancelled while measuring distances along rays") from stop
    probability = average_cells(object_probability(compact, anisotropy=rays.anisotropy), cells, threads=threads)
    return StarTargets(probability=probability.astype(np.float32), distances=distances, objects=objects)


def require_volume(shape: tuple[int, ...]) -> None:
    """Refuse planes: rays in space have nothing to measure there."""
    if len(shape) != 3 or min(shape) < 2:
        raise ImageError(
            f"got an image of shape {shape}, expected Z, Y, X with at least two voxels along each; star-convex "
            "polyhedra are for volumes: segment planes with a FasterCellpose model, or with three classes"
        )


def _checked(labels: NDArray[Any]) -> NDArray[np.uint32]:
    labels = np.asarray(labels)
    if labels.ndim != 3:
        raise ImageError(f"got labels with {labels.ndim} axes, expected Z, Y, X; pass one volume")
    try:
        return compact_labels(labels)[0]
    except TypeError as error:
        raise ImageDtypeError(f"{error}; convert with astype(np.int32)") from error
    except ValueError as error:
        raise ImageValueError("got a negative label, expected 0 for background and ids above 0") from error
