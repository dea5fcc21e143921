import io
import json
import zipfile

import numpy as np
import pytest
import tifffile

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.train.data import FLOW_UNIT, median_diameter_px, normalise_percentiles, read_training_data

from .conftest import disks


def test_an_archive_is_read_with_flows_and_diameter(archive):
    images = read_training_data(archive)
    assert [(i.name, i.kind, i.source) for i in images][:2] == [("im0", "even", "disks"), ("im1", "odd", "disks")]
    item = images[0]
    assert item.image.dtype == np.float16
    assert item.flows.shape == (2, *item.labels.shape)
    length = np.hypot(*(item.flows.astype(float) / FLOW_UNIT))
    assert np.all(length[item.labels == 0] == 0)
    assert np.median(length[item.labels > 0]) == pytest.approx(1, abs=0.02)
    assert 8 < item.diameter_px < 18


@pytest.mark.parametrize("suffix", ["_masks", "_labels"])
def test_pairs_in_one_folder(tmp_path, suffix):
    image, labels = disks()
    tifffile.imwrite(tmp_path / "a.tif", image)
    tifffile.imwrite(tmp_path / f"a{suffix}.tif", labels)
    tifffile.imwrite(tmp_path / "unlabelled.tif", image)
    assert [i.name for i in read_training_data(tmp_path)] == ["a"]


def test_a_volume_gives_its_planes_with_nuclei(tmp_path):
    image, labels = disks()
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "images" / "v.tif", np.stack([image] * 3))
    tifffile.imwrite(tmp_path / "labels" / "v.tif", np.stack([labels, labels * 0, labels]))
    assert len(read_training_data(tmp_path)) == 2


def test_bad_data_is_told(tmp_path):
    with pytest.raises(TrainingDataError, match="neither a folder nor a zip"):
        read_training_data(tmp_path / "nowhere")
    with pytest.raises(TrainingDataError, match="holds no pairs"):
        read_training_data(tmp_path)
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(TrainingDataError, match="cannot read"):
        read_training_data(tmp_path / "broken.zip")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(TrainingDataError, match="no labels for"):
        read_training_data(tmp_path)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", np.zeros((8, 9), np.uint8))
    with pytest.raises(TrainingDataError, match="equal 2D or 3D shapes"):
        read_training_data(tmp_path)


def test_a_truncated_member_is_told(tmp_path):
    blob = io.BytesIO()
    tifffile.imwrite(blob, np.zeros((64, 64), np.uint8))
    with zipfile.ZipFile(tmp_path / "cut.zip", "w") as out:
        out.writestr("images/a.tif", blob.getvalue()[:60])
        out.writestr("labels/a.tif", blob.getvalue())
        out.writestr("index.json", json.dumps([{"name": "a"}]))
    with pytest.raises(TrainingDataError, match="'a'"):
        read_training_data(tmp_path / "cut.zip")


def test_normalisation_and_diameter():
    ramp = np.arange(101, dtype=np.uint16).reshape(1, -1)
    assert normalise_percentiles(ramp)[0, [1, 99]] == pytest.approx([0, 1], abs=1e-6)
    assert not normalise_percentiles(np.full((4, 4), 7)).any()
    disk = (np.hypot(*np.mgrid[-20:21, -20:21]) < 10).astype(int)
    assert median_diameter_px(disk) == pytest.approx(20, rel=0.03)
    assert median_diameter_px(disk * 0) == 0
