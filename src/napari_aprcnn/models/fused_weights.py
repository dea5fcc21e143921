"""Weights of separable networks as compiled kernels want them: folded in float64, rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor, nn

from napari_aprcnn._kernels import planes
from napari_aprcnn.models.folding import Conv, affine, fold_projection
from napari_aprcnn.models.layers import StyleUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pair", "Separable", "Style", "as_array", "norm_of", "projection_of", "style_of"]


def as_array(values: Tensor) -> NDArray[np.float32]:
    """Values as float32."""
    return np.ascontiguousarray(values.detach().float().numpy())


class Separable:
    """Taps, dilation, and a pointwise convolution whose bias may get a shift by the style."""

    def __init__(
        self, layer: nn.Module, *, channels: int, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        conv = Conv(layer, scale=scale, shift=shift, merge_tiny=False)
        depthwise = cast("Tensor", conv.depthwise)
        self.taps = planes.aligned(9, channels)
        self.taps[...] = 0
        self.taps[:, : depthwise.shape[0]] = depthwise[:, 0].flatten(1).t().float().numpy()
        self.dilation = conv.dilation
        self.weight, self.bias = as_array(conv.weight[:, :, 0, 0]), as_array(conv.bias)

    def packed(self, **how: Any) -> tuple[Any, ...]:
        """As the kernels take it; how: as `planes.pack`."""
        return self.taps, self.dilation, planes.pack(self.weight, self.bias, **how)


class Style:
    """Shift of a norm after ``x + Linear(style)``."""

    def __init__(self, unit: StyleUnit, *, enabled: bool) -> None:
        self.scale, shift = affine(unit.conv[0])
        self.weight = as_array(unit.full.weight.double() * self.scale[:, None])
        self.bias = as_array(unit.full.bias.double() * self.scale + shift)
        self.enabled = enabled

    def of(self, style: NDArray[np.float32]) -> NDArray[np.float32]:
        """The shift of this style."""
        return self.weight @ style + self.bias if self.enabled else self.bias


def style_of(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `style_vector`, of (h, w, C)."""
    mean = coarse.sum(axis=1).mean(axis=0, dtype=np.float64) / coarse.shape[1]
    norm = max(float(np.sqrt((mean**2).sum())), float(np.finfo(np.float32).tiny))
    return np.asarray(mean / norm, np.float32)


def norm_of(layer: nn.Module) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift of a batch norm."""
    scale, shift = affine(layer)
    return as_array(scale), as_array(shift)


def projection_of(layer: nn.Sequential) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias of a norm and a pointwise convolution as one."""
    conv = fold_projection(layer)
    return as_array(conv.weight[:, :, 0, 0]), as_array(conv.bias)


class Pair:
    """What `planes.pair` wants of two units, but for what the style decides."""

    def __init__(self, first: nn.Module, second: nn.Module, *, channels: int) -> None:
        one, two = cast("Any", first), cast("Any", second)
        between = two.conv if isinstance(second, StyleUnit) else two
        before = one.conv if isinstance(first, StyleUnit) else one
        scale, shift = affine(between[0])
        styled = isinstance(second, StyleUnit)
        self.norm = norm_of(before[0])
        self.first = Separable(before[2], channels=channels, scale=scale, shift=None if styled else shift)
        self.second = Separable(between[2], channels=len(scale))
        self.skip_scale = as_array(scale)
