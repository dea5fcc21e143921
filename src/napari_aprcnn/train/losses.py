"""Losses on flows and cell probability."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["FLOW_SCALE", "flow_loss"]

FLOW_SCALE = 5.0  # networks of the Cellpose family put out five times the unit vector


def flow_loss(output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of the flows and cross-entropy of the cell probability (thesis 3.4).

    Parameters
    ----------
    output : (N, 3, H, W) float
        Flow y, flow x (five times unit vectors), logit.
    target : (N, 4, H, W) float32
        Flow y, flow x (unit vectors), inside (0 or 1), weight: 0 where there is no image.

    Returns
    -------
    flow, probability : () float32
        Half the mean squared error, and the mean binary cross-entropy; their sum is trained.
    """
    output = output.float()
    weight = target[:, 3]
    error = ((output[:, :2] - FLOW_SCALE * target[:, :2]) ** 2 * weight[:, None]).mean() / 2
    entropy = F.binary_cross_entropy_with_logits(output[:, 2], target[:, 2], reduction="none")
    return error, (entropy * weight).mean()
