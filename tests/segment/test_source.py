import numpy as np
import pytest
from fakes import Recorded

from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AxesError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.segment.source import map_image


@pytest.mark.parametrize("order", ["TCZYX", "XYZCT", "ZCTXY", "CXTZY"])
def test_any_order_reads_the_same_voxels(order):
    canonical = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    image = canonical.transpose(["TCZYX".index(letter) for letter in order])
    source = map_image(image, AxisMapping(order=order, channel=2))
    region = (slice(1, 3), slice(0, 5), slice(2, 6))
    np.testing.assert_array_equal(source.read(1, region), canonical[1, 2, 1:3, 0:5, 2:6])
    assert source.shape == (4, 5, 6)
    assert source.n_times == 2
    # And back: the labels have the axes of the image without C.
    np.testing.assert_array_equal(source.to_output(canonical[:, 2]), image.take(2, axis=order.index("C")))
    part = source.output_region(1, region)
    np.testing.assert_array_equal(
        image.take(2, axis=order.index("C"))[part], source.to_output(canonical[1:2, 2, 1:3, :, 2:6])
    )


def test_only_the_region_is_read():
    image = Recorded(np.zeros((4, 3, 20, 30, 40), np.uint8))
    source = map_image(image, AxisMapping(order="TCZYX", channel=1))
    source.read(2, (slice(5, 6), slice(0, 30), slice(0, 40)))
    assert image.sizes == [30 * 40]
    assert image.reads[0][:2] == (2, 1)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((0, 5)), ImageError, "empty"),
        (np.zeros((3, 0, 5)), ImageError, "empty"),
        (np.zeros((1, 1)), ImageError, "single pixel"),
        (np.zeros((7, 1, 1)), ImageError, "single pixel"),
        (np.zeros(5), AxesError, "expected 2 to 5"),
        (np.float32(3), AxesError, "expected 2 to 5"),
        (np.zeros((2,) * 6), AxesError, "expected 2 to 5"),
        (np.zeros((5, 5), complex), ImageDtypeError, "numpy.abs"),
        (np.zeros((5, 5), object), ImageDtypeError, "astype"),
        (np.full((5, 5), "a"), ImageDtypeError, "astype"),
        (np.zeros((5, 5), "datetime64[s]"), ImageDtypeError, "expected integers"),
        (np.zeros((5, 5), [("a", int)]), ImageDtypeError, "expected integers"),
        ("image.tif", ImageDtypeError, "open a file"),
        (None, ImageDtypeError, "expected an array"),
        ([[1, 2], [3]], ImageDtypeError, "expected an array"),
    ],
)
def test_bad_images(image, error, words):
    with pytest.raises(error, match=words) as caught:
        map_image(image)
    assert isinstance(caught.value, (ValueError, TypeError))  # what a caller would catch anyway


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    image = np.zeros((2, 3, 8, 9), np.float32)
    image[1, 2, 3, 4] = image[1, 2, 7, 8] = bad
    source = map_image(image, AxisMapping(order="TZYX"))
    with pytest.raises(ImageValueError, match=r"2 of 216 voxels .* T 1, Z 2, Y 3, X 4.*nan_to_num"):
        source.read(1, source.whole)
    assert source.read(0, source.whole).sum() == 0


def test_large_finite_values_are_finite():
    image = np.full((4, 4), 3e38, np.float32)  # their sum overflows
    assert map_image(image).read(0, (slice(0, 1), slice(0, 4), slice(0, 4))).shape == (1, 4, 4)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">u2", "<i4", ">i8", "u8", "f2", ">f4", "f8", "g"])
def test_voxel_types(dtype):
    values = (np.arange(20).reshape(4, 5) % 2).astype(dtype)
    block = map_image(values[::-1, ::-1]).read(0, (slice(0, 1), slice(0, 4), slice(0, 5)))
    assert block.dtype.isnative
    assert block.dtype.kind in "uif"
    np.testing.assert_array_equal(block[0].astype(float), values[::-1, ::-1].astype(float))


def test_lists_become_arrays():
    assert map_image([[1, 2], [3, 4]]).shape == (1, 2, 2)


def test_array_that_slices_wrongly():
    class Odd:
        shape, dtype = (8, 8), np.dtype("u1")

        def __getitem__(self, _index):
            return np.zeros((2, 2), np.uint8)

    with pytest.raises(ImageError, match="slices like numpy"):
        map_image(Odd()).read(0, (slice(0, 1), slice(0, 8), slice(0, 8)))
