"""A tiny model for volumes with its card, and a network that finds bright balls without any training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy import ndimage

from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volume_inputs import input_scale
from napari_aprcnn.models.volume_network import VolumeOutput
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.models.zoo import save_model
from napari_aprcnn.segment.flows import flows_from_masks

NET = VolumeNetConfig(channels=4, depth=2, head="flows", in_channels=2)


def volume_card(name: str = "apr-tiny-3d", net: VolumeNetConfig = NET) -> ModelCard:
    return ModelCard(
        name=name, architecture="apr_unet", title="tiny U-Net for volumes", data="nothing", licence="CC0-1.0",
        volume=net, relative_error=0.1,
    )  # fmt: skip


def save_tiny_model(folder: Path, name: str = "apr-tiny-3d") -> Path:
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_model(VolumeNet(NET), path, volume_card(name))
    return path


def balls(shape=(32, 40, 48), *, radius=5, step=16, seed=0) -> np.ndarray:
    """Bright balls on a grid, with noise."""
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    mask = np.zeros(shape, bool)
    for z in range(8, shape[0], step):
        for y in range(8, shape[1], step):
            for x in range(8, shape[2], step):
                mask |= sum((g - c) ** 2 for g, c in zip(grid, (z, y, x), strict=True)) < radius**2
    smooth = ndimage.gaussian_filter(mask.astype(float), 1.0)
    return (100 + 900 * smooth + np.random.default_rng(seed).normal(0, 5, shape)).clip(0).astype(np.uint16)


class BallNetwork:
    """Flows to the centres of what is bright, and a logit that falls with the distance from it; counts its runs."""

    def __init__(self, net: VolumeNetConfig = NET) -> None:
        self.card = volume_card(net=net)
        self.module = SimpleNamespace(config=net)
        self.device, self.device_words, self.precision = torch.device("cpu"), "CPU, 1 thread", "float32"
        self.name, self.sha256 = self.card.name, "f" * 64
        self.runs = 0

    def predict(self, image, *, tree=None, scale=None, relative_error=None, particle_stages=None, check=None):
        self.runs += 1
        if check is not None:
            check()
        scale = scale or input_scale(image)
        share = (np.asarray(image, np.float32) - scale.background) / scale.contrast
        labels, _ = ndimage.label(share > 0.4)
        # Flows reach beyond the outline, as those of trained networks do.
        distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
        wide = np.where(distance <= 3, labels[tuple(nearest)], 0)
        flows = 5 * flows_from_masks(wide)
        logit = np.where(labels > 0, ndimage.distance_transform_edt(labels > 0), -distance).astype(np.float32)
        if particle_stages != 0 and tree is None:
            tree = to_apr(image, relative_error=relative_error or self.card.relative_error)
        dense = np.concatenate([np.moveaxis(flows, 0, -1), logit[..., None]], -1).astype(np.float32)
        return VolumeOutput(dense.reshape(-1, 4), dense, tree if particle_stages != 0 else None, 0, scale)
