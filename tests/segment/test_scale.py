import numpy as np
import pytest
import torch

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.segment.scale import resize, scale_for


def test_no_diameter_no_rescaling():
    scale = scale_for(None, 25.0, None)
    assert scale.network_size((100, 70), (1, 2)) == (100, 70)
    assert scale.displacement == (1.0, 1.0, 1.0)
    assert scale.steps(200) == 200


def test_nuclei_come_to_the_trained_size():
    assert scale_for(50.0, 25.0, None).network_size((100, 70), (1, 2)) == (50, 35)
    assert scale_for(12.5, 25.0, None).network_size((100, 70), (1, 2)) == (200, 140)
    assert scale_for(50.0, 25.0, None).steps(200) == 400
    assert scale_for(12.5, 25.0, None).steps(200) == 200
    # A change that the network would not see is left out.
    assert scale_for(25.4, 25.0, None).network_size((100, 70), (1, 2)) == (100, 70)
    assert scale_for(0.01, 25.0, None).zoom == 8.0


def test_planes_that_hold_z_are_stretched_to_square_pixels():
    scale = scale_for(25.0, 25.0, (0.5, 0.2, 0.2))
    assert scale.network_size((40, 100), (0, 1)) == (100, 100)
    assert scale.network_size((100, 100), (1, 2)) == (100, 100)
    assert scale.displacement == pytest.approx((0.4, 1.0, 1.0))
    fine = scale_for(25.0, 25.0, (0.1, 0.2, 0.2))
    assert fine.displacement == pytest.approx((1.0, 0.5, 0.5))
    assert fine.steps(200) == 400


def test_spacings_in_different_units():
    with pytest.raises(ConfigError, match="check the order and the units"):
        scale_for(25.0, 25.0, (500.0, 0.2, 0.2))


def test_resize_keeps_the_mean_and_the_place():
    image = torch.rand(2, 1, 64, 80, generator=torch.Generator().manual_seed(0))
    small = resize(image, (32, 20))
    assert small.shape == (2, 1, 32, 20)
    assert float(small.mean()) == pytest.approx(float(image.mean()), abs=0.01)
    ramp = torch.linspace(0, 1, 100)[None, None, None].expand(1, 1, 50, 100).contiguous()
    back = resize(resize(ramp, (25, 50)), (50, 100))
    np.testing.assert_allclose(back[..., 4:-4].numpy(), ramp[..., 4:-4].numpy(), atol=1e-5)
    assert resize(image, (64, 80)) is image
