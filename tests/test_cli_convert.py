"""``aprcnn convert`` on real images."""

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import napari_aprcnn as aprcnn
from napari_aprcnn.cli import app
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import sample_path


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("name", ["stardist-3d", "u2os"])
def test_there_and_back(tmp_path, name):
    done = run(sample_path(name), "-o", tmp_path / "a.apr", "--json", "--relative-error", 0.2)
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    tree = aprcnn.read_apr(tmp_path / "a.apr")
    assert record["particles"] == len(tree) < tree.voxels
    assert record["conversion"]["relative_error"] == 0.2
    assert record["largest_error"] <= 1
    assert run(tmp_path / "a.apr", "-o", tmp_path / "b.tif", "--quiet").exit_code == 0
    image = tifffile.imread(sample_path(name))
    back = tifffile.imread(tmp_path / "b.tif")
    assert back.shape == image.shape
    assert back.dtype == image.dtype
    np.testing.assert_array_equal(back, tree.reconstruct().reshape(back.shape))
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.95
    assert open_image(tmp_path / "b.tif").spacing_um is None


def test_the_voxel_size_goes_along(tmp_path):
    assert run(sample_path("stardist-3d"), "-o", tmp_path / "a.apr", "--spacing", "2,0.5,0.5").exit_code == 0
    assert run(tmp_path / "a.apr", "-o", tmp_path / "b.tif").exit_code == 0
    assert open_image(tmp_path / "b.tif").spacing_um == pytest.approx((2, 0.5, 0.5))


def test_it_never_overwrites_unasked_and_explains(tmp_path):
    (tmp_path / "a.apr").write_bytes(b"mine")
    done = run(sample_path("u2os"), "-o", tmp_path / "a.apr")
    assert done.exit_code == 6
    assert (tmp_path / "a.apr").read_bytes() == b"mine"
    assert run(tmp_path / "a.apr", "-o", tmp_path / "a.tif").exit_code == 3
    wrong = run(sample_path("u2os"), "-o", tmp_path / "a.tif")
    assert wrong.exit_code == 2
    assert ".apr" in wrong.stderr
    assert run(sample_path("u2os"), "-o", tmp_path / "b.apr", "--relative-error", -1).exit_code == 2
    assert not (tmp_path / "b.apr").exists()
