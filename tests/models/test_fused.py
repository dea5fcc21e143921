"""Separable networks in compiled kernels equal the networks as they were trained."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from model_helpers import random_weights

from napari_aprcnn import _kernels
from napari_aprcnn._kernels import planes
from napari_aprcnn.errors import ImageError
from napari_aprcnn.models import fused
from napari_aprcnn.models.configs import FAMILY, NETWORKS
from napari_aprcnn.models.family import CellposeFamily, family_config
from napari_aprcnn.models.fused import FusedFamily, can_fuse
from napari_aprcnn.models.optimise import BandedFamily, for_inference, in_bands

SEPARABLE = [name for name, config in NETWORKS.items() if config.separable]
COMPILED = [name for name in _kernels.instruction_sets() if name != "python"]

pytestmark = pytest.mark.skipif(not COMPILED, reason="no compiled kernels")


def _distance(network: CellposeFamily, fast: FusedFamily, x: torch.Tensor) -> float:
    """Largest difference in units of the output's spread."""
    with torch.no_grad():
        expected, style = network(x)
    got, fast_style = fast(x)
    assert got.dtype == torch.float32
    assert got.shape == expected.shape
    torch.testing.assert_close(fast_style, style, rtol=1e-4, atol=1e-5)
    return float((got - expected).abs().max() / expected.std())


def test_the_separable_networks_are_those_of_the_thesis_and_our_own():
    assert SEPARABLE == ["cellpose_dsc", "compressed_dsc", "faster_v1", "faster_v2", "faster_v3", "faster_wide"]
    assert set(SEPARABLE) - set(FAMILY) == {"faster_wide"}
    for name in NETWORKS:
        assert can_fuse(random_weights(name)) == (name in SEPARABLE)


@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.parametrize("size", [(72, 40), (8, 8), (264, 16), (16, 520)])
def test_equal_to_the_plain_network(name, size):
    network = random_weights(name)
    assert _distance(network, FusedFamily(network), torch.rand(2, 2, *size)) < 1e-5


@pytest.mark.parametrize("name", ["faster_v1", "faster_v2", "faster_v3", "faster_wide"])
def test_equal_with_every_instruction_set(name, restore_kernels):
    network = random_weights(name, seed=3)
    fast = FusedFamily(network)
    x = torch.rand(1, 2, 88, 56)
    for kernels in COMPILED:
        _kernels.use_kernels(kernels)  # the same object: weights are packed again
        assert kernels in repr(fast)
        assert _distance(network, fast, x) < 1e-5


@pytest.mark.parametrize("name", ["faster_v1", "faster_v2", "faster_v3", "faster_wide"])
def test_without_style(name):
    torch.manual_seed(0)
    network = CellposeFamily(family_config(name).replace(style=False)).eval()
    network.load_state_dict(random_weights(name).state_dict())
    with_style = FusedFamily(random_weights(name))
    x = torch.rand(1, 2, 32, 32)
    assert _distance(network, FusedFamily(network), x) < 1e-5
    assert _distance(network, with_style, x) > 1e-3, "the style would change nothing"


@pytest.mark.parametrize("name", ["faster_v1", "faster_v2", "faster_v3", "faster_wide"])
def test_the_number_of_threads_changes_nothing(name):
    fast = FusedFamily(random_weights(name))
    x = torch.rand(1, 2, 400, 64)  # long enough for bands
    one = fast(x)
    try:
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(fast(x), one, strict=True))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["faster_v2", "faster_v3"])
def test_slabs_change_nothing(name, monkeypatch):
    fast = FusedFamily(random_weights(name))
    x = torch.rand(1, 2, 840, 32)
    whole, _ = fast(x)
    monkeypatch.setattr(fused, "SLAB_FLOATS", 1)
    assert torch.equal(fast(x)[0], whole)


def test_planes_do_not_see_each_other_and_sizes_may_change():
    fast = FusedFamily(random_weights("faster_v3"))
    small, large = torch.rand(1, 2, 48, 56), torch.rand(3, 2, 96, 112)
    first, _ = fast(small)
    many, _ = fast(large)
    assert torch.equal(fast(small)[0], first)
    assert torch.equal(fast(large[1:2])[0], many[1:2])


def test_calls_beside_one_another():
    fast = FusedFamily(random_weights("faster_v2"))
    images = [torch.rand(1, 2, 64 + 8 * i, 64) for i in range(8)]
    expected = [fast(x)[0] for x in images]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda x: fast(x)[0], images), expected, strict=True):
            assert torch.equal(got, wanted)


def test_results_outlive_the_next_call():
    fast = FusedFamily(random_weights("faster_v1"))
    y, style = fast(torch.rand(1, 2, 32, 32))
    kept = y.clone(), style.clone()
    fast(torch.rand(1, 2, 32, 32))
    assert torch.equal(y, kept[0])
    assert torch.equal(style, kept[1])


def test_released_buffers_come_back():
    fast = FusedFamily(random_weights("faster_v3"))
    x = torch.rand(1, 2, 32, 32)
    expected, _ = fast(x)
    assert fast._kept
    fast.release()
    assert not fast._kept
    assert torch.equal(fast(x)[0], expected)


class _StopError(Exception):
    pass


@pytest.mark.parametrize("name", ["faster_v2", "faster_v3"])
def test_check_stops_it_at_any_point_and_leaves_it_usable(name, monkeypatch):
    monkeypatch.setattr(fused, "SLAB_FLOATS", 1)
    fast = FusedFamily(random_weights(name))
    x = torch.rand(1, 2, 512, 16)
    asked = 0

    def count() -> None:
        nonlocal asked
        asked += 1

    expected, _ = fast(x, check=count)
    assert asked > 12, "a long image is asked about more than once a block"
    for point in (1, 4, asked):
        left = point

        def stop() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise _StopError

        with pytest.raises(_StopError):
            fast(x, check=stop)
        assert torch.equal(fast(x)[0], expected)


@pytest.mark.parametrize("shape", [(1, 2, 36, 32), (1, 2, 32, 30), (1, 1, 32, 32), (2, 32, 32), (1, 2, 0, 8)])
def test_wrong_shapes_are_refused(shape):
    for make in (FusedFamily, in_bands):
        with pytest.raises(ImageError, match="multiples of 8"):
            make(random_weights("faster_v2"))(torch.rand(*shape))


def test_the_trained_network_is_left_as_it_is():
    network = random_weights("faster_v2")
    before = copy.deepcopy(network.state_dict())
    FusedFamily(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_any_memory_layout_and_type_of_the_image():
    network = random_weights("faster_v3")
    fast = FusedFamily(network)
    x = torch.rand(1, 2, 40, 48)
    expected, _ = fast(x)
    assert torch.equal(fast(x.contiguous(memory_format=torch.channels_last))[0], expected)
    assert torch.equal(fast(x.transpose(2, 3).contiguous().transpose(2, 3))[0], expected)
    assert torch.equal(fast(x.double())[0], expected)


def test_inference_takes_the_kernels_where_they_are(restore_kernels):
    network = random_weights("faster_v3")
    assert isinstance(for_inference(network), FusedFamily)
    assert isinstance(for_inference(random_weights("fastcellpose")), BandedFamily)
    half = for_inference(network, precision="bfloat16")
    assert isinstance(half, FusedFamily) == planes.can_halve()
    assert isinstance(for_inference(random_weights("fastcellpose"), precision="bfloat16"), BandedFamily)
    _kernels.use_kernels("python")
    assert not planes.can_run()
    assert isinstance(for_inference(network), BandedFamily)


HALF = pytest.mark.skipif(not planes.can_halve(), reason="this processor does not multiply bfloat16")


@HALF
@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.parametrize("size", [(72, 40), (8, 8), (264, 16)])
def test_bfloat16_is_near_and_sums_are_float32(name, size):
    network = random_weights(name)
    x = torch.rand(1, 2, *size)
    with torch.no_grad():
        expected, _ = network(x)
    got, _ = FusedFamily(network, half=True)(x)
    rms = float((got - expected).square().mean().sqrt() / expected.std())
    assert 1e-5 < rms < 0.012
    # Far nearer than where features are kept in bfloat16, too.
    banded = float((in_bands(network, torch.bfloat16)(x)[0] - expected).square().mean().sqrt() / expected.std())
    assert rms < 0.9 * banded


@HALF
@pytest.mark.parametrize("name", ["faster_v1", "faster_v2", "faster_v3", "faster_wide"])
def test_bfloat16_gives_the_same_bits_for_any_number_of_threads(name):
    fast = FusedFamily(random_weights(name), half=True)
    x = torch.rand(1, 2, 136, 72)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(fast(x)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_rounded_weights_come_in_pairs_of_channels():
    if not planes.can_halve():
        assert planes.pack(np.ones((16, 32), np.float32), np.zeros(16, np.float32))[3] is None
        return
    weight = np.random.default_rng(0).normal(size=(48, 32)).astype(np.float32)
    _, _, channels, halves, _ = planes.pack(weight, np.zeros(48, np.float32))
    assert channels == 32
    expected = torch.from_numpy(weight).bfloat16().view(torch.int16).numpy().view(np.uint16)
    # A block of two registers, then one of one: [channel / 2][column][2].
    np.testing.assert_array_equal(
        halves[: 32 * 32].reshape(16, 32, 2).transpose(1, 0, 2).reshape(32, 32), expected[:32]
    )
    np.testing.assert_array_equal(
        halves[32 * 32 :].reshape(16, 16, 2).transpose(1, 0, 2).reshape(16, 32), expected[32:]
    )
    assert planes.pack(weight[:, :30], np.zeros(48, np.float32))[3] is None


def test_kernels_that_went_away_are_told_of(restore_kernels):
    fast = for_inference(random_weights("faster_v3"))
    _kernels.use_kernels("python")
    with pytest.raises(RuntimeError, match="compiled kernels"):
        fast(torch.rand(1, 2, 32, 32))


def test_large_arrays_begin_with_a_line_each_with_another_and_none_with_a_page():
    made = [planes.aligned(1, 512, 512, dtype=np.float32) for _ in range(8)]
    places = [array.ctypes.data % 4096 for array in made]
    assert all(place % 64 == 0 and place for place in places)
    assert len(set(places)) == len(made)
    for number, array in enumerate(made):  # each has its own memory
        assert array.shape == (1, 512, 512)
        array[...] = number
    assert [float(array.min()) for array in made] == [float(array.max()) for array in made] == list(range(8))
