"""Files that are not what they say: typed errors, no crash, no hang, no large allocation."""

import logging
import struct
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_aprcnn.errors import FileFormatError, MissingDependencyError
from napari_aprcnn.io.read import open_image

_REFUSED = (FileFormatError, MissingDependencyError)
_MOST_BYTES = 200_000_000


@pytest.fixture(scope="module", autouse=True)
def _quiet_tifffile():
    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


def _samples(folder):
    image = np.random.default_rng(0).integers(0, 255, (3, 20, 24)).astype(np.uint8)
    spacing = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(folder / "imagej.tif", image, imagej=True, metadata=spacing, resolution=(5, 5))
    tifffile.imwrite(folder / "imagej_zip.tif", image, imagej=True, metadata={"axes": "ZYX"}, compression="zlib")
    tifffile.imwrite(folder / "tiles.ome.tif", image, tile=(16, 16), compression="zlib", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "strips.tif", image, rowsperstrip=4, metadata=None)
    tifffile.imwrite(folder / "shaped.tif", image)
    tifffile.imwrite(folder / "big.tif", image, bigtiff=True, rowsperstrip=7, compression="lzma")
    with tifffile.TiffWriter(folder / "pyramid.ome.tif") as file:
        file.write(image, subifds=1, tile=(16, 16), metadata={"axes": "ZYX"})
        file.write(image[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}, image


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return _samples(tmp_path_factory.mktemp("good"))


NAMES = ["imagej.tif", "imagej_zip.tif", "tiles.ome.tif", "strips.tif", "shaped.tif", "big.tif", "pyramid.ome.tif"]


def _read(path):
    """Read as the pipeline would; returns the pixels, or None where the file was refused."""
    try:
        source = open_image(path)
        return np.asarray(source.data) if source.data.nbytes < 50_000_000 else None
    except _REFUSED:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_truncation_anywhere_is_an_error_or_harmless(tmp_path, samples, name):
    files, image = samples
    data = files[name]
    path = tmp_path / name
    refused = 0
    for length in sorted({*range(0, 64, 3), *range(64, len(data), max(1, len(data) // 60)), len(data) - 1}):
        path.write_bytes(data[:length])
        pixels = _read(path)
        refused += pixels is None
        # Either the whole image or an error: never a part of it, never other values.
        if pixels is not None:
            np.testing.assert_array_equal(pixels, image)
    assert refused > 40


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_files_never_crash_hang_or_allocate(tmp_path, samples, data):
    files, _ = samples
    name = data.draw(st.sampled_from(NAMES))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.one_of(st.integers(0, min(600, len(content) - 5)), st.integers(0, len(content) - 5)))
        patch = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=1),
                st.sampled_from([b"\xff" * 4, b"\0\0\0\x7f", b"\0\xca\x9a\x3b", b"\0" * 4]),
            )
        )
        content[position : position + len(patch)] = patch
    path = tmp_path / name
    path.write_bytes(content)
    started = time.process_time()
    _read(path)
    assert time.process_time() - started < 5


def _tiff(path, *, width, height, compression=1, data=b"\0" * 64, rows=None, counts=None, samples=1, bits=8, extra=()):
    """Write a TIFF with one strip by hand, with whatever it claims."""
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, height if rows is None else rows),
        (279, 4, 1, len(data) if counts is None else counts), *extra,
    ]  # fmt: skip
    content = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries))
    content += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + b"\0\0\0\0"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "claims",
    [
        {"width": 10**6, "height": 10**6},
        {"width": 10**6, "height": 10**6, "compression": 8},
        {"width": 10**6, "height": 10**6, "compression": 5},
        {"width": 10**6, "height": 10**6, "compression": 8, "rows": 1},
        {"width": 2**32 - 1, "height": 2**32 - 1, "compression": 8},
        {"width": 10**6, "height": 10**6, "compression": 50000},
        {"width": 10**6, "height": 10**6, "counts": 2**32 - 1},
        {"width": 10**6, "height": 10**6, "counts": 0},
        {"width": 60_000, "height": 60_000, "bits": 64},
        {"width": 8, "height": 8, "samples": 65535},
        {"width": 8, "height": 8, "bits": 0},
        {"width": 0, "height": 8},
        {"width": 8, "height": 8, "counts": 1000},
        {"width": 8, "height": 8, "data": b"\0" * 10, "counts": 10},
        {"width": 8, "height": 8, "extra": ((270, 2, 2**32 - 1, 8),)},
    ],
    ids=str,
)
def test_absurd_claims_are_refused_before_anything_is_allocated(tmp_path, claims):
    path = _tiff(tmp_path / "absurd.tif", **claims)
    open_image(_tiff(tmp_path / "fine.tif", width=8, height=8))
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(FileFormatError, match=r"absurd\.tif"):
            open_image(path)
        assert tracemalloc.get_traced_memory()[1] < _MOST_BYTES
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5


def test_the_hand_made_file_is_readable_when_its_claims_are_true(tmp_path):
    path = _tiff(tmp_path / "fine.tif", width=8, height=8, data=bytes(range(64)))
    np.testing.assert_array_equal(np.asarray(open_image(path).data).ravel(), np.arange(64))


@pytest.mark.parametrize(
    ("sizes", "data"),
    [
        ('SizeZ="1000000000" SizeC="1"', "<TiffData/>"),
        ('SizeZ="3" SizeC="1"', '<TiffData IFD="0" PlaneCount="1000000000000"/>'),
        ('SizeZ="3000000" SizeC="30000"', '<TiffData IFD="0" FirstZ="2999999"/>'),
    ],
)
def test_absurd_ome_metadata(tmp_path, sizes, data):
    pixels = f'<Pixels DimensionOrder="XYZCT" SizeX="24" SizeY="20" {sizes} SizeT="1" Type="uint8">{data}</Pixels>'
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    document = f'<?xml version="1.0"?><OME xmlns="{schema}"><Image ID="Image:0">{pixels}</Image></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((3, 20, 24), np.uint8), description=document, metadata=None)
    with pytest.raises(FileFormatError, match="metadata"):
        open_image(tmp_path / "a.ome.tif")


def test_an_xml_bomb_is_refused(tmp_path):
    layers = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "lol">{layers}]><OME>&a9;</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((3, 20, 24), np.uint8), description=bomb, metadata=None)
    with pytest.raises(FileFormatError, match="entities"):
        open_image(tmp_path / "a.ome.tif")


def test_pages_in_a_circle(tmp_path):
    path = _tiff(tmp_path / "circle.tif", width=8, height=8)
    content = bytearray(path.read_bytes())
    content[-4:] = content[4:8]
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="circle"):
        open_image(path)


def test_damaged_compressed_data_are_found_when_they_are_read(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[0].dataoffsets[0]
    content[start : start + 40] = b"\x55" * 40
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        np.asarray(open_image(tmp_path / "a.tif").data)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tif", b"", "empty"),
        ("a.tif", b"II", "no TIFF"),
        ("a.tif", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "no TIFF"),
        ("a.tif", b"just some text, renamed", "no TIFF"),
        ("a.tif", b"II*\0\0\0\0\0", "without an image"),
        ("a.tif", b"II*\0\xff\xff\xff\xff", "truncated"),
        ("a.tif", b"II+\0\x08\0\0\0", "truncated"),
        (
            "a.npy",
            b"\x93NUMPY\x01\0\x46\0" + b"{'descr': '<u1', 'fortran_order': False, 'shape': (1000000, 1000000)}\n",
            "numpy",
        ),
        (
            "a.npy",
            b"\x93NUMPY\x01\0\x46\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 4), }" + b" " * 12,
            "numpy",
        ),
        ("a.npy", b"\x93NUMPY", "numpy"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=words):
        open_image(tmp_path / name)


def test_missing_file_and_folders(tmp_path):
    with pytest.raises(FileFormatError, match="there is no file"):
        open_image(tmp_path / "none.tif")
    with pytest.raises(FileFormatError, match="no zarr image"):
        open_image(tmp_path)


def test_too_many_axes_have_a_remedy(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2, 2, 2, 2), np.uint8))
    with pytest.raises(FileFormatError, match="expected 2 to 5"):
        open_image(tmp_path / "a.npy")
