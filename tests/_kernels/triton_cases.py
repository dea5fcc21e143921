"""Every GPU kernel against plain torch in float64: in Triton's interpreter, or on a GPU.

Not collected by itself: `test_triton_kernels.py` runs it in a process of its own, as TRITON_INTERPRET is read when
triton is imported. On a GPU the cases stay as they are: what goes into a kernel is moved there, what comes out is moved
back.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton_tools import (
    DEVICE,
    case,
    cases,
    gpu_only,
    interpreter_only,
    items,
    odd_tree,
    ops,
    placed,
    random,
    same,
)

from napari_aprcnn._kernels import particle_layer, particle_stages
from napari_aprcnn._kernels import reference_particles as reference
from napari_aprcnn._kernels.triton import conv as conv_module
from napari_aprcnn._kernels.triton.choice import on_gpu
from napari_aprcnn._kernels.triton.guard import why_not
from synthetic_trees import Stage, scattered_boxes, stage, tree_from_fine_cells

KERNELS = [(3, 3, 3), (1, 3, 3), (5, 5, 5), (1, 1, 1)]


def reference_conv(x: Tensor, tree: Tensor, weight: Tensor, bias: Tensor | None, s: Stage) -> Tensor:
    extended = torch.cat([x, tree[:-1], torch.zeros_like(tree[-1:])])
    out = x.new_zeros(len(x), weight.shape[1])
    for row0, row1, depth in s.segments.tolist():
        patches = extended[s.neighbours[row0:row1].long()]
        out[row0:row1] = torch.einsum("nkc,ock->no", patches, weight[depth].flatten(2))
    return out if bias is None else out + bias


CONV_CASES = [
    ((3, 3, 3), 16, 16, 1, torch.float32),
    ((3, 3, 3), 16, 16, 2, torch.float16),
    ((3, 3, 3), 1, 3, 0, torch.float32),
    ((3, 3, 3), 1, 16, 2, torch.float16),
    ((3, 3, 3), 8, 5, 1, torch.float32),
    ((1, 3, 3), 24, 70, 3, torch.float16),
    ((1, 3, 3), 80, 17, 3, torch.float32),
    ((3, 3, 3), 13, 32, 2, torch.float32),
    ((1, 3, 3), 3, 8, 0, torch.float32),
    ((1, 3, 3), 32, 16, 1, torch.float16),
    ((5, 5, 5), 2, 4, 2, torch.float32),
    ((5, 5, 5), 16, 3, 3, torch.float16),
    ((1, 1, 1), 16, 3, 0, torch.float32),
    ((1, 1, 1), 3, 7, 3, torch.float16),
]


@pytest.mark.parametrize(("kernel", "cin", "cout", "depth", "dtype"), cases(*CONV_CASES))
def test_conv_forward_and_all_gradients(
    kernel: tuple[int, int, int], cin: int, cout: int, depth: int, dtype: torch.dtype
) -> None:
    s = items(depth, kernel)
    assert 0 < s.rows < 1000
    x, tree, weight, bias, grad = case(s, cin, cout, kernel, dtype)
    wide = [t.double().requires_grad_() for t in (x, tree, weight, bias)]
    expected = reference_conv(*wide, s)
    dx, dtree, dweight, dbias = torch.autograd.grad(expected, wide, grad.double())

    same(ops.gather_conv(x, tree, weight, bias, s.neighbours, s.segments), expected.detach())
    same(ops.gather_conv(x, tree, weight, None, s.neighbours, s.segments), (expected - wide[3]).detach())
    got_x, got_tree = ops.gather_conv_input(grad, weight, s.neighbours, s.segments, None, s.cells, s.tree_rows)
    same(got_x, dx)
    same(got_tree, dtree)
    got = ops.gather_conv_weight(grad, x, tree, s.neighbours, s.segments, weight.shape)
    same(got, dweight)
    same(ops.column_sums(grad), dbias)


@gpu_only
def test_tf32_where_torch_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    s = items(1, (3, 3, 3))
    x, tree, weight, bias, _ = case(s, 16, 16, (3, 3, 3), torch.float32)
    expected = reference_conv(x.double(), tree.double(), weight.double(), bias.double(), s)
    exact = ops.gather_conv(x, tree, weight, bias, s.neighbours, s.segments)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    rounded = ops.gather_conv(x, tree, weight, bias, s.neighbours, s.segments)
    same(exact, expected)
    same(rounded, expected, 5e-3)
    assert not torch.equal(exact, rounded)


def test_outside_is_zero_whatever_lies_there_and_fresh_memory_is_written() -> None:
    kernel = (3, 3, 3)
    s = items(0, kernel)
    x, tree, weight, bias, grad = case(s, 8, 8, kernel, torch.float32)
    expected = ops.gather_conv(x, tree, weight, bias, s.neighbours, s.segments)
    tree[-1] = float("nan")
    assert torch.equal(ops.gather_conv(x, tree, weight, bias, s.neighbours, s.segments), expected)
    assert not expected.isnan().any()
    dw = ops.gather_conv_weight(grad, x, tree, s.neighbours, s.segments, weight.shape)
    assert not dw.isnan().any()


def test_weight_gradient_over_many_chunks_and_depths_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = (1, 3, 3)
    s = items(0, kernel)
    x, tree, weight, _, grad = case(s, 4, 4, kernel, torch.float32)
    whole = ops.gather_conv_weight(grad, x, tree, s.neighbours, s.segments, weight.shape)
    sizes = conv_module._chunks(s.segments, conv_module.outer_shape(4, 4, 9, x.dtype, "ieee"), 5, 10**9)
    assert len(sizes[0]) < len(s.segments) + 1
    chunks = conv_module._chunks

    def small(*args: object) -> tuple[Tensor, Tensor]:
        table, groups = chunks(*args)
        cut, borders = [], []
        for first, last in groups.tolist():
            begin = len(cut)
            for a, b in table[first:last].tolist():
                cut += [(at, min(at + 37, b)) for at in range(a, b, 37)]
            borders.append((begin, len(cut)))
        return torch.tensor(cut, dtype=torch.int32), torch.tensor(borders, dtype=torch.int32)

    monkeypatch.setattr(conv_module, "_chunks", small)
    segments = s.segments.clone()  # another tensor: nothing kept
    longer = (len(weight) + 2, *weight.shape[1:])
    pieces = ops.gather_conv_weight(grad, x, tree, s.neighbours, segments, longer)
    same(pieces[: len(weight)], whole)
    assert not pieces[len(weight) :].any()


def test_the_same_bits_every_time() -> None:
    kernel = (1, 3, 3)
    s = items(1, kernel)
    x, tree, weight, bias, grad = case(s, 4, 8, kernel, torch.float32)
    runs = []
    for _ in range(2):
        segments = s.segments.clone()
        table = s.neighbours.clone()
        runs.append(
            (
                ops.gather_conv(x, tree, weight, bias, s.neighbours, segments),
                *ops.gather_conv_input(grad, weight, table, segments, None, s.cells, s.tree_rows),
                ops.gather_conv_weight(grad, x, tree, s.neighbours, segments, weight.shape),
                ops.column_sums(grad),
            )
        )
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_wrong_tables_are_refused() -> None:
    kernel = (3, 3, 3)
    s = items(1, kernel)
    x, tree, weight, bias, _ = case(s, 4, 4, kernel, torch.float32)
    for wrong in (s.neighbours.long(), s.neighbours[:, :9], s.neighbours[:-1]):
        with pytest.raises(ValueError, match="neighbours"):
            ops.gather_conv(x, tree, weight, bias, wrong, s.segments)
    with pytest.raises(ValueError, match="cells"):
        ops.gather_conv_input(x, weight, s.neighbours, s.segments, None, None, s.tree_rows)
    with pytest.raises(ValueError, match="tree"):
        ops.gather_conv(x, tree.half(), weight, bias, s.neighbours, s.segments)


@pytest.mark.parametrize("kernel", KERNELS)
def test_restriction_of_filters(kernel: tuple[int, int, int]) -> None:
    weight = random(2, 3, 2, *kernel, seed=0, dtype=torch.float64).requires_grad_()
    got = ops.restrict_filters(weight, 5)
    assert torch.equal(got[:2], weight[:2])
    same(got[2:].sum((3, 4, 5)), weight[1:].sum((3, 4, 5)).expand(3, 3, 2), 1e-12)  # the sum over taps is kept
    same(ops.restrict_filters(got[2:3], 2)[1], got[3], 1e-12)  # one step twice is two steps
    back = random(5, 3, 2, *kernel, seed=1, dtype=torch.float64)
    (expected,) = torch.autograd.grad(got, weight, back)
    same(ops.restrict_filters_back(back, 2), expected, 1e-12)
    assert torch.equal(ops.restrict_filters(weight, 1), weight[:1])
    same(ops.restrict_filters_back(back[:1], 2)[1], torch.zeros_like(weight[1]), 0.0)


def reference_tree(x: Tensor, s: Stage) -> Tensor:
    values: list[Tensor | None] = [*x.unbind(0), *([None] * s.tree_rows)]
    for first, end in s.node_ranges.tolist():
        for node in range(first, end):
            there = [values[c] for c in s.children[node].tolist() if c < s.rows + s.tree_rows]
            values[s.rows + node] = torch.stack(there).mean(0)
    return torch.stack([*values[s.rows :], torch.zeros_like(x[0])])


@pytest.mark.parametrize(
    ("channels", "dtype"),
    cases((1, torch.float32), (5, torch.float32), (16, torch.float16)),
)
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_tree_values(channels: int, dtype: torch.dtype, depth: int) -> None:
    s = items(depth, (1, 1, 1)) if depth < 4 else stage(odd_tree(), depth, (1, 1, 1))
    x = random(s.rows, channels, seed=1, dtype=dtype)
    grad = random(s.tree_rows + 1, channels, seed=2, dtype=dtype)
    wide = x.double().requires_grad_()
    expected = reference_tree(wide, s)
    same(ops.fill_tree(x, s.children, s.node_ranges), expected.detach())
    (dx,) = torch.autograd.grad(expected, wide, grad.double())
    same(ops.fill_tree_back(grad, s.children, s.node_ranges, s.rows), dx)


def reference_pool(x: Tensor, s: Stage, rows_out: int) -> tuple[Tensor, Tensor]:
    out = x.new_zeros(rows_out, x.shape[1])
    slots = torch.full((len(s.pool_children), x.shape[1]), 255, dtype=torch.uint8)
    for src, dst, copied, node0, nodes in s.pool_ranges.tolist():
        out[dst : dst + copied] = x[src : src + copied]
        for j in range(nodes):
            there = [k for k, c in enumerate(s.pool_children[node0 + j].tolist()) if c < s.rows]
            values = torch.stack([x[s.pool_children[node0 + j, k].item()] for k in there])
            best = values.max(0).values
            first = (values == best).int().argmax(0)
            slots[node0 + j] = torch.tensor(there, dtype=torch.uint8)[first]
            out[dst + copied + j] = values.gather(0, first[None])[0]
    return out, slots


@pytest.mark.parametrize(
    ("channels", "dtype"),
    cases((1, torch.float32), (5, torch.float32), (72, torch.float16)),
)
@pytest.mark.parametrize("depth", [0, 2])
def test_pool_and_upsample(channels: int, dtype: torch.dtype, depth: int) -> None:
    s, coarse = items(depth, (1, 1, 1)), items(depth + 1, (1, 1, 1))
    x = random(s.rows, channels, seed=1, dtype=dtype).round(decimals=1)  # with ties
    x[3] = x[5] = 0.5
    wide = x.double().requires_grad_()
    expected, slots = reference_pool(wide, s, coarse.rows)
    out, slot = ops.pool(x, s.pool_children, s.pool_ranges, coarse.rows)
    assert torch.equal(out, expected.to(dtype))
    assert torch.equal(slot, slots)
    grad = random(coarse.rows, channels, seed=2, dtype=dtype)
    (dx,) = torch.autograd.grad(expected, wide, grad.double())
    assert torch.equal(ops.pool_back(grad, slot, s.pool_children, s.pool_ranges, s.rows), dx.to(dtype))

    up = ops.upsample(out, s.pool_children, s.pool_ranges, s.rows)
    parent = torch.full((s.rows,), -1)
    for src, dst, copied, node0, nodes in s.pool_ranges.tolist():
        parent[src : src + copied] = torch.arange(dst, dst + copied)
        for j in range(nodes):
            for child in s.pool_children[node0 + j].tolist():
                if child < s.rows:
                    parent[child] = dst + copied + j
    assert int(parent.min()) >= 0
    assert torch.equal(up, out[parent])
    back = random(s.rows, channels, seed=3, dtype=dtype)
    summed = torch.zeros(coarse.rows, channels, dtype=torch.float64).index_add_(0, parent, back.double())
    same(ops.upsample_back(back, s.pool_children, s.pool_ranges, coarse.rows), summed)


def test_pool_takes_minus_infinity_and_nan_as_torch_does() -> None:
    s, coarse = (
        stage(scattered_boxes((9, 7, 5), 0.05), 0, (1, 1, 1)),
        stage(scattered_boxes((9, 7, 5), 0.05), 1, (1, 1, 1)),
    )
    x = torch.full((s.rows, 2), float("-inf"))
    x[int(s.pool_children[0, 1]), 1] = float("nan")
    out, slot = ops.pool(x, s.pool_children, s.pool_ranges, coarse.rows)
    copied = int(s.pool_ranges[0, 2])
    assert out[copied, 1].isnan()
    assert slot[0].tolist() == [0, 1]
    assert torch.isneginf(out[copied + 1 :]).all()
    assert int(slot.max()) < 8


@pytest.mark.parametrize(
    ("channels", "dtype"),
    cases((1, torch.float32), (3, torch.float16), (20, torch.float32)),
)
@pytest.mark.parametrize("depth", [0, 1])
def test_voxels_and_cells(channels: int, dtype: torch.dtype, depth: int) -> None:
    fine = torch.zeros(17, 3, 4, dtype=torch.bool)
    fine[1, 2, 2] = True
    s = stage(tree_from_fine_cells((33, 5, 7), fine), depth, (1, 1, 1))
    assert int(s.cells[:, 3].max()) >= 4 - depth  # both ways of adding up are used
    x = random(s.rows, channels, seed=1, dtype=dtype)
    owner = torch.full(s.shape, -1)
    for row, (z, y, x0, shift) in enumerate(s.cells.tolist()):
        edge = 1 << shift
        block = owner[z * edge : (z + 1) * edge, y * edge : (y + 1) * edge, x0 * edge : (x0 + 1) * edge]
        assert (block == -1).all()
        block[:] = row
    assert int(owner.min()) == 0
    assert torch.equal(ops.reconstruct(x, s.cells, s.shape), x[owner])

    dense = random(*s.shape, channels, seed=2, dtype=dtype)
    sums = torch.zeros(s.rows, channels, dtype=torch.float64).index_add_(
        0, owner.flatten(), dense.double().flatten(0, 2)
    )
    number = torch.bincount(owner.flatten(), minlength=s.rows)[:, None]
    same(ops.cell_sums(dense, s.cells, False), sums)
    same(ops.cell_sums(dense, s.cells, True), sums / number)
    part = s.cells[:5].clone()
    partly = ops.reconstruct(x[:5], part, s.shape)
    assert torch.equal(partly, torch.where((owner < 5)[..., None], x[owner], 0))


def test_the_package_s_own_reference_says_the_same() -> None:
    kernel = (1, 3, 3)
    s, coarse = items(1, kernel), items(2, kernel)
    x, tree, weight, bias, grad = case(s, 4, 6, kernel, torch.float32)
    n, g = s.neighbours, s.segments
    same(ops.gather_conv(x, tree, weight, bias, n, g), reference.conv(x, tree, weight, bias, n, g))
    pairs = zip(
        ops.gather_conv_input(grad, weight, n, g, None, s.cells, s.tree_rows),
        reference.conv_input(grad, weight, n, g, s.tree_rows),
        strict=True,
    )
    for got, expected in pairs:
        same(got, expected)
    shape = list(weight.shape)
    same(ops.gather_conv_weight(grad, x, tree, n, g, shape), reference.conv_weight(grad, x, tree, n, g, shape))
    same(ops.fill_tree(x, s.children, s.node_ranges), reference.fill_tree(x, s.children, s.node_ranges))
    back = (tree, s.children, s.node_ranges, s.rows)
    same(ops.fill_tree_back(*back), reference.fill_tree_back(*back))
    pooled = ops.pool(x, s.pool_children, s.pool_ranges, coarse.rows)
    for got, expected in zip(pooled, reference.pool(x, s.pool_children, s.pool_ranges, coarse.rows), strict=True):
        assert torch.equal(got, expected)
    same(ops.restrict_filters(weight[:1], 4), reference.restrict(weight[:1], 4))
    same(ops.restrict_filters_back(weight, 1), reference.restrict_back(weight, 1))


def test_registered_operators_run_the_kernels_and_build_tables_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = (3, 3, 3)
    s, coarse = placed(items(1, kernel)), items(2, kernel)
    x, _, weight, bias, grad = (part.to(DEVICE) for part in case(s, 4, 4, kernel, torch.float32))
    slabs = torch.zeros(0, 5, dtype=torch.int64)
    built = []
    build = conv_module.conv_tables
    monkeypatch.setattr(conv_module, "conv_tables", lambda *parts: (built.append(1), build(*parts))[1])

    def layers(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tables = (s.children, s.node_ranges, s.neighbours, s.segments, slabs, s.cells)
        y, _ = particle_layer.particle_conv(x, weight, bias, *tables)
        pooled, _ = particle_stages.pool(y, s.pool_children, s.pool_ranges, coarse.rows)
        return y + particle_stages.upsample(pooled, s.pool_children, s.pool_ranges, s.rows)

    for _ in range(2):
        own = [t.clone().requires_grad_() for t in (x, weight, bias)]
        out = layers(*own)
        grads = torch.autograd.grad(out, own, grad)
    assert len(built) == 1
    wide = [t.double().requires_grad_() for t in (x, weight, bias)]  # the kernels do not take it: plain torch
    expected = layers(*wide)
    same(out, expected)
    for got, right in zip(grads, torch.autograd.grad(expected, wide, grad.double()), strict=True):
        same(got, right)


def test_nothing_in_nothing_out() -> None:
    empty = torch.zeros(0, 4)
    nothing = torch.zeros(0, 27, dtype=torch.int32)
    segments = torch.zeros(0, 3, dtype=torch.int64)
    tree, weight = torch.zeros(1, 4), torch.ones(2, 3, 4, 3, 3, 3)
    assert ops.gather_conv(empty, tree, weight, None, nothing, segments).shape == (0, 3)
    grad = torch.zeros(0, 3)
    assert not ops.gather_conv_weight(grad, empty, tree, nothing, segments, weight.shape).any()
    assert ops.column_sums(grad).tolist() == [0, 0, 0]
    assert ops.fill_tree(empty, torch.zeros(0, 8, dtype=torch.int32), segments[:, :2]).shape == (1, 4)


@interpreter_only
def test_the_interpreter_counts_as_a_device() -> None:
    assert why_not("cpu") is None
    assert why_not("cpu", torch.float64) is not None
    kernel = on_gpu("column_sums", torch.ones(3, 2))
    assert kernel(torch.ones(3, 2)).tolist() == [3.0, 3.0]
    assert on_gpu("column_sums", torch.ones(3, 2).double()) is None
