"""Lazy images, voxel types and bad input, through the whole pipeline."""

import numpy as np
import pytest
from fakes import FakeNetwork, Recorded, blobs, cut_in_blocks, matched_f1, same_partition

from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import (
    AxesError,
    ConfigError,
    ImageDtypeError,
    ImageError,
    ImageValueError,
    NotEnoughMemoryError,
)
from napari_aprcnn.segment.pipeline import segment


def _run(image, **overrides):
    return segment(image, **{"model": FakeNetwork(), "diameter_px": 25.0, "threads": 1, **overrides})


@pytest.fixture(scope="module")
def plane():
    return blobs((200, 230))


@pytest.fixture(scope="module")
def stack():
    return blobs((40, 90, 100))


# --- lazy images ---------------------------------------------------------------------------------------------------


def test_one_volume_of_one_channel_at_a_time():
    image, _ = blobs((12, 60, 64))
    series = Recorded(np.stack([[image, image * 0], [image[::-1], image * 0], [image, image]]))
    result = _run(series, axes=AxisMapping(order="TCZYX"))
    assert result.labels.shape == (3, 12, 60, 64)
    assert max(series.sizes) <= image.size
    assert sum(series.sizes) == 3 * image.size  # each voxel of the channel once
    assert {index[1] for index in series.reads} == {0}


def test_planes_of_a_lazy_stack_one_at_a_time(stack):
    image, _ = stack
    lazy = Recorded(image)
    result = _run(lazy, dimensionality="stitch")
    assert max(lazy.sizes) <= image[0].size
    np.testing.assert_array_equal(result.labels, _run(image, dimensionality="stitch").labels)


def test_blocks_of_a_lazy_image_one_at_a_time(monkeypatch):
    from napari_aprcnn.segment import pipeline

    image, _ = blobs((300, 320), seed=2)
    monkeypatch.setattr(pipeline, "HOLD_BYTES", 1000)
    monkeypatch.setattr("napari_aprcnn.segment.normalise.SAMPLE_EDGE", 128)
    cut_in_blocks(monkeypatch, (1, 2, 2))
    lazy = Recorded(image)
    assert same_partition(_run(lazy).labels, _run(image).labels)
    assert max(lazy.sizes) < 0.6 * image.size


def test_dask_and_zarr(stack):
    import dask.array as da
    import zarr

    image, _ = stack
    expected = _run(image).labels
    np.testing.assert_array_equal(_run(da.from_array(image, chunks=(7, 50, 33))).labels, expected)
    np.testing.assert_array_equal(_run(zarr.array(image, chunks=(8, 32, 32))).labels, expected)


@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "i8", "f2", ">f8"])
def test_voxel_types_give_the_same_nuclei(dtype, plane):
    image, truth = plane
    image = image > 500 if dtype == "?" else (image / 8).astype(dtype)
    assert matched_f1(_run(image[::-1, ::-1]).labels, truth[::-1, ::-1], iou=0.6) == 1.0


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(64, 64), (5, 40, 40), (2, 1)])
def test_constant_image_has_no_nuclei(shape):
    for value in (0, 7.5):
        result = _run(np.full(shape, value), diameter_px=None)
        assert result.labels.shape == shape
        assert result.labels.dtype == np.uint16
        assert not result.labels.any()
        assert (result.probability < 0).all()
        assert result.readout.diameter_px == 0
        assert np.isfinite(result.flows).all()


@pytest.mark.parametrize("shape", [(1, 5), (2, 2), (3, 300), (16, 17), (2, 9, 9), (1, 40, 40)])
def test_tiny_images_work(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    assert _run(image, diameter_px=None).labels.shape == shape


@pytest.mark.parametrize(
    ("image", "overrides", "error"),
    [
        (np.zeros((0, 4)), {}, ImageError),
        (np.zeros((1, 1)), {}, ImageError),
        (np.zeros(9), {}, AxesError),
        (np.zeros((4, 4), complex), {}, ImageDtypeError),
        (np.full((9, 9), np.inf), {}, ImageValueError),
        (np.eye(9), {"axes": AxisMapping(order="ZYX")}, AxesError),
        (np.eye(9), {"dimensionality": "planes"}, AxesError),
        (np.eye(9), {"diameter_px": -1}, ConfigError),
        (np.eye(9), {"no_such_field": 1}, ConfigError),
        (np.eye(9), {"model": 3}, ConfigError),
        (np.eye(9), {"spacing_um": (1000, 0.1, 0.1)}, ConfigError),
        (np.eye(9), {"spacing_um": (0, 1, 1)}, ConfigError),
    ],
)
def test_bad_input(image, overrides, error):
    with pytest.raises(error):
        _run(image, **overrides)


def test_nan_in_a_later_time_point_leaves_nothing(plane):
    series = np.stack([plane[0], plane[0]]).astype(np.float32)
    series[1, 3, 4] = np.nan
    with pytest.raises(ImageValueError, match="T 1, Y 3, X 4"):
        _run(series, axes=AxisMapping(order="TYX"))


def test_nan_is_told_before_anything_is_computed(plane):
    image = np.tile(plane[0].astype(np.float32), (6, 6))
    image[700, 33] = image[900, 3] = np.inf
    network = FakeNetwork()
    with pytest.raises(ImageValueError, match=r"^2 of 1656000 voxels .* Y 700, X 33;"):
        _run(image, model=network)
    assert not network.shapes


def test_absurd_lazy_size_is_refused_unread():
    class Huge:
        shape, dtype = (10**7, 10**7), np.dtype("u2")

        def __getitem__(self, index):
            return np.random.default_rng(0).integers(0, 9, [s.stop - s.start for s in index], dtype=np.uint16)

    with pytest.raises(NotEnoughMemoryError):
        _run(Huge())


# --- what people write ---------------------------------------------------------------------------------------------


def test_a_list_of_images_is_not_one_image(plane):
    for images in ([plane[0], plane[0]], (plane[0],), [plane[0], plane[0][:50]]):
        with pytest.raises(ImageDtypeError, match=f"of {len(images)} arrays, expected one image"):
            _run(images)


def test_axes_as_letters_and_short_voxel_sizes(stack):
    image = stack[0][:6]
    assert _run(image, axes="zyx").config.axes == AxisMapping(order="ZYX")
    assert _run(image, axes="TYX").axes == "TYX"
    for short, spacing in ((0.5, (0.5,) * 3), ([0.4, 0.2], (0.4, 0.4, 0.2)), ((1, 0.4, 0.2), (1, 0.4, 0.2))):
        assert _run(image, spacing_um=short).config.spacing_um == spacing
    with pytest.raises(ConfigError, match="axes"):
        _run(image, axes="ZZYX")
    with pytest.raises(ConfigError, match="spacing_um"):
        _run(image, spacing_um=())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("diameter", "did you mean diameter_px"),
        ("channels", "'channel': 1"),
        ("cellprob_threshold", "probability_threshold"),
        ("diametre_px", "did you mean diameter_px"),
        ("nonsense_of_mine", "expected one of model, device"),
    ],
)
def test_names_of_other_programs_get_a_hint(plane, name, told):
    with pytest.raises(ConfigError, match=told):
        _run(plane[0], **{name: 30})
