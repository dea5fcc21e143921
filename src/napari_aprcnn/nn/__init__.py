"""Torch modules over particles. A particle network reads like its pixel twin.

Examples
--------
>>> import numpy as np, torch
>>> from napari_aprcnn import nn
>>> from napari_aprcnn.apr.tree import ParticleTree
>>> levels = np.full((4, 4, 4), 2, np.uint8)
>>> levels[:2] = 3
>>> tree = ParticleTree.from_levels(levels, shape=(8, 8, 8))
>>> net = torch.nn.Sequential(
...     nn.APRConv(1, 4, 3, filter_banks=2, bias=False), nn.GroupNorm(4, 4), nn.ReLU(),
...     nn.APRMaxPool(), nn.APRConv(4, 4, 3), nn.APRUpsample(), nn.APRConv(4, 2, 1), nn.Reconstruct())
>>> net(nn.ParticleTensor.from_trees(tree, torch.rand(len(tree)))).shape
torch.Size([1, 2, 8, 8, 8])
"""

from __future__ import annotations

from napari_aprcnn.nn.activations import ELU, GELU, Dropout, Features, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus
from napari_aprcnn.nn.conv import APRConv
from napari_aprcnn.nn.norms import BatchNorm, GroupNorm, InstanceNorm
from napari_aprcnn.nn.pooling import APRMaxPool, APRUpsample, SkipPair
from napari_aprcnn.nn.stage import Forest, Stage
from napari_aprcnn.nn.tensor import ParticleTensor, concatenate
from napari_aprcnn.nn.voxels import Reconstruct, Sample

__all__ = [
    "ELU",
    "GELU",
    "APRConv",
    "APRMaxPool",
    "APRUpsample",
    "BatchNorm",
    "Dropout",
    "Features",
    "Forest",
    "GroupNorm",
    "InstanceNorm",
    "LeakyReLU",
    "ParticleTensor",
    "ReLU",
    "Reconstruct",
    "Sample",
    "SiLU",
    "Sigmoid",
    "SkipPair",
    "Softplus",
    "Stage",
    "concatenate",
]
