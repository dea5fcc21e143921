"""Crops for a training on volumes: augmented, converted to particles, with the targets of every particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volume_inputs import input_features, input_scale
from napari_aprcnn.train.volume_augment import augment, turn
from napari_aprcnn.train.volume_heads import particle_targets
from napari_aprcnn.train.volume_settings import VolumeTrainConfig
from napari_aprcnn.train.volume_sources import LabelledVolume, SimulatedVolumes, window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Crop", "VolumeCrops", "make_crop"]


@dataclass(frozen=True)
class Crop:
    """What a step needs of one crop.

    Attributes
    ----------
    tree
        Particles of the image, without intensities.
    features : (N, channels) float32
        Input of the network for each particle.
    targets : (N, K) float32
        Of the rows of the head's stage (`volume_heads.particle_targets`).
    weights : (N,) float32
        Voxels of their cells that lie in the image.
    labels : (Z, Y, X) integer
    """

    tree: ParticleTree
    features: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    labels: NDArray[Any]


def make_crop(image: NDArray[Any], labels: NDArray[Any], network: VolumeNetConfig, *, relative_error: float) -> Crop:
    """Convert a crop and make its targets for the head of a network.

    Raises
    ------
    ImageValueError
        If the image is not finite.
    """
    scale = input_scale(image)
    tree = to_apr(np.ascontiguousarray(image), relative_error=relative_error, threads=1)
    values = tree.intensities
    if values is None:
        raise TrainingDataError("got a tree without intensities from the conversion")
    features = torch.from_numpy(input_features(values, scale, network.in_channels))
    bare = tree.with_intensities(None)
    return Crop(bare, features, *particle_targets(network, labels, bare), labels)


class VolumeCrops(Dataset[Crop]):
    """Crops by number, without end: the same number gives the same crop, in any process and in any order.

    Parameters
    ----------
    config
        The training.
    simulated
        Simulated volumes, or ``None``.
    labelled
        Labelled images.
    """

    def __init__(
        self,
        config: VolumeTrainConfig,
        simulated: SimulatedVolumes | None,
        labelled: Sequence[LabelledVolume] = (),
    ) -> None:
        if simulated is None and not labelled:
            raise TrainingDataError("got neither simulated volumes nor labelled images; give one of them")
        self.config, self.simulated, self.labelled = config, simulated, list(labelled)

    def __getitem__(self, index: int) -> Crop:
        """Make a crop."""
        rng = np.random.default_rng([self.config.seed, index])
        image, labels = self._draw(rng)
        low, high = self.config.relative_error
        error = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return make_crop(image, labels, self.config.network, relative_error=error)

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        config = self.config
        if self.simulated is not None and (not self.labelled or rng.random() < config.simulated):
            return turn(*self.simulated.draw(rng, config.crop), rng)
        sources = sorted({item.source for item in self.labelled})
        source = sources[rng.integers(len(sources))]
        mine = [item for item in self.labelled if item.source == source]
        item = mine[rng.integers(len(mine))]
        return augment(item.image, item.labels, rng, config, window)
