"""What a network for volumes is expected to take, beside what its tables and features are."""

from __future__ import annotations

import pytest
import torch

from napari_aprcnn import nn
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn.bench.trees import synthetic_tree
from napari_aprcnn.models.forms import stage_rows
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volume_memory import _CELLS, _TABLES, peak_row_bytes, stage_share
from napari_aprcnn.models.volumes import VolumeNet


@pytest.mark.parametrize("prr", [2.0, 6.0, 20.0, 50.0])
def test_stages_of_a_tree_have_the_rows_expected(prr):
    tree = synthetic_tree(128, prr)
    rows = stage_rows(tree, 2)
    for stage in (1, 2):
        assert stage_share(tree.prr, stage) == pytest.approx(rows[stage] / rows[0], rel=0.5)


@pytest.mark.skipif(extension() is None, reason="no compiled kernels")
@pytest.mark.parametrize("prr", [2.0, 20.0])
def test_tables_take_what_is_counted(prr):
    tree = synthetic_tree(64, prr)
    x = nn.ParticleTensor(torch.randn(len(tree), 1), nn.Forest(tree).stage(0))
    with torch.inference_mode():
        nn.Reconstruct()(VolumeNet(VolumeNetConfig(channels=4, depth=2, filter_banks=1)).eval()(x))
    rows = stage_rows(tree, 2)
    found = sum(x.stage.forest.stage(depth).table_bytes for depth in range(3))
    assert found == pytest.approx(_CELLS * rows[0] + _TABLES * sum(rows), rel=0.15)


def test_the_peak_is_that_of_the_widest_convolution():
    """By hand, C = 16, depth 3, at the two ends: all particles the finest, and all coarser."""
    config = VolumeNetConfig(channels=16, depth=3)
    # narrow.0: a skip of 16 waits; 32 on an eighth of the rows come in with their means, 16 go out.
    dense = 4 * (16 + (1.125 * 32 + 16) / 8) + 16 + 28 * (1 + 1 / 8 + 1 / 64 + 1 / 512)
    assert peak_row_bytes(config, 1.0) == pytest.approx(dense)
    # narrow.2: every stage has all rows; skips of 16, 32 and 64 wait, 128 come in with their means, 64 go out.
    sparse = 4 * (16 + 32 + 64 + 1.125 * 128 + 64) + 16 + 4 * 28
    assert peak_row_bytes(config, 1e5) == pytest.approx(sparse)


def test_half_features_take_half():
    config, tables = VolumeNetConfig(channels=16, depth=3), 16 + 28 * (1 + 1 / 8 + 1 / 64 + 1 / 512)
    dense = 2 * (16 + (1.125 * 32 + 16) / 8) + tables
    assert peak_row_bytes(config, 1.0, half=True) == pytest.approx(dense)
    sparse = 2 * (16 + 32 + 64 + 1.125 * 128 + 64) + 16 + 4 * 28
    assert peak_row_bytes(config, 1e5, half=True) == pytest.approx(sparse)
    pixels = config.replace(particle_stages=0)
    assert peak_row_bytes(pixels, 1.0, half=True) == peak_row_bytes(pixels, 1.0)


def test_skips_that_wait_without_their_zeros_take_half():
    config = VolumeNetConfig(channels=16, depth=3)
    # decoder.2.first: skips of 16 and 32 wait, that of 64 is back, 64 lie on the coarser stage, both with their means.
    sparse = 4 * ((16 + 32) / 2 + 1.125 * (64 + 64)) + 16 + 4 * 28
    # narrow.2: three skips wait, 128 come in with their means, 64 go out.
    narrow = 4 * ((16 + 32 + 64) / 2 + 1.125 * 128 + 64) + 16 + 4 * 28
    assert peak_row_bytes(config, 1e5, lean=True) == pytest.approx(max(sparse, narrow))
    pixels = config.replace(particle_stages=0)
    assert peak_row_bytes(pixels, 1.0, lean=True) == peak_row_bytes(pixels, 1.0)


def test_forms_and_heads():
    plain, star = (VolumeNetConfig(channels=16, head=head) for head in ("flows", "stardist"))
    assert peak_row_bytes(plain.replace(particle_stages=0), 1.0) == 16 * 24
    assert peak_row_bytes(star.replace(particle_stages=0), 1.0) == 16 * 12
    assert peak_row_bytes(star, 2.0) > peak_row_bytes(plain, 2.0)
    # Voxels below the particles of a sparse image take more the fewer particles there are.
    hybrid = plain.replace(particle_stages=1)
    assert peak_row_bytes(hybrid, 20.0) > 3 * peak_row_bytes(hybrid, 2.0)
    # Residual: decoder.0.second, in place, with the joined input of 32 that waits, and 16 of the shortcut.
    residual = peak_row_bytes(plain.replace(block="residual"), 1.0)
    assert residual == pytest.approx(4 * (1.125 * 16 + 32 + 16) + 16 + 28 * (1 + 1 / 8 + 1 / 64 + 1 / 512))


@pytest.mark.skipif(extension() is None, reason="no compiled kernels")
@pytest.mark.parametrize("half", [False, True])
def test_nothing_stays_after_a_pass(half):
    """What a network kept for its next layers is the system's again, and what it gave is whole."""
    tree = synthetic_tree(128, 4.0)
    x = nn.ParticleTensor(torch.randn(len(tree), 1), nn.Forest(tree).stage(0))
    net = VolumeNet(VolumeNetConfig(channels=16, depth=2, filter_banks=1)).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = net(x)
        assert extension().spare_bytes() == 0
        assert not extension().maps_outputs()
        assert torch.equal(net(x).features, found.features)
