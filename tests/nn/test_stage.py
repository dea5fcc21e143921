"""Stages, their tables, slabs, and what is told about misuse."""

import numpy as np
import pytest
import torch

from napari_aprcnn import nn
from napari_aprcnn.errors import ConfigError, StageError
from trees import random_tree

KERNELS = [(1, 1, 1), (1, 3, 3), (3, 3, 3), (5, 5, 5)]


def test_tables_are_built_once_and_freed():
    stage = nn.Forest([random_tree((32, 40, 24), 0), random_tree((16, 16, 16), 1)]).stage(0)
    table = stage.neighbours((3, 3, 3))
    assert stage.neighbours((3, 3, 3)) is table
    assert stage.table_bytes == table.numel() * 4 == 108 * stage.rows
    assert stage.forest.stage(0) is stage
    assert stage.coarser().finer() is stage
    stage.forest.release()
    assert stage.table_bytes == 0
    assert torch.equal(stage.neighbours((3, 3, 3)), table)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(40, 36, 30), (3, 90, 80), (120, 100), (70, 5, 60)])
@pytest.mark.parametrize("depth", [0, 1])
def test_slabs_of_a_phase_never_touch_the_same_row(shape, kernel, depth):
    forest = nn.Forest([random_tree(shape, 5, 0.3), random_tree(shape, 6, 0.05)])
    stage = forest.stage(depth)
    slabs, table = stage.slabs(kernel).numpy(), stage.neighbours(kernel).numpy()
    covered = np.zeros(stage.rows, int)
    outside = stage.rows + stage.tree_rows
    for phase in np.unique(slabs[:, 0]):
        owner = np.full(outside, -1, np.int64)
        for _, task, first, last, _ in slabs[slabs[:, 0] == phase]:
            covered[first:last] += 1
            touched = np.unique(table[first:last])
            touched = touched[touched < outside]
            assert np.isin(owner[touched], [-1, task]).all()
            owner[touched] = task
    assert (covered == 1).all()


def test_segments_and_ranges_cover_all_rows():
    stage = nn.Forest([random_tree((20, 30, 10), 0), random_tree((9, 9), 1)]).stage(1)
    segments = stage.segments()
    assert segments[0, 0] == 0
    assert torch.equal(segments[1:, 0], segments[:-1, 1])
    assert segments[-1, 1] == stage.rows
    assert int((stage.node_ranges()[:, 1] - stage.node_ranges()[:, 0]).sum()) == stage.tree_rows


def test_misuse_is_explained():
    tree = random_tree((8, 8, 8), 0)
    forest = nn.Forest(tree)
    with pytest.raises(StageError, match="at least one"):
        nn.Forest([])
    with pytest.raises(StageError, match="expected 0 to 2"):
        forest.stage(3)
    with pytest.raises(StageError, match="channels"):
        nn.ParticleTensor(torch.zeros(3, 1), forest.stage(0))
    with pytest.raises(StageError, match="without intensities"):
        nn.ParticleTensor.from_trees(tree)
    x = nn.ParticleTensor.from_trees(tree, torch.rand(len(tree), 2))
    with pytest.raises(StageError, match="stage 0"):
        nn.APRUpsample()(x)
    with pytest.raises(StageError, match="same stage"):
        nn.concatenate([x, nn.APRMaxPool()(x)])
    two = nn.ParticleTensor.from_trees(
        [tree, random_tree((8, 8), 0)], torch.rand(len(tree) + len(random_tree((8, 8), 0)))
    )
    with pytest.raises(StageError, match="one shape"):
        nn.Reconstruct()(two)
    with pytest.raises(StageError, match="grid"):
        nn.Sample()(torch.zeros(1, 1, 4, 4, 4), forest.stage(0))
    with pytest.raises(ConfigError, match="kernel_size"):
        nn.APRConv(1, 1, 4)
    with pytest.raises(ConfigError, match="groups"):
        nn.GroupNorm(3, 4)


def test_autocast_gives_bfloat16_near_float32():
    stage = nn.Forest(random_tree((24, 24, 24), 0)).stage(0)
    layer = nn.APRConv(8, 6, 3, filter_banks=2)
    x = nn.ParticleTensor(torch.randn(stage.rows, 8), stage)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x).features
    assert half.dtype == torch.bfloat16
    full = layer(x).features
    assert (half.float() - full).abs().max() < 0.05 * full.std()
    half.float().sum().backward()
    assert torch.isfinite(layer.weight.grad).all()
