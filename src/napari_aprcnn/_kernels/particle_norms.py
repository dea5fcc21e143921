"""Normalisation of feature rows as torch operators, the rectifier included.

One pass over the features finds the statistics of every item, a second one applies them. Compiled on the CPU for
float32 and bfloat16 (float16 is widened); other dtypes, a GPU and installations without a compiler run
`napari_aprcnn._kernels.reference_norms`. Rows are cut into parts by the item alone, and parts are joined in order:
the same bits for any number of threads and any batch around.

item_rows : int64 [items + 1], on the CPU
    First row of every item, and one more: 0, ..., R.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from napari_aprcnn._kernels import reference_norms as reference
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import array, fresh, is_plain, memory, operator, threads
from napari_aprcnn._kernels.reference_norms import statistics_dtype

__all__ = ["group_norm", "group_norm_back", "group_norm_over", "scale_shift", "scale_shift_back", "scale_shift_over"]


def _compiled(x: Tensor) -> Any:
    """The extension where it knows the features, else ``None``."""
    known = (torch.float32, torch.bfloat16, torch.float16)
    return extension() if x.device.type == "cpu" and x.dtype in known else None


def _known(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x


def _parameter(given: Tensor | None) -> Any:
    return None if given is None else array(given.float())


def _check(x: Tensor, item_rows: Tensor, groups: int) -> None:
    starts = item_rows.tolist()
    if x.ndim != 2 or groups < 1 or x.shape[1] < 1 or x.shape[1] % groups:
        raise ValueError(f"got features {tuple(x.shape)} in {groups} groups, expected [rows, a multiple of the groups]")
    if not starts or starts[0] != 0 or starts[-1] != x.shape[0] or starts != sorted(starts):
        raise ValueError(f"got items that start at rows {starts}, expected 0 to {x.shape[0]} in ascending order")


# --- statistics of the features themselves ------------------------------------------------------------------
@operator("group_norm")
def group_norm(
    x: Tensor, item_rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over the rows of each item and the channels of each group.

    Parameters
    ----------
    x
        Features [R, C].
    item_rows
        See above. A batch norm is one item, and as many groups as channels.
    groups
        Divides the channels.
    weight, bias
        [C], or ``None``.
    eps
        Added to the variance, which is the biased one.
    relu
        Whether what is below zero becomes zero.

    Returns
    -------
    out : torch.Tensor
        [R, C], dtype of ``x``.
    mean, rstd : torch.Tensor
        Means, and reciprocals of the deviations, [items, groups]; float64 on the CPU. No gradient leads through them.

    Raises
    ------
    ValueError
        If groups or items do not fit the features.
    """
    _check(x, item_rows, groups)
    module = _compiled(x)
    if module is None:
        return reference.group_norm(x, item_rows, groups, weight, bias, eps, relu)
    features = _known(x)
    out = fresh(features, *features.shape)
    mean, rstd = _normalise(module, features, out, item_rows, groups, weight, bias, eps, relu)
    return out.to(x.dtype), mean, rstd


def _normalise(
    module: Any, x: Tensor, out: Tensor, item_rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None,
    eps: float, relu: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    mean = x.new_empty((item_rows.shape[0] - 1, groups), dtype=torch.float64)
    rstd = torch.empty_like(mean)
    given = (memory(x), array(item_rows), groups, _parameter(weight), _parameter(bias), eps, relu)
    module.group_norm(*given, memory(out), mean.numpy(), rstd.numpy(), threads())
    return mean, rstd


def _can_overwrite(x: Tensor, *parameters: Tensor | None) -> bool:
    known = x.dtype in (torch.float32, torch.bfloat16) and x.is_contiguous()
    return known and not torch.compiler.is_compiling() and is_plain((x, *parameters))


def group_norm_over(
    x: Tensor, item_rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> Tensor:
    """Compute `group_norm` of features that are used up: written over them where nothing learns."""
    module = _compiled(x) if _can_overwrite(x, weight, bias) else None
    if module is None:
        out: Tensor = group_norm(x, item_rows, groups, weight, bias, eps, relu)[0]
        return out
    _check(x, item_rows, groups)
    _normalise(module, x, x, item_rows, groups, weight, bias, eps, relu)
    return x


@group_norm.register_fake
def _(
    x: Tensor, item_rows: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty((item_rows.shape[0] - 1, groups), dtype=statistics_dtype(x))
    return x.new_empty(x.shape), mean, torch.empty_like(mean)


@operator("group_norm_back")
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
    """Gradients of the features [R, C], and of weight and bias [C] (dtype of ``mean``), from those of the output."""
    module = _compiled(x)
    if module is None:
        return reference.group_norm_back(grad, x, item_rows, mean, rstd, weight, bias, relu)
    features = _known(x)
    grad_x = fresh(features, *features.shape)
    grad_weight, grad_bias = (mean.new_empty(x.shape[1]) for _ in range(2))
    given = (memory(grad.to(features.dtype)), memory(features), array(item_rows), array(mean), array(rstd))
    settings = (mean.shape[1], _parameter(weight), _parameter(bias), relu)
    module.group_norm_back(*given, *settings, memory(grad_x), grad_weight.numpy(), grad_bias.numpy(), threads())
    return grad_x.to(x.dtype), grad_weight, grad_bias


@group_norm_back.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    item_rows: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), mean.new_empty(x.shape[1]), mean.new_empty(x.shape[1])


def _group_norm_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, item_rows, _, weight, bias, _, ctx.relu = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, item_rows, *output[1:], weight, bias)


def _group_norm_backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, item_rows, mean, rstd, weight, bias = ctx.saved_tensors
    found = group_norm_back(grad.contiguous(), x, item_rows, mean, rstd, weight, bias, ctx.relu)
    grad_weight = None if weight is None else found[1].to(weight.dtype)
    grad_bias = None if bias is None else found[2].to(bias.dtype)
    return found[0], None, None, grad_weight, grad_bias, None, None


group_norm.register_autograd(_group_norm_backward, setup_context=_group_norm_context)


# --- statistics that are given ------------------------------------------------------------------------------
@operator("scale_shift")
def scale_shift(x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    """``(x - centre) * scale + shift`` for each column: a batch norm with running statistics.

    Centred first: with a mean far from zero, scale and shift alone would cancel.

    Parameters
    ----------
    x
        Features [R, C].
    centre, scale, shift
        [C].
    relu
        Whether what is below zero becomes zero.

    Returns
    -------
    torch.Tensor
        [R, C], dtype of ``x``.
    """
    module = _compiled(x)
    if module is None:
        return reference.scale_shift(x, centre, scale, shift, relu)
    features = _known(x)
    out = fresh(features, *features.shape)
    parameters = (_parameter(centre), _parameter(scale), _parameter(shift))
    module.scale_shift(memory(features), *parameters, relu, memory(out), threads())
    return out.to(x.dtype)


def scale_shift_over(x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    """Compute `scale_shift` of features that are used up: written over them where nothing learns."""
    module = _compiled(x) if _can_overwrite(x, centre, scale, shift) else None
    if module is None:
        out: Tensor = scale_shift(x, centre, scale, shift, relu)
        return out
    parameters = (_parameter(centre), _parameter(scale), _parameter(shift))
    module.scale_shift(memory(x), *parameters, relu, memory(x), threads())
    return x


@scale_shift.register_fake
def _(x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    return x.new_empty(x.shape)


@operator("scale_shift_back")
def scale_shift_back(
    grad: Tensor, x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the features [R, C], and of scale and shift [C] (float64 on the CPU)."""
    module = _compiled(x)
    if module is None:
        return reference.scale_shift_back(grad, x, centre, scale, shift, relu)
    features = _known(x)
    grad_x = fresh(features, *features.shape)
    grad_scale, grad_shift = (x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2))
    given = (memory(grad.to(features.dtype)), memory(features))
    parameters = (_parameter(centre), _parameter(scale), _parameter(shift))
    module.scale_shift_back(
        *given, *parameters, relu, memory(grad_x), grad_scale.numpy(), grad_shift.numpy(), threads()
    )
    return grad_x.to(x.dtype), grad_scale, grad_shift


@scale_shift_back.register_fake
def _(
    grad: Tensor, x: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    columns = x.new_empty(x.shape[1], dtype=statistics_dtype(x))
    return x.new_empty(x.shape), columns, torch.empty_like(columns)


def _scale_shift_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.relu = inputs
    ctx.save_for_backward(*tensors)


def _scale_shift_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, centre, scale, shift = ctx.saved_tensors
    grad_x, grad_scale, grad_shift = scale_shift_back(grad.contiguous(), x, centre, scale, shift, ctx.relu)
    grad_centre = (-grad_shift * scale).to(centre.dtype) if ctx.needs_input_grad[1] else None
    return grad_x, grad_centre, grad_scale.to(scale.dtype), grad_shift.to(shift.dtype), None


scale_shift.register_autograd(_scale_shift_backward, setup_context=_scale_shift_context)
