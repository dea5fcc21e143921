"""Operators between stages, and between particles and voxels; see `napari_aprcnn._kernels.particles` for the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from napari_aprcnn._kernels import reference_particles as reference
from napari_aprcnn._kernels.operators import (
    array,
    compiled_for,
    compiled_for_features,
    fresh,
    memory,
    operator,
    threads,
    wide,
)
from napari_aprcnn._kernels.triton.choice import on_gpu

__all__ = ["cell_means", "cell_sums", "pool", "reconstruct", "upsample"]


# --- pooling ------------------------------------------------------------------------------------------------
@operator("pool")
def pool(x: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows_out: int) -> tuple[Tensor, Tensor]:
    """Max pooling to the next stage: coarser particles are copied, the finest level is reduced into its nodes.

    Parameters
    ----------
    x
        Features [R, C].
    pool_children, pool_ranges
        Tables of the stage.
    rows_out
        Feature rows of the next stage.

    Returns
    -------
    pooled
        [rows_out, C].
    slot
        Which of its eight children each node took, the first where several are equal; uint8 [M, C].
    """
    kernel = on_gpu("pool", x)
    if kernel is not None:
        found: tuple[Tensor, Tensor] = kernel(x, pool_children, pool_ranges, rows_out)
        return found
    slot = fresh(x, pool_children.shape[0], x.shape[1], dtype=torch.uint8)
    dtype, x = x.dtype, x if compiled_for_features(x) else wide(x)
    module = compiled_for_features(x)
    if module is None:
        out, slot = reference.pool(x, pool_children, pool_ranges, rows_out)
        return out.to(dtype), slot
    out = fresh(x, rows_out, x.shape[1])
    module.pool(memory(x), array(pool_children), array(pool_ranges), memory(out), slot.numpy(), threads())
    return out.to(dtype), slot


@pool.register_fake
def _(x: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows_out: int) -> tuple[Tensor, Tensor]:
    slot = torch.empty((pool_children.shape[0], x.shape[1]), dtype=torch.uint8, device=x.device)
    return x.new_empty((rows_out, x.shape[1])), slot


@operator("pool_back")
def _pool_back(grad: Tensor, slot: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows: int) -> Tensor:
    kernel = on_gpu("pool_back", grad)
    if kernel is not None:
        found: Tensor = kernel(grad, slot, pool_children, pool_ranges, rows)
        return found
    dtype, grad = grad.dtype, wide(grad)
    module = compiled_for(grad)
    if module is None:
        return reference.pool_back(grad, slot, pool_children, pool_ranges, rows).to(dtype)
    out = fresh(grad, rows, grad.shape[1])
    module.pool_back(array(grad), array(slot), array(pool_children), array(pool_ranges), out.numpy(), threads())
    return out.to(dtype)


@_pool_back.register_fake
def _(grad: Tensor, slot: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows: int) -> Tensor:
    return grad.new_empty((rows, grad.shape[1]))


def _pool_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, children, ranges, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], children, ranges)
    ctx.rows = x.shape[0]


def _pool_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    slot, children, ranges = ctx.saved_tensors
    return _pool_back(grad.contiguous(), slot, children, ranges, ctx.rows), None, None, None


pool.register_autograd(_pool_backward, setup_context=_pool_context)


# --- upsampling ---------------------------------------------------------------------------------------------
@operator("upsample")
def upsample(x: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows_out: int) -> Tensor:
    """Back to the finer stage: every cell of its finest level takes its parent's features.

    ``pool_children`` and ``pool_ranges`` are the tables of the finer stage, ``rows_out`` its feature rows.
    """
    kernel = on_gpu("upsample", x)
    if kernel is not None:
        found: Tensor = kernel(x, pool_children, pool_ranges, rows_out)
        return found
    dtype, x = x.dtype, wide(x)
    module = compiled_for(x)
    if module is None:
        return reference.upsample(x, pool_children, pool_ranges, rows_out).to(dtype)
    out = fresh(x, rows_out, x.shape[1])
    module.upsample(array(x), array(pool_children), array(pool_ranges), out.numpy(), threads())
    return out.to(dtype)


@upsample.register_fake
def _(x: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows_out: int) -> Tensor:
    return x.new_empty((rows_out, x.shape[1]))


@operator("upsample_back")
def _upsample_back(grad: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows: int) -> Tensor:
    kernel = on_gpu("upsample_back", grad)
    if kernel is not None:
        found: Tensor = kernel(grad, pool_children, pool_ranges, rows)
        return found
    dtype, grad = grad.dtype, wide(grad)
    module = compiled_for(grad)
    if module is None:
        return reference.upsample_back(grad, pool_children, pool_ranges, rows).to(dtype)
    out = fresh(grad, rows, grad.shape[1])
    module.upsample_back(array(grad), array(pool_children), array(pool_ranges), out.numpy(), threads())
    return out.to(dtype)


@_upsample_back.register_fake
def _(grad: Tensor, pool_children: Tensor, pool_ranges: Tensor, rows: int) -> Tensor:
    return grad.new_empty((rows, grad.shape[1]))


def _upsample_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, children, ranges, _ = inputs
    ctx.save_for_backward(children, ranges)
    ctx.rows = x.shape[0]


def _upsample_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    children, ranges = ctx.saved_tensors
    return _upsample_back(grad.contiguous(), children, ranges, ctx.rows), None, None, None


upsample.register_autograd(_upsample_backward, setup_context=_upsample_context)


# --- voxels -------------------------------------------------------------------------------------------------
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@operator("reconstruct")
def reconstruct(x: Tensor, cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Piecewise constant image of features.

    Parameters
    ----------
    x
        Features of one image's rows [R, C].
    cells
        Table [R, 4] of the stage.
    shape
        Its grid, z, y, x.

    Returns
    -------
    torch.Tensor
        [z, y, x, C].
    """
    kernel = on_gpu("reconstruct", x)
    if kernel is not None:
        found: Tensor = kernel(x, cells, list(shape))
        return found
    module = None if x.device.type != "cpu" else compiled_for(x.new_empty(0, dtype=torch.float32))
    if module is None:
        return reference.reconstruct(x, cells, list(shape))
    out = fresh(x, *shape, x.shape[1])
    raw = f"u{x.element_size()}"
    source, target = (t.contiguous().view(_BITS[t.element_size()]).numpy().view(raw) for t in (x.detach(), out))
    module.paint_cells(source, array(cells), target, threads())
    return out


@reconstruct.register_fake
def _(x: Tensor, cells: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty((*shape, x.shape[1]))


@operator("cell_sums")
def cell_sums(dense: Tensor, cells: Tensor, mean: bool) -> Tensor:
    """Sum, or mean, over the voxels of every cell that lie inside the image; [z, y, x, C] to [R, C]."""
    kernel = on_gpu("cell_sums", dense)
    if kernel is not None:
        found: Tensor = kernel(dense, cells, mean)
        return found
    dtype, dense = dense.dtype, wide(dense)
    module = compiled_for(dense)
    if module is None:
        return reference.cell_sums(dense, cells, mean).to(dtype)
    out = fresh(dense, cells.shape[0], dense.shape[3])
    module.sum_cells(array(dense), array(cells), mean, out.numpy(), threads())
    return out.to(dtype)


@cell_sums.register_fake
def _(dense: Tensor, cells: Tensor, mean: bool) -> Tensor:
    return dense.new_empty((cells.shape[0], dense.shape[3]))


def _reconstruct_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _reconstruct_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (cells,) = ctx.saved_tensors
    return cell_sums(grad.contiguous(), cells, False), None, None


reconstruct.register_autograd(_reconstruct_backward, setup_context=_reconstruct_context)


def _voxels(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Voxels of every cell that lie inside; int64 [R]."""
    shift = cells[:, 3].long()
    size = 1 << shift
    count = torch.ones_like(size)
    for axis in range(3):
        start = cells[:, axis].long() << shift
        count = count * (torch.minimum(start + size, torch.full_like(size, shape[axis])) - start)
    return count


def _cell_sums_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dense, cells, ctx.mean = inputs
    ctx.save_for_backward(cells)
    ctx.shape = dense.shape[:3]


def _cell_sums_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (cells,) = ctx.saved_tensors
    if ctx.mean:
        grad = grad / _voxels(cells, ctx.shape)[:, None].to(grad.dtype)
    return reconstruct(grad.contiguous(), cells, list(ctx.shape)), None, None


cell_sums.register_autograd(_cell_sums_backward, setup_context=_cell_sums_context)


def cell_means(dense: Tensor, cells: Tensor) -> Tensor:
    """Mean over the voxels of every cell that lie inside the image; [z, y, x, C] to [R, C]."""
    result: Tensor = cell_sums(dense, cells, True)
    return result
