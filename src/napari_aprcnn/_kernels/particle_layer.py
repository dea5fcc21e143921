"""A particle convolution in one operator: the tree of means, then the convolution.

What `fill_tree` and `gather_conv` are one after the other; together they spare the gradient a pass over all features,
because what comes back through the tree is added where the rest already lies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from napari_aprcnn._kernels import reference_particles as reference
from napari_aprcnn._kernels.operators import (
    array,
    compiled_for,
    compiled_for_features,
    fresh,
    is_plain,
    memory,
    operator,
    threads,
    wide,
)
from napari_aprcnn._kernels.particles import (
    column_sums,
    conv_input,
    conv_weight,
    convolve,
    fill_tree,
    fill_tree_back,
)

__all__ = ["particle_conv", "patch_conv", "patch_conv_over"]

_TABLES = 9  # of a stage, from children to cuts


@operator("particle_conv")
def particle_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    children: Tensor,
    node_ranges: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolution, with bias, of the features [R, in] of a stage (paper, section 3.2; tables: `_kernels.particles`).

    Returns
    -------
    out : torch.Tensor
        [R, out], dtype of ``x``.
    tree : torch.Tensor
        [T + 1, in], the means that it looked at.
    """
    tree = fill_tree(x, children, node_ranges)
    return convolve(x, tree, weight, bias, neighbours, segments), tree


@particle_conv.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    children: Tensor,
    node_ranges: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return x.new_empty((x.shape[0], weight.shape[1])), x.new_empty((children.shape[0] + 1, x.shape[1]))


@operator("particle_conv_input")
def _input(
    grad: Tensor,
    weight: Tensor,
    children: Tensor,
    node_ranges: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None,
) -> Tensor:
    dtype = grad.dtype
    if grad.device.type == "cpu":
        grad, weight = wide(grad), wide(weight)
    features: Tensor
    tree: Tensor
    features, tree = conv_input(grad, weight, neighbours, segments, slabs, cells, children.shape[0])
    module = compiled_for(features, tree)
    if module is None:
        features = features + fill_tree_back(tree, children, node_ranges, features.shape[0])
        return features.to(dtype)
    module.fill_tree_back(tree.numpy(), array(children), array(node_ranges), features.numpy(), True, threads())
    return features.to(dtype)


@_input.register_fake
def _(
    grad: Tensor,
    weight: Tensor,
    children: Tensor,
    node_ranges: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None,
) -> Tensor:
    return grad.new_empty((grad.shape[0], weight.shape[2]))


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, *tables = inputs
    wants = ctx.needs_input_grad
    kept_x = (x, output[1]) if wants[1] else (None, None)
    ctx.save_for_backward(*kept_x, weight if wants[0] else None, *tables)
    ctx.weight_shape = list(weight.shape)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_tree: Tensor | None) -> tuple[Tensor | None, ...]:
    x, tree, weight, children, node_ranges, neighbours, segments, slabs, cells = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    if grad is not None:
        grad, wants = grad.contiguous(), ctx.needs_input_grad
        if wants[0]:
            grad_x = _input(grad, weight, children, node_ranges, neighbours, segments, slabs, cells)
        if wants[1]:
            grad_weight = conv_weight(grad, x, tree, neighbours, segments, ctx.weight_shape)
        if wants[2]:
            grad_bias = column_sums(grad)
    if grad_tree is not None and ctx.needs_input_grad[0]:
        given = fill_tree_back(grad_tree.contiguous(), children, node_ranges, neighbours.shape[0])
        grad_x = given if grad_x is None else grad_x + given
    return grad_x, grad_weight, grad_bias, None, None, None, None, None, None


particle_conv.register_autograd(_backward, setup_context=_context)


@operator("patch_conv")
def patch_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    children: Tensor,
    node_ranges: Tensor,
    blocks: Tensor,
    block_ranges: Tensor,
    around: Tensor,
    cubes: Tensor,
    singles: Tensor,
    segments: Tensor,
    cuts: Tensor,
    coarse: Tensor | None = None,
    coarse_children: Tensor | None = None,
    coarse_ranges: Tensor | None = None,
    places: Tensor | None = None,
    half: bool = False,
) -> Tensor:
    """Convolution 3 x 3 x 3 for inference: of a table a quarter the size, and of two stages at once.

    Compiled kernels take minimal filtering for rows in full blocks (2 x 2 x 2) or cubes (4 x 4 x 4): a third to an
    eighth of the products, and other roundings (some 1e-6 of the largest output). Features may be bfloat16, which is
    rounded where it is kept, not where it is computed with. There is no gradient.

    Parameters
    ----------
    x
        Features [R, in - coarse channels] of the stage.
    weight, bias
        One kernel a depth [depths, out, in, 3, 3, 3]; [out] or ``None``; float32 beside bfloat16 features, too.
    children, node_ranges, blocks, block_ranges, around, cubes, singles, segments, cuts
        Tables of the stage; see `_kernels.particles`.
    coarse
        Features of the next coarser stage, which are upsampled and follow those of ``x`` without either being done.
    coarse_children, coarse_ranges
        Its tables.
    places
        Where the stage's rows are in it.
    half
        Whether to round what comes out to bfloat16; of float32 features nothing is filtered then.

    Returns
    -------
    torch.Tensor
        [R, out], dtype of ``x``, or bfloat16.
    """
    tables = (children, node_ranges, blocks, block_ranges, around, cubes, singles, segments, cuts)
    more = _below(coarse, coarse_children, coarse_ranges, places)
    found = _patch_conv(x, weight, bias, tables, more, half=half)
    return found.bfloat16() if half else found


@patch_conv.register_fake
def _(x: Tensor, weight: Tensor, *_: Tensor | None, half: bool = False, **__: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1]), dtype=torch.bfloat16 if half else x.dtype)


def patch_conv_over(x: Tensor, weight: Tensor, bias: Tensor | None, *tables: Tensor) -> Tensor:
    """What `patch_conv` gives, written over ``x`` where compiled kernels can: as many channels out as in, no gradient.

    Rows of the finest level come first, since coarser ones read means of them, and a level goes along z in waves of a
    few megabytes, written back when the wave behind is done. The bits are those of `patch_conv`.

    Parameters
    ----------
    x
        Features [R, C], which nobody reads afterwards.
    weight, bias, *tables
        As `patch_conv` takes them.

    Returns
    -------
    torch.Tensor
        [R, out]; ``x`` itself, or new memory.
    """
    plain = is_plain((x, weight, bias, *tables)) and x.is_contiguous() and x.shape[1] == weight.shape[1] > 1
    if not plain or None in (compiled_for_features(x, *tables[_TABLES : _TABLES + 1]), compiled_for(weight)):
        found: Tensor = patch_conv(x, weight, bias, *tables)
        return found
    return _patch_conv(x, weight, bias, tables[:_TABLES], _below(*tables[_TABLES:]), over=True)


def _below(
    coarse: Tensor | None = None, children: Tensor | None = None, ranges: Tensor | None = None,
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor] | None:  # fmt: skip
    """Features of the coarser stage, their means, and where rows lie among them."""
    if coarse is None or children is None or ranges is None or places is None:
        return None
    return coarse, fill_tree(coarse, children, ranges), places


def _patch_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, tables: tuple[Tensor, ...],
    second: tuple[Tensor, Tensor, Tensor] | None, *, half: bool = False, over: bool = False,
) -> Tensor:  # fmt: skip
    children, node_ranges, blocks, block_ranges, around, cubes, singles, segments, cuts = tables
    tree = fill_tree(x, children, node_ranges)
    module = compiled_for_features(x, *([] if second is None else second[:2]))
    if module is None or compiled_for(weight) is None:
        return _patch_conv_reference(x, tree, weight, bias, children, around, segments, second)
    out = x if over else fresh(x, x.shape[0], weight.shape[1], dtype=torch.bfloat16 if half else x.dtype)
    arrays = (memory(x), memory(tree), array(weight), None if bias is None else array(bias))
    given = tuple(array(t) for t in (children, blocks, block_ranges, around, cubes, singles, segments, cuts))
    more = () if second is None else (memory(second[0]), memory(second[1]), array(second[2]))
    module.conv_patches(*arrays, *given, memory(out), threads(), *more)
    return out


def _patch_conv_reference(
    x: Tensor, tree: Tensor, weight: Tensor, bias: Tensor | None, children: Tensor, around: Tensor, segments: Tensor,
    second: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:  # fmt: skip
    if second is not None:
        coarse, coarse_tree, places = second
        upsampled = torch.cat([coarse, coarse_tree])[places.long()]
        both = torch.cat([torch.cat([x, tree]), upsampled], dim=1)
        x, tree = both[: x.shape[0]], both[x.shape[0] :]
    table = reference.patch_taps(around, children, x.shape[0])
    return reference.conv(wide(x), wide(tree), weight, bias, table, segments).to(x.dtype)
