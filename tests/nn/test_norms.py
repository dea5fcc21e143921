"""Norms: numbers against float64 and against torch, the fused rectifier, odd sizes, running statistics, compilation."""

from __future__ import annotations

import pytest
import torch
from layer_tools import assert_close, gradients, random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels.particle_norms import group_norm, group_norm_back, scale_shift
from napari_aprcnn.errors import ConfigError, StageError
from trees import finest_tree, random_tree

CASES = [(1, 1), (3, 3), (3, 1), (5, 1), (16, 4), (17, 17), (24, 3), (32, 8), (63, 7), (64, 8), (100, 10)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def starts_of(*rows: int) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(rows).cumsum(0).tolist()])


def ours(x, starts, groups, weight, bias, relu):
    return group_norm(x, starts, groups, weight, bias, 1e-5, relu)[0]


def torchs(x, starts, groups, weight, bias, relu):
    """torch's own, item by item."""
    parts = [
        torch.group_norm(x[a:b].T[None], groups, weight, bias, 1e-5)[0].T
        for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    out = torch.cat(parts)
    return out.relu() if relu else out


def run(function, x, starts, groups, weight, bias, relu, dtype):
    """Output and gradients of all three tensors."""
    tensors = [t.to(dtype).detach().requires_grad_() for t in (x, weight, bias)]
    out = function(tensors[0], starts, groups, *tensors[1:], relu)
    out.backward(normal(*x.shape, seed=9).to(out.dtype))
    return [out.detach(), *(t.grad for t in tensors)]


def error(got, expected):
    return float((got.double() - expected).abs().max()) / max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("channels", "groups"), CASES)
def test_group_norm_against_float64(kernels, channels, groups, relu):
    """Items of few rows, of rows that fill no register, and of several parts; a mean that is far from zero too."""
    starts = starts_of(37, 2000, 4001 if channels > 20 else 20011)
    weight, bias = normal(channels, seed=1), normal(channels, seed=2)
    for mean, share in ((0.0, 2e-6), (1e4, 5e-6)):
        x = normal(int(starts[-1]), channels, seed=3) + mean
        exact = run(torchs, x, starts, groups, weight, bias, relu, torch.float64)
        got = run(ours, x, starts, groups, weight, bias, relu, torch.float32)
        twin = run(torchs, x, starts, groups, weight, bias, relu, torch.float32)
        for what, a, b, t in zip(("output", "input", "weight", "bias"), got, exact, twin, strict=True):
            # A value so near zero that rounding decides about the rectifier weighs its whole gradient.
            share_here = share if not relu or what == "output" else 1e-3
            assert_close(a, b, share_here, f"{what}, mean {mean}")
            assert error(a, b) <= max(error(t, b), 1e-6), f"{what}, mean {mean}: worse than torch"


def test_outliers_and_steps_do_not_cancel(kernels):
    """A first row far from the others, and rows that drift by more than their spread."""
    x = normal(30000, 16)
    x[0] = 1e4
    drifting = normal(30000, 16) * 0.01 + torch.linspace(0, 100, 30000)[:, None]
    for values in (x, drifting):
        starts = starts_of(30000)
        _, mean, rstd = group_norm(values, starts, 4, None, None, 1e-5, False)
        exact = values.double().view(30000, 4, 4)
        assert_close(mean[0], exact.mean((0, 2)), 1e-7)
        assert torch.allclose(rstd[0] ** -2, exact.var((0, 2), correction=0) + 1e-5, rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_few_rows_and_empty_items(kernels, channels):
    starts = starts_of(0, 1, 0, 2, 17, 0)
    x = normal(20, channels).requires_grad_()
    out, mean, rstd = group_norm(x, starts, channels, None, None, 1e-5, False)
    assert mean.shape == rstd.shape == (6, channels)
    assert not out[0].any()  # one row is its own mean
    assert not mean[[0, 2, 5]].any()
    exact = x[3:].double()
    assert_close(out[3:], (exact - exact.mean(0)) / (exact.var(0, correction=0) + 1e-5).sqrt(), 1e-6)
    out.backward(normal(20, channels, seed=1))
    assert torch.isfinite(x.grad).all()
    assert x.grad[0].abs().max() < 1e-3
    none = torch.zeros(0, channels).requires_grad_()
    out = group_norm(none, starts_of(0, 0), channels, torch.ones(channels), None, 1e-5, True)[0]
    out.sum().backward()
    assert out.shape == none.grad.shape == (0, channels)
    given = [torch.ones(channels, requires_grad=True) for _ in range(3)]
    scale_shift(none, *given, True).sum().backward()
    assert not any(t.grad.any() for t in given)


def test_items_and_groups_that_do_not_fit_are_errors(kernels):
    x = normal(10, 6)
    for starts, groups in (((0, 9), 2), ((1, 10), 2), ((0, 7, 4, 10), 2), ((), 2), ((0, 10), 4), ((0, 10), 0)):
        with pytest.raises(ValueError, match="expected"):
            group_norm(x, torch.tensor(starts, dtype=torch.int64), groups, None, None, 1e-5, False)


def test_nans_stay_in_their_item_and_channel(kernels):
    x = normal(3000, 20)
    x[5, 3] = float("nan")
    starts = starts_of(1000, 2000)
    out = group_norm(x, starts, 20, None, None, 1e-5, True)[0]
    assert out[:1000, 3].isnan().all()
    out[:1000, 3] = 0
    assert torch.isfinite(out).all()
    ones = torch.ones(20)
    assert scale_shift(x, ones, ones, ones, True).isnan().sum() == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [3, 16, 40])
def test_half_precision_has_float32_statistics(kernels, dtype, channels):
    x = (normal(5000, channels) + 3).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    weight, bias, starts = normal(channels, seed=1), normal(channels, seed=2), starts_of(2000, 3000)
    grad = normal(5000, channels, seed=3).to(dtype)
    got, mean, rstd = group_norm(x, starts, 1, weight, bias, 1e-5, True)
    expected, *statistics = group_norm(wide, starts, 1, weight, bias, 1e-5, True)
    got.backward(grad)
    expected.backward(grad.float())
    assert got.dtype == x.grad.dtype == dtype
    assert_close(torch.stack([mean, rstd]), torch.stack(statistics), 1e-7)
    # What is stored is what was computed, rounded once.
    step = torch.finfo(dtype).eps
    assert ((got.float() - expected).abs() <= step * expected.abs() + 1e-7).all()
    assert_close(x.grad, wide.grad, step)
    parameters = normal(3, channels, seed=4)
    mapped, exact = (scale_shift(t.detach(), *parameters, True) for t in (x, wide))
    assert ((mapped.float() - exact).abs() <= step * exact.abs() + 1e-7).all()


def test_autocast_gives_what_torch_gives(kernels):
    stage = nn.Forest(finest_tree((9, 8, 7))).stage(0)
    layers = [(nn.GroupNorm(2, 6), torch.nn.GroupNorm(2, 6)), (nn.BatchNorm(6), torch.nn.BatchNorm1d(6))]
    x = random_features(stage, 6).to(torch.bfloat16)
    for layer, twin in layers:
        with torch.autocast("cpu", torch.bfloat16):
            got = layer(nn.ParticleTensor(x, stage)).features
            wanted = twin(x.T[None])[0].T
        assert got.dtype == wanted.dtype == torch.bfloat16
        assert_close(got.float(), wanted.float(), 2**-7)
        got.float().square().sum().backward()
        assert layer.weight.grad.dtype == torch.float32


# --- layers -----------------------------------------------------------------------------------------------------
NORMS = {
    "group": lambda **given: nn.GroupNorm(2, 6, **given),
    "instance": lambda **given: nn.InstanceNorm(6, affine=True, **given),
    "batch": lambda **given: nn.BatchNorm(6, **given),
    "batch, evaluated": lambda **given: nn.BatchNorm(6, **given).eval(),
    "batch, no weights": lambda **given: nn.BatchNorm(6, affine=False, **given).eval(),
}


@pytest.mark.parametrize("name", NORMS)
def test_fused_rectifier_is_the_layer_behind(kernels, name):
    stage = nn.Forest([random_tree((19, 17, 20), 1, 0.3), random_tree((30, 20), 2, 0.3)]).stage(0)
    torch.manual_seed(0)
    fused, plain = NORMS[name](relu=True), NORMS[name]()
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.uniform_(-1, 1)
        for buffer in fused.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
    plain.load_state_dict(fused.state_dict())
    x = random_features(stage, 6)
    wanted = gradients(torch.nn.Sequential(plain, nn.ReLU()), x, stage)
    for got, expected in zip(gradients(fused, x, stage), wanted, strict=True):
        assert torch.equal(got, expected)
    assert "relu=True" in repr(fused)
    assert "relu" not in repr(plain)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("momentum", [0.3, 1.0, None])
def test_batch_norm_tracks_as_torch_does(kernels, momentum, track, affine):
    settings = {"momentum": momentum, "affine": affine, "track_running_stats": track}
    layer, twin = nn.BatchNorm(3, **settings), torch.nn.BatchNorm1d(3, **settings).double()
    for step, shape in enumerate([(5, 6, 7), (9, 4), (1, 2)]):
        stage = nn.Forest(finest_tree(shape)).stage(0)
        x = random_features(stage, 3, seed=step) * 3 + 40
        assert_close(layer(nn.ParticleTensor(x, stage)).features, twin(x.double()), 1e-5)
    for (name, got), expected in zip(layer.state_dict().items(), twin.state_dict().values(), strict=True):
        assert_close(got, expected, 1e-6, name)
    layer.eval(), twin.eval()
    assert_close(layer(nn.ParticleTensor(x, stage)).features, twin(x.double()), 1e-5)


def test_batch_norm_of_one_row():
    stage = nn.Forest(finest_tree((1, 1, 1))).stage(0)
    x = nn.ParticleTensor(torch.ones(1, 3), stage)
    for layer in (nn.BatchNorm(3), nn.BatchNorm(3, track_running_stats=False).eval()):
        with pytest.raises(StageError, match="more than 1 value per channel"):
            layer(x)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            torch.nn.functional.batch_norm(x.features, None, None, training=True)
    assert nn.BatchNorm(3).eval()(x).features.shape == (1, 3)
    with pytest.raises(ConfigError, match="channels"):
        nn.BatchNorm(4)(x)


class Norms(torch.nn.Module):
    """The operators alone: tensors in, tensors out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(normal(6, seed=1)), torch.nn.Parameter(normal(6, seed=2))

    def forward(self, x, starts):
        y, mean, _ = group_norm(x, starts, 2, self.weight, self.bias, 1e-5, True)
        return scale_shift(y, self.bias, self.weight, self.bias, True) + mean.sum()


@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_and_exported(backend):
    net, x, starts = Norms(), normal(500, 6), starts_of(200, 300)
    found = []
    for function in (net, torch.compile(net, fullgraph=True, backend=backend)):
        net.zero_grad()
        out = function(x, starts)
        out.square().sum().backward()
        found.append((out.detach(), net.weight.grad.clone(), net.bias.grad.clone()))
    for got, expected in zip(*found, strict=True):
        assert torch.equal(got, expected)
    program = torch.export.export(net, (x, starts))
    assert {"napari_aprcnn.group_norm.default", "napari_aprcnn.scale_shift.default"} <= {
        str(node.target) for node in program.graph.nodes
    }
    assert torch.equal(program.module()(x, starts), net(x, starts))


@pytest.mark.parametrize("name", NORMS)
def test_compiled_layers(name):
    stage = nn.Forest([random_tree((11, 9, 18), 1), random_tree((30, 17), 2, 0.1)]).stage(0)
    torch._dynamo.reset()
    layer, x = NORMS[name](relu=True), random_features(stage, 6)
    expected = gradients(layer, x, stage)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(gradients(compiled, x, stage), expected, strict=True):
        assert_close(got, wanted, 1e-6)


def test_backward_reads_gradients_of_any_layout(kernels):
    x, starts = normal(50, 4), starts_of(50)
    _, mean, rstd = group_norm(x, starts, 2, None, None, 1e-5, False)
    grad = normal(4, 50, seed=1).T
    strided, packed = (group_norm_back(g, x, starts, mean, rstd, None, None, True) for g in (grad, grad.contiguous()))
    for a, b in zip(strided, packed, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("channels", [1, 3, 8, 17, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("relu", [True, False])
def test_used_up_features_are_overwritten_where_nothing_learns(kernels, channels, dtype, relu):
    """The same bits, in the same memory where that is possible; a training leaves its features alone."""
    stage = nn.Forest([random_tree((17, 22, 19), 3, 0.2), random_tree((16, 16, 16), 4, 0.1)]).stage(0)
    batch = nn.BatchNorm(channels, relu=relu)
    with torch.no_grad():
        batch.running_mean.normal_()
        batch.running_var.uniform_(0.5, 2)
    for norm in (nn.GroupNorm(1, channels, relu=relu).eval(), batch.eval()):
        x = nn.ParticleTensor(random_features(stage, channels, dtype=dtype), stage)
        kept = x.features.clone()
        with torch.no_grad():
            expected = norm(x).features
            assert torch.equal(x.features, kept)
        assert torch.equal(norm(x, used_up=True).features.detach(), expected)  # parameters learn
        assert torch.equal(x.features, kept)
        with torch.no_grad():
            found = norm(x, used_up=True).features
        assert torch.equal(found, expected)
        compiled = kernels not in ("python", "reference") and dtype != torch.float64
        assert (found.data_ptr() == x.features.data_ptr()) == compiled
