"""Particle layers in plain torch: any device, any floating dtype. What the compiled kernels are held to.

Shapes and tables are those of `napari_aprcnn._kernels.particles`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = [
    "cell_sums",
    "column_sums",
    "conv",
    "conv_input",
    "conv_weight",
    "fill_tree",
    "fill_tree_back",
    "pool",
    "pool_back",
    "reconstruct",
    "restrict",
    "restrict_back",
    "restriction",
    "upsample",
    "upsample_back",
]

_ROWS_AT_ONCE = 16384  # bounds what a gather needs: 27 taps of 16 channels in float32 are 28 MB


def restriction(size: int, steps: int, like: Tensor) -> Tensor:
    """Matrix [size, size] that restricts a kernel along one axis by ``steps`` levels.

    ``w'[o] = sum_i w[i] max(0, 1 - |(i - h) / 2^steps - (o - h)|)`` with h = size // 2: the kernel is sampled by hats
    of the coarser grid, so its sum is kept.
    """
    at = torch.arange(size, device=like.device, dtype=torch.float64) - size // 2
    hats = 1 - (at[None, :] / 2**steps - at[:, None]).abs()
    result: Tensor = hats.clamp_min(0).to(like.dtype)
    return result


def _separable(weight: Tensor, matrices: list[Tensor]) -> Tensor:
    result: Tensor = torch.einsum("zi,yj,xk,ocijk->oczyx", *matrices, weight)
    return result


def restrict(weight: Tensor, depths: int) -> Tensor:
    """Banks [eta, out, in, kz, ky, kx] to one kernel for each depth [depths, ...]."""
    banks = weight.shape[0]
    kernels = [weight[depth] for depth in range(min(depths, banks))]
    for depth in range(banks, depths):
        matrices = [restriction(size, depth - banks + 1, weight) for size in weight.shape[3:]]
        kernels.append(_separable(weight[-1], matrices))
    return torch.stack(kernels)


def restrict_back(grad: Tensor, banks: int) -> Tensor:
    """Gradient of the banks from that of the kernels of all depths."""
    out = grad.new_zeros((banks, *grad.shape[1:]))
    depths = grad.shape[0]
    out[: min(depths, banks)] = grad[:banks]
    for depth in range(banks, depths):
        matrices = [restriction(size, depth - banks + 1, grad).T for size in grad.shape[3:]]
        out[-1] += _separable(grad[depth], matrices)
    return out


def fill_tree(x: Tensor, children: Tensor, ranges: Tensor) -> Tensor:
    """Mean over the existing children of every tree row, children first; a last row of zeros."""
    rows, nodes = x.shape[0], children.shape[0]
    every = torch.cat([x, x.new_zeros((nodes + 1, x.shape[1]))])
    for first, last in ranges.tolist():
        own = children[first:last].long()
        count = (own < rows + nodes).sum(1, keepdim=True)
        every[rows + first : rows + last] = every[own].sum(1) / count
    return every[rows:].clone()


def fill_tree_back(grad_tree: Tensor, children: Tensor, ranges: Tensor, rows: int) -> Tensor:
    """Gradient of the features from that of the tree; parents first."""
    nodes = children.shape[0]
    every = torch.cat([grad_tree.new_zeros((rows, grad_tree.shape[1])), grad_tree])
    for first, last in reversed(ranges.tolist()):
        own = children[first:last].long()
        inside = own < rows + nodes
        share = every[rows + first : rows + last] / inside.sum(1, keepdim=True)
        # A child has one parent: nothing is written twice.
        every[own[inside]] += share[:, None, :].expand(-1, 8, -1)[inside]
    return every[:rows].clone()


def _parts(segments: Tensor) -> Iterator[tuple[int, int, int]]:
    for first, last, depth in segments.tolist():
        for row in range(first, last, _ROWS_AT_ONCE):
            yield row, min(last, row + _ROWS_AT_ONCE), depth


def conv(x: Tensor, tree: Tensor, weight: Tensor, bias: Tensor | None, neighbours: Tensor, segments: Tensor) -> Tensor:
    """Cross-correlation over the table."""
    every = torch.cat([x, tree])
    out = x.new_zeros((x.shape[0], weight.shape[1]))
    # A yardstick should not round: on the CPU float32 is summed in float64.
    exact = torch.float64 if x.dtype == torch.float32 and x.device.type == "cpu" else x.dtype
    for first, last, depth in _parts(segments):
        patches = every[neighbours[first:last].long()].flatten(1)
        kernel = weight[depth].flatten(2).permute(2, 1, 0).flatten(0, 1)
        out[first:last] = (patches.to(exact) @ kernel.to(exact)).to(out.dtype)
    return out if bias is None else out + bias


def patches(around: Tensor, children: Tensor, rows: int) -> Tensor:
    """What lies at -1 to 2 along z, y, x from the first child of every block [blocks, 27]; [blocks, 4, 4, 4]."""
    step = torch.arange(1, 5)  # from the first cell around the block
    places = torch.stack(torch.meshgrid(step, step, step, indexing="ij"), dim=-1)
    near = (places // 2 * torch.tensor([9, 3, 1])).sum(-1)
    child = (places % 2 * torch.tensor([4, 2, 1])).sum(-1)
    found = around[:, near]
    node = found.long() - rows
    is_node = (node >= 0) & (node < len(children))
    found = torch.where(is_node, children[node.clamp(0, len(children) - 1), child], found)
    outside = rows + len(children)
    blocks = children[(children < rows).any(dim=1)]
    for axis, second in enumerate((4, 2, 1)):  # particles beside an odd border reach out of the image
        ends = (blocks[:, second] == outside)[:, None, None, None] & (places[..., axis] == 3)
        found = found.masked_fill(ends, outside)
    return found


def patch_taps(around: Tensor, children: Tensor, rows: int) -> Tensor:
    """Neighbours [rows, 27] of the kernel 3 x 3 x 3 from what lies around blocks [blocks, 27]."""
    is_row = children < rows
    blocks = children[is_row.any(dim=1)].long()
    found = patches(around, children, rows)
    table = around.new_empty((rows, 27))
    for child in range(8):
        z, y, x = child // 4, child // 2 % 2, child % 2
        here = blocks[:, child] < rows
        table[blocks[here, child]] = found[here, z : z + 3, y : y + 3, x : x + 3].reshape(-1, 27)
    return table


def conv_input(
    grad: Tensor, weight: Tensor, neighbours: Tensor, segments: Tensor, tree_rows: int
) -> tuple[Tensor, Tensor]:
    """Gradients of the features and of the tree; the tree's last row is zero."""
    rows = grad.shape[0]
    every = grad.new_zeros((rows + tree_rows + 1, weight.shape[2]))
    for first, last, depth in _parts(segments):
        kernel = weight[depth].flatten(2)
        for tap in range(kernel.shape[2]):
            given = (grad[first:last] @ kernel[:, :, tap]).to(every.dtype)  # autocast may have rounded it
            every.index_add_(0, neighbours[first:last, tap].long(), given)
    every[-1] = 0
    return every[:rows].clone(), every[rows:].clone()


def conv_weight(grad: Tensor, x: Tensor, tree: Tensor, neighbours: Tensor, segments: Tensor, like: list[int]) -> Tensor:
    """Gradient of the kernels, of shape ``like`` [depths, out, in, kz, ky, kx]."""
    every = torch.cat([x, tree])
    out = grad.new_zeros(like).flatten(3)
    for first, last, depth in _parts(segments):
        patches = every[neighbours[first:last].long()]
        out[depth] += torch.einsum("nkc,no->ock", patches, grad[first:last])
    return out.reshape(like)


def column_sums(values: Tensor) -> Tensor:
    """Sum over the rows."""
    return values.sum(0)


def pool(x: Tensor, children: Tensor, ranges: Tensor, rows_out: int) -> tuple[Tensor, Tensor]:
    """Copied rows, then the maximum over the children of every node, and the slot that it came from."""
    out = x.new_empty((rows_out, x.shape[1]))
    slot = torch.zeros((children.shape[0], x.shape[1]), dtype=torch.uint8, device=x.device)
    lowest = torch.full((1, x.shape[1]), float("-inf"), dtype=x.dtype, device=x.device)
    every = torch.cat([x, lowest])
    for source, target, copied, node, nodes in ranges.tolist():
        out[target : target + copied] = x[source : source + copied]
        own = children[node : node + nodes].long().clamp_max(x.shape[0])
        best, which = every[own].max(1)
        out[target + copied : target + copied + nodes] = best
        slot[node : node + nodes] = which.to(torch.uint8)
    return out, slot


def pool_back(grad: Tensor, slot: Tensor, children: Tensor, ranges: Tensor, rows: int) -> Tensor:
    """Gradient to the child that was largest."""
    out = grad.new_zeros((rows + 1, grad.shape[1]))
    for source, target, copied, node, nodes in ranges.tolist():
        out[source : source + copied] = grad[target : target + copied]
        own = children[node : node + nodes].long().clamp_max(rows)
        winner = own.gather(1, slot[node : node + nodes].long())
        out.scatter_(0, winner, grad[target + copied : target + copied + nodes])
    return out[:rows].clone()


def upsample(x: Tensor, children: Tensor, ranges: Tensor, rows_out: int) -> Tensor:
    """Copied rows back, and every child gets the value of its node."""
    out = x.new_zeros((rows_out + 1, x.shape[1]))
    for source, target, copied, node, nodes in ranges.tolist():
        out[source : source + copied] = x[target : target + copied]
        own = children[node : node + nodes].long().clamp_max(rows_out)
        values = x[target + copied : target + copied + nodes]
        out[own.flatten()] = values.repeat_interleave(8, 0)
    return out[:rows_out].clone()


def upsample_back(grad: Tensor, children: Tensor, ranges: Tensor, rows: int) -> Tensor:
    """Sum over the children."""
    out = grad.new_empty((rows, grad.shape[1]))
    every = torch.cat([grad, grad.new_zeros((1, grad.shape[1]))])
    for source, target, copied, node, nodes in ranges.tolist():
        out[target : target + copied] = grad[source : source + copied]
        own = children[node : node + nodes].long().clamp_max(grad.shape[0])
        out[target + copied : target + copied + nodes] = every[own].sum(1)
    return out


def _owners(cells: Tensor, shape: list[int]) -> Tensor:
    """Row that covers each voxel; int64 [voxels]."""
    owners = torch.empty(shape, dtype=torch.long, device=cells.device)
    for shift in sorted(set(cells[:, 3].tolist())):
        rows = (cells[:, 3] == shift).nonzero()[:, 0]
        at = cells[rows, :3].long() << shift
        size = 1 << shift
        # Offsets inside the cell one by one: no array larger than the rows.
        for z in range(min(size, shape[0])):
            for y in range(min(size, shape[1])):
                for x in range(min(size, shape[2])):
                    voxel = at + torch.tensor([z, y, x], device=cells.device)
                    inside = (voxel < torch.tensor(shape, device=cells.device)).all(1)
                    owners[tuple(voxel[inside].T)] = rows[inside]
    return owners.flatten()


def reconstruct(x: Tensor, cells: Tensor, shape: list[int]) -> Tensor:
    """Every voxel gets its cell's features; [z, y, x, channels]."""
    return x[_owners(cells, shape)].reshape(*shape, x.shape[1])


def cell_sums(dense: Tensor, cells: Tensor, mean: bool) -> Tensor:
    """Sum, or mean, over the voxels of every cell that lie inside."""
    owners = _owners(cells, list(dense.shape[:3]))
    out = dense.new_zeros((cells.shape[0], dense.shape[3]))
    out.index_add_(0, owners, dense.flatten(0, 2))
    if not mean:
        return out
    return out / torch.bincount(owners, minlength=cells.shape[0]).to(dense.dtype)[:, None]
