"""Layers that see every feature row by itself."""

from __future__ import annotations

from typing import Any

from torch import nn

from napari_aprcnn.nn.tensor import ParticleTensor

__all__ = ["ELU", "GELU", "Dropout", "Features", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Softplus"]


class Features(nn.Module):
    """Runs a torch module on the features [rows, channels]: activations, `torch.nn.Linear`, `torch.nn.Dropout`.

    Parameters
    ----------
    module
        Maps [rows, channels] to [rows, any channels], row by row.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: ParticleTensor) -> ParticleTensor:
        """Apply."""
        return x.with_features(self.module(x.features))


def _as_particle_layer(module: type[nn.Module]) -> type[Features]:
    def __init__(self: Features, *args: Any, **kwargs: Any) -> None:
        Features.__init__(self, module(*args, **kwargs))

    name = module.__name__
    doc = f"`torch.nn.{name}` on particles; the same parameters."
    return type(name, (Features,), {"__init__": __init__, "__doc__": doc, "__module__": __name__})


ReLU = _as_particle_layer(nn.ReLU)
LeakyReLU = _as_particle_layer(nn.LeakyReLU)
ELU = _as_particle_layer(nn.ELU)
GELU = _as_particle_layer(nn.GELU)
SiLU = _as_particle_layer(nn.SiLU)
Sigmoid = _as_particle_layer(nn.Sigmoid)
Softplus = _as_particle_layer(nn.Softplus)
Dropout = _as_particle_layer(nn.Dropout)
