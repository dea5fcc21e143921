"""Starts from another network of the family."""

from __future__ import annotations

import pytest
import torch

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.family import FAMILY, CellposeFamily, family_config
from napari_aprcnn.models.growing import grown, inherited, start_from
from napari_aprcnn.models.layers import unmerged


def _trained_looking(name: str) -> CellposeFamily:
    """A network whose every parameter and statistic differs from its first value."""
    torch.manual_seed(3)
    module = CellposeFamily(name)
    with torch.no_grad():
        for key, value in module.state_dict(keep_vars=True).items():
            if value.is_floating_point():
                low = 0.5 if key.endswith("running_var") or (key.endswith("weight") and value.ndim == 1) else -0.3
                value.data.uniform_(low, low + 0.6)
    return module.eval()


PAIRS = [
    ("faster_v1", "cellpose"),
    ("faster_v1", "cellpose_dsc"),
    ("cellpose_dsc", "cellpose"),
    ("faster_v2", "compressed"),
    ("faster_v2", "compressed_dsc"),
    ("compressed_dsc", "compressed"),
]


@pytest.mark.parametrize(("narrow", "wide"), PAIRS)
def test_a_grown_network_computes_the_same(narrow, wide):
    source = _trained_looking(narrow)
    target = CellposeFamily(wide).eval()
    target.load_state_dict(start_from(source, wide))
    x = torch.rand(2, 2, 40, 24)
    with torch.inference_mode(), unmerged(source):
        expected, style = source(x)
        got, wide_style = target(x)
    assert (got - expected).abs().max() <= 1e-4 * expected.std()
    assert torch.allclose(torch.linalg.vector_norm(wide_style, dim=1), torch.linalg.vector_norm(style, dim=1))


def test_copies_of_a_channel_are_driven_apart():
    wide = CellposeFamily("cellpose").train()
    wide.load_state_dict(grown(_trained_looking("faster_v1"), "cellpose"))
    wide(torch.rand(1, 2, 32, 32))[0].square().mean().backward()
    layer = wide.downsample.down.res_down_1.conv.conv_1[2]
    half = layer.weight.shape[0] // 2
    first, second = layer.weight.grad[:half], layer.weight.grad[half:]
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


def test_the_same_network_is_taken_as_it_is_and_others_layer_by_layer():
    source = _trained_looking("cellpose")
    same = start_from(source, "cellpose")
    assert all(torch.equal(value, same[key]) for key, value in source.state_dict().items())
    state = start_from(source, "dilated")
    target = CellposeFamily("dilated")
    target.load_state_dict(state)
    before = source.state_dict()
    assert all(
        torch.equal(value, before[key]) for key, value in state.items()
    )  # the README of official files: none new
    partly = inherited(source, "compressed", seed=1)
    assert {key in before for key in partly} == {True, False}
    again = inherited(source, "compressed", seed=1)
    assert all(torch.equal(value, again[key]) for key, value in partly.items())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("cellpose", "faster_v1"),
        ("cellpose", "faster_v3"),
        ("fastcellpose", "cellpose"),
        ("compressed_dsc", "faster_v2"),
    ],
)
def test_networks_with_little_in_common_are_refused(source, target):
    with pytest.raises(ConfigError, match="share"):
        start_from(CellposeFamily(source), target)
    with pytest.raises(ConfigError, match="cannot grow"):
        grown(CellposeFamily(source), target)


def test_every_pair_of_the_family_either_starts_or_says_why():
    for source in FAMILY:
        module = CellposeFamily(source)
        for target in FAMILY:
            try:
                state = start_from(module, target)
            except ConfigError:
                continue
            CellposeFamily(family_config(target)).load_state_dict(state)
