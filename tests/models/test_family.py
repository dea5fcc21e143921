"""The networks of the family: counts, keys, shapes, gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from napari_aprcnn.errors import ConfigError, ImageError
from napari_aprcnn.models.family import FAMILY, CellposeFamily, family_config, merge_separable_deconv, unmerged
from napari_aprcnn.models.layers import DepthwiseConv, style_vector

# Key patterns of the FastCellpose authors' network: two units a scale, no projection, and a decoder that begins with
# a transposed convolution everywhere but at the coarsest scale.
FASTCELLPOSE_HEADS = [
    "diam_mean",
    "diam_labels",
    *(f"downsample.down.conv_down_{n}.conv.conv_{i}.{j}" for n in range(4) for i in (0, 1) for j in (0, 2)),
    *(
        f"upsample.up.conv_up_{n}.conv.{part}"
        for n in range(3)
        for part in ("conv_0", "conv_1.conv.0", "conv_1.conv.2", "conv_1.full")
    ),
    *(f"upsample.up.conv_up_3.conv.{part}" for part in ("conv_0.conv.0", "conv_0.conv.2", "conv_0.full")),
    "output.0",
    "output.2",
]


def _trained(config) -> int:
    return sum(p.numel() for p in CellposeFamily(config).parameters() if p.requires_grad)


@pytest.mark.parametrize("name", FAMILY)
def test_parameter_counts_are_those_of_the_thesis(name):
    config = family_config(name)
    assert _trained(config) + config.counted_scalars == config.published_parameters


@pytest.mark.parametrize(("name", "unused"), [("upsample", 282_977), ("faster_v3", 11_368)])
def test_registered_but_never_executed_parameters(name, unused):
    network = CellposeFamily(name)
    parts = [network.upsample.deconv[i] for i in (0, 1, 3)] if name == "upsample" else []
    parts += [block.proj for block in network.downsample.down if not block.residual and hasattr(block, "proj")]
    # The published figures count the frozen scalars (1 and 2) among them.
    assert sum(p.numel() for part in parts for p in part.parameters()) + network.config.counted_scalars == unused


@pytest.mark.parametrize("name", FAMILY)
def test_exactly_the_never_executed_layers_get_no_gradient(name):
    network = CellposeFamily(name).train()
    y, style = network(torch.rand(2, 2, 16, 24))
    assert y.shape == (2, 3, 16, 24)
    assert style.shape == (2, network.config.widths[3])
    y.square().mean().backward()
    idle = {key.rsplit(".", 1)[0] for key, p in network.named_parameters() if p.requires_grad and p.grad is None}
    if network.config.decoder == "residual2":
        assert {key.split(".")[2] for key in idle} == {"0", "1", "3"}
        assert all(key.startswith("upsample.deconv.") for key in idle)
    elif network.config.unused_projection:
        assert all(".proj." in key for key in idle)
        assert len(idle) == 12  # norm, depthwise and pointwise of four scales
    else:
        assert not idle


def test_cellpose_keys_order_and_shapes_are_the_official_ones():
    official = json.loads((Path(__file__).parent / "data" / "cellpose_3_1_1_keys.json").read_text())
    ours = [[key, list(value.shape)] for key, value in CellposeFamily("cellpose").state_dict().items()]
    assert ours == official


def test_dilated_takes_cellpose_weights_but_for_56():
    missing, unexpected = CellposeFamily("dilated").load_state_dict(
        CellposeFamily("cellpose").state_dict(), strict=False
    )
    assert len(missing) == 0
    assert len(unexpected) == 56


def test_fastcellpose_keys_are_the_authors():
    state = CellposeFamily("fastcellpose").state_dict()
    heads: list[str] = []
    for key in state:
        head = key if key.startswith("diam") else key.rsplit(".", 1)[0]
        if head not in heads:
            heads.append(head)
    assert heads == FASTCELLPOSE_HEADS
    assert state["upsample.up.conv_up_0.conv.conv_0.weight"].shape == (32, 16, 2, 2)


@pytest.mark.parametrize("name", [name for name, config in FAMILY.items() if config.separable])
def test_merged_separable_layers_equal_their_two_parts(name):
    torch.manual_seed(0)
    network = CellposeFamily(name).eval()
    x = torch.rand(1, 2, 24, 32)
    with torch.no_grad():
        merged, _ = network(x)
        with unmerged(network):
            parts, _ = network(x)
    assert not torch.equal(merged, parts), "the two ways should differ in rounding"
    assert (merged - parts).abs().max() <= 1e-5 * parts.std()


def test_merged_deconv_sends_the_same_gradients_to_both_factors():
    torch.manual_seed(0)
    spread = torch.nn.ConvTranspose2d(6, 6, 2, stride=2, groups=6).double()
    mix = torch.nn.Conv2d(6, 4, 1).double()
    x = torch.rand(2, 6, 5, 7, dtype=torch.float64)
    target = torch.rand(2, 4, 10, 14, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((y - target).square().sum(), [*spread.parameters(), *mix.parameters()])
        for y in (mix(spread(x)), F.pixel_shuffle(F.conv2d(x, *merge_separable_deconv(spread, mix)), 2))
    ]
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_gradients_equal_autograd(dilation, bias):
    torch.manual_seed(0)
    layer = DepthwiseConv(5, 3, dilation=dilation, bias=bias)
    x = torch.rand(2, 5, 9, 12).contiguous(memory_format=torch.channels_last).requires_grad_()
    goal = torch.rand(2, 5, 9, 12)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=dilation, dilation=dilation, groups=5)
    torch.testing.assert_close(layer(x), plain)
    wanted = [x, *layer.parameters()]
    expected = torch.autograd.grad((plain - goal).square().sum(), wanted)
    got = torch.autograd.grad((layer(x) - goal).square().sum(), wanted)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_bfloat16_gradients_of_a_dilated_depthwise_convolution_are_right():
    # torch's own are off by the size of the gradient here, or NaN, depending on what lay in memory before.
    torch.manual_seed(0)
    layer = DepthwiseConv(16, 3, dilation=2)
    x = torch.randn(4, 16, 96, 96).contiguous(memory_format=torch.channels_last)
    exact = torch.autograd.grad(layer(x).square().mean(), [layer.weight, layer.bias])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    rough = torch.autograd.grad(y.float().square().mean(), [layer.weight, layer.bias])
    for a, b in zip(rough, exact, strict=True):
        assert (a - b).abs().max() < 0.03 * b.abs().max()


def test_one_step_of_training_in_bfloat16_lowers_the_loss():
    torch.manual_seed(0)
    network = CellposeFamily("faster_v3").train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)
    x = torch.rand(2, 2, 32, 32).contiguous(memory_format=torch.channels_last)
    losses = []
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, style = network(x)
        assert style.dtype == torch.float32
        loss = (y.float() - 0.5).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_style_of_features_that_are_all_zero_is_zero():
    assert torch.equal(style_vector(torch.zeros(2, 4, 3, 3)), torch.zeros(2, 4))


def test_style_can_be_switched_off():
    torch.manual_seed(0)
    network = CellposeFamily(family_config("fastcellpose").replace(style=False)).eval()
    x = torch.rand(1, 2, 16, 16)
    with torch.no_grad():
        before, style = network(x)
        for module in network.upsample.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.add_(1.0)
        after, _ = network(x)
    assert torch.equal(before, after)
    assert style.abs().max() > 0


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 1, 16, 16), (1, 2, 16, 17), (1, 2, 0, 16), (0, 2, 16, 16)])
def test_inputs_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ImageError, match="multiples of 8"):
        CellposeFamily("faster_v3")(torch.zeros(shape))


def test_an_unknown_architecture_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"faster_v4.*faster_v3"):
        CellposeFamily("faster_v4")
