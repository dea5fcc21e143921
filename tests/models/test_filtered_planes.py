"""Dense convolutions of planes by minimal filtering: torch's to rounding, whatever the shape and what is fused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_helpers import random_weights
from torch import nn

from napari_aprcnn import _kernels
from napari_aprcnn._kernels import planes
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn.models.folding import Conv, Norm, Shuffle, pooled
from napari_aprcnn.models.optimise import in_bands

COMPILED = [name for name in _kernels.instruction_sets() if name != "python"]
pytestmark = pytest.mark.skipif(extension() is None, reason="no compiled kernels")

SHAPES = [(16, 16, 8, 8), (2, 16, 9, 7), (32, 40, 1, 5), (40, 17, 13, 3), (72, 33, 6, 21), (128, 64, 5, 4)]


def layers(channels, columns, *, norm=True):
    torch.manual_seed(channels + columns)
    conv, before = nn.Conv2d(channels, columns, 3, padding=1), nn.BatchNorm2d(channels).eval()
    nn.init.normal_(before.weight)
    nn.init.normal_(before.bias)
    before.running_mean.normal_()
    before.running_var.uniform_(0.5, 2.0)
    folded, normed = Conv(conv.double()), Norm(before.double())
    for module in (folded, normed):
        for name, buffer in list(module.named_buffers()):
            setattr(module, name, buffer.detach().float())
    folded.prepare_filters()
    return folded, normed if norm else None


def plane(channels, height, width, seed=0):
    x = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def expected(conv, x, norm=None, add=None, add_scale=None, *, relu=False, drop=(0, 0)):
    """In float64, operation by operation."""
    x = x.double()
    if norm is not None:
        x = (x * norm.scale.double()[:, None, None] + norm.shift.double()[:, None, None]).relu()
    out = F.conv2d(x, conv.weight.double(), conv.bias.double(), padding=1)[:, :, drop[0] : x.shape[2] - drop[1]]
    if add is not None:
        out = out + add.double() * (1.0 if add_scale is None else add_scale.double()[:, None, None])
    return out.relu() if relu else out


def close(found, wanted):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_convolution_is_torchs(compiled, shape):
    channels, columns, height, width = shape
    conv, norm = layers(channels, columns)
    assert conv.filters is not None
    x = plane(channels, height, width)
    close(conv(x), expected(conv, x))
    close(conv(x, norm=norm), expected(conv, x, norm))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_fused_is_what_comes_one_after_the_other(compiled, shape):
    channels, columns, height, width = shape
    conv, norm = layers(channels, columns)
    height += 4
    x, scale = plane(channels, height, width), torch.randn(columns)
    for drop in ((0, 0), (1, 0), (0, 3), (2, 1)):
        add = plane(columns, height - sum(drop), width, 1)
        close(conv(x, add=add, drop=drop), expected(conv, x, add=add, drop=drop))
        fused = conv(x, norm=norm, add=add, add_scale=scale, relu=True, drop=drop)
        close(fused, expected(conv, x, norm, add, scale, relu=True, drop=drop))
        out = torch.full((height - sum(drop), width, columns), torch.nan).permute(2, 0, 1)[None]
        again = conv(x, norm=norm, add=add, add_scale=scale, relu=True, drop=drop, out=out)
        assert again is out
        assert torch.equal(out, fused)


def test_a_norm_of_twice_the_input(compiled):
    conv, norm = layers(32, 16)
    batch = nn.BatchNorm2d(32).double().eval()  # of mean 0 and variance 1: scale and shift are its weight and bias
    batch.weight.data, batch.bias.data, batch.eps = norm.scale.double(), norm.shift.double(), 0.0
    twice, x = Norm(batch, times=2.0), plane(32, 11, 9)
    twice.scale, twice.shift = twice.scale.detach().float(), twice.shift.detach().float()
    close(conv(x, norm=twice), expected(conv, 2 * x, norm))
    close(twice(x), norm(2 * x).double())


@pytest.mark.parametrize("skip", [False, True])
def test_an_upsampling_is_one_pass(compiled, skip):
    torch.manual_seed(0)
    deconv = nn.ConvTranspose2d(32, 16, 2, stride=2)
    shuffle = Shuffle(deconv)
    for buffer, values in list(shuffle.named_buffers()):
        setattr(shuffle, buffer, values.detach().float())
    x, more, scale, shift = plane(32, 7, 9), plane(16, 14, 18), torch.randn(16), torch.randn(16)
    add = (more, scale) if skip else None
    torch_way = shuffle(x, shift=shift, add=add, relu=True)
    assert shuffle.rows is None
    shuffle.prepare_rows()
    assert shuffle.rows is not None
    got = shuffle(x, shift=shift, add=add, relu=True)
    with torch.no_grad():
        wanted = deconv(x) + shift[:, None, None] + (more * scale[:, None, None] if skip else 0)
    close(got, wanted.double().relu())
    close(torch_way, wanted.double().relu())
    close(shuffle(x, shift=shift, add=add), wanted.double())


def test_pooling_takes_the_largest(compiled):
    x = plane(48, 10, 14)
    assert torch.equal(pooled(x), F.max_pool2d(x, 2))
    few = plane(3, 10, 14)
    assert torch.equal(pooled(few), F.max_pool2d(few, 2))
    with pytest.raises(ValueError, match="pairs"):
        planes.pool(np.zeros((3, 4, 16), np.float32), np.zeros((1, 2, 16), np.float32))
    with pytest.raises(ValueError, match="fit"):
        planes.pool(np.zeros((4, 4, 16), np.float32), np.zeros((2, 3, 16), np.float32))


def test_heads_are_written_plane_by_plane(compiled):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 37, 32), (3, 32), (3,)))
    out = np.full((3, 9, 37), np.nan, np.float32)
    planes.heads(x, planes.pack(weight, bias), out, first=2)
    assert np.isnan(out[:, :2]).all()
    assert np.isnan(out[:, 7:]).all()
    np.testing.assert_allclose(out[:, 2:7], np.moveaxis(x @ weight.T + bias, 2, 0), atol=1e-4)
    with pytest.raises(ValueError, match="rows"):
        planes.heads(x, planes.pack(weight, bias), out, first=5)
    with pytest.raises(ValueError, match="fit"):
        planes.heads(x[:, :36].copy(), planes.pack(weight, bias), out)


def test_memory_begins_with_a_cache_line():
    for shape, dtype in (((3, 5), np.float32), ((7,), np.uint16), ((1 << 20,), np.float32)):
        made = planes.aligned(*shape, dtype=dtype)
        assert (made.shape, made.dtype) == (shape, dtype)
        assert made.ctypes.data % 64 == 0
        assert made.flags.c_contiguous
    weights, _, _, halves, _ = planes.pack(np.ones((48, 32), np.float32), np.zeros(48, np.float32))
    assert weights.ctypes.data % 64 == 0
    assert halves is None or halves.ctypes.data % 64 == 0


def test_rows_of_a_taller_plane(compiled):
    """A slab that begins inside a plane lies in memory as the kernel reads it."""
    conv, _ = layers(32, 32)
    x = plane(32, 40, 12)
    slab = x[:, :, 7:21]
    close(conv(slab), expected(conv, slab))


def test_the_shift_of_a_style_is_added(compiled):
    conv, _ = layers(16, 24)
    x, shift = plane(16, 8, 8), torch.randn(24)
    close(conv(x, shift), expected(conv, x) + shift.double()[:, None, None])
    close(conv(x), expected(conv, x))  # the bias is as it was


def test_what_does_not_fit_stays_with_torch():
    for layer in (
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 8, 3, padding=1),
        nn.Conv2d(12, 16, 3, padding=1),
    ):
        conv = Conv(layer.double())
        for name, buffer in list(conv.named_buffers()):
            setattr(conv, name, buffer.detach().float())
        conv.prepare_filters()
        assert conv.filters is None
    conv = Conv(nn.Conv2d(16, 16, 3, padding=1).double())
    conv.prepare_filters()  # of float64
    assert conv.filters is None


def test_networks_filter_in_float32_alone(compiled):
    network = random_weights("fastcellpose")
    filtered = [m for m in in_bands(network).modules() if isinstance(m, Conv) and m.filters is not None]
    assert len(filtered) == 12  # all but the pointwise output
    half = in_bands(network, torch.bfloat16)
    assert all(m.filters is None for m in half.modules() if isinstance(m, Conv))


def test_a_network_runs_under_other_kernels_than_it_was_made_for():
    network = random_weights("fastcellpose")
    x, before = torch.rand(1, 2, 32, 24), _kernels.instruction_set()
    found = []
    try:
        _kernels.use_kernels(COMPILED[0])
        fast = in_bands(network)
        for name in (*COMPILED, "python"):
            _kernels.use_kernels(name)
            found.append(fast(x)[0])
    finally:
        _kernels.use_kernels(before)
    for other in found[1:]:
        assert (other - found[0]).abs().max() < 1e-5 * found[0].std()


def test_sizes_that_do_not_fit_are_refused(compiled):
    x, out = np.zeros((6, 5, 16), np.float32), np.zeros((6, 5, 16), np.float32)
    filters, bias = planes.filter_weights(np.zeros((16, 16, 3, 3), np.float32), np.zeros(16, np.float32))
    planes.filter_plane(x, filters, bias, out)
    with pytest.raises(ValueError, match="weights do not fit"):
        planes.filter_plane(x, filters[:-1].copy(), bias, out)
    with pytest.raises(ValueError, match="bias does not fit"):
        planes.filter_plane(x, filters, np.zeros(3, np.float32), out)
    with pytest.raises(ValueError, match="out does not fit"):
        planes.filter_plane(x, filters, bias, out[:5].copy())
    with pytest.raises(ValueError, match="outside the image"):
        planes.filter_plane(x, filters, bias, out, rows=(2, 7))
    with pytest.raises(ValueError, match="norm does not fit"):
        planes.filter_plane(x, filters, bias, out, norm=(bias[:3].copy(), bias[:3].copy()))
    with pytest.raises(ValueError, match="add does not fit"):
        planes.filter_plane(x, filters, bias, out, add=out[:2].copy())
    with pytest.raises(ValueError, match="add_scale does not fit"):
        planes.filter_plane(x, filters, bias, out, add=out.copy(), add_scale=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="multiple of 8"):
        planes.filter_plane(np.zeros((6, 5, 12), np.float32), filters, bias, out)
