"""Small networks on a device, beside the CPU: what a kind of GPU that nobody has tried here is asked before it is used.

Examples
--------
>>> import torch
>>> why_networks_fail(torch.device("cpu")) is None
True
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

__all__ = ["why_networks_fail"]

_TOLERANCE = 1e-3
"""Of the output's spread: a hundred times what float32 in another order of sums gives."""


@lru_cache
def why_networks_fail(device: torch.device) -> str | None:
    """Say why networks cannot run on a device; ``None`` if both kinds give what the CPU gives.

    One network for planes and one for volumes, on particles, each with random weights and a tiny input. Takes seconds
    with what it imports, once in a process.

    Parameters
    ----------
    device
        The device.
    """
    for kind, run in (("planes", _planes), ("particles", _particles)):
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                expected, found = run(torch.device("cpu")), run(device)
        except (RuntimeError, TypeError, AssertionError) as error:  # what torch raises for operations that it lacks
            words = str(error).strip().splitlines()
            return f"a network on {kind} fails there: {words[0] if words else type(error).__name__}"
        worst = float(np.abs(found - expected).max() / max(float(expected.std()), 1e-6))
        if not worst <= _TOLERANCE:
            return f"a network on {kind} computes something else there, by {worst:.2g} of the spread"
    return None


def _planes(device: torch.device) -> Any:
    from napari_aprcnn.models.family import CellposeFamily

    torch.manual_seed(0)
    net, x = CellposeFamily("faster_v3").eval(), torch.randn(1, 2, 32, 40)
    return net.to(device)(x.to(device))[0].cpu().numpy()


def _particles(device: torch.device) -> Any:
    from napari_aprcnn.apr.to_apr import to_apr
    from napari_aprcnn.models.volume_config import VolumeNetConfig
    from napari_aprcnn.models.volumes import VolumeNet
    from napari_aprcnn.nn import ParticleTensor, Reconstruct

    z, y, x = np.ogrid[:16, :20, :24]
    ball = (z - 8) ** 2 + (y - 9) ** 2 + (x - 11) ** 2 < 36
    tree = to_apr(np.where(ball, 1000, 100).astype(np.uint16), threads=1)
    torch.manual_seed(0)
    net = VolumeNet(VolumeNetConfig(channels=4, depth=2, in_channels=1)).eval().to(device)
    features = torch.randn(len(tree), 1)
    return Reconstruct()(net(ParticleTensor.from_trees(tree, features, device=device)))[0].cpu().numpy()
