"""Layers, networks and the whole segmentation on a GPU give what they give on the CPU."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from layer_tools import UNet, assert_close, random_features

from napari_aprcnn import nn
from napari_aprcnn.evaluate.matching import evaluate
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.simulation import simulate_volume
from trees import random_tree

GPU = os.environ.get("APRCNN_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() and GPU == "cuda", reason="needs a GPU")
FORMS = {"apr": None, "hybrid2": 2, "pixel": 0}


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def passes(net, features, forest, device):
    """Output, gradient of the input and of every parameter, on the CPU."""
    net = copy.deepcopy(net).to(device)
    x = features.detach().clone().to(device).requires_grad_()
    out = net(nn.ParticleTensor(x, forest.stage(0)))
    out = out.features if isinstance(out, nn.ParticleTensor) else out
    back = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device)
    out.float().backward(back)
    return [part.detach().float().cpu() for part in (out, x.grad, *(p.grad for p in net.parameters()))]


def assert_all_close(got, expected, share):
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert_close(one / max(1e-12, float(other.abs().max())), other / max(1e-12, float(other.abs().max())), share,
                     f"tensor {number}")  # fmt: skip


@pytest.fixture(scope="module")
def forest():
    return nn.Forest([random_tree((40, 44, 48), 1, 0.03), random_tree((40, 44, 48), 2, 0.1)])


def volume_net(head, form):
    torch.manual_seed(0)
    config = VolumeNetConfig(channels=8, depth=3, filter_banks=3, in_channels=2, head=head, particle_stages=form)
    return VolumeNet(config)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 5, 5)])
def test_unet_of_layers_with_trees_of_different_shapes(kernel):
    forest = nn.Forest([random_tree((30, 26, 37), 7, 0.02), random_tree((17, 40, 21), 8, 0.2)])
    torch.manual_seed(0)
    net, x = UNet(kernel), random_features(forest.stage(0), 1)
    assert_all_close(passes(net, x, forest, GPU), passes(net, x, forest, "cpu"), 1e-4)


@pytest.mark.parametrize("head", ["three_class", "flows", "stardist"])
@pytest.mark.parametrize("form", ["apr", "hybrid2"])
def test_networks_for_volumes(forest, head, form):
    net, x = volume_net(head, FORMS[form]), random_features(forest.stage(0), 2)
    assert_all_close(passes(net, x, forest, GPU), passes(net, x, forest, "cpu"), 2e-4)


def test_the_pixel_form():
    net, x = volume_net("flows", 0), torch.randn(1, 2, 24, 32, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_all_close([copy.deepcopy(net).to(GPU)(x.to(GPU)).cpu()], [net(x)], 1e-4)


def test_the_same_bits_every_time(forest):
    net, x = volume_net("stardist", None), random_features(forest.stage(0), 2)
    for one, other in zip(passes(net, x, forest, GPU), passes(net, x, forest, GPU), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 0.1), (torch.float16, 0.03)])
def test_half_precision(forest, dtype, share):
    """Sums are float32: what is lost is the rounding of features and weights, layer by layer."""
    net, x = volume_net("three_class", None), random_features(forest.stage(0), 2)
    with torch.autocast(GPU, dtype):
        got = passes(net, x, forest, GPU)
    expected = passes(net, x, forest, "cpu")
    assert (got[0] - expected[0]).norm() < share * expected[0].norm()
    for one, other in zip(got, expected, strict=True):
        assert one.isfinite().all()
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert cosine > 0.9 or float(other.norm()) < 1e-4 or dtype == torch.bfloat16, float(cosine)


def test_a_volume_from_image_to_labels():
    made = simulate_volume(seed=3, shape=(40, 96, 96))
    on_cpu = segment(made.image, model="apr-unet-nuclei-3d", device="cpu")
    on_gpu = segment(made.image, model="apr-unet-nuclei-3d", device=GPU)
    assert on_cpu.readout.n_objects > 2
    assert evaluate(on_gpu.labels, on_cpu.labels, thresholds=(0.9,))[0].f1 >= 0.95
    assert GPU != "cuda" or "NVIDIA" in on_gpu.readout.device


def test_an_image_from_image_to_labels():
    image = np.asarray(simulate_volume(seed=3, shape=(40, 128, 128)).image[20])
    on_cpu = segment(image, model="fastercellpose-v3", device="cpu")
    on_gpu = segment(image, model="fastercellpose-v3", device=GPU)
    assert on_cpu.readout.n_objects > 1
    assert evaluate(on_gpu.labels, on_cpu.labels, thresholds=(0.9,))[0].f1 >= 0.95


def test_a_training_on_the_gpu(tmp_path):
    from napari_aprcnn.config import TrainConfig
    from napari_aprcnn.train.fit import fit

    class Sampler:
        def batch(self, step, size):
            generator = torch.Generator().manual_seed(step)
            return torch.rand(size, 32, 32, generator=generator), torch.rand(size, 4, 32, 32, generator=generator)

    config = TrainConfig(n_steps=6, batch_size=2, crop_px=32, warmup_steps=1, precision="float32")
    there, here = [], []
    fit(Sampler(), config=config, run_dir=tmp_path / "a", device=GPU, workers=1, report_every=3, progress=there.append)
    fit(Sampler(), config=config, run_dir=tmp_path / "b", report_every=3, progress=here.append)
    for one, other in zip(there, here, strict=True):
        assert one.flow_loss == pytest.approx(other.flow_loss, rel=1e-2)
