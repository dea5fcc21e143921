"""Normalisation in plain torch: any device, any floating dtype. What the compiled kernels are held to.

Shapes are those of `napari_aprcnn._kernels.particle_norms`. On the CPU float32 is computed in float64: a yardstick
should not round.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["group_norm", "group_norm_back", "scale_shift", "scale_shift_back", "statistics_dtype"]


def statistics_dtype(x: Tensor) -> torch.dtype:
    """Of means, reciprocal deviations and gradients of parameters; not every other device has float64."""
    return torch.float64 if x.device.type == "cpu" or x.dtype == torch.float64 else torch.float32


def _items(item_rows: Tensor) -> Iterator[tuple[int, slice]]:
    """Index and rows of every item that has rows."""
    for item, (first, last) in enumerate(pairwise(item_rows.tolist())):
        if last > first:
            yield item, slice(first, last)


def _mapped(x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor | None, relu: bool) -> Tensor:
    out = (x - centre) * scale
    out = out if shift is None else out + shift
    return out.relu() if relu else out


def _arriving(
    grad: Tensor, x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor | None, relu: bool, dtype: torch.dtype
) -> Tensor:
    """What of the gradient the rectifier lets through."""
    grad = grad.to(dtype)
    return grad.masked_fill(_mapped(x, centre, scale, shift, False) <= 0, 0) if relu else grad


def _columns(statistics: Tensor, channels: int) -> Tensor:
    """Values of groups for each of their channels."""
    return statistics.repeat_interleave(channels // statistics.shape[0])


def group_norm(
    x: Tensor, item_rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised rows, and mean and reciprocal deviation [items, groups]."""
    exact, channels, items = statistics_dtype(x), x.shape[1], item_rows.shape[0] - 1
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    mean = x.new_zeros((items, groups), dtype=exact)
    rstd = x.new_full((items, groups), eps, dtype=exact).rsqrt()
    shift = None if bias is None else bias.to(exact)
    for item, rows in _items(item_rows):
        values = x[rows].to(exact).contiguous()
        variance, mean[item] = torch.var_mean(values.view(-1, groups, channels // groups), (0, 2), correction=0)
        rstd[item] = torch.rsqrt(variance + eps)
        scale = _columns(rstd[item], channels)
        scale = scale if weight is None else scale * weight.to(exact)
        out[rows] = _mapped(values, _columns(mean[item], channels), scale, shift, relu).to(x.dtype)
    return out, mean, rstd


def group_norm_back(
    grad: Tensor,
    x: Tensor,
    item_rows: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the features and, [channels], of weight and bias."""
    exact, channels, groups = mean.dtype, x.shape[1], mean.shape[1]
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_weight, grad_bias = (x.new_zeros(channels, dtype=exact) for _ in range(2))
    factor = x.new_ones(channels, dtype=exact) if weight is None else weight.to(exact)
    shift = None if bias is None else bias.to(exact)
    for item, rows in _items(item_rows):
        centre, deviation = _columns(mean[item], channels), _columns(rstd[item], channels)
        values = x[rows].to(exact)
        arriving = _arriving(grad[rows], values, centre, deviation * factor, shift, relu, exact)
        normal = (values - centre) * deviation
        plain, product = arriving.sum(0), (arriving * normal).sum(0)
        grad_bias += plain
        grad_weight += product
        count = values.shape[0] * (channels // groups)
        mean_grad, mean_product = (
            _columns((total * factor).view(groups, -1).sum(1) / count, channels) for total in (plain, product)
        )
        grad_x[rows] = (deviation * (arriving * factor - mean_grad - normal * mean_product)).to(x.dtype)
    return grad_x, grad_weight, grad_bias


def scale_shift(x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    """``(x - centre) * scale + shift``, and its rectifier."""
    exact = statistics_dtype(x)
    return _mapped(x.to(exact), centre.to(exact), scale.to(exact), shift.to(exact), relu).to(x.dtype)


def scale_shift_back(
    grad: Tensor, x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the features, of scale and of shift."""
    exact = statistics_dtype(x)
    centre, scale, shift = (t.to(exact) for t in (centre, scale, shift))
    values = x.to(exact)
    arriving = _arriving(grad, values, centre, scale, shift, relu, exact)
    return (arriving * scale).to(x.dtype), (arriving * (values - centre)).sum(0), arriving.sum(0)
