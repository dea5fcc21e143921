import numpy as np
import pytest
import tifffile

from napari_aprcnn.errors import FileFormatError, MissingDependencyError
from napari_aprcnn.io import tiff
from napari_aprcnn.io.read import open_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 4000, (3, 2, 5, 40, 32)).astype(np.uint16)


def test_ome_tiff_keeps_axes_voxel_size_units_and_channels(tmp_path, pixels):
    metadata = {
        "axes": "TCZYX", "PhysicalSizeX": 200.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 0.0005, "PhysicalSizeZUnit": "mm",
        "Channel": {"Name": ["DNA", "actin"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=metadata, compression="zlib", tile=(16, 16))
    source = open_image(tmp_path / "a.ome.tif")
    assert (source.axes, source.kind, source.name) == ("TCZYX", "OME-TIFF", "a")
    assert source.spacing_um == pytest.approx((0.5, 0.25, 0.2))
    assert source.channel_names == ("DNA", "actin")
    assert source.units == "um"
    assert source.axes_known
    np.testing.assert_array_equal(np.asarray(source.data), pixels)


def test_ome_tiff_without_a_unit_means_micrometres(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((8, 9), np.uint8), metadata={"axes": "YX", "PhysicalSizeX": 0.3})
    assert open_image(tmp_path / "a.ome.tif").spacing_um == pytest.approx((0.3, 0.3, 0.3))


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "nm"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_imagej_tiff_keeps_axes_and_voxel_size(tmp_path, pixels, unit, compression):
    stack = pixels.transpose(0, 2, 1, 3, 4)
    tifffile.imwrite(
        tmp_path / "a.tif", stack, imagej=True, resolution=(5, 4), compression=compression,
        metadata={"axes": "TZCYX", "spacing": 0.5, "unit": unit},
    )  # fmt: skip
    source = open_image(tmp_path / "a.tif")
    factor = 1e-3 if unit == "nm" else 1
    assert source.kind == "ImageJ TIFF"
    assert source.axes == "TZCYX"
    assert source.spacing_um == pytest.approx((0.5 * factor, 0.25 * factor, 0.2 * factor))
    np.testing.assert_array_equal(np.asarray(source.data), stack)


def test_imagej_without_a_unit_has_no_voxel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 8, 9), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    source = open_image(tmp_path / "a.tif")
    assert source.spacing_um is None
    assert source.units == "px"


def test_imagej_without_z_spacing_says_that_it_guessed(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((4, 8, 9), np.uint8),
        imagej=True,
        resolution=(2, 2),
        metadata={"axes": "ZYX", "unit": "um"},
    )
    source = open_image(tmp_path / "a.tif")
    assert source.spacing_um == pytest.approx((0.5, 0.5, 0.5))
    assert any("z spacing" in note for note in source.notes)


@pytest.mark.parametrize(
    ("unit", "per_um"), [("CENTIMETER", 1e4), ("INCH", 25400), ("MILLIMETER", 1e3), ("MICROMETER", 1)]
)
def test_plain_tiff_resolution(tmp_path, unit, per_um):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((8, 9), np.uint8),
        resolution=(4 * per_um, 2 * per_um),
        resolutionunit=unit,
        metadata=None,
    )
    assert open_image(tmp_path / "a.tif").spacing_um == pytest.approx((0.5, 0.5, 0.25), rel=1e-3)


@pytest.mark.parametrize("dpi", [72, 300, 1200])
def test_printing_resolutions_are_no_voxel_size(tmp_path, dpi):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((8, 9), np.uint8), resolution=(dpi, dpi), resolutionunit="INCH", metadata=None
    )
    source = open_image(tmp_path / "a.tif")
    assert source.spacing_um is None
    assert any("printing" in note for note in source.notes)


def test_a_resolution_of_zero_over_zero_is_ignored(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8), resolution=(9, 9), resolutionunit="CENTIMETER")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        for key in ("XResolution", "YResolution"):
            start = file.pages[0].tags[key].valueoffset
            content[start : start + 8] = bytes(8)
    (tmp_path / "a.tif").write_bytes(content)
    assert open_image(tmp_path / "a.tif").spacing_um is None


def test_plain_pages_are_planes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((7, 8, 9), np.uint8), metadata=None)
    source = open_image(tmp_path / "a.tif")
    assert source.axes == "ZYX"
    assert not source.axes_known
    assert any("taken as Z" in note for note in source.notes)


def test_colours_become_channels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (20, 24, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    source = open_image(tmp_path / "a.tif")
    assert source.axes == "YXC"
    np.testing.assert_array_equal(np.asarray(source.data), rgb)


def test_colours_join_channels(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (2, 20, 24, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, photometric="rgb", metadata={"axes": "CYXS"})
    source = open_image(tmp_path / "a.ome.tif")
    assert source.axes == "CYX"
    assert source.shape == (6, 20, 24)
    np.testing.assert_array_equal(np.asarray(source.data)[4], image[1, :, :, 1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_tiny_images(tmp_path, shape):
    tifffile.imwrite(tmp_path / "a.tif", np.ones(shape, np.uint8))
    source = open_image(tmp_path / "a.tif")
    assert source.axes == "YX"
    assert np.asarray(source.data).shape == shape


def test_axes_of_length_one_are_dropped(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels[:1, :1], metadata={"axes": "TCZYX"})
    source = open_image(tmp_path / "a.ome.tif")
    assert source.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(source.data), pixels[0, 0])


def test_series_can_be_chosen(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for value in (1, 2):
            file.write(
                np.full((8 * value, 9), value, np.uint8),
                metadata={"axes": "YX", "Name": f"image {value}", "PhysicalSizeX": value},
            )
    first, second = open_image(tmp_path / "a.ome.tif"), open_image(tmp_path / "a.ome.tif", series=1)
    assert first.series_names == ("image 1", "image 2")
    assert (first.shape, second.shape) == ((8, 9), (16, 9))
    assert (first.spacing_um[1], second.spacing_um[1]) == (1, 2)
    assert int(np.asarray(second.data).max()) == 2
    with pytest.raises(FileFormatError, match=r"expected 0\.\.1"):
        open_image(tmp_path / "a.ome.tif", series=2)


def test_pyramid_levels(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 96)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(image, subifds=2, tile=(16, 16), metadata={"axes": "YX"})
        file.write(image[::2, ::2], subfiletype=1, tile=(16, 16))
        file.write(image[::4, ::4], subfiletype=1, tile=(16, 16))
    source = open_image(tmp_path / "a.ome.tif")
    assert [level.shape for level in source.multiscale] == [(64, 96), (32, 48), (16, 24)]
    np.testing.assert_array_equal(np.asarray(source.data), image)
    np.testing.assert_array_equal(np.asarray(source.multiscale[2]), image[::4, ::4])


def test_opening_reads_no_pixels_and_slicing_only_its_planes(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((50, 64, 64), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    reads = []
    real = tifffile.FileHandle.read_segments

    def counting(self, offsets, *args, **kwargs):
        reads.append(len(offsets))
        return real(self, offsets, *args, **kwargs)

    monkeypatch.setattr(tifffile.FileHandle, "read_segments", counting)
    decoded = []
    page = tifffile.TiffPage.asarray
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda self, *a, **k: decoded.append(1) or page(self, *a, **k))
    source = open_image(tmp_path / "a.tif")
    assert not reads
    assert not decoded
    assert source.data.chunksize[0] == 1
    assert np.asarray(source.data[7]).shape == (64, 64)


@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("in_parts", [False, True])
def test_small_parts_are_read_in_larger_chunks(tmp_path, monkeypatch, layout, in_parts):
    if in_parts:
        monkeypatch.setattr(tiff, "_WHOLE_PLANE_BYTES", 0)
        monkeypatch.setattr(tiff, "_WHOLE_TILED_PLANE_BYTES", 0)
    image = np.arange(256 * 250, dtype=np.uint16).reshape(256, 250)
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", **layout)
    source = open_image(tmp_path / "a.tif")
    assert source.data.npartitions == 1
    np.testing.assert_array_equal(np.asarray(source.data), image)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
def test_types_come_in_native_byte_order(tmp_path, byteorder, dtype):
    image = np.arange(30, dtype=dtype).reshape(5, 6)
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=byteorder)
    source = open_image(tmp_path / "a.tif")
    assert source.data.dtype.isnative
    assert np.asarray(source.data).dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(source.data), image)


def test_a_codec_that_is_not_installed_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8), compression="zlib")
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {})
    with pytest.raises(MissingDependencyError, match="pip install imagecodecs"):
        open_image(tmp_path / "a.tif")


def test_a_codec_that_shows_only_when_reading_that_it_is_missing(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8))
    source = open_image(tmp_path / "a.tif")

    def missing(*_args, **_kwargs):
        raise ImportError("No module named 'compression'")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    with pytest.raises(MissingDependencyError, match="pip install imagecodecs"):
        np.asarray(source.data)


def test_the_file_can_be_replaced_while_its_image_is_alive(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8))
    source = open_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").replace(tmp_path / "b.tif")
    with pytest.raises(FileFormatError, match=r"a\.tif"):
        np.asarray(source.data)


def test_npy(tmp_path):
    image = np.random.default_rng(0).integers(0, 99, (2, 9, 40, 50)).astype(np.uint16)
    np.save(tmp_path / "a.npy", image)
    source = open_image(tmp_path / "a.npy")
    assert (source.axes, source.axes_known) == ("CZYX", False)
    np.testing.assert_array_equal(np.asarray(source.data), image)


def test_guesses_are_those_of_the_pipeline():
    from napari_aprcnn.io.source import guess_letters
    from napari_aprcnn.segment.axes import guess_axes

    rng = np.random.default_rng(0)
    edges = [1, 2, 3, 4, 5, 9, 30, 64, 512, 1000]
    for _ in range(500):
        shape = tuple(int(n) for n in rng.choice(edges, rng.integers(2, 6)))
        assert guess_letters(shape) == guess_axes(shape).order, shape


def test_two_axes_of_unknown_meaning_are_times_then_planes(tmp_path):
    series = np.random.default_rng(0).integers(0, 999, (5, 6, 40, 44)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", series)
    np.save(tmp_path / "a.npy", series)
    from_tiff, from_array = open_image(tmp_path / "a.tif"), open_image(tmp_path / "a.npy")
    assert from_tiff.axes == from_array.axes == "TZYX"
    assert [note.rsplit(" ", 1)[1] for note in from_tiff.notes if "is taken as" in note] == ["T", "Z"]
    np.testing.assert_array_equal(np.asarray(from_tiff.data), series)
    tifffile.imwrite(tmp_path / "b.tif", series[0])
    assert open_image(tmp_path / "b.tif").axes == "ZYX"
