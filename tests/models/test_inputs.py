"""The two input channels."""

from __future__ import annotations

import math

import pytest
import torch

from napari_aprcnn.errors import ImageError
from napari_aprcnn.models.inputs import network_input


def test_first_channel_is_the_image_and_second_zero():
    planes = torch.rand(3, 4, 5)
    x = network_input(planes, second_channel="zero")
    assert x.shape == (3, 2, 4, 5)
    assert torch.equal(x[:, 0], planes)
    assert not x[:, 1].any()


def test_asinh_channel():
    planes = torch.tensor([[[-0.5, 0.0, 0.01, 1.0, 50.0]]])
    second = network_input(planes, second_channel="asinh")[0, 1, 0]
    expected = [math.asinh(20 * v) / math.asinh(20) for v in planes.flatten().tolist()]
    torch.testing.assert_close(second, torch.tensor(expected))


def test_wrong_rank():
    with pytest.raises(ImageError, match=r"\(4, 5\)"):
        network_input(torch.rand(4, 5), second_channel="zero")
