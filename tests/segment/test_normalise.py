import numpy as np
import pytest
from fakes import Recorded, blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_aprcnn.config import NormaliseConfig
from napari_aprcnn.segment.normalise import BRIGHTEST, measure_intensity, percentiles, robust_range
from napari_aprcnn.segment.source import map_image


def _measure(image, **config):
    source = map_image(image)
    intensity = measure_intensity(lambda region: source.read(0, region), source.shape, NormaliseConfig(**config))
    return intensity, source


def _normalised(image, **config):
    intensity, source = _measure(image, **config)
    return intensity.apply(source.read(0, source.whole), source.whole)


@given(hnp.arrays(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]), hnp.array_shapes(max_dims=2)))
@settings(max_examples=60, deadline=None)
def test_counting_gives_numpys_percentiles(values):
    shares = (0.0, 1.0, 37.5, 99.0, 100.0)
    np.testing.assert_allclose(percentiles(values, shares), np.percentile(values.astype(float), shares), atol=1e-9)


def test_ordinary_images_keep_their_percentiles():
    image, _ = blobs((200, 200))
    low, high = robust_range(image)
    assert [low, high] == pytest.approx(np.percentile(image, (1, 99)))


def test_sparse_nuclei_are_not_lost_in_the_background():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (512, 512))
    image[100:120, 100:120] += 200  # 0.15 % of the area
    assert np.percentile(image, 99) < 115
    low, high = robust_range(image)
    assert low == pytest.approx(np.percentile(image, 1))
    assert high == pytest.approx(300, rel=0.02)
    black = np.where(image > 200, image, 0)
    assert robust_range(black) == pytest.approx((0, 300), rel=0.02)


def test_noise_alone_and_two_peaks_are_left_alone():
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 5, 100_000)
    assert robust_range(noise) == pytest.approx(tuple(np.percentile(noise, (1, 99))))
    dense = np.where(rng.random(100_000) < 0.6, rng.normal(500, 40, 100_000), rng.normal(50, 5, 100_000))
    dense[:50] = 60_000  # hot pixels
    assert robust_range(dense) == pytest.approx(tuple(np.percentile(dense, (1, 99))))


def test_one_hot_pixel_is_cut():
    image, _ = blobs((100, 100))
    image[5, 5] = 65535
    assert _normalised(image).max() == BRIGHTEST


@pytest.mark.parametrize("dtype", [np.uint64, np.int64, np.float64, np.uint32])
def test_a_large_offset_loses_no_digits(dtype):
    image = (np.arange(10_000) % 100).reshape(100, 100)
    offset = 2**31 if dtype == np.uint32 else 2**50
    np.testing.assert_allclose(_normalised((image + offset).astype(dtype)), _normalised(image), atol=1e-3)


@pytest.mark.parametrize("value", [0, 7, -3.5])
@pytest.mark.parametrize("mode", ["image", "tile"])
def test_constant_image_becomes_zeros(value, mode):
    intensity, _ = _measure(np.full((50, 60), value), mode=mode)
    assert intensity.flat
    assert not _normalised(np.full((50, 60), value), mode=mode).any()


def test_sample_is_bounded_and_the_same_for_lazy_images():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 5000, (40, 600, 2000), dtype=np.uint16)
    lazy = Recorded(stack)
    a, b = _measure(lazy)[0], _measure(stack)[0]
    np.testing.assert_array_equal([a.low, a.high], [b.low, b.high])
    assert sum(lazy.sizes) < 0.25 * stack.size
    np.testing.assert_allclose([a.low.item(), a.high.item()], np.percentile(stack, (1, 99)), rtol=0.05)


def test_one_bright_nucleus_outside_the_sample_is_found():
    image = np.zeros((3000, 3000), np.uint8)
    image[0:20, 0:20] = 200
    assert _measure(image)[0].high.item() == 200


def test_tiles_even_out_the_illumination_but_not_the_noise():
    image, _ = blobs((512, 512))
    uneven = image * np.linspace(1.0, 0.2, 512)

    def bright(plane, part):
        return np.percentile(plane[:, part], 99)

    left, right = slice(0, 128), slice(384, 512)
    even, whole = _normalised(uneven, mode="tile", tile_px=128)[0], _normalised(uneven)[0]
    assert bright(even, right) > 0.8 * bright(even, left)
    assert bright(whole, right) < 0.5 * bright(whole, left)
    image[:, 256:] = np.random.default_rng(0).normal(100, 3, (512, 256))
    assert bright(_normalised(image, mode="tile", tile_px=128)[0], right) < 0.2


def test_parts_are_normalised_as_the_whole():
    image, _ = blobs((16, 90, 100))
    for config in ({}, {"mode": "tile", "tile_px": 32}):
        intensity, source = _measure(image, **config)
        whole = intensity.apply(source.read(0, source.whole), source.whole)
        region = (slice(3, 9), slice(20, 70), slice(11, 99))
        np.testing.assert_allclose(intensity.apply(source.read(0, region), region), whole[region], atol=1e-6)


def test_values_as_they_are():
    np.testing.assert_array_equal(_normalised(np.eye(8, dtype=np.float32), mode="none")[0], np.eye(8))
