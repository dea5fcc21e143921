"""Volumes smaller than the poolings of a network, and settings of heads that have no flows."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import napari_aprcnn as aprcnn
from napari_aprcnn.errors import ImageError, MissingDependencyError
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.models.zoo import load_model, save_model
from napari_aprcnn.segment.reduction import Reduction
from napari_aprcnn.segment.volume_heads import settings_of


def network(folder, head, **values):
    torch.manual_seed(0)
    config = VolumeNetConfig(channels=2, depth=3, head=head, rays=16, in_channels=2, filter_banks=1)
    card = ModelCard(
        name="m", architecture="unet", title="t", data="d", licence="CC0", volume=config, settings=values or {}
    )
    save_model(VolumeNet(config), folder / "m.safetensors", card)
    return load_model(folder / "m.safetensors", device="cpu")


@pytest.mark.parametrize("head", ["flows", "stardist", "three_class"])
@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 6, 5), (8, 8, 8), (2, 7, 1)])
def test_volumes_with_fewer_levels_than_poolings(tmp_path, head, shape):
    if head == "stardist":
        pytest.importorskip("stardist")
    image = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
    result = aprcnn.segment(image, model=network(tmp_path, head), axes={"order": "ZYX"})
    assert result.labels.shape == result.probability.shape == shape
    assert result.readout.n_objects == len(np.unique(result.labels[result.labels > 0]))
    if result.flows is not None:
        assert result.flows.shape[-3:] == shape


def test_what_is_large_enough_keeps_its_particles(tmp_path):
    image = np.random.default_rng(0).integers(0, 1000, (2, 9, 4)).astype(np.uint16)
    result = aprcnn.segment(image, model=network(tmp_path, "flows"), axes={"order": "ZYX"})
    assert result.particles.shape == image.shape
    small = aprcnn.segment(image[:, :8], model=network(tmp_path, "flows"), axes={"order": "ZYX"})
    assert small.particles is None  # they would be those of the padded image


def test_the_outline_moves_the_thresholds_of_other_heads():
    given = {"probability_threshold": 0.4}
    assert settings_of("stardist", given, outline=0.5) == settings_of("stardist", given)
    low, high = (settings_of("stardist", given, outline=o).probability_threshold for o in (0.2, 0.8))
    assert low == pytest.approx(1 / 7)  # odds of 2 / 3, and of 1 / 4
    assert low < 0.4 < high
    classes = settings_of("three_class", {"interior_threshold": 0.3}, outline=0.8)
    assert classes.interior_threshold == pytest.approx(12 / 19)
    assert classes.foreground_threshold == pytest.approx(0.8)
    for end in (0.0, 1.0):
        assert settings_of("stardist", {"probability_threshold": end}, outline=0.9).probability_threshold == end


def test_a_run_takes_the_outline(tmp_path):
    image = np.random.default_rng(0).integers(0, 1000, (12, 16, 16)).astype(np.uint16)
    net = network(tmp_path, "three_class", foreground_threshold=0.5, min_interior_vox=1)
    areas = [
        int((aprcnn.segment(image, model=net, volume={"outline": o}, smallest_share_3d=0).labels > 0).sum())
        for o in (0.05, 0.5, 0.95)
    ]
    assert areas[0] > areas[1] >= areas[2]


def test_a_missing_package_is_told_before_the_network_runs(tmp_path, monkeypatch):
    net = network(tmp_path, "stardist")
    monkeypatch.setitem(sys.modules, "stardist.nms", None)
    monkeypatch.setattr(net, "predict", None)
    with pytest.raises(MissingDependencyError, match=r"napari-aprcnn\[stardist\]"):
        aprcnn.segment(np.ones((9, 9, 9), np.uint8), model=net)


def test_planes_are_refused_by_the_shape_of_the_image(tmp_path, monkeypatch):
    pytest.importorskip("stardist")
    net = network(tmp_path, "stardist")
    monkeypatch.setattr(net, "predict", None)  # not after the network
    with pytest.raises(ImageError, match=r"shape \(2, 1, 2\)"):
        aprcnn.segment(np.ones((2, 1, 2), np.uint8), model=net, axes={"order": "ZYX"})
    with pytest.raises(ImageError, match=r"zoom 0.25 for an image of shape \(4, 9, 9\)"):
        aprcnn.segment(np.ones((4, 9, 9), np.uint8), model=net, volume={"zoom": 0.25})


def test_hardly_any_reduction_is_said():
    noise = Reduction(0.1, 7000, 8000, (20, 20, 20), True)
    assert "raise the APR error" in noise.words
    assert "raise the APR error" not in Reduction(0.1, 4000, 8000, (20, 20, 20), True).words
