"""The network in bands equals the network as it was trained."""

from __future__ import annotations

import copy

import pytest
import torch
from model_helpers import random_weights

from napari_aprcnn.models import optimise
from napari_aprcnn.models.family import FAMILY, CellposeFamily, family_config
from napari_aprcnn.models.optimise import for_inference, in_bands


def _spread_of_difference(network, fast, x) -> float:
    with torch.no_grad():
        expected, style = network(x)
    got, fast_style = fast(x)
    assert got.dtype == torch.float32
    assert got.shape == expected.shape
    torch.testing.assert_close(fast_style, style, rtol=1e-4, atol=1e-5)
    return float((got - expected).abs().max() / expected.std())


def _small_bands(monkeypatch) -> None:
    """Bands of 8 rows, where halos reach into several neighbours."""
    monkeypatch.setattr(optimise, "BAND_BYTES", 1)
    monkeypatch.setattr(optimise, "MIN_ROWS", 8)
    monkeypatch.setattr(optimise, "DENSE_ROWS", 8)


@pytest.mark.parametrize("name", FAMILY)
def test_equal_to_the_plain_network(name, monkeypatch):
    network = random_weights(name)
    fast = in_bands(network)
    x = torch.rand(2, 2, 72, 40)
    assert _spread_of_difference(network, fast, x) < 1e-5
    _small_bands(monkeypatch)
    assert _spread_of_difference(network, fast, x) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (8, 64), (264, 16)])
def test_equal_at_odd_sizes(size, monkeypatch):
    monkeypatch.setattr(optimise, "BAND_BYTES", 1)
    network = random_weights("faster_v3", seed=1)
    assert _spread_of_difference(network, in_bands(network), torch.rand(1, 2, *size)) < 1e-5


def _outputs_of_blocks(fast, x) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []

    def keeping(plain):
        def keep(*arguments):
            outputs.append(plain(fast, *arguments))
            return outputs[-1]

        return keep

    fast._in_bands, fast._finish_in_bands = keeping(type(fast)._in_bands), keeping(type(fast)._finish_in_bands)
    fast(x)
    return outputs


@pytest.mark.parametrize("name", ["faster_v1", "faster_v2", "faster_v3", "fastcellpose"])
def test_each_block_is_equal_in_bands_and_needs_its_halo(name, monkeypatch):
    # Deep scales weigh little in the output of random networks, so blocks are compared one by one.
    fast = in_bands(random_weights(name))
    x = torch.rand(1, 2, 272, 16)
    whole = _outputs_of_blocks(fast, x)
    _small_bands(monkeypatch)
    for expected, got in zip(whole, _outputs_of_blocks(fast, x), strict=True):
        assert (got - expected).abs().max() < 1e-5 * expected.std()
    blocks = [*fast.encoders, *list(fast.decoders)[::-1]]
    for number, block in enumerate(blocks):
        before, block.halo = block.halo, block.halo - 2
        expected, got = whole[number], _outputs_of_blocks(fast, x)[number]
        assert (got - expected).abs().max() > 1e-3 * expected.std(), "equality would hold with a smaller halo"
        block.halo = before


def test_the_number_of_threads_changes_nothing():
    fast = in_bands(random_weights("faster_v3"))
    x = torch.rand(1, 2, 160, 64)
    one, _ = fast(x)
    torch.set_num_threads(3)
    try:
        assert torch.equal(fast(x)[0], one)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_without_style():
    torch.manual_seed(0)
    network = CellposeFamily(family_config("fastcellpose").replace(style=False)).eval()
    network.load_state_dict(random_weights("fastcellpose").state_dict())
    assert _spread_of_difference(network, in_bands(network), torch.rand(1, 2, 32, 32)) < 1e-5


@pytest.mark.parametrize("name", ["fastcellpose", "faster_v3"])
def test_bfloat16_is_near(name):
    network = random_weights(name)
    x = torch.rand(1, 2, 64, 64)
    with torch.no_grad():
        expected, _ = network(x)
    got, _ = for_inference(network, precision="bfloat16")(x)
    assert got.dtype == torch.float32
    rms = float((got - expected).square().mean().sqrt() / expected.std())
    assert 1e-5 < rms < 0.03


def test_the_trained_network_is_left_as_it_is():
    network = random_weights("faster_v2")
    before = copy.deepcopy(network.state_dict())
    in_bands(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_never_executed_layers_are_dropped():
    network = random_weights("upsample")
    kept = sum(buffer.numel() for buffer in in_bands(network).buffers())
    assert kept < sum(p.numel() for p in network.parameters()) - 282_976 + 3 * 2048  # and some norms remain


def test_repeated_runs_are_equal_bit_for_bit():
    fast = in_bands(random_weights("faster_v3"))
    x = torch.rand(1, 2, 48, 56)
    first, _ = fast(x)
    assert torch.equal(first, fast(x)[0])
    # Planes do not see each other.
    assert torch.equal(first, fast(torch.cat([torch.rand_like(x), x]))[0][1:])
