import json

import numpy as np
import pytest
import zarr

from napari_aprcnn.errors import FileFormatError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.write import write_image, write_labels


def _ome(path, image, *, axes, scale, version="0.4", unit="micrometer", extra=None, outer=None):
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=image, chunks=(1,) * (image.ndim - 2) + image.shape[-2:])
    types = {"t": "time", "c": "channel"}
    declared = [
        {"name": a, "type": types.get(a, "space")} | ({"unit": unit} if a in "zyx" and unit else {}) for a in axes
    ]
    multiscale = {
        "version": version, "axes": declared,
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }  # fmt: skip
    if outer:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": outer}]
    metadata = {"multiscales": [multiscale], **(extra or {})}
    group.attrs.update(metadata if version == "0.4" else {"ome": {"version": version, **metadata}})
    return path


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 4000, (2, 3, 5, 40, 32)).astype(np.uint16)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_voxel_size_and_channels(tmp_path, image, version):
    channels = {"omero": {"channels": [{"label": "DNA"}, {"label": "actin"}, {}]}}
    path = _ome(
        tmp_path / "a.ome.zarr", image, axes="tczyx", scale=[1, 1, 0.5, 0.2, 0.1], version=version, extra=channels
    )
    source = open_image(path)
    assert (source.axes, source.name, source.kind) == ("TCZYX", "a", f"OME-Zarr {version}")
    assert source.spacing_um == pytest.approx((0.5, 0.2, 0.1))
    assert source.channel_names == ("DNA", "actin", "channel 2")
    np.testing.assert_array_equal(np.asarray(source.data), image)


def test_units_and_outer_scale_count(tmp_path, image):
    path = _ome(tmp_path / "a.zarr", image[0, 0], axes="zyx", scale=[500, 200, 100], unit="nanometer", outer=[1, 2, 2])
    assert open_image(path).spacing_um == pytest.approx((0.5, 0.4, 0.2))


def test_a_scale_without_a_unit_is_taken_as_micrometres_and_said_so(tmp_path, image):
    source = open_image(_ome(tmp_path / "a.zarr", image[0, 0], axes="zyx", scale=[2, 1, 1], unit=None))
    assert source.spacing_um == (2, 1, 1)
    assert any("no unit" in note for note in source.notes)
    assert open_image(_ome(tmp_path / "b.zarr", image[0, 0], axes="zyx", scale=[1, 1, 1], unit=None)).spacing_um is None


def test_axes_in_another_order_and_of_length_one(tmp_path, image):
    source = open_image(_ome(tmp_path / "a.zarr", image[:, :1], axes="tczyx", scale=[1, 1, 1, 1, 1]))
    assert source.axes == "TZYX"
    source = open_image(_ome(tmp_path / "b.zarr", image[0], axes="zcyx", scale=[3, 1, 1, 1]))
    assert source.axes == "ZCYX"
    assert source.spacing_um == (3, 1, 1)


def test_plain_array_with_and_without_names(tmp_path, image):
    zarr.create_array(str(tmp_path / "a.zarr"), data=image[0], dimension_names=("z", "c", "y", "x"))
    named = open_image(tmp_path / "a.zarr")
    assert (named.axes, named.axes_known, named.kind) == ("ZCYX", True, "zarr")
    zarr.create_array(str(tmp_path / "b.zarr"), data=image[0, 0], zarr_format=2)
    assert (open_image(tmp_path / "b.zarr").axes, open_image(tmp_path / "b.zarr").axes_known) == ("ZYX", False)


def test_a_collection_gives_its_images(tmp_path, image):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    _ome(tmp_path / "a.zarr" / "0", image[0, 0], axes="zyx", scale=[1, 1, 1])
    _ome(tmp_path / "a.zarr" / "1", image[0, 1, 0], axes="yx", scale=[1, 1])
    assert open_image(tmp_path / "a.zarr").series_names == ("0", "1")
    second = open_image(tmp_path / "a.zarr", series=1)
    assert (second.axes, second.name) == ("YX", "a 1")


def test_a_plate_gives_its_fields(tmp_path, image):
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="w", zarr_format=2)
    group.attrs["plate"] = {"wells": [{"path": "A/1"}]}
    well = group.create_group("A").create_group("1")
    well.attrs["well"] = {"images": [{"path": "0"}]}
    _ome(tmp_path / "p.zarr" / "A" / "1" / "0", image[0, 0, 0], axes="yx", scale=[1, 1])
    assert open_image(tmp_path / "p.zarr").series_names == ("A/1/0",)


def test_nothing_is_loaded_when_it_is_opened(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(1000, 20_000, 20_000), chunks=(1, 1000, 1000), dtype="u2")
    source = open_image(tmp_path / "a.zarr")
    assert source.data.nbytes == 800_000_000_000
    assert np.asarray(source.data[500, :4, :4]).shape == (4, 4)


def _edit(path, **changes):
    file = path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [10**12, 10**12]}, "chunks"),
        (
            {
                "shape": [10**6, 10**6],
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**6, 10**6]}},
            },
            "GiB",
        ),
        ({"shape": [0, 40]}, "empty"),
        ({"shape": [-4, 40]}, "cannot read"),
        ({"shape": "large"}, "cannot read"),
        ({"data_type": "nonsense"}, "cannot read"),
        ({"codecs": []}, "cannot read"),
        ({"node_type": "cat"}, "cannot read"),
    ],
)
def test_absurd_or_damaged_metadata(tmp_path, changes, words):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.zeros((40, 40), np.uint8))
    _edit(tmp_path / "a.zarr", **changes)
    with pytest.raises(FileFormatError, match=words):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "multiscales",
    [
        [],
        [{}],
        [{"datasets": []}],
        [{"datasets": [{"path": "9"}]}],
        "x",
        [{"datasets": [{"path": "0"}], "axes": ["x"]}],
    ],
)
def test_damaged_ome_metadata(tmp_path, image, multiscales):
    path = _ome(tmp_path / "a.zarr", image[0, 0], axes="zyx", scale=[1, 1, 1])
    zarr.open_group(str(path), mode="a").attrs["multiscales"] = multiscales
    with pytest.raises(FileFormatError, match=r"a\.zarr"):
        open_image(path)


def test_metadata_that_are_no_json(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(FileFormatError, match="zarr metadata"):
        open_image(tmp_path / "a.zarr")


def test_a_group_without_images(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    with pytest.raises(FileFormatError, match="without an image"):
        open_image(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_found_when_it_is_read(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.arange(1600, dtype=np.uint16).reshape(40, 40))
    (tmp_path / "a.zarr" / "c" / "0" / "0").write_bytes(b"no zstd frame")
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        np.asarray(open_image(tmp_path / "a.zarr").data)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_written_labels_are_valid_and_come_back(tmp_path, version):
    labels = np.random.default_rng(0).integers(0, 999, (3, 700, 600)).astype(np.uint32)
    write_labels(labels, tmp_path / "a.zarr", axes="ZYX", spacing_um=(1, 0.5, 0.25), ome_zarr=version)
    source = open_image(tmp_path / "a.zarr")
    assert (source.axes, source.kind, source.data.dtype) == ("ZYX", f"OME-Zarr {version}", np.uint16)
    assert source.spacing_um == (1, 0.5, 0.25)
    assert [level.shape for level in source.multiscale] == [(3, 700, 600), (3, 350, 300)]
    np.testing.assert_array_equal(np.asarray(source.data), labels)
    np.testing.assert_array_equal(np.asarray(source.multiscale[1]), labels[:, ::2, ::2])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_written_metadata_pass_the_schema(tmp_path, version):
    models = pytest.importorskip("ome_zarr_models")
    write_image(
        np.zeros((2, 3, 40, 40), np.uint16), tmp_path / "a.zarr", axes="CZYX", spacing_um=(1, 1, 1), ome_zarr=version
    )
    write_labels(
        np.zeros((3, 40, 40), np.uint16), tmp_path / "b.zarr", axes="ZYX", spacing_um=(1, 1, 1), ome_zarr=version
    )
    for name in ("a.zarr", "b.zarr"):
        found = models.open_ome_zarr(zarr.open_group(str(tmp_path / name), mode="r"))
        assert found.ome_zarr_version == version


def test_flows_keep_their_channels(tmp_path):
    write_image(
        np.zeros((3, 4, 40, 40), np.float32),
        tmp_path / "a.zarr",
        axes="CZYX",
        channel_names=("flow z", "flow y", "flow x"),
    )
    source = open_image(tmp_path / "a.zarr")
    assert source.channel_names == ("flow z", "flow y", "flow x")
    assert source.data.dtype == np.float32
