"""What each head of a network for volumes learns, on particles or on voxels, and its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_aprcnn._kernels.grids import voxels_in_cells
from napari_aprcnn._kernels.particle_stages import cell_means
from napari_aprcnn.segment.flows import flows_from_masks
from napari_aprcnn.segment.star_targets import particle_cells, star_targets, voxel_cells
from napari_aprcnn.segment.three_class import class_shares, three_class_targets
from napari_aprcnn.segment.volume_heads import rays_of
from napari_aprcnn.train.volume_losses import stardist_loss, three_class_loss, volume_flow_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.models.volume_config import VolumeNetConfig

__all__ = ["LOSS_NAMES", "head_loss", "particle_targets", "voxel_targets"]

LOSS_NAMES = {
    "flows": ("flow_loss", "probability_loss"),
    "stardist": ("distance_loss", "probability_loss"),
    "three_class": ("class_loss", "probability_loss"),
}
_DISTANCE_WEIGHT = 0.2


def particle_targets(config: VolumeNetConfig, labels: NDArray[Any], tree: ParticleTree) -> tuple[Tensor, Tensor]:
    """Targets (N, K) float32 and voxels (N,) float32 of the rows that the head answers on.

    K is 4 for flows (unit vectors z, y, x and inside, means over the cells), 3 for three classes (their shares), and
    1 + rays for StarDist (object probability, distances in voxels).
    """
    return _targets(config, labels, particle_cells(tree, config.out_stage))


def voxel_targets(config: VolumeNetConfig, labels: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """The same for every cell of the head's grid, in the order z, y, x."""
    z, y, x = labels.shape
    return _targets(config, labels, voxel_cells((z, y, x), config.out_stage))


def _targets(config: VolumeNetConfig, labels: NDArray[Any], cells: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
    voxels = voxels_in_cells(cells, labels.shape)
    weights = torch.from_numpy(voxels.astype(np.float32))
    if config.head == "flows":
        flows = flows_from_masks(labels, threads=1)
        dense = np.concatenate([flows, (labels > 0)[None].astype(np.float32)])
        rows: Tensor = cell_means(
            torch.from_numpy(np.ascontiguousarray(dense.transpose(1, 2, 3, 0))), torch.from_numpy(cells)
        )
        return rows, weights
    if config.head == "three_class":
        return torch.from_numpy(class_shares(three_class_targets(labels), cells)), weights
    found = star_targets(labels, cells, rays_of(config), threads=1)
    return torch.from_numpy(np.concatenate([found.probability[:, None], found.distances], axis=1)), weights


def head_loss(config: VolumeNetConfig, output: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two parts of the loss of one image, whose sum is trained.

    Parameters
    ----------
    output : (N, K) float
        Of the network.
    target, weight
        As `particle_targets` or `voxel_targets` give them.
    """
    if config.head == "flows":
        return volume_flow_loss(output, target, weight)
    if config.head == "three_class":
        loss = three_class_loss(output, target, weight)
        return loss, loss.new_zeros(())
    probability, distance = stardist_loss(output[:, 0], output[:, 1:], target[:, 0], target[:, 1:], weight)
    return _DISTANCE_WEIGHT * distance, probability
