"""What a training of the Cellpose family starts from."""

from __future__ import annotations

from pathlib import Path

import torch

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.growing import start_from
from napari_aprcnn.models.network import Network
from napari_aprcnn.models.zoo import load_model

__all__ = ["first_state"]


def first_state(initial: Path | str | None, architecture: str, *, seed: int = 0) -> dict[str, torch.Tensor] | None:
    """State that a training starts from: `initial`, grown or inherited where its network is another.

    Raises
    ------
    ConfigError
        If it is a network for volumes, or has too little in common with the one that is trained.
    """
    if initial is None:
        return None
    network = load_model(initial, device="cpu")
    if not isinstance(network, Network):
        raise ConfigError(
            f"got {network.name!r} to start from, a network for volumes; expected one of the Cellpose family"
        )
    return start_from(network.module, architecture, seed=seed)
