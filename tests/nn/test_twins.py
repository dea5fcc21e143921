"""Where every voxel is a particle, each layer is its pixel twin of torch: values and all gradients, to 1e-5."""

from __future__ import annotations

import copy

import pytest
import torch
from layer_tools import KERNELS, assert_close, random_features
from torch.nn import functional as F

from napari_aprcnn import nn
from trees import finest_tree, random_tree

pytestmark = pytest.mark.usefixtures("kernels")
SHAPES = [(1, 300, 7), (9, 8, 7), (32, 40)]


def dense_of(x: torch.Tensor, stage: nn.Stage) -> torch.Tensor:
    """Rows of a stage of finest particles as an image [1, channels, z, y, x]: their order is z, y, x.

    Contiguous, because torch 2.13's BatchNorm3d gives wrong gradients where the batch axis of one image has a stride as
    small as
    the number of channels.
    """
    return x.reshape(*stage.grid_shape(0), -1).permute(3, 0, 1, 2)[None].contiguous()


def rows_of(dense: torch.Tensor) -> torch.Tensor:
    return dense[0].permute(1, 2, 3, 0).reshape(-1, dense.shape[1])


def compare(layer, twin, stage, channels, names=(), *, share=1e-5, offset=0.0):
    """The twin runs in float64. ``names`` are pairs of parameters, and a function from the twin's gradient to ours."""
    x = (random_features(stage, channels) + offset).requires_grad_()
    exact = x.detach().double().requires_grad_()
    out = layer(nn.ParticleTensor(x, stage))
    expected = twin(dense_of(exact, stage))
    assert_close(out.features, rows_of(expected), share, "output")
    grad = torch.randn(out.features.shape, generator=torch.Generator().manual_seed(5))
    out.features.backward(grad)
    rows_of(expected).backward(grad.double())
    assert_close(x.grad, exact.grad, share, "gradient of the input")
    for name in names:
        got, wanted = getattr(layer, name).grad, getattr(twin, name).grad
        got = got[0] if got.ndim == 6 else got
        assert_close(got, wanted, share, f"gradient of {name}")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("shape", [(1, 1, 1), *SHAPES])
def test_convolution(shape, kernel, bias):
    torch.manual_seed(0)
    forest = nn.Forest(finest_tree(shape))
    layer = nn.APRConv(3, 5, kernel, filter_banks=2, bias=bias)
    for depth in range(min(1, forest.deepest) + 1):
        twin = torch.nn.Conv3d(3, 5, kernel, padding=tuple(k // 2 for k in kernel), bias=bias).double()
        with torch.no_grad():
            twin.weight.copy_(layer.weight[0])
            if bias:
                twin.bias.copy_(layer.bias)
        layer.zero_grad()
        compare(layer, twin, forest.stage(depth), 3, ["weight", "bias"] if bias else ["weight"])
        assert not layer.weight.grad[1].any()  # nothing is coarser than voxels


@pytest.mark.parametrize(("inside", "outside"), [(40, 72), (66, 33), (16, 100)])
def test_convolution_of_many_channels(inside, outside):
    """More columns than are summed at once, forward and back, and numbers that fill no register."""
    torch.manual_seed(0)
    layer = nn.APRConv(inside, outside, 3, bias=False)
    twin = torch.nn.Conv3d(inside, outside, 3, padding=1, bias=False).double()
    with torch.no_grad():
        twin.weight.copy_(layer.weight[0])
    compare(layer, twin, nn.Forest(finest_tree((9, 18, 14))).stage(0), inside, ["weight"])


@pytest.mark.parametrize("shape", SHAPES)
def test_max_pooling_and_upsampling(shape):
    forest = nn.Forest(finest_tree(shape))
    for depth in range(forest.deepest):
        fine, coarse = forest.stage(depth), forest.stage(depth + 1)
        compare(nn.APRMaxPool(), torch.nn.MaxPool3d(2, ceil_mode=True), fine, 3)
        size = fine.grid_shape(0)

        def enlarged(dense, size=size):
            return F.interpolate(dense, scale_factor=2, mode="nearest")[..., : size[0], : size[1], : size[2]]

        compare(nn.APRUpsample(), enlarged, coarse, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruct_and_sample_only_reorder(shape):
    forest = nn.Forest(finest_tree(shape))
    for stage in (forest.stage(0), forest.stage(1)):
        x = random_features(stage, 3).requires_grad_()
        image = nn.Reconstruct()(nn.ParticleTensor(x, stage))
        assert torch.equal(image, dense_of(x, stage))
        back = nn.Sample()(image, stage)
        assert back.stage is stage
        assert torch.equal(back.features, x)
        grad = torch.randn(x.shape)
        back.features.backward(grad)
        assert torch.equal(x.grad, grad)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_of_pixels_behind_a_reconstruction(shape):
    """Wrong by far more than rounding where the strides of the image are not those of channels-last memory."""
    stage = nn.Forest(random_tree(shape)).stage(0)
    image = nn.Reconstruct()(nn.ParticleTensor(random_features(stage, 6), stage))
    assert image.is_contiguous(memory_format=torch.channels_last_3d)
    assert image.stride(0) == image.numel()
    found = []
    for as_it_is in (True, False):
        x = random_features(stage, 6).requires_grad_()
        image = nn.Reconstruct()(nn.ParticleTensor(x, stage))
        out = torch.nn.BatchNorm3d(6)(image if as_it_is else image.contiguous())
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(3)))
        found.append(x.grad)
    assert_close(found[0], found[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_batch_norm(shape, offset):
    stage = nn.Forest(finest_tree(shape)).stage(0)
    layer, twin = nn.BatchNorm(6), torch.nn.BatchNorm3d(6).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(layer, name).uniform_(-1, 1)
            getattr(twin, name).copy_(getattr(layer, name))
    compare(layer, twin, stage, 6, ["weight", "bias"], share=1e-5 * (1 + offset), offset=offset)
    for name in ("running_mean", "running_var"):
        assert_close(getattr(layer, name), getattr(twin, name))
    layer.eval(), twin.eval()
    layer.zero_grad(), twin.zero_grad()
    compare(layer, twin, stage, 6, ["weight", "bias"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["one group", "groups", "instances"])
def test_group_and_instance_norm(shape, affine, kind):
    stage = nn.Forest(finest_tree(shape)).stage(0)
    if kind == "instances":
        layer, twin = nn.InstanceNorm(6, affine=affine), torch.nn.InstanceNorm3d(6, affine=affine).double()
    else:
        groups = 1 if kind == "one group" else 3
        layer, twin = nn.GroupNorm(groups, 6, affine=affine), torch.nn.GroupNorm(groups, 6, affine=affine).double()
    names = ["weight", "bias"] if affine else []
    with torch.no_grad():
        for name in names:
            getattr(layer, name).uniform_(-1, 1)
            getattr(twin, name).copy_(getattr(layer, name))
    compare(layer, twin, stage, 6, names)
    # A mean far from zero: float32 holds the values to 2e-6, so that is what can be asked for.
    layer.zero_grad(), twin.zero_grad()
    compare(layer, twin, stage, 6, names, share=3e-4, offset=30.0)


LAYERS = [
    (nn.ReLU, {}),
    (nn.LeakyReLU, {"negative_slope": 0.1}),
    (nn.ELU, {"alpha": 0.7}),
    (nn.GELU, {}),
    (nn.SiLU, {}),
    (nn.Sigmoid, {}),
    (nn.Softplus, {"beta": 2}),
]


@pytest.mark.parametrize(("layer", "arguments"), LAYERS)
def test_activations(layer, arguments):
    stage = nn.Forest(finest_tree((9, 8, 7))).stage(0)
    ours, twin = layer(**arguments), getattr(torch.nn, layer.__name__)(**arguments)
    assert type(ours.module) is type(twin)
    compare(ours, copy.deepcopy(twin), stage, 3)


def test_dropout_and_any_module_on_rows():
    stage = nn.Forest(finest_tree((9, 8, 7))).stage(0)
    x = nn.ParticleTensor(torch.ones(stage.rows, 4), stage)
    dropped = nn.Dropout(0.5)(x).features
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(nn.Dropout(0.5).eval()(x).features, x.features)
    linear = torch.nn.Linear(4, 2)
    out = nn.Features(linear)(x)
    assert out.stage is stage
    assert torch.equal(out.features, linear(x.features))
