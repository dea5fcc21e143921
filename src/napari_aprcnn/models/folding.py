"""The parts of a network for inference: batch norms folded into convolutions, exactly but for rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_aprcnn._kernels import planes
from napari_aprcnn.models.layers import Doubled, SeparableConv, SeparableDeconv, StyleUnit, merge_separable_deconv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Filters = tuple[NDArray[np.float32], NDArray[np.float32]]
    Affine = tuple[NDArray[np.float32], NDArray[np.float32]]

__all__ = [
    "Conv",
    "Norm",
    "Shuffle",
    "StyleShift",
    "affine",
    "column",
    "doubled",
    "fold_projection",
    "is_whole",
    "plane_of",
    "pooled",
    "without",
]

TINY_CHANNELS = 4
"""Separable convolutions of so few channels run faster as one dense convolution."""


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,), float64, of a batch norm in eval mode."""
    norm = cast("nn.BatchNorm2d", norm)
    mean, var = cast("Tensor", norm.running_mean).double(), cast("Tensor", norm.running_var).double()
    scale = norm.weight.double() / torch.sqrt(var + norm.eps)
    return scale, norm.bias.double() - mean * scale


def column(values: Tensor) -> Tensor:
    """Shape values (C,) so that they go with (N, C, H, W)."""
    return values[None, :, None, None]


class Conv(nn.Module):
    """A convolution, or a depthwise and a pointwise one, with scale and shift after it folded in."""

    depthwise: Tensor | None
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        layer: nn.Module,
        *,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        merge_tiny: bool = True,
    ) -> None:
        super().__init__()
        self.merge_tiny = merge_tiny
        self.spread = self.padding = 0
        self.dilation = 1
        self._filters: dict[int, Filters] | None = None
        depthwise = None
        if isinstance(layer, SeparableConv):
            depthwise, weight, bias = self._separable(layer)
        else:
            conv = cast("nn.Conv2d", layer)
            weight, bias = conv.weight.double(), cast("Tensor", conv.bias).double()
            self.padding, self.dilation = cast("int", conv.padding[0]), conv.dilation[0]
        if scale is not None:
            weight, bias = weight * scale[:, None, None, None], bias * scale
        if shift is not None:
            bias = bias + shift
        self.register_buffer("depthwise", depthwise)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def _separable(self, layer: SeparableConv) -> tuple[Tensor | None, Tensor, Tensor]:
        first, second = cast("nn.Conv2d", layer[0]), cast("nn.Conv2d", layer[1])
        mix, bias = second.weight.double(), cast("Tensor", second.bias).double()
        if first.bias is not None:
            bias = bias + mix[:, :, 0, 0] @ first.bias.double()
        padding = cast("int", first.padding[0])
        self.dilation = first.dilation[0]
        depthwise = first.weight.double()
        if first.kernel_size == (1, 1) or (self.merge_tiny and first.in_channels <= TINY_CHANNELS):
            self.padding = padding
            return None, mix * depthwise[:, 0][None], bias
        self.spread = padding
        return depthwise, mix, bias

    @property
    def radius(self) -> int:
        """Rows that an output row sees on each side."""
        return self.spread + self.padding

    def spatial(self, x: Tensor) -> Tensor:
        """Run the depthwise part alone."""
        if self.depthwise is None:
            return x
        return F.conv2d(x, self.depthwise, None, 1, self.spread, self.dilation, x.shape[1])

    def prepare_filters(self) -> None:
        """Take minimal filtering from now on, where it fits: dense 3 x 3, float32, compiled kernels."""
        plain = self.depthwise is None and self.padding == self.dilation == 1 and self.weight.dtype == torch.float32
        if plain and planes.can_filter(self.weight.numpy()):
            self._filters = {}
            self.filters  # noqa: B018 - made now, not in the first run

    @property
    def filters(self) -> Filters | None:
        """Weights and bias of minimal filtering, for the instruction set in use; ``None``: torch convolves."""
        if self._filters is None or not planes.can_run():
            return None
        width = planes.lanes()
        if width not in self._filters:
            self._filters[width] = planes.filter_weights(self.weight.contiguous().numpy(), self.bias.numpy())
        return self._filters[width]

    def forward(
        self,
        x: Tensor,
        shift: Tensor | None = None,
        *,
        norm: Norm | None = None,
        norm_shift: Tensor | None = None,
        add: Tensor | None = None,
        add_scale: Tensor | None = None,
        relu: bool = False,
        drop: tuple[int, int] = (0, 0),
        out: Tensor | None = None,
    ) -> Tensor:
        """Convolve one plane.

        Parameters
        ----------
        x : (1, ci, h, w)
        shift : (co,)
            Added to the bias.
        norm, norm_shift
            Norm and ReLU that come before, with another shift than the norm's where it is given.
        add, add_scale : (1, co, rows, w), (co,)
            Added to the result, times the factors.
        relu
            Whether a ReLU follows.
        drop
            Rows at the top and at the bottom that are left out of the result.
        out : (1, co, rows, w)
            Where the result may be written; who gives it looks at what is returned.
        """
        filters = self.filters
        if filters is not None:
            before = None
            if norm is not None:
                before = norm.scale.numpy(), (norm.shift if norm_shift is None else norm_shift).numpy()
            return self._filtered(filters, x, shift, before, add, add_scale, drop, out, relu=relu)
        if norm is not None:
            x = norm(x, norm_shift)
        bias = self.bias if shift is None else self.bias + shift
        dilation = self.dilation if self.padding else 1
        made = without(F.conv2d(self.spatial(x), self.weight, bias, 1, self.padding, dilation), drop)
        if add is not None:
            made = made.add_(add) if add_scale is None else made.addcmul_(add, column(add_scale))
        return made.relu_() if relu else made

    def _filtered(
        self, filters: Filters, x: Tensor, shift: Tensor | None, before: Affine | None, add: Tensor | None,
        add_scale: Tensor | None, drop: tuple[int, int], out: Tensor | None, *, relu: bool,
    ) -> Tensor:  # fmt: skip
        (weights, bias), columns = filters, self.weight.shape[0]
        rows = drop[0], x.shape[2] - drop[1]
        made = x.new_empty((rows[1] - rows[0], x.shape[3], columns)) if out is None else out[0].permute(1, 2, 0)
        if shift is not None:
            bias = bias.copy()
            bias[:columns] += shift.numpy()
        factors = None
        if add_scale is not None:
            factors = np.zeros_like(bias)
            factors[:columns] = add_scale.numpy()
        more = None if add is None else plane_of(add)
        planes.filter_plane(
            plane_of(x), weights, bias, made.numpy(), norm=before, add=more, add_scale=factors, relu=relu, rows=rows
        )
        return made.permute(2, 0, 1)[None] if out is None else out


def without(x: Tensor, drop: tuple[int, int]) -> Tensor:
    """Leave out rows at the top and at the bottom of (1, C, h, w)."""
    return x[:, :, drop[0] : x.shape[2] - drop[1]]


def plane_of(x: Tensor) -> NDArray[np.float32]:
    """Memory of a plane (1, C, h, w), channels last; a copy only where it is not laid out so."""
    found: NDArray[np.float32] = x[0].permute(1, 2, 0).contiguous().numpy()
    return found


class Norm(nn.Module):
    """Batch norm, of its input `times` a number, and ReLU that cannot be folded: one affine pass, the ReLU in place."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.Module, *, times: float = 1.0) -> None:
        super().__init__()
        scale, shift = affine(norm)
        scale = times * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor, style_shift: Tensor | None = None) -> Tensor:
        """Return relu(scale * x + shift), with the style's shift (C,) in place of the norm's where it is given."""
        shift = self.shift if style_shift is None else style_shift
        # In memory, channels last: there the factors lie beside the values.
        made = torch.addcmul(shift, x.permute(0, 2, 3, 1), self.scale).relu_()
        return made.permute(0, 3, 1, 2)


class StyleShift(nn.Module):
    """From the style to the shift that a batch norm after ``x + Linear(style)`` adds: scale * linear + shift."""

    def __init__(self, layer: StyleUnit, *, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        scale, shift = affine(layer.conv[0])
        self.register_buffer("weight", layer.full.weight.double() * scale[:, None])
        self.register_buffer("bias", layer.full.bias.double() * scale + shift)

    def forward(self, style: Tensor) -> Tensor:
        """Return the shift (C,) for one style (1, w3)."""
        weight, bias = cast("Tensor", self.weight), cast("Tensor", self.bias)
        # A BLAS product would split its sums by the number of threads, and so round by it.
        return (weight * style).sum(-1) + bias if self.enabled else bias


def fold_projection(layer: nn.Sequential) -> Conv:
    """Fold the batch norm before a 1 x 1 convolution."""
    norm, conv = layer
    folded = Conv(conv)
    scale, shift = affine(norm)
    folded.bias = folded.bias + folded.weight[:, :, 0, 0] @ shift
    folded.weight = folded.weight * column(scale)
    return folded


class Shuffle(nn.Module):
    """A transposed convolution (kernel 2, stride 2) as a matrix; its result is scattered to 2 x 2 pixels.

    Rows of the matrix are ordered (row, column, channel), so that the scattered parts are contiguous.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Module, *, before: Conv | None = None, scale: Tensor | None = None) -> None:
        super().__init__()
        if isinstance(layer, SeparableDeconv):
            weight, bias = merge_separable_deconv(
                cast("nn.ConvTranspose2d", layer[0]).double(), cast("nn.Conv2d", layer[1]).double()
            )
            weight = weight[:, :, 0, 0]
        elif isinstance(layer, Doubled):  # four equal pixels
            pointwise = cast("nn.Conv2d", layer[0])
            weight = pointwise.weight.double()[:, :, 0, 0].repeat_interleave(4, 0)
            bias = cast("Tensor", pointwise.bias).double().repeat_interleave(4)
        else:
            deconv = cast("nn.ConvTranspose2d", layer)
            weight = deconv.weight.double().permute(1, 2, 3, 0).flatten(0, 2)
            bias = cast("Tensor", deconv.bias).double().repeat_interleave(4)
        if scale is not None:
            weight, bias = weight * scale.repeat_interleave(4)[:, None], bias * scale.repeat_interleave(4)
        if before is not None:  # a pointwise convolution: no nonlinearity lies between the two
            weight, bias = weight @ before.weight[:, :, 0, 0], bias + weight @ before.bias
        self.channels = weight.shape[0] // 4
        self._rows: dict[int, list[Any]] | None = None
        order = torch.arange(weight.shape[0]).view(-1, 4).t().flatten()
        self.register_buffer("weight", weight[order][:, :, None, None])
        self.register_buffer("bias", bias[order])

    def prepare_rows(self) -> None:
        """Take the compiled kernel from now on, where it fits: float32, whole registers."""
        if self.weight.dtype == torch.float32 and self.channels % 16 == 0 and planes.can_run():
            self._rows = {}
            self.rows  # noqa: B018 - made now, not in the first run

    @property
    def rows(self) -> list[Any] | None:
        """Both rows of 2 x 2 pixels as packed products, for the instruction set in use; ``None``: torch multiplies."""
        if self._rows is None or not planes.can_run():
            return None
        width = planes.lanes()
        if width not in self._rows:
            weight, bias = self.weight[:, :, 0, 0].contiguous().numpy(), self.bias.numpy()
            halves = (slice(0, len(bias) // 2), slice(len(bias) // 2, None))
            self._rows[width] = [planes.pack(weight[half], bias[half]) for half in halves]
        return self._rows[width]

    def forward(
        self,
        x: Tensor,
        *,
        shift: Tensor | None = None,
        add: tuple[Tensor, Tensor] | None = None,
        relu: bool = False,
    ) -> Tensor:
        """Upsample one plane.

        Parameters
        ----------
        x : (1, ci, h, w)
        shift : (co,)
            Added to the result.
        add : (1, co, 2 h, 2 w) and (co,)
            Skip and its factors, added, too.
        relu
            Whether a ReLU follows.

        Returns
        -------
        (1, co, 2 h, 2 w) Tensor
        """
        _, _, h, w = x.shape
        rows = self.rows
        if rows is not None:
            more = np.zeros(1, np.float32) if shift is None else np.tile(shift.numpy(), 2)
            upper, lower = ((weights, bias + more, *rest) for weights, bias, *rest in rows)
            summed = None if add is None else (plane_of(add[0]), np.tile(add[1].numpy(), 2))
            made = x.new_empty((2 * h, 2 * w, self.channels))
            planes.up(plane_of(x), upper, lower, made.numpy(), add=summed, relu=relu, threads=1)
            return made.permute(2, 0, 1)[None]
        bias = self.bias if shift is None else self.bias + shift.repeat(4)
        # Axes: height, width, row of the 2 x 2 pixels, then their column and channel as one.
        parts = F.conv2d(x, self.weight, bias).permute(0, 2, 3, 1).reshape(h, w, 2, 2 * self.channels)
        result = parts.new_empty(h, 2, w, 2 * self.channels)
        for row in (0, 1):
            if add is None:
                result[:, row].copy_(parts[:, :, row])
            else:
                skip = add[0].permute(0, 2, 3, 1).reshape(h, 2, w, 2 * self.channels)
                torch.addcmul(parts[:, :, row], skip[:, row], add[1].repeat(2), out=result[:, row])
        result = result.view(1, 2 * h, 2 * w, self.channels).permute(0, 3, 1, 2)
        return result.relu_() if relu else result


def is_whole(x: Tensor) -> bool:
    """Whether our kernels take (1, C, h, w): float32, whole registers of channels."""
    return x.dtype == torch.float32 and x.shape[1] % 16 == 0 and planes.can_run()


def doubled(x: Tensor) -> Tensor:
    """Nearest upsampling by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def pooled(x: Tensor) -> Tensor:
    """Max pooling of one plane by two; without our kernel two maxima of strided views are the fastest."""
    _, channels, height, width = x.shape
    if is_whole(x):
        made = x.new_empty((height // 2, width // 2, channels))
        planes.pool(plane_of(x), made.numpy())
        return made.permute(2, 0, 1)[None]
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(x[:, :, :, ::2], x[:, :, :, 1::2])
