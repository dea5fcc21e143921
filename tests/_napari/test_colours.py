import numpy as np
import pytest

from napari_aprcnn._napari.colours import flows_to_rgb, wheel


@pytest.mark.parametrize(
    ("angle", "rgb"),
    [(0, (255, 0, 0)), (60, (255, 255, 0)), (120, (0, 255, 0)), (240, (0, 0, 255)), (-60, (255, 0, 255))],
)
def test_the_wheel_is_hsv(angle, rgb):
    assert tuple(wheel(np.array(np.deg2rad(angle)), np.array(1.0))) == rgb


def test_strength_is_brightness():
    flows = np.zeros((2, 1, 3), np.float32)
    flows[1, 0] = (0, 2.5, 50)
    assert flows_to_rgb(flows)[0].tolist() == [[0, 0, 0], [128, 0, 0], [255, 0, 0]]


def test_3d_takes_y_and_x():
    flows = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    rgb = flows_to_rgb(flows)
    assert rgb.shape == (4, 5, 6, 3)
    np.testing.assert_array_equal(rgb[2], flows_to_rgb(flows[1:, 2]))


def test_nan_is_black():
    assert flows_to_rgb(np.full((2, 2, 2), np.nan, np.float32)).max() == 0
