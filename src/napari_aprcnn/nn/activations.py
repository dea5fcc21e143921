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
    class Layer(Features):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(module(*args, **kwargs))

    name = module.__name__
    Layer.__name__ = Layer.__qualname__ = name
    Layer.__doc__ = f"`torch.nn.{name}` on particles; the same parameters."
    return Layer


ReLU = _as_particle_layer(nn.ReLU)
LeakyReLU = _as_particle_layer(nn.LeakyReLU)
ELU = _as_particle_layer(nn.ELU)
GELU = _as_particle_layer(nn.GELU)
SiLU = _as_particle_layer(nn.SiLU)
Sigmoid = _as_particle_layer(nn.Sigmoid)
Softplus = _as_particle_layer(nn.Softplus)
Dropout = _as_particle_layer(nn.Dropout)
