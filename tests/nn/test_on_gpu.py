"""Layers, networks and the whole segmentation on a GPU give what they give on the CPU.

APRCNN_TEST_DEVICE=cpu runs the tests without a GPU, against themselves.
"""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from layer_tools import UNet, assert_close, random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels.triton.guard import why_not
from napari_aprcnn.evaluate.matching import evaluate
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volume_layers import ConvBlock
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.simulation import simulate_volume
from trees import random_tree

GPU = os.environ.get("APRCNN_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() and GPU == "cuda", reason="needs a GPU")
FORMS = {"apr": None, "hybrid2": 2, "pixel": 0}
HEADS = ["three_class", "flows", "stardist"]


@pytest.fixture(autouse=True)
def full_float32():
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


def passes(net, x, forest, device):
    """Output, gradient of the input and of every parameter, on the CPU; x: features, or an image without a forest."""
    net = copy.deepcopy(net).to(device)
    x = x.detach().clone().to(device).requires_grad_()
    out = net(x if forest is None else nn.ParticleTensor(x, forest.stage(0)))
    out = out.features if isinstance(out, nn.ParticleTensor) else out
    back = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device)
    out.float().backward(back)
    return [part.detach().float().cpu() for part in (out, x.grad, *(p.grad for p in net.parameters()))]


def assert_all_close(got, expected, share):
    """Relative to the largest value of each tensor."""
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        largest = max(1e-12, float(other.abs().max()))
        assert_close(one / largest, other / largest, share, f"tensor {number}")


def distance(one, other):
    """Length of the difference, relative to the length."""
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def _activated(_module, _inputs, out):
    silu = torch.nn.functional.silu
    return out.with_features(silu(out.features)) if isinstance(out, nn.ParticleTensor) else silu(out)


def smooth(net):
    """The network with SiLU for rectifiers: no gradient jumps where rounding differs."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, ConvBlock):
            module.activate = module.norm.relu = False
            module.register_forward_hook(_activated)
        elif isinstance(module, nn.ReLU):
            module.module = torch.nn.SiLU()
    return net


@pytest.fixture(scope="module")
def forest():
    return nn.Forest([random_tree((40, 44, 48), 1, 0.03), random_tree((40, 44, 48), 2, 0.1)])


@pytest.fixture(scope="module")
def ragged():
    return nn.Forest([random_tree((30, 26, 37), 7, 0.02), random_tree((17, 40, 21), 8, 0.2)])


def volume_net(head, form):
    torch.manual_seed(0)
    config = VolumeNetConfig(channels=8, depth=3, filter_banks=3, in_channels=2, head=head, particle_stages=FORMS[form])
    return VolumeNet(config)


def taken(form, forest):
    """An input of a form, and its forest."""
    if form == "pixel":
        return torch.randn(1, 2, 24, 32, 40, generator=torch.Generator().manual_seed(0)), None
    return random_features(forest.stage(0), 2), forest


@pytest.mark.skipif(GPU != "cuda", reason="is about a GPU")
def test_the_kernels_run_here():
    """Plain torch would pass the other tests, too."""
    assert why_not(GPU) is None


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 5, 5)])
def test_unet_of_layers_with_trees_of_different_shapes(ragged, kernel):
    torch.manual_seed(0)
    net, x = UNet(kernel), random_features(ragged.stage(0), 1)
    assert_all_close(passes(smooth(net), x, ragged, GPU), passes(smooth(net), x, ragged, "cpu"), 1e-4)
    assert_all_close(passes(net, x, ragged, GPU)[:1], passes(net, x, ragged, "cpu")[:1], 1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", ["apr", "pixel"])
def test_gradients_of_networks_for_volumes(ragged, head, form):
    net, (x, trees) = smooth(volume_net(head, form)), taken(form, ragged)
    assert_all_close(passes(net, x, trees, GPU), passes(net, x, trees, "cpu"), 3e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", FORMS)
def test_networks_for_volumes(forest, head, form):
    """Rectifiers near zero and maxima of equal voxels fall one way or the other, which gradients show and outputs not.

    On the CPU alone float32 and float64 differ by 1 % so (Hybrid2, where particles become many equal voxels).
    """
    net, (x, trees) = volume_net(head, form), taken(form, forest)
    got, expected = passes(net, x, trees, GPU), passes(net, x, trees, "cpu")
    assert_all_close(got[:1], expected[:1], 3e-4)
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert distance(one, other) < 0.1, number


def test_the_same_bits_every_time(ragged):
    net, x = volume_net("stardist", "apr"), random_features(ragged.stage(0), 2)
    for one, other in zip(passes(net, x, ragged, GPU), passes(net, x, ragged, GPU), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 0.06), (torch.float16, 0.01)])
def test_half_precision(forest, dtype, share):
    """Features and weights are rounded layer by layer; sums are float32. Allowed is twice what a CPU loses."""
    net, x = volume_net("three_class", "apr"), random_features(forest.stage(0), 2)
    with torch.autocast(GPU, dtype):
        got = passes(net, x, forest, GPU)
    expected = passes(net, x, forest, "cpu")
    assert distance(got[0], expected[0]) < share
    for one, other in zip(got, expected, strict=True):
        assert one.isfinite().all()
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert cosine > (0.9 if dtype == torch.float16 else 0.7), float(cosine)


def on_both(image, model):
    """Result on the GPU beside that of the CPU; nearly all objects are the same."""
    on_cpu, on_gpu = (segment(image, model=model, device=device) for device in ("cpu", GPU))
    assert on_cpu.readout.n_objects > 1
    assert evaluate(on_gpu.labels, on_cpu.labels, thresholds=(0.9,))[0].f1 >= 0.95
    assert GPU != "cuda" or torch.cuda.get_device_properties(0).name in on_gpu.readout.device
    return on_gpu


def test_a_volume_from_image_to_labels():
    made = simulate_volume(seed=3, shape=(40, 96, 96))
    assert on_both(made.image, "apr-unet-nuclei-3d").labels.shape == made.image.shape


def test_an_image_from_image_to_labels():
    image = np.asarray(simulate_volume(seed=3, shape=(40, 128, 128)).image[20])
    assert on_both(image, "fastercellpose-v3").labels.shape == image.shape


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
