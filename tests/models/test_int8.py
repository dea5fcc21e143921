"""Products of 8 bits in the compiled kernels of separable networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_helpers import random_weights

from napari_aprcnn import _kernels
from napari_aprcnn._kernels import planes
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import sample_path
from napari_aprcnn.models import optimise
from napari_aprcnn.models.devices import Device
from napari_aprcnn.models.fused import FusedFamily
from napari_aprcnn.models.network import Network
from napari_aprcnn.models.optimise import for_inference
from napari_aprcnn.models.zoo import card_of, load_model
from napari_aprcnn.segment.pipeline import segment

INT8 = pytest.mark.skipif(not planes.can_quantise(), reason="this processor does not multiply 8 bits")
FEWER = ["fastercellpose-v1", "fastercellpose-v2", "fastercellpose-v3", "fastercellpose-wide"]


def rounded(x, weight, span):
    """What the kernel should give for x (pixels, channels) and weight (columns, channels), in float64."""
    step = (span[1] - span[0]) / 255
    zero = np.clip(round(-span[0] / step), 0, 255)
    bytes_of_x = np.clip(np.rint(x.astype(np.float64) / step + zero), 0, 255)
    size = np.abs(weight).max(axis=1, keepdims=True) / 127
    return (bytes_of_x - zero) * step @ (np.rint(weight / size) * size).T


@INT8
@pytest.mark.parametrize("columns", [16, 48, 64])
@pytest.mark.parametrize("channels", [16, 32, 48, 64, 128, 192])
@pytest.mark.parametrize("width", [1, 3, 37])
def test_the_kernel_is_the_formula(channels, columns, width):
    rng = np.random.default_rng(channels + columns)
    x = planes.aligned(3, width, channels)
    x[...] = rng.normal(0.5, 1.5, x.shape)
    weights = [rng.normal(0, 0.3, (columns, channels)).astype(np.float32) for _ in range(2)]
    bias, span = rng.normal(size=columns).astype(np.float32), (-2.0, 4.0)  # some values lie beyond
    assert ((x < span[0]) | (x > span[1])).any()
    packed = [planes.pack(weight, bias, span=span) for weight in weights]
    out, exact = (planes.aligned(6, 2 * width, columns // 2) for _ in range(2))
    skip = rng.normal(size=out.shape).astype(np.float32)
    scale = rng.normal(size=columns).astype(np.float32)
    planes.up(x, *packed, out, add=(skip, scale), relu=True, half=True)
    planes.up(x, *packed, exact, add=(skip, scale), relu=True)
    added = skip.reshape(3, 2, width, columns) * scale
    for i in (0, 1):
        wanted = rounded(x.reshape(-1, channels), weights[i], span).reshape(3, width, columns) + bias + added[:, i]
        got = out.reshape(3, 2, width, columns)[:, i]
        np.testing.assert_allclose(got, np.maximum(wanted, 0), atol=2e-4)
    assert not np.array_equal(out, exact)


@INT8
@pytest.mark.parametrize("name", ["cellpose_dsc", "faster_v1", "faster_v2", "faster_v3", "faster_wide"])
def test_near_the_network_and_the_same_for_any_threads(name):
    network = random_weights(name)
    x = torch.rand(1, 2, 136, 72)
    exact = FusedFamily(network)
    fewer = for_inference(network, precision="int8", spans=exact.measure_spans([x, torch.rand(1, 2, 64, 64)]))
    expected, got = exact(x)[0], fewer(x)[0]
    deviation = float((got - expected).square().mean().sqrt() / expected.std())
    assert 1e-5 < deviation < 0.05
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fewer(x)[0], got)
    finally:
        torch.set_num_threads(before)
    assert "int8" in repr(fewer)


@INT8
def test_ranges_are_means_and_leave_the_network_as_it_was():
    network = FusedFamily(random_weights("faster_v3"))
    dark, bright = torch.rand(1, 2, 32, 32), 5 * torch.rand(1, 2, 32, 48)
    before = network(dark)[0]
    one, other, both = (network.measure_spans(images) for images in ([dark], [bright], [dark, bright]))
    assert torch.equal(network(dark)[0], before)
    assert set(one) == set(both) >= {"e0.0.1", "u1", "u2", "u3", "last"}
    for key, span in both.items():
        np.testing.assert_allclose(span, (np.array(one[key]) + other[key]) / 2, rtol=1e-5, atol=1e-6)
        assert span[0] <= 0 <= span[1]
    few = FusedFamily(random_weights("faster_v3"), spans={"u1": both["u1"]})(dark)[0]
    all_of_them = FusedFamily(random_weights("faster_v3"), spans=both)(dark)[0]
    assert (few - before).abs().mean() < (all_of_them - before).abs().mean()
    with pytest.raises(ValueError, match="no image"):
        network.measure_spans([])
    with pytest.raises(ValueError, match="fewer bits"):
        FusedFamily(random_weights("faster_v3"), half=True).measure_spans([dark])


@INT8
@pytest.mark.parametrize("name", FEWER)
def test_shipped_models_find_the_same_nuclei(name):
    image = np.asarray(open_image(sample_path("culture")).data)
    assert card_of(name).int8_spans
    full, fewer = (segment(image, model=name, device="cpu", precision=bits) for bits in ("float32", "int8"))
    assert fewer.readout.precision == "int8"
    assert fewer.readout.diameter_px == full.readout.diameter_px
    assert abs(fewer.readout.n_objects - full.readout.n_objects) <= 2
    same = (full.labels > 0) == (fewer.labels > 0)
    assert 0.98 < same.mean() < 1


def test_what_cannot_be_done_in_8_bits(monkeypatch, restore_kernels):
    network = random_weights("faster_v3")
    with pytest.raises(ConfigError, match="volumes"):
        load_model("apr-unet-nuclei-3d", precision="int8")
    with pytest.raises(ConfigError, match="separable"):
        load_model("fastcellpose", precision="int8", device="cpu")
    card, gpu = (
        card_of("fastercellpose-v3"),
        Device(torch_device=torch.device("cuda"), words="a GPU", gpu="a GPU", threads=1),
    )
    with pytest.raises(ConfigError, match="int8 on a GPU"):
        Network(network, card, device=gpu, precision="int8")
    with monkeypatch.context() as patch:
        patch.setattr(optimise.planes, "can_quantise", lambda: False)
        with pytest.raises(ConfigError, match="AVX512-VNNI"):
            for_inference(network, precision="int8", spans={"last": (0, 1)})
    if planes.can_quantise():
        with pytest.raises(ConfigError, match=r"calibrate_int8\.py"):
            for_inference(network, precision="int8")
    _kernels.use_kernels("python")
    with pytest.raises(ConfigError, match="compiled kernels"):
        for_inference(network, precision="int8", spans={"last": (0, 1)})
