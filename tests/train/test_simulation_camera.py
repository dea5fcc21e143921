"""The simulated camera: noise of its kinds on the same light, grey values within the camera's range."""

from __future__ import annotations

import numpy as np
import pytest

from napari_aprcnn.train.simulation import CameraConfig, SimulationConfig, degrade
from napari_aprcnn.train.simulation.camera import draw_camera, expose

PLAIN = {
    "photons": 20.0, "dark_photons": 0.05, "emccd": False, "contrast_grey": 400.0, "offset_grey": 100.0,
    "read_noise": 0.003, "correlation_px": 0.0, "row_gain": 0.0, "plane_gain": 0.0, "fixed_pattern": 0.0,
    "hot_voxels": 0.0, "saturation": None, "black_clip": False, "top_grey": 65535,
}  # fmt: skip
FLAT = np.full((12, 48, 48), 1.0, np.float32)


def taken(clean=FLAT, seed=0, **changes):
    return expose(clean, np.random.default_rng(seed), {**PLAIN, **changes}).astype(float)


def test_every_call_draws_other_noise_and_leaves_the_light_alone():
    clean = np.random.default_rng(0).random((8, 16, 16), np.float32)
    before = clean.copy()
    rng = np.random.default_rng(1)
    one, other = degrade(clean, rng, CameraConfig()), degrade(clean, rng, SimulationConfig())
    assert one.dtype == other.dtype == np.uint16
    assert one.shape == clean.shape
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(clean, before)
    np.testing.assert_array_equal(one, degrade(clean, np.random.default_rng(1)))


def test_photons_set_mean_and_variance():
    image = taken()
    assert image.mean() == pytest.approx(500, rel=0.02)
    assert image.std() / 400 == pytest.approx(1 / np.sqrt(20), rel=0.05)


def test_electron_multiplication_doubles_the_variance_and_gives_dark_voxels_a_heavy_tail():
    plain, multiplied = taken(), taken(emccd=True)
    assert multiplied.mean() == pytest.approx(plain.mean(), rel=0.03)
    assert multiplied.var() / plain.var() == pytest.approx(2, rel=0.15)
    dark = [taken(np.zeros_like(FLAT), dark_photons=0.3, emccd=emccd) for emccd in (False, True)]
    kurtosis = [((d - d.mean()) ** 4).mean() / d.var() ** 2 for d in dark]
    assert kurtosis[1] > 1.5 * kurtosis[0]


def test_correlated_noise_is_shared_by_neighbours():
    def shared(image):
        centred = image - image.mean()
        return (centred[..., 1:] * centred[..., :-1]).mean() / centred.var()

    assert abs(shared(taken())) < 0.05
    assert shared(taken(correlation_px=0.7)) > 0.2


def test_saturation_offset_and_range():
    assert taken(saturation=1.1).max() <= 100 + 1.1 * 400 + 1
    assert taken(top_grey=255).max() == 255
    clipped = taken(np.zeros_like(FLAT), black_clip=True, read_noise=0.05)
    assert (clipped == 0).mean() > 0.3
    assert (taken(np.zeros_like(FLAT), read_noise=0.05) > 0).all()


def test_gains_of_planes_and_offsets_of_rows():
    planes = taken(photons=5000.0, plane_gain=0.2).mean((1, 2))
    assert planes.std() / 400 > 0.08
    rows = taken(photons=5000.0, fixed_pattern=0.1)
    assert rows.mean((0, 2)).std() / 400 == pytest.approx(0.1, rel=0.4)


def test_hot_voxels_are_few_and_bright():
    image = taken(photons=5000.0, hot_voxels=0.005)
    hot = (image > 500 + 8 * 400 / np.sqrt(5000)).mean()
    assert 0.002 < hot < 0.006


def test_drawn_cameras_stay_in_their_ranges():
    config = CameraConfig(bits=(8, 12), photons=(5, 50))
    cameras = [draw_camera(np.random.default_rng(seed), config) for seed in range(60)]
    assert {camera["top_grey"] for camera in cameras} == {255, 4095}
    assert all(5 <= camera["photons"] <= 50 for camera in cameras)
    assert {camera["emccd"] for camera in cameras} == {False, True}
