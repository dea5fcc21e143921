"""The parts that the Cellpose family is built of (Cellpose paper, figure 1; FasterCellpose thesis, section 3.3).

Attribute names give the keys of official Cellpose checkpoints; do not rename them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_aprcnn.models.configs import FamilyConfig

__all__ = [
    "DeconvDecoderBlock",
    "Doubled",
    "EncoderBlock",
    "ResidualDecoderBlock",
    "SeparableConv",
    "SeparableDeconv",
    "StyleUnit",
    "deconv",
    "merge_separable_deconv",
    "projection",
    "style_vector",
    "unit",
    "unmerged",
]

EPS = 1e-5
MOMENTUM = 0.05


# --- separable convolutions ----------------------------------------------------------------------------------------


class _DilatedGradients(torch.autograd.Function):
    """Depthwise dilated convolution, stride 1, same size, with its own gradients, for training on a CPU.

    The weight gradient is taken in float32: in channels_last bfloat16 with dilation, torch (2.13, oneDNN) returns wrong
    values, at times NaN, and takes five times as long. The input gradient is a forward convolution with the kernel
    turned by 180 degrees, which takes a tenth of the time of the transposed one and equals it to rounding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        ctx.has_bias = bias is not None
        padding = dilation * (weight.shape[2] // 2)
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=weight.shape[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dilation = ctx.dilation
        padding = dilation * (weight.shape[2] // 2)
        groups = weight.shape[0]
        grad_x = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3)
            grad_x = F.conv2d(gradient, turned, padding=padding, dilation=dilation, groups=groups)
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            gradient.float(),
            x.float(),
            weight.float(),
            [groups] if ctx.has_bias else None,
            [1, 1],
            [padding, padding],
            [dilation, dilation],
            False,
            [0, 0],
            groups,
            [False, True, ctx.has_bias],
        )
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype) if ctx.has_bias else None, None


class DepthwiseConv(nn.Conv2d):
    """A depthwise convolution, stride 1, same size; `_DilatedGradients` tells why it has a class."""

    def __init__(self, channels: int, kernel: int, *, dilation: int = 1, bias: bool = True) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        trains = torch.is_grad_enabled() and (self.weight.requires_grad or input.requires_grad)
        if self.dilation[0] == 1 or input.device.type != "cpu" or not trains:
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast("cpu", enabled=False):
            result: Tensor = _DilatedGradients.apply(  # type: ignore[no-untyped-call]
                input.to(dtype), self.weight.to(dtype), bias, self.dilation[0]
            )
        return result


class SeparableConv(nn.Sequential):
    """Depthwise k x k, then pointwise 1 x 1 with a bias; nothing in between (thesis 2.3.5).

    With k = 1 the two are one linear map of the channels, and are computed as one (`merged`).
    """

    merged: bool = True

    def __init__(self, c_in: int, c_out: int, kernel: int, *, dilation: int = 1, bias: bool = True) -> None:
        super().__init__(DepthwiseConv(c_in, kernel, dilation=dilation, bias=bias), nn.Conv2d(c_in, c_out, 1))

    def merged_weights(self) -> tuple[Tensor, Tensor]:
        """Return weight (co, ci, 1, 1) and bias (co,) of the one convolution that equals both parts, for k = 1.

        Computed from the two factors at each call, so that gradients reach them.
        """
        depthwise, pointwise = cast("nn.Conv2d", self[0]), cast("nn.Conv2d", self[1])
        mix = pointwise.weight[:, :, 0, 0]
        bias = cast("Tensor", pointwise.bias)
        if depthwise.bias is not None:
            bias = bias + (mix * depthwise.bias).sum(1)
        return (mix * depthwise.weight.flatten())[:, :, None, None], bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, ci, H, W) to (N, co, H, W)."""
        if self.merged and self[0].kernel_size == (1, 1):
            weight, bias = self.merged_weights()
            return F.conv2d(x, weight, bias)
        depthwise: Tensor = self[0](x)
        result: Tensor = self[1](depthwise)
        return result


def merge_separable_deconv(depthwise: nn.ConvTranspose2d, pointwise: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Write a separable transposed convolution as a 1 x 1 convolution for `torch.nn.functional.pixel_shuffle`.

    A kernel of 2 with stride 2 never overlaps itself: each input pixel makes its own 2 x 2 output pixels, so
    ``pixel_shuffle(conv2d(x, weight, bias), 2)`` equals ``pointwise(depthwise(x))``. Gradients flow to the factors.

    Parameters
    ----------
    depthwise
        ci -> ci, kernel 2, stride 2, one group a channel.
    pointwise
        ci -> co, kernel 1.

    Returns
    -------
    weight : (4 * co, ci, 1, 1) Tensor
    bias : (4 * co,) Tensor

    Examples
    --------
    >>> spread, mix = nn.ConvTranspose2d(3, 3, 2, stride=2, groups=3), nn.Conv2d(3, 5, 1)
    >>> x = torch.rand(1, 3, 4, 4)
    >>> merged = F.pixel_shuffle(F.conv2d(x, *merge_separable_deconv(spread, mix)), 2)
    >>> torch.allclose(merged, mix(spread(x)), atol=1e-5)
    True
    """
    mix = pointwise.weight[:, :, 0, 0]
    corners = depthwise.weight[:, 0].flatten(1).t()  # (4, ci), row by row: the order of pixel_shuffle
    weight = (mix[:, None, :] * corners).flatten(0, 1)[:, :, None, None]
    bias = (mix * depthwise.bias).sum(1) if depthwise.bias is not None else torch.zeros_like(mix[:, 0])
    if pointwise.bias is not None:
        bias = bias + pointwise.bias
    return weight, bias.repeat_interleave(4)


class SeparableDeconv(nn.Sequential):
    """Depthwise transposed convolution (kernel 2, stride 2, bias), then pointwise: ci -> co at twice the resolution.

    Computed as one 1 x 1 convolution and a pixel shuffle (`merged`), which equals the two to rounding and passes over
    memory half as often; keys and weights are those of the two parts.
    """

    merged: bool = True

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.ConvTranspose2d(c_in, c_in, 2, stride=2, groups=c_in), nn.Conv2d(c_in, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Upsample (N, ci, H, W) to (N, co, 2 H, 2 W)."""
        if self.merged:
            weight, bias = merge_separable_deconv(cast("nn.ConvTranspose2d", self[0]), cast("nn.Conv2d", self[1]))
            return F.pixel_shuffle(F.conv2d(x, weight, bias), 2)
        spread: Tensor = self[0](x)
        result: Tensor = self[1](spread)
        return result


@contextmanager
def unmerged(module: nn.Module) -> Iterator[nn.Module]:
    """Run the two parts of every separable layer one after the other inside the ``with`` block.

    For counting and for tests; the result is the same to rounding.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, SeparableConv | SeparableDeconv)]
    before = [layer.merged for layer in layers]
    for layer in layers:
        layer.merged = False
    try:
        yield module
    finally:
        for layer, merged in zip(layers, before, strict=True):
            layer.merged = merged


# --- units ---------------------------------------------------------------------------------------------------------


def _conv(config: FamilyConfig, c_in: int, c_out: int, kernel: int, dilation: int = 1) -> nn.Module:
    if config.separable:
        return SeparableConv(c_in, c_out, kernel, dilation=dilation, bias=config.depthwise_bias)
    return nn.Conv2d(c_in, c_out, kernel, padding=dilation * (kernel // 2), dilation=dilation)


def unit(config: FamilyConfig, c_in: int, c_out: int, kernel: int = 3, *, dilation: int = 1) -> nn.Sequential:
    """Return U(ci -> co): batch norm, ReLU, convolution with a bias, same size."""
    norm = nn.BatchNorm2d(c_in, eps=EPS, momentum=MOMENTUM)
    return nn.Sequential(norm, nn.ReLU(inplace=True), _conv(config, c_in, c_out, kernel, dilation))


def projection(config: FamilyConfig, c_in: int, c_out: int) -> nn.Sequential:
    """Return P(ci -> co): batch norm and 1 x 1 convolution."""
    return nn.Sequential(nn.BatchNorm2d(c_in, eps=EPS, momentum=MOMENTUM), _conv(config, c_in, c_out, 1))


def deconv(config: FamilyConfig, c_in: int, c_out: int) -> nn.Module:
    """Return the transposed convolution (kernel 2, stride 2) of a network."""
    return SeparableDeconv(c_in, c_out) if config.separable else nn.ConvTranspose2d(c_in, c_out, 2, stride=2)


class Doubled(nn.Sequential):
    """A pointwise convolution ci -> co, then nearest upsampling by two; every pixel becomes four equal ones."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, 1), nn.Upsample(scale_factor=2, mode="nearest"))


def style_vector(encoded: Tensor) -> Tensor:
    """Average the coarsest features (N, C, h, w) over the image and divide by the L2 norm: (N, C) float32.

    The norm is kept above zero, so that features that are all zero give a zero style and no NaN.
    """
    pooled = F.avg_pool2d(encoded, kernel_size=(encoded.shape[-2], encoded.shape[-1])).flatten(1).float()
    norm = torch.sum(pooled**2, dim=1, keepdim=True) ** 0.5
    return pooled / norm.clamp_min(torch.finfo(torch.float32).tiny)


class StyleUnit(nn.Module):
    """S(ci -> co): x (+ skip) + Linear(style), then a unit."""

    def __init__(self, config: FamilyConfig, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = unit(config, c_in, c_out)
        self.full = nn.Linear(config.widths[3], c_out)

    def forward(self, style: Tensor, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return (N, co, h, w) from x and skip (N, ci, h, w) and style (N, w3)."""
        if skip is not None:
            x = x + skip
        shift: Tensor = self.full(style.to(self.full.weight.dtype))
        result: Tensor = self.conv(x + shift[:, :, None, None])
        return result


# --- blocks --------------------------------------------------------------------------------------------------------


def _numbered(units: list[nn.Module]) -> nn.Sequential:
    chain = nn.Sequential()
    for number, layer in enumerate(units):
        chain.add_module(f"conv_{number}", layer)
    return chain


class EncoderBlock(nn.Module):
    """One scale of the encoder: `FamilyConfig.encoder` says which kind."""

    def __init__(self, config: FamilyConfig, c_in: int, c_out: int) -> None:
        super().__init__()
        units: list[nn.Module] = [
            unit(config, c_in, c_out),
            unit(config, c_out, c_out, dilation=config.dilation),
        ]
        if config.encoder == "residual4":
            units += [unit(config, c_out, c_out), unit(config, c_out, c_out)]
        self.conv = _numbered(units)
        self.residual = config.encoder != "plain2"
        if self.residual or config.unused_projection:
            self.proj = projection(config, c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, co, h, w) from (N, ci, h, w)."""
        # The projection reads x before anything else does, as in Cellpose: sums in this order are bit-equal.
        first: Tensor = self.proj(x) if self.residual else x
        pair: Tensor = self.conv[1](self.conv[0](x))
        if not self.residual:
            return pair
        x = first + pair
        if len(self.conv) == 4:
            x = x + self.conv[3](self.conv[2](x))
        return x


class ResidualDecoderBlock(nn.Module):
    """One scale of the decoder with residual pairs (Cellpose)."""

    def __init__(self, config: FamilyConfig, c_in: int, c_out: int) -> None:
        super().__init__()
        units: list[nn.Module] = [unit(config, c_in, c_out), StyleUnit(config, c_out, c_out)]
        if config.decoder == "residual4":
            units += [StyleUnit(config, c_out, c_out), StyleUnit(config, c_out, c_out)]
        self.conv = _numbered(units)
        self.proj = projection(config, c_in, c_out)

    def forward(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        """Return (N, co, h, w) from x (N, ci, h, w), skip (N, co, h, w) and style (N, w3)."""
        x = self.proj(x) + self.conv[1](style, self.conv[0](x), skip)
        if len(self.conv) == 4:
            x = x + self.conv[3](style, self.conv[2](style, x))
        return x


class DeconvDecoderBlock(nn.Module):
    """One scale of the decoder with one way up and one unit (FastCellpose, ours); the coarsest scale has no way up."""

    def __init__(self, config: FamilyConfig, c_in: int, c_out: int, *, upsamples: bool) -> None:
        super().__init__()
        units: list[nn.Module] = []
        if upsamples:
            units.append(Doubled(c_in, c_out) if config.decoder == "doubled" else deconv(config, c_in, c_out))
        self.conv = _numbered([*units, StyleUnit(config, c_out, c_out)])

    def forward(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        """Return (N, co, h, w) from x (N, ci, h / 2, w / 2), or (N, co, h, w) at the coarsest scale, and skip."""
        if len(self.conv) == 2:
            x = self.conv[0](x)
        result: Tensor = self.conv[-1](style, x, skip)
        return result
