"""Convolutions that write over what they read: the same bits, in waves along z, coarser levels after finer ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_tools import random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import array, compiled_for
from napari_aprcnn._kernels.particle_layer import patch_conv, patch_conv_over
from napari_aprcnn._kernels.particles import fill_tree
from trees import finest_tree, random_tree

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def stages():
    """Levels of many waves, which begin anywhere, and of part of one; thin images; odd borders; nodes that are rows."""
    trees = [random_tree((70, 46, 57), 7, 0.3), random_tree((3, 190, 121), 8, 0.7), finest_tree((41, 30, 31))]
    forest = nn.Forest(trees)
    return [forest.stage(0), forest.stage(1)]


def pair_tables(stage, channels):
    coarse = stage.coarser()
    below = random_features(coarse, channels, 1)
    return below, coarse.children(), coarse.node_ranges(), stage.places_in_coarser()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("below", [0, 24])
@pytest.mark.parametrize("channels", [8, 16, 40])
def test_the_same_bits_where_the_features_were(stages, channels, below, half):
    torch.manual_seed(0)
    for stage in stages:
        x = random_features(stage, channels)
        more = pair_tables(stage, below) if below else ()
        if half:
            x, more = x.bfloat16(), (more[0].bfloat16(), *more[1:]) if more else ()
        weight = torch.randn(stage.depths, channels, channels + below, 3, 3, 3) / 20
        bias = torch.randn(channels)
        tables = (*stage.patch_tables(), *more)
        expected = patch_conv(x, weight, bias, *tables)
        given = x.clone()
        found = patch_conv_over(given, weight, bias, *tables)
        assert torch.equal(found, expected)
        if compiled_for(weight) is not None:
            assert found.data_ptr() == given.data_ptr()


def test_threads_change_no_bit(kernels, stages):
    if kernels in ("python", "reference"):
        pytest.skip("torch shares the reference's products as it likes")
    torch.manual_seed(0)
    stage, before, found = stages[0], torch.get_num_threads(), []
    x, weight = random_features(stage, 16), torch.randn(stage.depths, 16, 16, 3, 3, 3) / 20
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(patch_conv_over(x.clone(), weight, None, *stage.patch_tables()))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_no_row_reads_beyond_the_next_planes(stages):
    """From a cut on, rows of the level have neighbours no further than one cut back."""
    for stage in stages:
        cuts, blocks = stage.cuts().numpy(), stage.children().numpy()[stage.blocks().numpy()]
        assert (np.diff(cuts) > 0).all()
        assert set(stage.block_ranges()[:, 0].tolist()) <= set(cuts.tolist())
        part = np.full(stage.rows + stage.tree_rows + 1, -1)
        level = np.full(len(part), -1)
        depth = np.empty(stage.rows, int)
        for first, last, d in stage.segments().tolist():
            depth[first:last] = d
        number = np.searchsorted(cuts, np.arange(len(blocks)), side="right")
        own = blocks < stage.rows
        part[blocks[own]] = np.broadcast_to(number[:, None], blocks.shape)[own]
        level[: stage.rows] = depth
        level[: stage.rows] += 100 * stage.items_of_rows(torch.device("cpu")).numpy()
        taps = stage.neighbours((3, 3, 3)).numpy()
        same = level[taps] == level[: stage.rows, None]
        apart = np.abs(part[taps] - part[: stage.rows, None])[same]
        assert apart.max() == 1
        coarser = (taps < stage.rows) & ~same
        assert (level[taps] == level[: stage.rows, None] + 1)[coarser].all()  # never a finer feature row


def test_a_layer_writes_over_what_is_used_up(kernels, stages):
    torch.manual_seed(0)
    conv, stage = nn.APRConv(16, 16, filter_banks=2), stages[0]
    x = nn.ParticleTensor(random_features(stage, 16), stage)
    before = x.features.clone()
    with torch.no_grad():
        expected = conv(x).features
        assert torch.equal(x.features, before)
        found = conv(x, used_up=True).features
    assert torch.equal(found, expected)
    if kernels not in ("python", "reference"):
        assert found.data_ptr() == x.features.data_ptr()
    learnt = nn.ParticleTensor(before.clone(), stage)  # a training keeps what its gradient is of
    conv(learnt, used_up=True).features.sum().backward()
    assert torch.equal(learnt.features, before)
    wider = nn.APRConv(16, 24)
    with torch.no_grad():
        wider(learnt, used_up=True)
    assert torch.equal(learnt.features, before)


def test_what_cannot_be_written_over_is_refused(kernels, stages):
    module = extension()
    if kernels in ("python", "reference") or module is None:
        pytest.skip("no compiled kernels")
    stage = stages[0]
    x = random_features(stage, 16)
    tree = fill_tree(x, stage.children(), stage.node_ranges())
    names = (stage.children, stage.blocks, stage.block_ranges, stage.around, stage.cubes, stage.singles)
    tables = [array(t()) for t in (*names, stage.segments)]

    def run(cuts, outside=16):
        weight = torch.zeros(stage.depths, outside, 16, 3, 3, 3)
        out = array(x).reshape(-1)[: stage.rows * outside].reshape(stage.rows, outside)  # where the features are
        module.conv_patches(array(x), array(tree), array(weight), None, *tables, cuts, out, 1)

    cuts = array(stage.cuts())
    run(cuts)
    with pytest.raises(ValueError, match="as many channels out as in"):
        run(cuts, outside=8)
    straddled = int(stage.cubes()[stage.cubes() >= 0].max())  # the second half of the last cube
    with pytest.raises(ValueError, match="both sides of a cut"):
        run(np.arange(straddled + 1, dtype=np.int64))
