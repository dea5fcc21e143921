"""Features in bfloat16, for inference: rounded where they are kept; weights, products and sums stay float32."""

from __future__ import annotations

import pytest
import torch
from layer_tools import assert_close, random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels.particle_stages import pool
from napari_aprcnn._kernels.particles import fill_tree
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from trees import finest_tree, random_tree

pytestmark = pytest.mark.usefixtures("kernels")
HALF = 2.0**-8  # of the largest value: half a step of bfloat16 there, and what rounded means add


@pytest.fixture
def compiled(kernels):
    if kernels in ("python", "reference"):
        pytest.skip("features are widened where nothing is compiled")


@pytest.fixture
def stage():
    """Full blocks and sparse ones, levels with too few blocks, odd borders."""
    trees = [random_tree((30, 26, 37), 7, 0.3), random_tree((24, 41, 33), 8, 0.7), finest_tree((9, 10, 11))]
    return nn.Forest(trees).stage(0)


def halved(run, x):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return run(x).features


@pytest.mark.parametrize("channels", [(16, 16), (24, 40), (40, 100), (72, 17), (8, 8), (3, 5), (1, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_of_rounded_features(compiled, stage, channels, bias):
    torch.manual_seed(0)
    conv = nn.APRConv(*channels, filter_banks=2, bias=bias)
    x = random_features(stage, channels[0]).bfloat16()
    found = halved(conv, nn.ParticleTensor(x, stage))
    expected = conv(nn.ParticleTensor(x.float(), stage)).features
    assert found.dtype == torch.bfloat16
    assert_close(found, expected, HALF)
    # Rounded once: on average much nearer than that. Where little is to be filtered weights are rounded, too.
    rounded = 0.004 if min(channels) >= 16 else 0.008
    assert float((found.float() - expected).std() / expected.std()) < rounded


@pytest.mark.parametrize("channels", [(16, 16, 16), (8, 40, 24), (3, 5, 8)])
def test_pairs_of_rounded_features(compiled, stage, channels):
    torch.manual_seed(0)
    first, second, outside = channels
    conv = nn.APRConv(first + second, outside, filter_banks=2)
    fine, below = random_features(stage, first).bfloat16(), random_features(stage.coarser(), second, 1).bfloat16()

    def pair(dtype):
        parts = (nn.ParticleTensor(fine.to(dtype), stage), nn.ParticleTensor(below.to(dtype), stage.coarser()))
        return nn.SkipPair(*parts)

    with torch.no_grad():
        expected = conv(pair(torch.float32)).features
    assert_close(halved(conv, pair(torch.bfloat16)), expected, HALF)


def test_what_comes_in_is_not_rounded(compiled, stage):
    """The image, and what is computed of it first, are float32: only what is kept is rounded."""
    torch.manual_seed(0)
    conv, x = nn.APRConv(2, 16), nn.ParticleTensor(random_features(stage, 2) + 100.0, stage)
    with torch.no_grad():
        assert torch.equal(halved(conv, x), conv(x).features.bfloat16())


def test_same_bits_for_any_threads_and_batch(compiled, stage):
    torch.manual_seed(0)
    conv, x = nn.APRConv(32, 32), random_features(stage, 32).bfloat16()
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(halved(conv, nn.ParticleTensor(x, stage)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    rows = slice(stage.starts[1], stage.starts[2])
    alone = nn.Forest(stage.forest.trees[1]).stage(0)
    assert torch.equal(halved(conv, nn.ParticleTensor(x[rows].clone(), alone)), found[0][rows])


@pytest.mark.parametrize("channels", [1, 7, 16, 40])
def test_means_and_pooling(stage, channels):
    x = random_features(stage, channels).bfloat16()
    means = fill_tree(x, stage.children(), stage.node_ranges())
    assert means.dtype == torch.bfloat16
    assert_close(means, fill_tree(x.double(), stage.children(), stage.node_ranges()), HALF)
    tables = (stage.pool_children(), stage.pool_ranges(), stage.coarser().rows)
    pooled, slot = pool(x, *tables)
    exact, exact_slot = pool(x.float(), *tables)
    assert torch.equal(pooled.float(), exact)
    assert torch.equal(slot, exact_slot)


def test_pooling_keeps_what_is_no_number(stage):
    x = random_features(stage, 17).bfloat16()
    x[5] = torch.nan
    x[stage.rows - 3, 16] = torch.inf
    tables = (stage.pool_children(), stage.pool_ranges(), stage.coarser().rows)
    assert torch.equal(pool(x, *tables)[0].float().nan_to_num(9.0), pool(x.float(), *tables)[0].nan_to_num(9.0))


@pytest.mark.parametrize("settings", [{}, {"block": "residual"}, {"particle_stages": 1}, {"norm": "batch"}])
def test_networks(compiled, stage, settings):
    """Near the float32 result; what inference reads in float32 it reads here, too: no table of 27 neighbours."""
    torch.manual_seed(0)
    tree = random_tree((30, 26, 37), 7, 0.3)
    net = VolumeNet(VolumeNetConfig(channels=16, depth=2, head="flows", filter_banks=2, **settings)).eval()
    x = nn.ParticleTensor(random_features(nn.Forest(tree).stage(0), 1), nn.Forest(tree).stage(0))
    with torch.inference_mode():
        expected = net(x).features
    other = nn.ParticleTensor(x.features, nn.Forest(tree).stage(0))
    found = halved(net, other)
    assert float((found.float() - expected).std() / expected.std()) < 0.03
    tables = [key for depth in range(3) for key, _ in other.stage.forest.stage(depth)._tables]
    assert ("neighbours", (3, 3, 3)) not in tables


def test_a_training_takes_the_tables_of_an_inference(stage):
    """They stay with the stage, whatever mode they were made in."""
    net = VolumeNet(VolumeNetConfig(channels=4, depth=1, filter_banks=2))
    x = nn.ParticleTensor(random_features(stage, 1), stage)
    with torch.inference_mode():
        net(x)
    net(x).features.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_training_under_autocast_keeps_its_gradients(stage):
    torch.manual_seed(0)
    conv = nn.APRConv(16, 8)
    x = nn.ParticleTensor(random_features(stage, 16).requires_grad_(), stage)
    with torch.autocast("cpu", torch.bfloat16):
        conv(x).features.float().square().mean().backward()
    assert float(conv.weight.grad.abs().sum()) > 0
    assert x.features.grad.dtype == torch.float32
