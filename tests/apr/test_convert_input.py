"""What images and settings the conversion takes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import conversion_tools as tools
from napari_aprcnn.apr.convert import as_volume, level_grid, sample_values
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.errors import ConfigError, ImageDtypeError, ImageError, ImageValueError


def variants(image):
    wide = np.zeros([2 * n for n in image.shape], image.dtype)
    wide[::2, ::2, ::2] = image
    yield "strided", wide[::2, ::2, ::2]
    yield "mirrored", np.ascontiguousarray(image[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    yield "fortran", np.asfortranarray(image)
    yield "swapped", image.astype(image.dtype.newbyteorder())
    odd = np.zeros(image.nbytes + 1, np.uint8)[1:].view(image.dtype).reshape(image.shape)
    odd[:] = image
    yield "unaligned", odd
    locked = image.copy()
    locked.flags.writeable = False
    yield "read-only", locked


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_any_layout_gives_the_same(dtype):
    image = tools.image_of("balls", (21, 30, 27), dtype, 1)
    grid = level_grid(image)
    rows = tools.rows_of(grid.levels, grid.shape, grid.level_max)
    values = sample_values(image, *rows, level_max=grid.level_max)
    assert values.dtype == np.dtype(dtype)
    for name, other in variants(image):
        assert_array_equal(level_grid(other, block_planes=4).levels, grid.levels, err_msg=name)
        assert_array_equal(sample_values(other, *rows, level_max=grid.level_max), values, err_msg=name)


def test_a_memory_map_is_not_copied(tmp_path):
    image = tools.image_of("balls", (21, 30, 27), "uint16", 1)
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert np.shares_memory(as_volume(mapped), mapped)
    assert_array_equal(level_grid(mapped).levels, level_grid(image).levels)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint32", "uint64", "float16", "float64"])
def test_other_types_are_converted(dtype):
    image = (tools.image_of("balls", (20, 31, 25), "uint16", 1) > 60).astype(dtype) * np.ones((), dtype)
    reference = image.astype("uint8" if dtype == "bool" else "float32")
    grid = level_grid(image)
    assert_array_equal(grid.levels, level_grid(reference).levels)
    rows = tools.rows_of(grid.levels, grid.shape, grid.level_max)
    values = sample_values(image, *rows, level_max=grid.level_max)
    assert values.dtype == reference.dtype
    assert_array_equal(values, sample_values(reference, *rows, level_max=grid.level_max))


def test_planes_are_volumes_of_one_plane():
    image = tools.image_of("balls", (1, 60, 50), "uint8", 1)
    assert_array_equal(level_grid(image[0]).levels, level_grid(image).levels)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((3, 0, 4)), ImageError),
        (np.zeros(5), ImageError),
        (np.zeros((2, 2, 2, 2)), ImageError),
        (np.broadcast_to(np.uint8(1), (1, 2, 65537)), ImageError),
        (np.zeros((4, 4), complex), ImageDtypeError),
        (np.zeros((4, 4), object), ImageDtypeError),
        (np.zeros((4, 4), "datetime64[s]"), ImageDtypeError),
        (np.array([["a", "b"]]), ImageDtypeError),
    ],
)
def test_what_is_no_image_is_refused(image, error):
    with pytest.raises(error):
        level_grid(image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("smoothing", [0.0, 3.0])
def test_voxels_that_are_not_finite_are_named(value, smoothing):
    image = np.ones((9, 8, 7))
    image[5, 2, 3] = image[6, 0, 0] = value
    with pytest.raises(ImageValueError, match=r"2 voxels .* \(5, 2, 3\)"):
        level_grid(image, ConversionConfig(smoothing=smoothing), block_planes=4)


def test_negative_voxels():
    image = tools.image_of("balls", (30, 30, 30), np.float32, 0) - 500
    with pytest.raises(ImageValueError, match="intensity_threshold"):
        level_grid(image, ConversionConfig(mode="compatible"))
    level_grid(image, ConversionConfig(mode="compatible", intensity_threshold=-490.0))
    grid = level_grid(image)
    assert grid.intensity_threshold == -np.inf
    # As if it were not negative: nothing is lost by the sign.
    assert grid.particles == pytest.approx(level_grid(image + 600).particles, rel=0.02)
    assert (grid.levels == grid.level_max).any()


@pytest.mark.parametrize(
    "values",
    [
        {"relative_error": 0.0},
        {"relative_error": float("nan")},
        {"smoothing": 0.04},
        {"smoothing": -1.0},
        {"sigma_threshold": -1.0},
        {"sigma_threshold": float("nan")},
        {"gradient_threshold": float("inf")},
        {"spacing": (1.0, 0.0, 1.0)},
        {"psf": 0.0},
        {"noise_floor": -1.0},
        {"mode": "exact"},
        {"mode": "compatible", "bound": "original"},
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ConfigError):
        ConversionConfig(**values)
