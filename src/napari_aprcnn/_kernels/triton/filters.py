"""Filters for coarser levels from those of the finest (APR-CNN paper, restriction). Tiny: plain torch, any device."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["restrict_filters", "restrict_filters_back", "restriction_matrix"]


def restriction_matrix(edge: int, k: int) -> Tensor:
    """[edge, edge] float64: w'[o] = sum over i of w[i] * max(0, 1 - |(i - h) / 2^k - (o - h)|), h = edge // 2."""
    half = edge // 2
    at = torch.arange(edge, dtype=torch.float64) - half
    return torch.clamp(1 - (at[None, :] / 2**k - at[:, None]).abs(), min=0)


def _matrices(kernel: Sequence[int], first: int, number: int, like: Tensor) -> list[Tensor]:
    return [_matrix(edge, first, number, like.device, like.dtype) for edge in kernel]


@cache
def _matrix(edge: int, first: int, number: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Made once: every copy to a GPU makes the host wait. A tensor that gradients may use, whoever asks first."""
    with torch.inference_mode(False):
        steps = [restriction_matrix(edge, k) for k in range(first, first + number)]
        return torch.stack(steps).to(device, dtype)


def restrict_filters(weight: Tensor, depths: int) -> Tensor:
    """Filter banks for ``depths`` depths from eta banks.

    Parameters
    ----------
    weight : (eta, Cout, Cin, kz, ky, kx)
    depths
        Number of levels wanted; fewer than eta is allowed.

    Returns
    -------
    (depths, Cout, Cin, kz, ky, kx) tensor, as weight
        Bank D for D < eta, else bank eta - 1 restricted D - (eta - 1) times. 1x1x1 filters are not changed by it.
    """
    eta = len(weight)
    if depths <= eta:
        return weight[:depths].clone()
    mz, my, mx = _matrices(weight.shape[3:], 1, depths - eta, weight)
    coarser = torch.einsum("dai,dbj,dck,ouijk->douabc", mz, my, mx, weight[-1])
    return torch.cat([weight, coarser])


def restrict_filters_back(grad: Tensor, banks: int) -> Tensor:
    """Gradient of `restrict_filters` with respect to the banks: [banks, Cout, Cin, kz, ky, kx], as grad."""
    depths = len(grad)
    out = grad.new_zeros(banks, *grad.shape[1:])
    out[: min(banks, depths)] = grad[:banks]
    if depths > banks:
        mz, my, mx = _matrices(grad.shape[3:], 1, depths - banks, grad)
        out[-1] += torch.einsum("dai,dbj,dck,douabc->ouijk", mz, my, mx, grad[banks:])
    return out
