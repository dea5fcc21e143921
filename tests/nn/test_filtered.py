"""Minimal filtering of blocks of rows: what inference computes is what training does, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_tools import assert_close, random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import array
from napari_aprcnn._kernels.particles import fill_tree
from trees import finest_tree, random_tree

pytestmark = pytest.mark.usefixtures("kernels")

CHANNELS = [(16, 16), (48, 16), (24, 40), (72, 17), (40, 100)]


@pytest.fixture
def stages():
    """Full blocks and sparse ones, odd borders, levels with too few blocks, nodes that are rows."""
    trees = [random_tree((30, 26, 37), 7, 0.3), random_tree((24, 41, 33), 8, 0.7), finest_tree((9, 10, 11))]
    forest = nn.Forest(trees)
    return [forest.stage(0), forest.stage(1)]


def both_ways(conv, x):
    with torch.no_grad():
        filtered = conv(x).features
    return filtered, conv(x).features.detach()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("bias", [True, False])
def test_inference_is_training_to_rounding(stages, channels, bias):
    torch.manual_seed(0)
    conv = nn.APRConv(*channels, filter_banks=2, bias=bias)
    for stage in stages:
        filtered, direct = both_ways(conv, nn.ParticleTensor(random_features(stage, channels[0]), stage))
        assert torch.isfinite(filtered).all()
        assert_close(filtered, direct, 3e-6)


def test_blocks_are_used(kernels, stages):
    """Other roundings show that they are; few channels, other kernels and other dtypes stay as they were."""
    torch.manual_seed(0)
    stage = stages[0]
    compiled = kernels not in ("python", "reference")
    for channels, size, uses in [
        ((16, 16), 3, compiled),
        ((8, 8), 3, False),
        ((16, 16), 5, False),
        ((16, 16), 1, False),
    ]:
        conv = nn.APRConv(*channels, size)
        filtered, direct = both_ways(conv, nn.ParticleTensor(random_features(stage, channels[0]), stage))
        assert torch.equal(filtered, direct) != uses, (channels, size)
    conv = nn.APRConv(16, 16).double()
    x = nn.ParticleTensor(random_features(stage, 16, dtype=torch.float64), stage)
    assert torch.equal(*both_ways(conv, x))


def test_same_bits_for_any_threads_and_batch(kernels, stages):
    """A block does not know its neighbours; a tree does not know the others of its batch."""
    torch.manual_seed(0)
    conv, stage = nn.APRConv(32, 32).eval(), stages[0]
    x = random_features(stage, 32)
    before, found = torch.get_num_threads(), []
    compiled = kernels not in ("python", "reference")  # torch shares the reference's products as it likes
    try:
        for count in (1, 2, 3) if compiled else (2, 2, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(conv(nn.ParticleTensor(x, stage)).features)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    for item, tree in enumerate(stage.forest.trees):
        rows = slice(stage.starts[item], stage.starts[item + 1])
        alone = nn.Forest(tree).stage(0)
        with torch.inference_mode():
            single = conv(nn.ParticleTensor(x[rows].clone(), alone)).features
        assert torch.equal(single, found[0][rows]) or not compiled


def test_positions_that_no_row_needs_are_not_read(kernels, stages):
    """Beside a block with rows missing lie cells that are none of its neighbours: infinite values there do no harm."""
    if kernels in ("python", "reference"):
        pytest.skip("the reference knows no blocks")
    stage = stages[0]
    torch.manual_seed(0)
    conv = nn.APRConv(16, 16)
    x = random_features(stage, 16)
    table = stage.neighbours((3, 3, 3)).numpy()
    children = stage.children().numpy()
    full = children[(children < stage.rows).all(1)]
    bad = int(full[len(full) // 2, 3])
    x[bad] = torch.inf
    touched = (table == bad).any(1)
    node = stage.rows + np.flatnonzero((children == bad).any(1))
    while len(node):  # its means are infinite, too
        touched |= np.isin(table, node).any(1)
        node = stage.rows + np.flatnonzero(np.isin(children, node).any(1))
    with torch.no_grad():
        found = conv(nn.ParticleTensor(x, stage)).features.numpy()
    same_block = np.zeros(stage.rows + stage.tree_rows + 1, bool)
    for block in children:
        if touched[block[block < stage.rows]].any():
            same_block[block] = True
    assert np.isfinite(found[~same_block[: stage.rows]]).all()
    assert not np.isfinite(found[bad]).any()


def test_tables_that_do_not_fit_are_refused(kernels, stages):
    module = extension()
    if kernels in ("python", "reference") or module is None:
        pytest.skip("no compiled kernels")
    stage = stages[0]
    x = random_features(stage, 16)
    tree = fill_tree(x, stage.children(), stage.node_ranges())
    weight = torch.zeros(stage.depths, 16, 16, 3, 3, 3)
    out = torch.empty(stage.rows, 16)
    arrays = [array(t) for t in (x, tree, weight)] + [None]
    tables = [array(stage.neighbours((3, 3, 3))), array(stage.segments()), out.numpy(), 1]
    children = array(stage.children())
    with pytest.raises(ValueError, match="children do not fit"):
        module.conv_forward(*arrays, *tables, children[:-1].copy())
    wrong = children.copy()
    wrong[0, 0] = -1
    with pytest.raises(ValueError, match="negative"):
        module.conv_forward(*arrays, *tables, wrong)
    module.conv_forward(*arrays, *tables, children)
