"""Three classes - background, interior, boundary - from labels and back to instances.

APR-CNN paper, section Three-class U-Net segmentation: boundaries of their own keep touching nuclei apart; the interior
is thresholded, its connected components are the nuclei, and they are dilated to win the boundary voxels back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from napari_aprcnn._kernels import compact_labels
from napari_aprcnn._kernels.grids import average_cells
from napari_aprcnn.errors import CancelledError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.segment.grow import drop_small, grow_labels, inner_voxels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["CLASSES", "ThreeClassSettings", "class_shares", "three_class_instances", "three_class_targets"]

CLASSES = ("background", "interior", "boundary")

Steps = Annotated[int, Field(ge=0, le=32)]


class ThreeClassSettings(Frozen):
    """From class probabilities to instances.

    Attributes
    ----------
    interior_threshold
        A voxel whose interior probability is above it is a seed, 0..1. Higher: touching nuclei come apart more often.
    min_interior_vox
        Connected seeds with fewer voxels are dropped, before they grow.
    dilation_vox
        Layers of voxels that every nucleus wins back; one number, or one for each of z, y, x. The width of the
        boundary that the network was trained with.
    foreground_threshold
        Nuclei grow only into voxels whose probability of not being background is above it, 0..1.
    """

    interior_threshold: float = Field(default=0.5, ge=0, le=1)
    min_interior_vox: int = Field(default=10, ge=1)
    dilation_vox: Steps | tuple[Steps, Steps, Steps] = 1
    foreground_threshold: float = Field(default=0.5, ge=0, le=1)


def three_class_targets(labels: NDArray[Any], *, width: int | tuple[int, int, int] = 1) -> NDArray[np.uint8]:
    """Class of every voxel.

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) bool or any integer type
        0 is background.
    width
        Layers of boundary inside each object; one number, or one for each of z, y, x (anisotropic voxels want fewer
        along z). Where an object would lose its whole interior it gets a thinner boundary, of one layer at least. The
        border of the image is no boundary.

    Returns
    -------
    (*S) uint8
        0 background, 1 interior, 2 boundary. Interiors of different objects never share a face.

    Raises
    ------
    ImageError
        If there are not 2 or 3 axes, or the width is negative.
    ImageDtypeError
        If the labels are no integers.
    ImageValueError
        If a label is negative.

    Examples
    --------
    >>> three_class_targets(np.array([[0, 1, 1, 1, 2, 2, 2, 0]]))
    array([[0, 2, 1, 2, 2, 1, 2, 0]], dtype=uint8)
    """
    labels = np.asarray(labels)
    if labels.ndim not in {2, 3}:
        raise ImageError(f"got labels with {labels.ndim} axes, expected Y, X or Z, Y, X; pass one plane or volume")
    if labels.dtype.kind not in "biu":
        raise ImageDtypeError(f"got labels of type {labels.dtype}, expected integers; convert with astype(np.int32)")
    if np.min(width) < 0:
        raise ImageError(f"got a boundary width of {width}, expected 0 or more layers of voxels")
    try:
        labels, _ = compact_labels(labels)
    except ValueError as error:
        raise ImageValueError("got a negative label, expected 0 for background and ids above 0") from error
    inner = inner_voxels(labels, width)
    return np.where(inner, np.uint8(1), np.where(labels > 0, np.uint8(2), np.uint8(0)))


def class_shares(classes: NDArray[np.uint8], cells: NDArray[np.int32]) -> NDArray[np.float32]:
    """Share of each class in every cell: what a particle network learns; with it the cross-entropy on particles,
    weighted by their volume, is that on the voxels of the reconstruction.

    Parameters
    ----------
    classes : (Z, Y, X) uint8
        From `three_class_targets`.
    cells : (N, 4) int32
        As `napari_aprcnn.segment.star_targets.particle_cells` gives them.

    Returns
    -------
    (N, 3) float32
        Background, interior, boundary; rows sum to 1.
    """  # noqa: D205
    columns = [average_cells((classes == kind).astype(np.uint8), cells) for kind in range(len(CLASSES))]
    return np.stack(columns, axis=1).astype(np.float32)


def three_class_instances(
    probabilities: NDArray[Any],
    settings: ThreeClassSettings | None = None,
    *,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.uint32]:
    """Nuclei from class probabilities.

    Parameters
    ----------
    probabilities : (3, Z, Y, X) or (3, Y, X) float
        Background, interior, boundary; they sum to 1 (after the softmax).
    settings
        Thresholds; by default `ThreeClassSettings()`.
    should_cancel
        Asked between the steps.

    Returns
    -------
    (*S) uint32
        1..n in the order of their first interior voxel, 0 background.

    Raises
    ------
    ImageError
        If there are not three classes or 2 or 3 further axes.
    ImageValueError
        If a probability is not finite.
    CancelledError
        If ``should_cancel`` said yes.

    Examples
    --------
    >>> labels = np.array([[0, 1, 1, 1, 2, 2, 2, 0]])
    >>> classes = three_class_targets(labels)
    >>> probabilities = np.stack([classes == kind for kind in range(3)]).astype(np.float32)
    >>> three_class_instances(probabilities, ThreeClassSettings(min_interior_vox=1))
    array([[0, 1, 1, 1, 2, 2, 2, 0]], dtype=uint32)
    """
    import cc3d

    settings = settings or ThreeClassSettings()
    probabilities = np.asarray(probabilities)
    if probabilities.ndim not in {3, 4} or len(probabilities) != len(CLASSES):
        raise ImageError(
            f"got probabilities of shape {probabilities.shape}, expected (3, Z, Y, X) or (3, Y, X): "
            f"{', '.join(CLASSES)}"
        )
    # A sum is not finite if one of its terms is not.
    if not np.isfinite(probabilities.sum(dtype=np.float64)):
        raise ImageValueError("got probabilities that are not finite; check the network's input")
    _ask(should_cancel)
    seeds = np.ascontiguousarray(probabilities[1] > settings.interior_threshold)
    # Over faces: interiors of different objects may touch over a corner.
    found = cc3d.connected_components(seeds, connectivity=4 if seeds.ndim == 2 else 6, out_dtype=np.uint32)
    _ask(should_cancel)
    labels = drop_small(np.asarray(found, np.uint32), settings.min_interior_vox)
    _ask(should_cancel)
    return grow_labels(labels, settings.dilation_vox, 1 - probabilities[0] > settings.foreground_threshold)


def _ask(should_cancel: Callable[[], bool] | None) -> None:
    if should_cancel is not None and should_cancel():
        raise CancelledError("cancelled: no labels were made")
