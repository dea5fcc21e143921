"""Reader, writer, sample data and manifest, as napari calls them."""

import dask.array as da
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels
from napari_fakes import blobs
from npe2 import PluginManager, PluginManifest

from napari_aprcnn._napari import sample_data
from napari_aprcnn._napari.reader import get_reader, read
from napari_aprcnn._napari.writer import write_labels_layer
from napari_aprcnn.config import AxisMapping, SegmentConfig
from napari_aprcnn.errors import AxesError, FileFormatError, OutputError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import list_samples


def added(path):
    """Layers as napari makes them of the reader's data."""
    viewer = ViewerModel()
    for data, options, kind in get_reader(str(path))(str(path)):
        assert kind == "image"
        viewer.add_image(data, **options)
    return list(viewer.layers)


@pytest.fixture
def ome_tiff(tmp_path):
    path = tmp_path / "embryo.ome.tif"
    metadata = {
        "axes": "TCZYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 1.5,
        "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm", "PhysicalSizeZUnit": "µm",
        "Channel": {"Name": ["DAPI", "actin"]},
    }  # fmt: skip
    tifffile.imwrite(path, blobs((3, 2, 4, 40, 48), dtype="uint16"), metadata=metadata)
    return path


def test_ome_tiff_keeps_voxel_size_axes_and_channels_and_stays_lazy(ome_tiff):
    dapi, actin = added(ome_tiff)
    assert (dapi.name, actin.name) == ("embryo DAPI", "embryo actin")
    assert dapi.data.shape == (3, 4, 40, 48)
    assert isinstance(dapi.data, da.Array)
    np.testing.assert_allclose(dapi.scale, (1, 1.5, 0.25, 0.2))
    assert dapi.axis_labels == ("t", "z", "y", "x")
    assert [str(unit) for unit in dapi.units] == ["pixel", "micrometer", "micrometer", "micrometer"]


def test_imagej_tiff_keeps_voxel_size(tmp_path):
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(path, blobs((5, 40, 48)), imagej=True, resolution=(5.0, 4.0), metadata=metadata)
    (layer,) = added(path)
    np.testing.assert_allclose(layer.scale, (0.5, 0.25, 0.2))
    assert layer.axis_labels == ("z", "y", "x")


def test_without_voxel_size_the_unit_is_the_pixel(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", blobs((40, 48)))
    (layer,) = added(tmp_path / "plain.tif")
    np.testing.assert_allclose(layer.scale, 1)
    assert {str(unit) for unit in layer.units} == {"pixel"}


def test_colour_is_shown_as_colour(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((40, 48, 3), np.uint8), photometric="rgb")
    (layer,) = added(tmp_path / "rgb.tif")
    assert layer.rgb
    assert layer.ndim == 2


def test_a_series_of_files_becomes_a_stack(tmp_path):
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f"z{index}.tif"))
        tifffile.imwrite(paths[-1], blobs((40, 48)) + np.uint8(index))
    ((data, options, _),) = read(paths)
    assert data.shape == (3, 40, 48)
    assert options["axis_labels"] == ["z", "y", "x"]
    assert int(data[2, 0, 0]) == 2


@pytest.mark.parametrize("name", ["notes.txt", "image.png", "folder", "", "run.json"])
def test_other_files_are_left_to_others(tmp_path, name):
    (tmp_path / "folder").mkdir()
    assert get_reader(str(tmp_path / name)) is None
    assert get_reader([str(tmp_path / "a.tif"), str(tmp_path / name)]) is None


def test_a_damaged_file_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"II*\x00" + b"\xff" * 20)
    with pytest.raises(FileFormatError, match="broken"):
        read(str(tmp_path / "broken.tif"))


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_and_voxel_size_survive_saving(tmp_path, suffix, ndim):
    data = np.random.default_rng(0).integers(0, 500, (6, 40, 48)[-ndim:]).astype(np.uint16)
    layer = Labels(data, scale=(1.5, 0.25, 0.2)[-ndim:], units=("um",) * ndim, axis_labels=tuple("zyx"[-ndim:]))
    path = tmp_path / f"nuclei{suffix}"
    full, attributes, _ = layer.as_layer_data_tuple()
    assert write_labels_layer(str(path), full, attributes) == [str(path)]
    source = open_image(path)
    np.testing.assert_array_equal(np.asarray(source.data), data)
    assert source.spacing_um[-ndim:] == pytest.approx((1.5, 0.25, 0.2)[-ndim:], rel=1e-5)
    # napari has asked before it replaces a file
    write_labels_layer(str(path), full, attributes)


@pytest.mark.parametrize("options", [{"scale": (1.5, 0.5, 0.4)}, {}])
def test_the_voxel_size_of_saved_labels_counts_all_transforms(tmp_path, options):
    """Readers of other formats put the scale into the affine; a rotation makes no voxel smaller."""
    affine = np.eye(4)
    affine[1:3, 1:3] = ((0, 1), (-1, 0))
    affine[:3, :3] = affine[:3, :3] @ (np.eye(3) if options else np.diag((1.5, 0.5, 0.4)))
    layer = Labels(
        np.ones((6, 20, 24), np.uint16), units=("um",) * 3, axis_labels=tuple("zyx"), affine=affine, **options
    )
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(tmp_path / "a.ome.tif"), data, attributes)
    assert open_image(tmp_path / "a.ome.tif").spacing_um == pytest.approx((1.5, 0.5, 0.4))


def test_saved_labels_lose_the_stretched_channel_axis_and_keep_other_units(tmp_path):
    layer = Labels(
        np.ones((3, 1, 20, 24), np.uint16), scale=(1, 2, 250, 200), units=("pixel", "pixel", "nm", "nm"),
        axis_labels=("t", "c", "y", "x"),
    )  # fmt: skip
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(tmp_path / "a.ome.tif"), data, attributes)
    source = open_image(tmp_path / "a.ome.tif")
    assert source.axes == "TYX"
    assert source.spacing_um[1:] == pytest.approx((0.25, 0.2))


def test_labels_of_a_run_are_saved_with_what_replays_it(tmp_path):
    config = SegmentConfig(diameter_px=31.0, axes=AxisMapping(order="YX"))
    metadata = {"aprcnn": {"config": config.to_json(), "readout": "{}", "kind": "nuclei", "source": "a"}}
    data, attributes, _ = Labels(np.ones((20, 24), np.uint16), metadata=metadata).as_layer_data_tuple()
    written = write_labels_layer(str(tmp_path / "cells_labels.ome.tif"), data, attributes)
    assert written == [str(tmp_path / "cells_labels.ome.tif"), str(tmp_path / "cells_run.json")]
    assert SegmentConfig.from_file(tmp_path / "cells_run.json") == config


def test_labels_that_no_file_holds_are_refused(tmp_path):
    data, attributes, _ = Labels(np.ones((2, 2, 2, 8, 8), np.uint16)).as_layer_data_tuple()
    with pytest.raises(AxesError, match="5 axes"):
        write_labels_layer(str(tmp_path / "a.tif"), data, attributes)
    data, attributes, _ = Labels(np.ones((8, 8), np.uint16)).as_layer_data_tuple()
    with pytest.raises(OutputError):
        write_labels_layer(str(tmp_path / "missing" / "a.tif"), data, attributes)


def manifest():
    return PluginManifest.from_distribution("napari-aprcnn")


def test_every_command_of_the_manifest_can_be_imported():
    pytest.importorskip("PyQt6", reason="the dock needs a Qt binding")
    found = manifest()
    found.validate_imports()
    assert {widget.command for widget in found.contributions.widgets} == {
        "napari-aprcnn.segment",
        "napari-aprcnn.train",
        "napari-aprcnn.annotate",
        "napari-aprcnn.inspect",
        "napari-aprcnn.evaluate",
        "napari-aprcnn.graph",
        "napari-aprcnn.benchmark",
    }


_SCENES = ("cystic", "compact", "cauliflower", "embryo", "scattered")


def test_every_sample_is_in_the_menu_and_opens():
    keys = {sample.key for sample in manifest().contributions.sample_data}
    simulated = {f"simulated-{scene}-3d" for scene in _SCENES}
    assert keys == {sample.name for sample in list_samples()} | simulated
    for contribution in manifest().contributions.sample_data:
        command = next(c for c in manifest().contributions.commands if c.id == contribution.command)
        function = getattr(sample_data, command.python_name.partition(":")[2])
        *truth, (data, options, kind) = function()
        assert kind == "image"
        assert [layer[2] for layer in truth] == (["labels"] if contribution.key in simulated else [])
        assert all(labels.shape == data.shape and labels.max() > 35 for labels, _, _ in truth)
        assert data.ndim == (3 if contribution.key.endswith("3d") else 2)
        assert options["metadata"]["licence"]


def test_the_reader_claims_only_its_patterns():
    manager = PluginManager()
    manager.register(manifest())
    names = {"a.tif": True, "a.OME.TIFF": True, "a.zarr": True, "a.npy": True, "a.png": False, "a.txt": False}
    assert {name: bool(list(manager.iter_compatible_readers([name]))) for name in names} == names
