"""Losses of 3D networks, on pixels or on particles: what is weighted by volume on particles is a mean over voxels.

Rows of particles come as [rows, channels], pixels as [batch, channels, z, y, x]: the channels are the second axis
either way. Weights have the shape of the target without its channels; weights of particles are their volumes
(`particle_volumes`), so that a coarse particle counts as the voxels that it stands for. Where every particle is a voxel
that is the plain mean. (The APR-CNN paper trains three classes on the reconstructed pixels; with the shares of each
class in every cell as targets this is the same number, without the pixels.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_aprcnn._kernels.grids import voxels_in_cells
from napari_aprcnn.train.losses import FLOW_SCALE

if TYPE_CHECKING:
    from napari_aprcnn.nn.stage import Stage

__all__ = ["flow_loss_3d", "particle_volumes", "stardist_loss", "three_class_loss", "volume_flow_loss"]

_OUTSIDE, _SMOOTH = 0.1, 50.0
BACKGROUND_SHARE = 1e-4  # StarDist's own: distances of the background shall stay bounded, no more


def particle_volumes(stage: Stage) -> Tensor:
    """Number of voxels of the image in the cell of every row of a stage; float32 [rows], sum: all voxels."""
    parts = []
    cells, starts = stage.cells().numpy(), stage.starts
    for item, tree in enumerate(stage.forest.trees):
        own = cells[starts[item] : starts[item + 1]].copy()
        own[:, 3] += stage.depth
        parts.append(voxels_in_cells(own, tree.shape))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return values.mean()
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def three_class_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of background, interior and boundary.

    Parameters
    ----------
    logits : [N, 3] or [B, 3, Z, Y, X] float
        Network output.
    target : [N] or [B, Z, Y, X] integer, or shares of the shape of the logits, float
        Classes (`napari_aprcnn.segment.three_class.three_class_targets`), or their shares in every cell
        (`class_shares`).
    weights : [N] or [B, Z, Y, X] float
        Volumes of particles, or 0 where there is no image; by default all count the same.

    Returns
    -------
    () float32
    """
    target = target.float() if target.is_floating_point() else target.long()
    return _mean(F.cross_entropy(logits.float(), target, reduction="none"), weights)


def stardist_loss(
    probability_logits: Tensor,
    distances: Tensor,
    target_prob: Tensor,
    target_dist: Tensor,
    weights: Tensor | None = None,
    *,
    background_share: float = BACKGROUND_SHARE,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the probability, and error of the distances where there is an object (Weigert et al. 2020).

    Parameters
    ----------
    probability_logits : [N] or [B, Z, Y, X] float
        Network output before the sigmoid.
    distances : [N, R] or [B, R, Z, Y, X] float
        Predicted distances in voxels.
    target_prob, target_dist
        Of the same shapes: `napari_aprcnn.segment.star_targets.star_targets`. Rows without an object at their centre
        have distances of 0; they count as background, whatever their probability.
    weights : as the probability
        Volumes of particles, or 0 where there is no image; by default all count the same.
    background_share
        Weight of the mean absolute distance outside objects.

    Returns
    -------
    probability, distance : () float32
        Mean binary cross-entropy; mean absolute error weighted by the target probability, plus the background term.
        StarDist trains the first plus 0.2 times the second.
    """
    entropy = F.binary_cross_entropy_with_logits(probability_logits.float(), target_prob.float(), reduction="none")
    distances, target_dist = distances.float(), target_dist.float()
    inside = torch.where(target_dist.amax(1) > 0, target_prob.float(), 0.0)
    error = (distances - target_dist).abs().mean(1)
    share = inside if weights is None else inside * weights
    object_error = (error * share).sum() / share.sum().clamp_min(1e-6)
    outside = _mean((1 - inside) * distances.abs().mean(1), weights)
    return _mean(entropy, weights), object_error + background_share * outside


def flow_loss_3d(output: Tensor, target: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Squared error of the flows and cross-entropy of the probability, as `flow_loss` has them in 2D.

    Parameters
    ----------
    output : [N, 4] or [B, 4, Z, Y, X] float
        Flow z, y, x (five times unit vectors), logit.
    target : of the same shape, float
        Flow z, y, x (unit vectors, or their means over cells), inside (0..1).
    weights : [N] or [B, Z, Y, X] float
        Volumes of particles, or 0 where there is no image; by default all count the same.

    Returns
    -------
    flow, probability : () float32
        Half the mean squared error over the three components, and the mean binary cross-entropy; their sum is trained.
    """
    output, target = output.float(), target.float()
    error = ((output[:, :3] - FLOW_SCALE * target[:, :3]) ** 2).mean(1) / 2
    entropy = F.binary_cross_entropy_with_logits(output[:, 3], target[:, 3], reduction="none")
    return _mean(error, weights), _mean(entropy, weights)


def volume_flow_loss(output: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Flows and nucleus probability of one image.

    Parameters
    ----------
    output : (N, 4) float
        Flow z, y, x (five times unit vectors), logit.
    target : (N, 4) float32
        Means over the cells of the flows (unit vectors) and of inside (0 or 1).
    weight : (N,) float32
        Voxels of every cell.

    Returns
    -------
    flow, probability : () float32
        Squared error of the flows, per voxel inside (those outside, where it is zero, count a tenth); cross-entropy per
        voxel and 0.3 of the soft Dice loss.

    Notes
    -----
    With p constant on a cell, the sum over its voxels of (p - t)^2 is n (p - mean t)^2 and a constant; cross-entropy is
    linear in t: so the gradient is that of the voxels.
    """
    output, total = output.float(), weight.sum()
    inside = target[:, 3]
    share = weight * (inside + _OUTSIDE * (1 - inside))
    error = (output[:, :3] / FLOW_SCALE - target[:, :3]).square().sum(1)
    flow = (share * error).sum() / (share.sum() + 1)
    entropy = F.binary_cross_entropy_with_logits(output[:, 3], inside, weight, reduction="sum") / total
    p = torch.sigmoid(output[:, 3])
    both, either = (weight * p * inside).sum(), (weight * (p + inside)).sum()
    dice = 1 - (2 * both + _SMOOTH) / (either + _SMOOTH)
    return flow, entropy + 0.3 * dice
