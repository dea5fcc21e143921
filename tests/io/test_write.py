import errno
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_aprcnn.errors import AprcnnError, AxesError, ImageDtypeError, OutputError
from napari_aprcnn.io import atomic
from napari_aprcnn.io.atomic import beside, make_folder, staged, write_text
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.write import (
    write_geojson,
    write_image,
    write_labels,
    write_measurements,
    write_overlay,
    write_rois,
)

SPACING = (1.0, 0.5, 0.25)


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 60000, (2, 3, 20, 24)).astype(np.uint16)


def _left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_imagej_labels(tmp_path, labels):
    write_labels(labels, tmp_path / "a.tif", axes="TZYX", spacing_um=SPACING)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej
        assert file.imagej_metadata["unit"] == "um"
        assert (file.imagej_metadata["frames"], file.imagej_metadata["slices"]) == (2, 3)
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    source = open_image(tmp_path / "a.tif")
    assert (source.axes, source.spacing_um) == ("TZYX", pytest.approx(SPACING))
    np.testing.assert_array_equal(np.asarray(source.data), labels)
    assert _left(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.ome.tiff"])
def test_ome_labels(tmp_path, labels, name):
    large = labels.astype(np.uint32) * 70_000
    write_labels(large, tmp_path / name, axes="TZYX", spacing_um=SPACING)
    source = open_image(tmp_path / name)
    assert (source.kind, source.axes, source.data.dtype) == ("OME-TIFF", "TZYX", np.uint32)
    assert source.spacing_um == pytest.approx(SPACING)
    np.testing.assert_array_equal(np.asarray(source.data), large)


def test_labels_become_as_small_as_they_fit(tmp_path, labels):
    for dtype in (np.uint64, np.int64, np.uint32):
        write_labels(labels.astype(dtype), tmp_path / "a.tif", axes="TZYX", overwrite=True)
        assert open_image(tmp_path / "a.tif").data.dtype == np.uint16


def test_labels_of_a_scan_in_another_order_and_from_dask(tmp_path, labels):
    lazy = da.from_array(labels.transpose(1, 0, 2, 3), chunks=(1, 1, 20, 24))
    write_labels(lazy, tmp_path / "a.tif", axes="ZTYX")
    source = open_image(tmp_path / "a.tif")
    assert source.axes == "TZYX"
    np.testing.assert_array_equal(np.asarray(source.data), labels)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_flows_and_probability(tmp_path, name):
    flows = np.random.default_rng(0).normal(size=(2, 3, 20, 24)).astype(np.float32)
    write_image(flows, tmp_path / name, axes="CZYX", spacing_um=SPACING, channel_names=("flow y", "flow x"))
    source = open_image(tmp_path / name)
    values = np.asarray(source.data).transpose([source.axes.index(letter) for letter in "CZYX"])
    np.testing.assert_array_equal(values, flows)
    assert source.channel_names == ("flow y", "flow x")


@pytest.mark.parametrize("shape", [(1, 1), (1, 5, 1)])
def test_tiny_labels(tmp_path, shape):
    write_labels(np.ones(shape, np.uint16), tmp_path / "a.tif", axes="ZYX"[-len(shape) :])
    assert np.asarray(open_image(tmp_path / "a.tif").data).sum() == np.prod(shape)


def test_what_cannot_be_written(tmp_path, labels):
    with pytest.raises(AxesError):
        write_labels(labels, tmp_path / "a.tif", axes="ZYX")
    with pytest.raises(ImageDtypeError):
        write_labels(labels.astype(float), tmp_path / "a.tif", axes="TZYX")
    with pytest.raises(OutputError, match="below 0"):
        write_labels(-labels.astype(int), tmp_path / "a.tif", axes="TZYX")
    with pytest.raises(OutputError, match="at most"):
        write_labels(labels.astype(np.uint64) << 40, tmp_path / "a.tif", axes="TZYX")
    with pytest.raises(OutputError, match=r"\.ome\.tif or \.zarr"):
        write_labels(labels, tmp_path / "a.png", axes="TZYX")
    assert _left(tmp_path) == []


WRITERS = {
    "a.tif": lambda labels, path: write_labels(labels, path, axes="ZYX"),
    "b.ome.tif": lambda labels, path: write_labels(labels, path, axes="ZYX"),
    "c.zarr": lambda labels, path: write_labels(labels, path, axes="ZYX"),
    "d.zip": lambda labels, path: write_rois(labels, path),
    "e.geojson": lambda labels, path: write_geojson(labels, path),
    "f.csv": lambda labels, path: write_measurements(labels, path),
    "g.png": lambda labels, path: write_overlay(labels, labels, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_replaced_unasked(tmp_path, labels, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        WRITERS[name](labels[0], tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"
    assert _left(tmp_path) == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_folder_is_said(tmp_path, labels, name):
    with pytest.raises(OutputError, match="does not exist"):
        WRITERS[name](labels[0], tmp_path / "no" / name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_nothing(tmp_path, labels, name, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    # The last step of every writer, and the writing itself where it goes through Python.
    monkeypatch.setattr(atomic, "_put", full)
    with pytest.raises(OutputError, match="disk is full"):
        WRITERS[name](labels[0], tmp_path / name)
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.tif", "tifffile.FileHandle.write"),
        ("a.tif", "tifffile.FileHandle.write_array"),
        ("c.zarr", "zarr.storage.LocalStore.set"),
    ],
)
def test_a_disk_that_fills_in_the_middle_leaves_nothing(tmp_path, labels, name, target, monkeypatch):
    count = []

    def full(*_args, **_kwargs):
        count.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(target, full)
    if target.endswith("write_array"):
        # Compressed planes do not go this way; should they ever, the next lines count.
        WRITERS[name](labels[0], tmp_path / name)
        assert not count
        return
    with pytest.raises(OutputError, match="disk is full"):
        WRITERS[name](labels[0], tmp_path / name)
    assert _left(tmp_path) == []


def test_a_real_full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    def fill():
        with beside(tmp_path / "a.txt") as name:
            name.symlink_to("/dev/full")
            name.write_text("x" * 100_000)

    with pytest.raises(OutputError, match="disk is full"):
        fill()
    assert _left(tmp_path) == []


def test_a_crash_while_writing_keeps_the_old_result(tmp_path):
    write_text("old", tmp_path / "a.txt")

    def crash():
        with beside(tmp_path / "a.txt", overwrite=True) as name:
            name.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert _left(tmp_path) == ["a.txt"]


def test_zarr_folders_are_replaced_and_other_folders_never(tmp_path, labels):
    write_labels(labels, tmp_path / "a.zarr", axes="TZYX")
    write_labels(labels[:1], tmp_path / "a.zarr", axes="TZYX", overwrite=True)
    assert open_image(tmp_path / "a.zarr").shape == (3, 20, 24)
    assert _left(tmp_path) == ["a.zarr"]
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no zarr"):
        write_labels(labels, tmp_path / "b.zarr", axes="TZYX", overwrite=True)
    assert (tmp_path / "b.zarr" / "thesis.txt").exists()


def test_a_folder_that_cannot_take_its_place_brings_the_old_one_back(tmp_path, labels, monkeypatch):
    write_labels(labels, tmp_path / "a.zarr", axes="TZYX")
    real = Path.rename

    def failing(self, target):
        if ".part." in self.name:
            raise OSError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="permission"):
        write_labels(labels[:1], tmp_path / "a.zarr", axes="TZYX", overwrite=True)
    assert open_image(tmp_path / "a.zarr").shape == labels.shape
    assert _left(tmp_path) == ["a.zarr"]


def test_staged_results_appear_together_or_not_at_all(tmp_path):
    with staged(tmp_path) as stage:
        (stage / "a").write_text("1")
        (stage / "b").write_text("2")
        assert not (tmp_path / "a").exists()
    assert _left(tmp_path) == ["a", "b"]

    def again(*, overwrite, error=None):
        with staged(tmp_path, overwrite=overwrite) as stage:
            (stage / "b").write_text("3")
            (stage / "aa").write_text("3")
            if error is not None:
                raise error

    with pytest.raises(OutputError, match="exists"):
        again(overwrite=False)
    assert _left(tmp_path) == ["a", "b"]
    with pytest.raises(RuntimeError):
        again(overwrite=True, error=RuntimeError())
    assert (tmp_path / "b").read_text() == "2"
    assert _left(tmp_path) == ["a", "b"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file" / "folder")
    with pytest.raises(OutputError), staged(tmp_path / "none"):
        pass


def test_errors_are_ours(tmp_path):
    with pytest.raises(AprcnnError):
        write_text("x", tmp_path / ("n" * 400))
