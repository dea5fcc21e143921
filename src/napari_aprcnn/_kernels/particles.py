"""Particle convolution as torch operators: compiled on the CPU, Triton on a GPU, plain torch elsewhere.

Every operator is registered as ``torch.ops.napari_aprcnn.<name>`` with a shape function and a gradient that is an
operator again. On the CPU the extension computes in float32; other dtypes and devices run `reference_particles`.

Rows and tables (Jonsson et al., APR-CNN; docs/particles.md)
    A stage has R feature rows and T tree rows (interior nodes below the stage). An *extended index* e means feature row
    e for e < R, tree row e - R for e < R + T, and outside the image for e = R + T.

neighbours : int32 [R, taps]
    Extended index of every tap, z outermost.
segments : int64 [S, 3], on the CPU
    First row, last row + 1, depth below the finest level of the stage.
slabs : int64 [Q, 5], on the CPU
    Phase, task, first row, last row + 1, depth: rows whose taps' gradients may be added at the same time.
children : int32 [T, 8]
    Extended index of the children of every tree row; R + T where there is none.
blocks : int32 [B]
    Blocks of siblings: the tree rows with a feature row among their children.
cubes : int32 [C, 8]
    Blocks that lie 2 x 2 x 2, at least five of eight, in the order of children; -1 where there is none.
singles : int32 [Z]
    Blocks in no cube.
block_ranges : int64 [S, 7], on the CPU
    First block and last block + 1 of every segment, the rows in them, and the same two of its cubes and single blocks.
cuts : int64 [n], on the CPU
    Blocks that begin two planes of blocks along z, beyond the next of which no row reads.
around : int32 [B, 27]
    What lies around every block on its own level. With the children of nodes it gives the taps of a kernel 3 x 3 x 3.
places : int32 [R + T + 1]
    Extended index in the next coarser stage of what every extended index becomes there.
node_ranges : int64 [Q, 2], on the CPU
    Tree rows that can be filled together, children before parents.
pool_children : int32 [M, 8]
    Feature rows below every node of the next stage, R where there is none.
pool_ranges : int64 [items, 5], on the CPU
    First row, first pooled row, rows that are copied, first node, nodes.
cells : int32 [R, 4]
    z, y, x on the row's own level and the shift to the finest grid of the stage.
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
    half_products_for,
    memory,
    operator,
    raw_half,
    threads,
    wide,
)
from napari_aprcnn._kernels.triton.choice import on_gpu

__all__ = [
    "column_sums",
    "conv_input",
    "conv_weight",
    "convolve",
    "fill_tree",
    "fill_tree_back",
    "gather_conv",
    "restrict_filters",
]


# --- filters ------------------------------------------------------------------------------------------------
@operator("restrict_filters")
def restrict_filters(weight: Tensor, depths: int) -> Tensor:
    """Kernel of every depth: bank D as it is, beyond the last bank that bank restricted (paper, section 3.2).

    Parameters
    ----------
    weight
        Banks [eta, out, in, kz, ky, kx]; depth 0 is the finest level.
    depths
        Number of levels; fewer than eta uses only the first banks.

    Returns
    -------
    torch.Tensor
        [depths, out, in, kz, ky, kx].
    """
    kernel = on_gpu("restrict_filters", weight)
    if kernel is not None:
        found: Tensor = kernel(weight, depths)
        return found
    module = compiled_for(weight)
    if module is None:
        return reference.restrict(weight, depths)
    banks = weight.shape[0]
    out = fresh(weight, depths, *weight.shape[1:])
    out[:banks] = weight[:depths]
    last, kernels = array(weight[-1]), out.numpy()
    for depth in range(banks, depths):
        module.restrict_kernels(last, depth - banks + 1, False, kernels[depth], threads())
    return out


@restrict_filters.register_fake
def _(weight: Tensor, depths: int) -> Tensor:
    return weight.new_empty((depths, *weight.shape[1:]))


@operator("restrict_filters_back")
def _restrict_filters_back(grad: Tensor, banks: int) -> Tensor:
    kernel = on_gpu("restrict_filters_back", grad)
    if kernel is not None:
        found: Tensor = kernel(grad, banks)
        return found
    module = compiled_for(grad)
    if module is None:
        return reference.restrict_back(grad, banks)
    out = grad.new_zeros((banks, *grad.shape[1:]))
    kept = min(banks, grad.shape[0])
    out[:kept] = grad[:kept]
    kernels, last = array(grad), out.numpy()[-1]
    for depth in range(banks, grad.shape[0]):
        module.restrict_kernels(kernels[depth], depth - banks + 1, True, last, threads())
    return out


@_restrict_filters_back.register_fake
def _(grad: Tensor, banks: int) -> Tensor:
    return grad.new_empty((banks, *grad.shape[1:]))


def _restrict_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.banks = inputs[0].shape[0]


def _restrict_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _restrict_filters_back(grad.contiguous(), ctx.banks), None


restrict_filters.register_autograd(_restrict_backward, setup_context=_restrict_context)


# --- tree of means ------------------------------------------------------------------------------------------
@operator("fill_tree")
def fill_tree(x: Tensor, children: Tensor, node_ranges: Tensor) -> Tensor:
    """Value of every tree row: the plain mean over its children; [T + 1, C], the last row zero (outside)."""
    kernel = on_gpu("fill_tree", x)
    if kernel is not None:
        found: Tensor = kernel(x, children, node_ranges)
        return found
    dtype = x.dtype
    x = x if compiled_for_features(x) else wide(x)
    if (module := compiled_for_features(x)) is None:
        return reference.fill_tree(x, children, node_ranges).to(dtype)
    out = fresh(x, children.shape[0] + 1, x.shape[1])
    module.fill_tree(memory(x), array(children), array(node_ranges), memory(out), threads())
    return out.to(dtype)


@fill_tree.register_fake
def _(x: Tensor, children: Tensor, node_ranges: Tensor) -> Tensor:
    return x.new_empty((children.shape[0] + 1, x.shape[1]))


@operator("fill_tree_back")
def fill_tree_back(grad: Tensor, children: Tensor, node_ranges: Tensor, rows: int) -> Tensor:
    kernel = on_gpu("fill_tree_back", grad)
    if kernel is not None:
        found: Tensor = kernel(grad, children, node_ranges, rows)
        return found
    dtype, grad = grad.dtype, wide(grad)
    module = compiled_for(grad)
    if module is None:
        return reference.fill_tree_back(grad, children, node_ranges, rows).to(dtype)
    out = fresh(grad, rows, grad.shape[1])
    used = grad.detach().clone(memory_format=torch.contiguous_format).numpy()
    module.fill_tree_back(used, array(children), array(node_ranges), out.numpy(), False, threads())
    return out.to(dtype)


@fill_tree_back.register_fake
def _(grad: Tensor, children: Tensor, node_ranges: Tensor, rows: int) -> Tensor:
    return grad.new_empty((rows, grad.shape[1]))


def _fill_tree_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, children, node_ranges = inputs
    ctx.save_for_backward(children, node_ranges)
    ctx.rows = x.shape[0]


def _fill_tree_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    children, node_ranges = ctx.saved_tensors
    return fill_tree_back(grad.contiguous(), children, node_ranges, ctx.rows), None, None


fill_tree.register_autograd(_fill_tree_backward, setup_context=_fill_tree_context)


# --- convolution --------------------------------------------------------------------------------------------
def convolve(
    x: Tensor, tree: Tensor, weight: Tensor, bias: Tensor | None, neighbours: Tensor, segments: Tensor
) -> Tensor:
    """Compute `gather_conv`, without a gradient."""
    kernel = on_gpu("gather_conv", x, tree)
    if kernel is not None:
        found: Tensor = kernel(x, tree, weight, bias, neighbours, segments)
        return found
    module = half_products_for(x, tree, weight)
    if module is not None:
        out = fresh(x, x.shape[0], weight.shape[1])
        added = None if bias is None else array(bias.float())
        arrays = (raw_half(x), raw_half(tree), raw_half(weight), added, array(neighbours), array(segments))
        module.conv_forward_bf16(*arrays, raw_half(out), threads())
        return out
    dtype, x, tree, weight = x.dtype, wide(x), wide(tree), wide(weight)
    bias = None if bias is None else wide(bias)
    module = compiled_for(x, tree, weight)
    if module is not None:
        out = fresh(x, x.shape[0], weight.shape[1])
        added = None if bias is None else array(bias)
        arrays = (array(x), array(tree), array(weight), added, array(neighbours), array(segments))
        module.conv_forward(*arrays, out.numpy(), threads())
        return out.to(dtype)
    return reference.conv(x, tree, weight, bias, neighbours, segments).to(dtype)


@operator("gather_conv")
def gather_conv(
    x: Tensor,
    tree: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None = None,
) -> Tensor:
    """Cross-correlation of every row's patch with the kernel of its depth, plus bias.

    Parameters
    ----------
    x, tree
        Features [R, in], and what `fill_tree` made of them [T + 1, in].
    weight
        One kernel a depth, [depths, out, in, kz, ky, kx], as `restrict_filters` gives them.
    bias
        [out], or ``None``.
    neighbours, segments, slabs
        Tables of the stage; see above.
    cells
        Needed for gradients on a GPU.

    Returns
    -------
    torch.Tensor
        [R, out], dtype of ``x``.
    """
    return convolve(x, tree, weight, bias, neighbours, segments)


@gather_conv.register_fake
def _(
    x: Tensor,
    tree: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None = None,
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1]))


@operator("gather_conv_input")
def conv_input(
    grad: Tensor,
    weight: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None,
    tree_rows: int,
) -> tuple[Tensor, Tensor]:
    kernel = on_gpu("gather_conv_input", grad)
    if kernel is not None:
        found: tuple[Tensor, Tensor] = kernel(grad, weight, neighbours, segments, slabs, cells, tree_rows)
        return found
    dtype, grad, weight = grad.dtype, wide(grad), wide(weight)
    module = compiled_for(grad, weight)
    if module is None:
        parts = reference.conv_input(grad, weight, neighbours, segments, tree_rows)
        return parts[0].to(dtype), parts[1].to(dtype)
    features = fresh(grad, grad.shape[0], weight.shape[2])
    tree = fresh(grad, tree_rows + 1, weight.shape[2])
    arrays = (array(grad), array(weight), array(neighbours), array(slabs))
    module.conv_input(*arrays, features.numpy(), tree.numpy(), threads())
    return features.to(dtype), tree.to(dtype)


@conv_input.register_fake
def _(
    grad: Tensor,
    weight: Tensor,
    neighbours: Tensor,
    segments: Tensor,
    slabs: Tensor,
    cells: Tensor | None,
    tree_rows: int,
) -> tuple[Tensor, Tensor]:
    channels = weight.shape[2]
    return grad.new_empty((grad.shape[0], channels)), grad.new_empty((tree_rows + 1, channels))


@operator("gather_conv_weight")
def conv_weight(
    grad: Tensor, x: Tensor, tree: Tensor, neighbours: Tensor, segments: Tensor, shape: list[int]
) -> Tensor:
    kernel = on_gpu("gather_conv_weight", grad, x, tree)
    if kernel is not None:
        found: Tensor = kernel(grad, x, tree, neighbours, segments, shape)
        return found
    dtype, grad, x, tree = grad.dtype, wide(grad), wide(x), wide(tree)
    module = compiled_for(grad, x, tree)
    if module is None:
        return reference.conv_weight(grad, x, tree, neighbours, segments, shape).to(dtype)
    out = grad.new_empty(shape)
    module.conv_weight(array(x), array(tree), array(grad), array(neighbours), array(segments), out.numpy(), threads())
    return out


@conv_weight.register_fake
def _(grad: Tensor, x: Tensor, tree: Tensor, neighbours: Tensor, segments: Tensor, shape: list[int]) -> Tensor:
    return grad.new_empty(shape)


@operator("column_sums")
def column_sums(values: Tensor) -> Tensor:
    """Sum over the rows of [R, C], in an order that does not depend on the number of threads."""
    kernel = on_gpu("column_sums", values)
    if kernel is not None:
        found: Tensor = kernel(values)
        return found
    dtype, values = values.dtype, wide(values)
    module = compiled_for(values)
    if module is None:
        return reference.column_sums(values).to(dtype)
    out = values.new_empty((values.shape[1],))
    module.column_sums(array(values), out.numpy(), threads())
    return out.to(dtype)


@column_sums.register_fake
def _(values: Tensor) -> Tensor:
    return values.new_empty((values.shape[1],))


def _column_sums_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.rows = inputs[0].shape[0]


def _column_sums_backward(ctx: Any, grad: Tensor) -> Tensor:
    return grad[None, :].expand(ctx.rows, -1)


column_sums.register_autograd(_column_sums_backward, setup_context=_column_sums_context)


def _conv_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, tree, weight, _, neighbours, segments, slabs, cells = inputs
    # Kept only where a gradient needs them.
    wants = ctx.needs_input_grad
    kept_x = (x, tree) if wants[2] else (None, None)
    kept_weight = weight if wants[0] or wants[1] else None
    ctx.save_for_backward(*kept_x, kept_weight, neighbours, segments, slabs, cells)
    ctx.tree_rows = tree.shape[0] - 1
    ctx.weight_shape = list(weight.shape)


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, tree, weight, neighbours, segments, slabs, cells = ctx.saved_tensors
    wants = ctx.needs_input_grad
    grad = grad.contiguous()
    grad_x = grad_tree = grad_weight = grad_bias = None
    if wants[0] or wants[1]:
        grad_x, grad_tree = conv_input(grad, weight, neighbours, segments, slabs, cells, ctx.tree_rows)
    if wants[2]:
        grad_weight = conv_weight(grad, x, tree, neighbours, segments, ctx.weight_shape)
    if wants[3]:
        grad_bias = column_sums(grad)
    return grad_x, grad_tree, grad_weight, grad_bias, None, None, None, None


gather_conv.register_autograd(_conv_backward, setup_context=_conv_context)
