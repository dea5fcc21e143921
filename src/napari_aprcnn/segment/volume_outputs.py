"""What heads of networks for volumes that are no flows said of an image, kept so that outlines can be moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_aprcnn._kernels import compact_labels
from napari_aprcnn.segment.volume_flows import move_outlines
from napari_aprcnn.segment.volume_heads import (
    StarPrediction,
    class_labels,
    class_logit,
    settings_of,
    star_labels,
    star_logit,
    star_prediction,
)
from napari_aprcnn.segment.volume_masks import nearest, resized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.volume_config import VolumeNetConfig
    from napari_aprcnn.models.volume_network import VolumeOutput

__all__ = ["HeadOutputs", "head_outputs"]

LEAST_PROBABILITY = 0.01
"""Rows of a StarDist head below are not kept: most are background, and each has a hundred numbers."""


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """What a StarDist or a three-class head said of a whole image; for flows there is `VolumeOutputs`.

    Attributes
    ----------
    said
        Rows of a StarDist head, or logits (z, y, x, 3) of three classes; of what the network saw.
    net, settings
        The network, and thresholds of its card.
    seen
        Voxels of that which are the image's, at the network's resolution.
    shape
        (Z, Y, X) of the image.
    """

    said: StarPrediction | NDArray[np.float32]
    net: VolumeNetConfig
    settings: dict[str, float]
    seen: tuple[int, ...]
    shape: tuple[int, int, int]

    def labels(
        self,
        config: SegmentConfig,
        *,
        threads: int | None = None,
        should_cancel: Callable[[], bool] | None = None,
    ) -> NDArray[np.uint32]:
        """Objects on the image's grid, outlines moved; an outline of 0.5 is the thresholds of the card.

        Raises
        ------
        ConfigError
            If StarDist objects of lower probability are asked for than were kept.
        MissingDependencyError
            Without the stardist package, where it is needed.
        CancelledError
            If `should_cancel` said yes.
        """
        settings = settings_of(self.net.head, self.settings, outline=config.volume.outline)
        if isinstance(self.said, StarPrediction):
            labels = star_labels(self.said, self.net, settings, should_cancel=should_cancel)
        else:
            labels = class_labels(self.said, settings, should_cancel=should_cancel)
        if labels.shape != self.seen:
            labels, _ = compact_labels(labels[:, :, : self.seen[2]])
        if self.seen != self.shape:
            labels, _ = nearest(labels, self.shape)
        return move_outlines(labels, config.volume.grow_vox)


def head_outputs(
    out: VolumeOutput,
    net: VolumeNetConfig,
    card: ModelCard,
    *,
    padded: tuple[int, ...],
    seen: tuple[int, ...],
    shape: tuple[int, ...],
    outline: float,
) -> tuple[HeadOutputs, NDArray[np.float32]]:
    """Take what labels are made of from an output; nothing refers to it afterwards.

    Parameters
    ----------
    out, net, card
        Of a network with a StarDist or a three-class head.
    padded, seen, shape
        (Z, Y, X) that the network saw, without what was added around a tiny image, and of the image.
    outline
        As in `VolumeConfig`; that many StarDist rows are kept at least.

    Returns
    -------
    outputs
        What labels are made of.
    probability : (Z, Y, X) float32
        Logit on the image's grid.
    """
    (z, y, x), (image_z, image_y, image_x) = padded, shape
    said: StarPrediction | NDArray[np.float32]
    if net.head == "stardist":
        threshold = settings_of(net.head, card.settings, outline=outline).probability_threshold
        said = star_prediction(out, (z, y, x), floor=min(LEAST_PROBABILITY, threshold))
        probability = star_logit(out, padded)
    else:
        said = np.ascontiguousarray(out.dense)
        probability = class_logit(said)
    probability = probability[:, :, : seen[2]]
    if tuple(seen) != tuple(shape):
        probability = resized(probability, shape)
    kept = HeadOutputs(said, net, card.settings, tuple(seen), (image_z, image_y, image_x))
    return kept, np.ascontiguousarray(probability)
