"""Thresholds of a trained network for volumes, chosen on its validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import CancelledError, MissingDependencyError
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.models.volume_network import VolumeNetwork, VolumeOutput
from napari_aprcnn.segment.star_targets import cell_centres
from napari_aprcnn.segment.volume_heads import rays_of, settings_of, star_cells
from napari_aprcnn.train.tune import StarPrediction, Tuned, tune_stardist, tune_three_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.volumes import VolumeNet
    from napari_aprcnn.train.volume_sources import LabelledVolume

__all__ = ["can_tune", "tuned_settings"]

_MOST_VOXELS = 1 << 23  # of an image: memory, and the seconds of every setting that is tried
_CHOSEN = {
    "stardist": ("probability_threshold", "overlap_threshold"),
    "three_class": ("interior_threshold", "min_interior_vox"),
}
_PROBABILITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # rows below the first are no candidates, and not kept


def can_tune(head: str) -> bool:
    """Whether the decoder of a head has thresholds to choose.

    Raises
    ------
    MissingDependencyError
        If they cannot be chosen, for want of a package.
    """
    if head == "stardist" and find_spec("stardist") is None:
        raise MissingDependencyError(
            "the thresholds of a StarDist head are chosen on the validation images, which needs the stardist package: "
            "pip install 'napari-aprcnn[stardist]', or train without validation images"
        )
    return head in _CHOSEN


def tuned_settings(
    net: VolumeNet,
    card: ModelCard,
    validation: Sequence[LabelledVolume],
    *,
    device: str = "cpu",
    threads: int | None = None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Thresholds with the highest mean accuracy on validation images (see `train.tune`), as a card holds them.

    Parameters
    ----------
    net
        The trained network, with a StarDist or three-class head.
    card
        Its card: the error of the particles.
    validation
        Labelled images; of those with more than 8 million voxels the middle.
    device, threads
        Where the network runs.
    should_cancel
        Asked between the layers of the network and before each setting.

    Returns
    -------
    dict
        What was chosen, by the names of the head's settings; where nothing is better, the defaults.

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    network = VolumeNetwork(net, card, device=resolve_device(device, threads=threads))
    parts = [_middle(item.image.shape) for item in validation]
    truths = [np.ascontiguousarray(item.labels[part]) for item, part in zip(validation, parts, strict=True)]
    images = [np.ascontiguousarray(item.image[part]) for item, part in zip(validation, parts, strict=True)]

    def check() -> None:
        if should_cancel():
            raise CancelledError("cancelled: no thresholds were chosen; run it again to choose them")

    outputs = (network.predict(image, check=check) for image in images)
    tuned: Tuned[Any]
    if net.config.head == "stardist":
        stars = [_star_prediction(out, truth.shape) for out, truth in zip(outputs, truths, strict=True)]
        tuned = tune_stardist(
            stars,
            truths,
            rays_of(net.config),
            probability_thresholds=_PROBABILITIES,
            should_cancel=should_cancel,
        )
    else:
        tuned = tune_three_class([_probabilities(out) for out in outputs], truths, should_cancel=should_cancel)
    # Of equally good ones the defaults: a network that has learnt nothing finds nothing with any of them.
    plain = settings_of(net.config.head, {})
    best = plain if (plain, tuned.accuracy) in tuned.tried else tuned.settings
    return {name: float(getattr(best, name)) for name in _CHOSEN[net.config.head]}


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The middle of an image that has too many voxels: its longest axes are halved."""
    sizes = list(shape)
    while math.prod(sizes) > _MOST_VOXELS:
        longest = sizes.index(max(sizes))
        sizes[longest] = (sizes[longest] + 1) // 2
    starts = [(n - size) // 2 for n, size in zip(shape, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _star_prediction(out: VolumeOutput, shape: tuple[int, int, int]) -> StarPrediction:
    probability = 1 / (1 + np.exp(-np.clip(out.features[:, 0], -30, 30)))
    rows = probability >= np.float32(min(_PROBABILITIES))
    points = cell_centres(star_cells(out, shape)[rows]).astype(np.float32)
    return StarPrediction(probability[rows], out.features[rows, 1:], points, shape)


def _probabilities(out: VolumeOutput) -> NDArray[np.float32]:
    logits = np.moveaxis(out.dense, -1, 0)
    weights = np.exp(logits - logits.max(0))
    return np.asarray(weights / weights.sum(0), np.float32)
