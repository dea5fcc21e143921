"""Networks with weights that are random, but of every kind that training makes."""

from __future__ import annotations

import torch
from torch import nn

from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.zoo import ModelCard


def random_weights(architecture: str, seed: int = 0) -> CellposeFamily:
    """Return a network in eval mode whose norms have offsets and scales of both signs, as trained ones may."""
    torch.manual_seed(seed)
    network = CellposeFamily(architecture)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            with torch.no_grad():
                layer.weight[::5] *= -1
    return network.eval()


def card(name: str, architecture: str = "faster_v3", **values) -> ModelCard:
    """Return a card with the required fields filled in."""
    known = {"title": "A test", "data": "noise", "licence": "BSD-3-Clause", **values}
    return ModelCard(name=name, architecture=architecture, **known)
