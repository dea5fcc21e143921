import json

import numpy as np
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_aprcnn.errors import AxesError
from napari_aprcnn.io.outlines import outlines, write_geojson, write_rois


def _fill(rings, shape):
    """Pixels whose middle is inside an odd number of rings of (y, x) corners."""
    inside = np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    for ring in rings:
        for (y, x), (y2, _) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            inside ^= ((y > rows) != (y2 > rows)) & (x > columns)
    return inside


def _rebuild(found, shape):
    plane = np.zeros(shape, np.int64)
    for outline in found:
        filled = _fill([outline.outer, *outline.holes], shape)
        assert not plane[filled].any()
        plane[filled] = outline.label
    return plane


@settings(max_examples=150, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_filling_the_outlines_gives_back_every_pixel(plane):
    found = outlines(plane)
    np.testing.assert_array_equal(_rebuild(found, plane.shape), plane)
    for outline in found:
        for ring in (outline.outer, *outline.holes):
            # Rings are simple: no corner twice, and every side turns.
            assert len({tuple(corner) for corner in ring}) == len(ring)
            assert len(ring) >= 4


def test_known_shapes():
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    (outline,) = outlines(ring)
    assert outline.outer.tolist() == [[0, 0], [0, 3], [3, 3], [3, 0]]
    assert sorted(map(tuple, outline.holes[0].tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert len(outlines(np.eye(3, dtype=int))) == 3
    assert outlines(np.zeros((4, 4), int)) == []


def test_large_ids_do_not_matter():
    plane = np.zeros((4, 5), np.uint32)
    plane[1:3, 1:4] = 4_000_000_000
    (outline,) = outlines(plane)
    assert outline.label == 4_000_000_000


@pytest.fixture
def volume():
    labels = np.zeros((3, 12, 14), np.uint16)
    labels[:2, 2:6, 3:7] = 1
    labels[1:, 7:11, 8:13] = 2
    labels[1, 8, 9] = 0
    return labels


def test_rois_have_names_positions_and_pixels(tmp_path, volume):
    write_rois(volume, tmp_path / "a.zip")
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [roi.name for roi in rois] == ["00001-z0001", "00001-z0002", "00002-z0002", "00002-z0003"]
    assert [roi.position for roi in rois] == [1, 2, 2, 3]
    corners = rois[0].coordinates()[:, ::-1]
    np.testing.assert_array_equal(_fill([corners], volume.shape[1:]), volume[0] == 1)


def test_rois_of_a_plane_a_series_and_a_hyperstack(tmp_path, volume):
    write_rois(volume[1], tmp_path / "a.zip")
    assert [(roi.name, roi.position) for roi in roifile.roiread(tmp_path / "a.zip")] == [("00001", 0), ("00002", 0)]
    write_rois(volume, tmp_path / "b.zip", axes="TYX")
    assert roifile.roiread(tmp_path / "b.zip")[0].name == "00001-t0001"
    write_rois(np.stack([volume, volume]), tmp_path / "c.zip")
    last = roifile.roiread(tmp_path / "c.zip")[-1]
    assert (last.name, last.z_position, last.t_position, last.position) == ("00002-t0002-z0003", 3, 2, 0)


def test_no_objects_give_an_empty_zip_and_an_empty_collection(tmp_path):
    write_rois(np.zeros((5, 5), np.uint8), tmp_path / "a.zip")
    write_geojson(np.zeros((5, 5), np.uint8), tmp_path / "a.geojson")
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []


def test_geojson_has_holes_closed_rings_and_properties(tmp_path, volume):
    write_geojson(volume, tmp_path / "a.geojson", spacing_um=(1, 0.5, 0.5))
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [(f["properties"]["label"], f["properties"]["z"]) for f in features] == [(1, 0), (1, 1), (2, 1), (2, 2)]
    holed = features[2]
    assert holed["geometry"]["type"] == "Polygon"
    assert len(holed["geometry"]["coordinates"]) == 2
    assert holed["properties"]["area_px"] == 19
    assert holed["properties"]["area_um2"] == pytest.approx(19 / 4)
    assert holed["geometry"]["plane"] == {"c": -1, "z": 1, "t": 0}
    for feature in features:
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]


def test_an_object_in_pieces_is_one_feature(tmp_path):
    plane = np.zeros((6, 6), np.uint8)
    plane[0:2, 0:2] = plane[4:6, 4:6] = 1
    write_geojson(plane, tmp_path / "a.geojson")
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert feature["properties"]["area_px"] == 8


def test_axes_that_do_not_fit(tmp_path, volume):
    with pytest.raises(AxesError):
        write_rois(volume, tmp_path / "a.zip", axes="YX")
    with pytest.raises(AxesError):
        write_geojson(volume, tmp_path / "a.geojson", axes="CYX")
    assert list(tmp_path.iterdir()) == []
