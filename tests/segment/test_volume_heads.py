"""Runs of networks for volumes whose heads are no flows, and what their decoders make of the truth."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import napari_aprcnn as aprcnn
from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.evaluate.matching import evaluate_pooled
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volume_inputs import input_scale
from napari_aprcnn.models.volume_network import VolumeOutput
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.models.zoo import load_model, save_model
from napari_aprcnn.nn import Forest, ParticleTensor, Reconstruct
from napari_aprcnn.segment.star_targets import particle_cells, star_targets
from napari_aprcnn.segment.three_class import class_shares, three_class_targets
from napari_aprcnn.segment.volume_heads import decode_stardist, decode_three_class, rays_of, settings_of
from napari_aprcnn.segment.volume_masks import relabel
from napari_aprcnn.train.simulation import simulate_volume


@pytest.fixture(scope="module")
def volume():
    return simulate_volume(seed=2, scene="compact", shape=(30, 56, 60), diameter_px=(12, 14))


def said(tree, rows, stage):
    """What a network would say that answers with these rows."""
    tensor = ParticleTensor(torch.from_numpy(rows), Forest(tree).stage(0) if stage == 0 else Forest(tree).stage(stage))
    dense = Reconstruct()(tensor)[0].permute(1, 2, 3, 0).numpy()
    return VolumeOutput(rows, dense, tree, stage, input_scale(np.arange(8.0).reshape(2, 2, 2)))


def f1(labels, truth, threshold=0.5):
    return next(m.f1 for m in evaluate_pooled([(labels, truth)]) if m.threshold == threshold)


def test_stardist_of_the_truth_is_the_truth(volume):
    pytest.importorskip("stardist")
    config = VolumeNetConfig(head="stardist", in_channels=2)
    tree = to_apr(volume.image)
    targets = star_targets(volume.labels, particle_cells(tree, 1), rays_of(config))
    p = np.clip(targets.probability, 1e-4, 1 - 1e-4)
    rows = np.concatenate([np.log(p / (1 - p))[:, None], targets.distances], axis=1).astype(np.float32)
    settings = settings_of("stardist", {"probability_threshold": 0.3})
    labels, probability = decode_stardist(said(tree, rows, 1), config, volume.image.shape, settings)
    assert probability.shape == labels.shape == volume.image.shape
    assert f1(labels, volume.labels) > 0.9


def test_three_classes_of_the_truth_are_the_truth(volume):
    tree = to_apr(volume.image)
    shares = class_shares(three_class_targets(volume.labels), particle_cells(tree, 0))
    labels, probability = decode_three_class(said(tree, np.log(shares + 1e-4).astype(np.float32), 0))
    assert f1(labels, volume.labels) > 0.8
    assert ((probability > 0) == (volume.labels > 0)).mean() > 0.9


def test_settings_of_a_card_are_checked():
    with pytest.raises(ConfigError, match="probability_threshold"):
        settings_of("stardist", {"probability_threshold": 2.0})
    with pytest.raises(ConfigError, match="expected one of"):
        settings_of("flows", {})


@pytest.mark.parametrize("head", ["stardist", "three_class"])
@pytest.mark.parametrize("stages", [None, 0, 1])
def test_a_run(tmp_path, volume, head, stages):
    if head == "stardist":
        pytest.importorskip("stardist")
    torch.manual_seed(0)
    config = VolumeNetConfig(channels=2, depth=2, head=head, rays=16, in_channels=2, particle_stages=stages)
    card = ModelCard(name="m", architecture="unet", title="t", data="d", licence="CC0", volume=config)
    save_model(VolumeNet(config), tmp_path / "m.safetensors", card)
    network = load_model(tmp_path / "m.safetensors", device="cpu")
    result = aprcnn.segment(volume.image, model=network)
    assert result.labels.shape == volume.image.shape
    assert result.probability.shape == volume.image.shape
    assert result.flows is None
    zoomed = aprcnn.segment(volume.image, model=network, volume={"zoom": 0.5})
    assert zoomed.labels.shape == volume.image.shape


class Saying:
    """A network that says the truth of a simulated volume."""

    def __init__(self, head, volume):
        self.net = VolumeNetConfig(head=head, in_channels=2)
        settings = {"probability_threshold": 0.3} if head == "stardist" else {}
        self.card = ModelCard(
            name="m", architecture="unet", title="t", data="d", licence="CC0", volume=self.net, settings=settings
        )
        self.module, self.device, self.precision = SimpleNamespace(config=self.net), torch.device("cpu"), "float32"
        self.runs, self.volume = 0, volume

    def predict(self, image, **options):
        self.runs += 1
        tree = to_apr(image)
        where = np.ix_(*(np.arange(n) * m // n for n, m in zip(image.shape, self.volume.labels.shape, strict=True)))
        truth = np.ascontiguousarray(self.volume.labels[where])
        if self.net.head == "three_class":
            shares = class_shares(three_class_targets(truth), particle_cells(tree, 0))
            return said(tree, np.log(shares + 1e-4).astype(np.float32), 0)
        targets = star_targets(truth, particle_cells(tree, 1), rays_of(self.net))
        p = np.clip(targets.probability, 1e-4, 1 - 1e-4)
        rows = np.concatenate([np.log(p / (1 - p))[:, None], targets.distances], axis=1).astype(np.float32)
        return said(tree, rows, 1)


@pytest.mark.parametrize("zoom", [1.0, 0.75])
@pytest.mark.parametrize("head", ["stardist", "three_class"])
def test_moved_outlines_are_those_of_a_run(volume, head, zoom):
    if head == "stardist":
        pytest.importorskip("stardist")
    net = Saying(head, volume)
    first = aprcnn.segment(volume.image, model=net, volume={"zoom": zoom})
    assert first.readout.n_objects > 4
    for changes in ({"outline": 0.9}, {"outline": 0.2, "grow_vox": 1}, {"grow_vox": -1}):
        options = first.config.volume.replace(**changes)
        runs = net.runs
        moved = relabel(first, first.config.replace(volume=options))
        assert net.runs == runs
        fresh = aprcnn.segment(volume.image, model=net, volume=options)
        assert np.array_equal(moved.labels, fresh.labels)
        assert moved.readout.n_objects == fresh.readout.n_objects == len(np.unique(moved.labels)) - 1
        if options.grow_vox:
            assert not np.array_equal(moved.labels, first.labels)
    assert aprcnn.segment(volume.image, model=net, keep_flows=False).outputs is None


def test_few_rows_are_kept_and_lower_outlines_are_refused(volume):
    pytest.importorskip("stardist")
    first = aprcnn.segment(volume.image, model=Saying("stardist", volume))
    kept = first.outputs.said
    assert kept.floor == pytest.approx(0.01)
    assert 0 < len(kept.probability) < 0.6 * len(particle_cells(to_apr(volume.image), 1))
    low = first.config.volume.replace(outline=0.001)
    with pytest.raises(ConfigError, match="run the network again"):
        relabel(first, first.config.replace(volume=low))
    assert aprcnn.segment(volume.image, model=Saying("stardist", volume), volume=low).outputs.said.floor < 0.001
