"""What a training on volumes starts from, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.models.zoo import load_model

if TYPE_CHECKING:
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.volume_config import VolumeNetConfig

__all__ = ["accelerator_of", "load_start", "rays_of_start"]


def load_start(initial: Path | str) -> tuple[VolumeNet, ModelCard]:
    """Load a network for volumes to start from, with its card.

    Raises
    ------
    ConfigError
        If it is a network for planes.
    ModelNotFoundError, WeightsError
        If it cannot be loaded.
    """
    network = load_model(initial, device="cpu")
    if not isinstance(network.module, VolumeNet):
        raise ConfigError(f"{initial} is a network for planes; give one for volumes to start from")
    return network.module, network.card


def rays_of_start(network: VolumeNetConfig, start: VolumeNetConfig) -> VolumeNetConfig:
    """Return a network with the rays of the one that it starts from, where both have a StarDist head.

    The distances that a head has learnt belong to its rays.
    """
    if network.head != "stardist" or start.head != "stardist":
        return network
    return network.replace(rays=start.rays, ray_spacing=start.ray_spacing)


def accelerator_of(device: str, *, threads: int | None = None) -> str:
    """Where a training on volumes runs, as `fit_volumes` takes it: ``auto`` is a CUDA device, or the CPU.

    Raises
    ------
    DeviceError
        If there is no such device, or it cannot be used, or the number of threads is none.
    """
    found = resolve_device(device, threads=threads).torch_device
    return "cpu" if device == "auto" and found.type != "cuda" else str(found)
