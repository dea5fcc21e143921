"""The two kits that networks for volumes are built from: voxel layers and particle layers with the same names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_aprcnn import nn as particle
from napari_aprcnn.models.volume_config import LayerSpec
from napari_aprcnn.nn import ParticleTensor

__all__ = [
    "ConvBlock",
    "DoubleBlock",
    "Features",
    "MaxPool",
    "Upsample",
    "VoxelConv",
    "concatenate",
    "convolution",
    "skip_pair",
]

Features = Tensor | ParticleTensor
"""[batch, channels, z, y, x], or the rows of a stage."""


def convolution(spec: LayerSpec, *, bias: bool) -> nn.Module:
    """Convolution of a description; zeros lie outside the image."""
    if spec.particles:
        return particle.APRConv(spec.inside, spec.outside, spec.kernel, filter_banks=spec.banks, bias=bias)
    around = (spec.kernel[0] // 2, spec.kernel[1] // 2, spec.kernel[2] // 2)
    return VoxelConv(spec.inside, spec.outside, spec.kernel, padding=around, bias=bias)


class VoxelConv(nn.Conv3d):
    """`torch.nn.Conv3d` in the form that a CPU computes fastest; weights, results and gradients are the same.

    oneDNN (torch 2.13) takes a slow path for 2 to 8 input channels, six to ten times slower than for nine, so zeros
    are added up to nine; and it is faster in channels_last_3d, forward and backward. Elsewhere than on a CPU in
    float32 it is `torch.nn.Conv3d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Run: [batch, channels, z, y, x]."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or self.kernel_size == (1, 1, 1):
            return super().forward(x)
        weight, missing = self.weight, _FAST_CHANNELS - self.in_channels
        last = torch.channels_last_3d
        learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        x = x.contiguous(memory_format=last)
        if 1 < self.in_channels < _FAST_CHANNELS:
            x = functional.pad(x, (0, 0) * 3 + (0, missing))
            weight = functional.pad(weight, (0, 0) * 3 + (0, missing))
        found = functional.conv3d(x, weight.contiguous(memory_format=last), self.bias, padding=self.padding)
        return found.contiguous() if learns else found  # norms learn in the plain layout


_FAST_CHANNELS = 9
_OverwritingNorm = particle.BatchNorm | particle.GroupNorm


def _norm(kind: str, spec: LayerSpec, *, relu: bool) -> nn.Module:
    """Norm of a description; on particles the ReLU is part of it, which spares a pass over the features."""
    channels = spec.outside
    if kind == "batch":
        return particle.BatchNorm(channels, relu=relu) if spec.particles else nn.BatchNorm3d(channels)
    groups = spec.groups if kind == "group" else channels
    return particle.GroupNorm(groups, channels, relu=relu) if spec.particles else nn.GroupNorm(groups, channels)


class ConvBlock(nn.Module):
    """Convolution, norm, ReLU; without a norm the convolution has a bias.

    Parameters
    ----------
    spec
        The convolution.
    norm
        As in `VolumeNetConfig`.
    activate
        Whether the ReLU is part of it.
    """

    def __init__(self, spec: LayerSpec, norm: str, *, activate: bool = True) -> None:
        super().__init__()
        self.conv = convolution(spec, bias=norm == "none")
        self.norm = nn.Identity() if norm == "none" else _norm(norm, spec, relu=activate)
        self.activate = activate and (norm == "none" or not spec.particles)

    def forward(self, x: Any, *, used_up: bool = False) -> Any:
        """Run; used up: nobody reads the input, of a pair the skip, afterwards, so that it may be written over."""
        x = self.conv(x, used_up=True) if used_up and isinstance(self.conv, particle.APRConv) else self.conv(x)
        x = self.norm(x, used_up=True) if isinstance(self.norm, _OverwritingNorm) else self.norm(x)
        return relu(x) if self.activate else x


def relu(x: Any) -> Any:
    """ReLU of voxels or particles."""
    if isinstance(x, ParticleTensor):
        return x.with_features(torch.relu(x.features))
    return torch.relu(x)


class DoubleBlock(nn.Module):
    """Two blocks; if residual, their input is added before the last ReLU (He et al. 2016), projected where it is wider.

    Parameters
    ----------
    first, second, shortcut
        The convolutions.
    norm
        As in `VolumeNetConfig`.
    residual
        Whether to add the input.
    """

    def __init__(
        self, first: LayerSpec, second: LayerSpec, shortcut: LayerSpec | None, norm: str, *, residual: bool
    ) -> None:
        super().__init__()
        self.first = ConvBlock(first, norm)
        self.second = ConvBlock(second, norm, activate=not residual)
        self.shortcut = None if shortcut is None else ConvBlock(shortcut, norm, activate=False)
        self.residual = residual

    def steps(self, *, used_up: bool = False) -> tuple[Callable[[Any], Any], ...]:
        """What to run one after the other: who does holds no input longer than its step looks at it.

        Used up: nobody reads the input afterwards, of a pair the skip.
        """
        if self.residual:
            return (self,)
        return partial(self.first, used_up=used_up), partial(self.second, used_up=True)

    def forward(self, x: Any) -> Any:
        """Run."""
        out = self.second(self.first(x), used_up=True)
        if not self.residual:
            return out
        added = x if self.shortcut is None else self.shortcut(x)
        if isinstance(out, ParticleTensor):
            return out.with_features(torch.relu(out.features + added.features))
        return torch.relu(out + added)


class MaxPool(nn.Module):
    """Max pooling by two along every axis; a last odd cell is pooled alone, and so is the only cell of an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.particles = particle.APRMaxPool()

    def forward(self, x: Any) -> Any:
        """Pool."""
        if isinstance(x, ParticleTensor):
            return self.particles(x)
        return functional.max_pool3d(x, [min(2, n) for n in x.shape[2:]], ceil_mode=True)


class Upsample(nn.Module):
    """Every finer cell takes its parent's features; voxels are cut to the grid of `like`."""

    def __init__(self) -> None:
        super().__init__()
        self.particles = particle.APRUpsample()

    def forward(self, x: Any, like: Any) -> Any:
        """Upsample `x` to the grid of `like`."""
        if isinstance(x, ParticleTensor):
            return self.particles(x)
        for axis in (2, 3, 4):
            if x.shape[axis] != like.shape[axis]:
                x = x.repeat_interleave(2, dim=axis).narrow(axis, 0, like.shape[axis])
        return x


def skip_pair(skip: Any, below: Any, *, residual: bool) -> Any:
    """What a block of the decoder, residual or not, takes for the skip and what comes from below, upsampled to it."""
    if isinstance(skip, ParticleTensor) and not residual:
        return particle.SkipPair(skip, below)
    return concatenate([skip, Upsample()(below, skip)])


def concatenate(parts: list[Any]) -> Any:
    """Join along the channels."""
    if isinstance(parts[0], ParticleTensor):
        return particle.concatenate(parts)
    return torch.cat(parts, dim=1)
