"""The operators: registration, gradients, compiled against float64, torch.compile and torch.export."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache

import pytest
import torch
from layer_tools import KERNELS, UNet, assert_close, gradients, random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels import use_kernels
from napari_aprcnn._kernels.particle_layer import particle_conv
from napari_aprcnn._kernels.particle_stages import cell_means, pool, reconstruct, upsample
from napari_aprcnn._kernels.particles import fill_tree, restrict_filters
from trees import random_tree

OPS = torch.ops.napari_aprcnn
CHANNELS = [1, 2, 3, 5, 8, 16, 17, 24, 32, 48, 64]


@cache
def ragged_forest() -> nn.Forest:
    """Two trees of different shape and number of levels: a volume and a slice."""
    return nn.Forest([random_tree((11, 9, 18), 1), random_tree((30, 17), 2, 0.1)])


@cache
def small_forest() -> nn.Forest:
    return nn.Forest([random_tree((4, 5, 7), 3, 0.2), random_tree((9, 5), 4, 0.2)])


def values(*shape: int, dtype: torch.dtype, seed: int = 0, grad: bool = True) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return made.requires_grad_(grad)


def tables_of(stage: nn.Stage, kernel=(3, 3, 3)):
    return stage.neighbours(kernel), stage.segments(), stage.slabs(kernel), stage.cells()


def arguments(stage: nn.Stage, dtype: torch.dtype) -> dict[str, list[tuple]]:
    """Arguments of every operator."""
    rows, nodes, depths, c = stage.rows, stage.tree_rows, stage.depths, 3
    coarse = stage.coarser()
    tree = (stage.children(), stage.node_ranges())
    pooling = (stage.pool_children(), stage.pool_ranges())
    neighbours, segments, slabs, cells = tables_of(stage)
    below = (values(coarse.rows, 1, dtype=dtype, grad=False), coarse.children(), coarse.node_ranges(),
             stage.places_in_coarser())  # fmt: skip
    x, weight, bias = values(rows, c, dtype=dtype), values(depths, 2, c, 3, 3, 3, dtype=dtype), values(2, dtype=dtype)
    filled = values(nodes + 1, c, dtype=dtype)
    grad = values(rows, 2, dtype=dtype, grad=False)
    fixed = filled.detach()
    slot = pool(x.detach(), *pooling, coarse.rows)[1]
    item, shape = stage.item_rows[0], list(stage.grid_shape(0))
    dense = values(*shape, c, dtype=dtype)
    return {
        "restrict_filters": [
            (values(banks, 2, 3, 1, 3, 3, dtype=dtype), depths) for banks in (1, 2, depths, depths + 1)
        ],
        "restrict_filters_back": [(weight.detach(), 2)],
        "fill_tree": [(x, *tree)],
        "fill_tree_back": [(fixed, *tree, rows)],
        "gather_conv": [
            (x, filled, weight, added, neighbours, segments, slabs, where)
            for added, where in ((bias, cells), (None, None))
        ],
        "gather_conv_input": [(grad, weight.detach(), neighbours, segments, slabs, cells, nodes)],
        "gather_conv_weight": [(grad, x.detach(), fixed, neighbours, segments, list(weight.shape))],
        "particle_conv": [
            (x, weight, added, *tree, neighbours, segments, slabs, where)
            for added, where in ((bias, cells), (None, None))
        ],
        "patch_conv": [
            (x.detach(), weight.detach(), bias.detach(), *stage.patch_tables()),
            (x[:, :2].detach().clone(), weight.detach(), None, *stage.patch_tables(), *below),
        ],
        "particle_conv_input": [(grad, weight.detach(), *tree, neighbours, segments, slabs, cells)],
        "column_sums": [(x,)],
        "pool": [(x, *pooling, coarse.rows)],
        "pool_back": [(values(coarse.rows, c, dtype=dtype, grad=False), slot, *pooling, rows)],
        "upsample": [(values(coarse.rows, c, dtype=dtype), *pooling, rows)],
        "upsample_back": [(x.detach(), *pooling, coarse.rows)],
        "reconstruct": [(values(item, c, dtype=dtype), cells[:item], shape)],
        "cell_sums": [(dense, cells[:item], mean) for mean in (False, True)],
        **norm_arguments(stage, dtype),
    }


def norm_arguments(stage: nn.Stage, dtype: torch.dtype) -> dict[str, list[tuple]]:
    starts, c = stage.item_starts(), 4
    x = values(stage.rows, c, dtype=dtype)
    weight, bias, centre = (values(c, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    grad = values(stage.rows, c, dtype=dtype, grad=False, seed=4)
    settings = [(starts, 2, weight, bias, 1e-5, relu) for relu in (False, True)]
    settings += [(starts, c, None, None, 0.1, True), (stage.item_starts(whole=True), 1, weight, bias, 1e-5, True)]
    statistics = OPS.group_norm(x.detach(), *settings[0])[1:]
    fixed = [t.detach() for t in (centre, weight, bias)]
    return {
        "group_norm": [(x, *given) for given in settings],
        "group_norm_back": [(grad, x.detach(), starts, *statistics, *fixed[1:], relu) for relu in (False, True)],
        "scale_shift": [(x, centre, weight, bias, relu) for relu in (False, True)],
        "scale_shift_back": [(grad, x.detach(), *fixed, relu) for relu in (False, True)],
    }


NAMES = list(arguments(small_forest().stage(0), torch.float32))


def test_every_operator_is_tested_here():
    prefix = "napari_aprcnn::"
    registered = {name.removeprefix(prefix) for name in torch._C._dispatch_get_all_op_names() if prefix in name}
    assert {name.split(".")[0] for name in registered} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_registration(name):
    """Schema, gradient, shape function, and what torch.compile makes of it."""
    for dtype in (torch.float32, torch.float64):
        for given in arguments(small_forest().stage(0), dtype)[name]:
            torch.library.opcheck(getattr(OPS, name).default, given)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(
    "name", [n for n in NAMES if not n.endswith("_back") and "_conv_" not in n and n != "patch_conv"]
)
def test_gradient_against_differences(name, depth):
    stage = small_forest().stage(depth)
    for given in arguments(stage, torch.float64)[name]:
        places = [i for i, a in enumerate(given) if isinstance(a, torch.Tensor) and a.requires_grad]

        def run(*tensors, given=given, places=places):
            full = list(given)
            for place, tensor in zip(places, tensors, strict=True):
                full[place] = tensor
            if name == "gather_conv":  # its last tree row is what lies outside the image: zero
                full[1] = torch.cat([full[1][:-1], torch.zeros_like(full[1][-1:])])
            out = getattr(OPS, name)(*full)
            return out[0] if isinstance(out, tuple) else out

        assert places
        assert torch.autograd.gradcheck(run, [given[i] for i in places], fast_mode=name.endswith("_conv"))


# --- compiled against float64 ---------------------------------------------------------------------------------
def convolve(stage, kernel, inside, outside, dtype):
    """Output and all gradients of a convolution of three banks with bias."""
    x = random_features(stage, inside, dtype=dtype).requires_grad_()
    size = inside * kernel[0] * kernel[1] * kernel[2]
    weight = (values(3, outside, inside, *kernel, dtype=torch.float32, grad=False) / size**0.5).to(dtype)
    weight.requires_grad_()
    bias = values(outside, dtype=torch.float32, grad=False, seed=1).to(dtype).requires_grad_()
    tree = (stage.children(), stage.node_ranges())
    out, _ = particle_conv(x, restrict_filters(weight, stage.depths), bias, *tree, *tables_of(stage, kernel))
    out.backward(values(stage.rows, outside, dtype=torch.float32, grad=False, seed=2).to(dtype))
    return {"output": out.detach(), "input": x.grad, "weight": weight.grad, "bias": bias.grad}


@cache
def exact(depth, kernel, inside, outside):
    return convolve(ragged_forest().stage(depth), kernel, inside, outside, torch.float64)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_convolution_against_float64(kernels, kernel, depth):
    stage = ragged_forest().stage(depth)
    pairs = [*zip(CHANNELS, CHANNELS[3:] + CHANNELS[:3], strict=True), (32, 32), (1, 1), (16, 2)]
    if kernels == "python":  # does not care about the number of channels, and is slow
        pairs = [(3, 8), (1, 5)]
    for inside, outside in pairs:
        got = convolve(stage, kernel, inside, outside, torch.float32)
        for what, expected in exact(depth, kernel, inside, outside).items():
            assert_close(got[what], expected, 1e-5, f"{what}, {inside} to {outside} channels")


@pytest.mark.parametrize("depth", [0, 1])
def test_other_operators_against_float64(kernels, depth):
    stage = ragged_forest().stage(depth)
    coarse, rows = stage.coarser(), stage.item_rows[0]
    pooling = (stage.pool_children(), stage.pool_ranges())
    cells, shape = stage.cells()[:rows], list(stage.grid_shape(0))
    functions = {
        "fill_tree": (lambda x: fill_tree(x, stage.children(), stage.node_ranges()), (stage.rows,)),
        "pool": (lambda x: pool(x, *pooling, coarse.rows)[0], (stage.rows,)),
        "upsample": (lambda x: upsample(x, *pooling, stage.rows), (coarse.rows,)),
        "reconstruct": (lambda x: reconstruct(x, cells, shape), (rows,)),
        "cell_means": (lambda x: cell_means(x, cells), tuple(shape)),
        "column_sums": (OPS.column_sums, (stage.rows,)),
    }
    for name, (function, size) in functions.items():
        for channels in CHANNELS if kernels != "python" else CHANNELS[:3]:
            found = []
            for dtype in (torch.float32, torch.float64):
                x = values(*size, channels, dtype=torch.float32, grad=False).to(dtype).requires_grad_()
                out = function(x)
                out.backward(values(*out.shape, dtype=torch.float32, grad=False, seed=1).to(dtype))
                found.append((out.detach(), x.grad))
            for got, expected in zip(*found, strict=True):
                assert_close(got, expected, 1e-5, f"{name}, {channels} channels")


def test_cut_levels_against_float64(kernels):
    """Levels of so many rows that their gradients are added slab by slab."""
    for shape, kernel in (((3, 70, 90), (3, 3, 3)), ((1, 130, 90), (1, 3, 3)), ((30, 20, 30), (5, 5, 5))):
        stage = nn.Forest(random_tree(shape, 5, 0.05)).stage(0)
        assert len(set(stage.slabs(kernel)[:, 1].tolist())) > 2
        got, expected = (convolve(stage, kernel, 4, 3, dtype) for dtype in (torch.float32, torch.float64))
        for what in got:
            assert_close(got[what], expected[what], 1e-5, what)


def test_pool_takes_the_first_of_equal_children_and_keeps_infinities(kernels):
    stage = ragged_forest().stage(0)
    children, ranges, rows = stage.pool_children(), stage.pool_ranges(), stage.coarser().rows
    for value in (0.0, -float("inf"), float("inf")):
        out, slot = pool(torch.full((stage.rows, 2), value), children, ranges, rows)
        assert (out == value).all()
        first = (children < stage.rows).int().argmax(1)
        if value == 0:
            assert torch.equal(slot.long(), first[:, None].expand(-1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    stage = ragged_forest().stage(0)
    got, expected = (convolve(stage, (3, 3, 3), 4, 8, d) for d in (dtype, torch.float32))
    step = torch.finfo(dtype).eps
    assert got["output"].dtype == got["input"].dtype == got["weight"].dtype == dtype
    for what in got:
        assert_close(got[what], expected[what], 4 * step, what)


# --- torch.compile and torch.export ---------------------------------------------------------------------------
class Tables(torch.nn.Module):
    """A small network of operators alone: tensors in, tensors out."""

    def __init__(self, stage: nn.Stage) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(values(2, 4, 1, 3, 3, 3, dtype=torch.float32, grad=False))
        self.bias = torch.nn.Parameter(torch.zeros(4))
        self.depths, self.rows, self.coarse = stage.depths, stage.rows, stage.coarser().rows

    def forward(self, x, children, ranges, neighbours, segments, slabs, cells, pool_children, pool_ranges):
        kernels = restrict_filters(self.weight, self.depths)
        tables = (children, ranges, neighbours, segments, slabs, cells)
        y = torch.relu(particle_conv(x, kernels, self.bias, *tables)[0])
        pooled, _ = pool(y, pool_children, pool_ranges, self.coarse)
        return y + upsample(pooled, pool_children, pool_ranges, self.rows)


def tensors_of(stage):
    tables = (stage.children(), stage.node_ranges(), *tables_of(stage), stage.pool_children(), stage.pool_ranges())
    return random_features(stage, 1), *tables


BACKENDS = [
    "aot_eager",
    pytest.param("inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_function_of_operators(backend):
    stage = ragged_forest().stage(0)
    net, given = Tables(stage), tensors_of(stage)
    found = []
    for run in (net, torch.compile(net, fullgraph=True, backend=backend)):
        net.zero_grad()
        out = run(*given)
        out.square().sum().backward()
        found.append((out.detach(), net.weight.grad.clone(), net.bias.grad.clone()))
    for got, expected in zip(*found, strict=True):
        assert_close(got, expected, 1e-6)


def test_exported_function_of_operators():
    stage = ragged_forest().stage(0)
    net, given = Tables(stage), tensors_of(stage)
    program = torch.export.export(net, given)
    assert {"napari_aprcnn.particle_conv.default", "napari_aprcnn.pool.default"} <= {
        str(node.target) for node in program.graph.nodes
    }
    assert torch.equal(program.module()(*given), net(*given))


@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_layers(backend):
    """Layers whose tables stand compile into one graph."""
    stage = ragged_forest().stage(0)
    net = torch.nn.Sequential(
        nn.APRConv(1, 4, 3, filter_banks=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.APRMaxPool(), nn.APRUpsample()
    )
    x = random_features(stage, 1)
    expected = gradients(net, x, stage)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    for got, wanted in zip(gradients(compiled, x, stage), expected, strict=True):
        assert_close(got, wanted, 1e-6)


def test_reference_is_used_for_double(kernels):
    stage = small_forest().stage(0)
    net = UNet().double()
    got = gradients(net, random_features(stage, 1, dtype=torch.float64), stage)
    before = use_kernels("reference")
    try:
        expected = gradients(net, random_features(stage, 1, dtype=torch.float64), stage)
    finally:
        use_kernels(before)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_plain_inference_imports_no_compiler():
    """A window that has loaded Mesa's LLVM must not meet triton's: the process would end."""
    script = """
import sys
import torch
from napari_aprcnn import to_apr
from napari_aprcnn.nn import APRConv, ParticleTensor
tree = to_apr(torch.rand(9, 9, 9).numpy())
with torch.inference_mode():
    APRConv(1, 2, 3)(ParticleTensor.from_trees([tree]))
print("torch._dynamo" in sys.modules, "triton" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
