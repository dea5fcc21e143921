"""A flows head for volumes: four channels to instances, and where their outlines lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from napari_aprcnn.config import FlowConfig
from napari_aprcnn.errors import CancelledError, ImageError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.segment.flows import masks_from_flows
from napari_aprcnn.segment.grow import drop_small, grow_labels, shrink_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_aprcnn.segment.progress import Progress

__all__ = ["VolumeFlowSettings", "labels_from_volume_flows", "move_outlines"]

CHANNELS = 4  # flow z, y, x and the logit
TYPICAL_OBJECTS = 4  # with fewer there is no typical volume


class VolumeFlowSettings(Frozen):
    """From a flows head to instances.

    Where a label ends is a convention of whoever annotated it: sets of labels end at 20 to 56 % of a nucleus' peak
    contrast, and at an IoU of 0.7 that decides more than anything else. ``flows.probability_threshold`` moves outlines
    along the network's own probability, ``outline_vox`` by whole layers of voxels.

    Attributes
    ----------
    flows
        How flows are followed; its probability threshold is a logit: 0 is one half, lower gives larger nuclei.
    outline_vox
        Layers of voxels that every nucleus grows by, or shrinks by where negative; one number, or one for each of
        z, y, x. Nuclei never merge, and the last layer of one is not taken.
    smallest_share
        Nuclei below this share of the median volume are dropped as debris, where there are at least four; 0 keeps all.
    """

    flows: FlowConfig = FlowConfig()
    outline_vox: int | tuple[int, int, int] = Field(default=0)
    smallest_share: float = Field(default=0.25, ge=0, le=1)


def labels_from_volume_flows(
    output: NDArray[Any],
    settings: VolumeFlowSettings | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.uint32]:
    """Nuclei from the four channels of a flows head.

    Parameters
    ----------
    output : (4, Z, Y, X) float
        Flow z, y, x (five times unit vectors towards the centre) and the logit of the probability.
    settings
        Thresholds and outlines; by default `VolumeFlowSettings()`.
    threads, progress, should_cancel
        As for `napari_aprcnn.segment.flows.masks_from_flows`.

    Returns
    -------
    (Z, Y, X) uint32
        1..n, 0 background.

    Raises
    ------
    ImageError
        If there are not four channels of a volume.
    ImageValueError, CancelledError
        As `masks_from_flows` does.

    Examples
    --------
    >>> from napari_aprcnn.segment.flows import flows_from_masks
    >>> labels = np.zeros((12, 14, 16), np.uint8)
    >>> labels[2:10, 3:11, 4:12] = 1
    >>> output = np.concatenate([5 * flows_from_masks(labels), labels[None] * 12.0 - 6.0])
    >>> bool((labels_from_volume_flows(output) == labels).all())
    True
    """
    settings = settings or VolumeFlowSettings()
    output = np.asarray(output)
    if output.ndim != 4 or len(output) != CHANNELS:
        raise ImageError(
            f"got an output of shape {output.shape}, expected (4, Z, Y, X): flow z, y, x and the logit of the "
            "probability"
        )
    labels = masks_from_flows(
        output[:3], output[3], config=settings.flows, threads=threads, progress=progress, should_cancel=should_cancel
    )
    if should_cancel is not None and should_cancel():
        raise CancelledError("cancelled: no masks were made")
    if settings.smallest_share > 0:
        sizes = np.bincount(labels.ravel())[1:]
        if len(sizes) >= TYPICAL_OBJECTS:
            labels = drop_small(labels, settings.smallest_share * float(np.median(sizes)))
    return move_outlines(labels, settings.outline_vox)


def move_outlines(labels: NDArray[np.uint32], by: int | tuple[int, int, int]) -> NDArray[np.uint32]:
    """Grow (positive) or shrink (negative) every object by layers of voxels, axis by axis where three are given."""
    along = (by,) * 3 if isinstance(by, int) else by
    inwards, outwards = tuple(max(-n, 0) for n in along), tuple(max(n, 0) for n in along)
    if any(inwards):
        labels = shrink_labels(labels, inwards)
    return grow_labels(labels, outwards) if any(outwards) else labels
