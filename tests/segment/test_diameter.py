from functools import partial

import numpy as np
import pytest
from fakes import FakeNetwork, blobs

from napari_aprcnn.errors import CancelledError
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.segment.diameter import estimate_diameter, pick_windows, typical_diameter_px, window
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.segment.tiles import Tiler


def _crop(plane, edge):
    y, x = (window(n // 2, edge, n) for n in plane.shape)
    return plane[y, x]


def _estimate(image, **options):
    plane = ((image - 100.0) / 900.0).astype(np.float32)
    tiler = Tiler(FakeNetwork(), 1024, 0.1, 24, 1 << 20, lambda _pixels, _tiles: None)
    return estimate_diameter([partial(_crop, plane)], tiler, trained_px=25.0, threads=1, **options)


@pytest.mark.parametrize("diameter", [6, 12, 25, 40, 75, 150])
def test_sizes_from_6_to_150_px(diameter):
    edge = int(4.3 * diameter)
    image, truth = blobs((edge, edge), diameter=diameter)
    true = typical_diameter_px(np.bincount(truth.ravel())[1:])
    assert _estimate(image).diameter_px == pytest.approx(true, rel=0.25)


def test_one_pass_where_the_size_is_right():
    image, _ = blobs((200, 200))
    estimate = _estimate(image)
    assert [trial.zoom for trial in estimate.trials] == [1.0]
    assert estimate.trials[0].quality > 0.5


@pytest.mark.parametrize("shape", [(32, 32), (13, 200), (600, 700)])
def test_nothing_found_is_no_error(shape):
    noise = np.random.default_rng(0).normal(100, 1, shape)
    assert _estimate(noise).diameter_px is None


def test_cancel():
    def check():
        raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        _estimate(blobs((60, 60))[0], check=check)


def test_the_first_pass_sees_a_bounded_part_of_a_large_image():
    image, _ = blobs((2000, 1500))
    network = FakeNetwork()
    result = segment(image, model=network, threads=1, flows={"n_steps": 20})
    first = network.shapes[: next(i for i, shape in enumerate(network.shapes) if shape[-1] > 600)]
    assert sum(np.prod(shape) for shape in first) < 600_000
    assert result.readout.diameter_px == pytest.approx(25, rel=0.2)


def test_windows_are_placed_where_most_is_seen():
    plane = np.zeros((1600, 1600))
    plane[1300:1500, 100:300] = np.random.default_rng(0).random((200, 200))
    centres = pick_windows(lambda part: float(plane[part].std()), plane.shape, edge=400, n=1)
    assert centres == [(1400, 200)]
    assert pick_windows(lambda _part: 0.0, (300, 300), edge=400, n=1) == [(150, 150)]


def test_one_diameter_for_a_series():
    image, _ = blobs((100, 120))
    series = np.stack([image * 0, image, image])
    result = segment(series, model=FakeNetwork(), threads=1, axes={"order": "TYX"})
    assert result.readout.diameter_px == pytest.approx(25, rel=0.2)
    assert not result.labels[0].any()
    np.testing.assert_array_equal(result.labels[1], result.labels[2])


def test_half_precision_looks_for_the_diameter_in_float32():
    image, _ = blobs((90, 90))
    exact = load_model("fastercellpose-v3", device="cpu", threads=1)
    half = load_model("fastercellpose-v3", device="cpu", threads=1, precision="bfloat16")
    outputs = [network.predict(image[None] / np.float32(1000)) for network in (exact, half, half.exact)]
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[1])
    first, second = (segment(image, model=network, threads=1).readout for network in (exact, half))
    assert (first.precision, second.precision) == ("float32", "bfloat16")
    assert first.diameter_px == second.diameter_px
    assert exact.exact is exact
    assert half.exact is half.exact
