import numpy as np
import pytest
from skimage.io import imread

from napari_aprcnn.errors import AxesError, FileFormatError
from napari_aprcnn.io.overlay import overlay, write_overlay, write_png
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import list_samples, sample_labels_path, sample_path


def test_png_is_read_by_others(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (13, 7, 3)).astype(np.uint8)
    write_png(pixels, tmp_path / "a.png")
    np.testing.assert_array_equal(imread(tmp_path / "a.png"), pixels)


def test_outlines_are_coloured_and_the_rest_is_grey():
    image = np.random.default_rng(0).normal(size=(30, 30))
    labels = np.zeros((30, 30), int)
    labels[5:15, 5:15] = 1
    shown = overlay(image, labels)
    colourful = shown.max(axis=2) != shown.min(axis=2)
    assert colourful[5, 5:15].all()
    assert not colourful[6:14, 6:14].any()
    assert not colourful[:5].any()


def test_values_that_are_not_finite_or_constant():
    image = np.full((8, 8), np.nan)
    image[0, 0] = np.inf
    assert overlay(image, np.zeros((8, 8), int))[1:].max() == 0
    assert overlay(np.full((8, 8), 7), np.zeros((8, 8), int)).shape == (8, 8, 3)


def test_the_plane_with_the_most_objects_is_shown(tmp_path):
    labels = np.zeros((2, 5, 12, 12), np.uint16)
    labels[0, 3, 2:4, 2:4], labels[0, 3, 6:8, 6:8] = 1, 2
    image = np.zeros(labels.shape)
    image[0, 3] = np.arange(144).reshape(12, 12)
    write_overlay(image, labels, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").max() > 200
    with pytest.raises(AxesError):
        write_overlay(image[0], labels, tmp_path / "b.png")


@pytest.mark.parametrize("sample", list_samples(), ids=lambda sample: sample.name)
def test_samples_are_what_they_say(sample):
    source = open_image(sample_path(sample.name))
    labels = np.asarray(open_image(sample_labels_path(sample.name)).data)
    assert source.axes == sample.axes
    assert labels.shape == source.shape
    assert len(np.unique(labels)) - 1 == sample.n_nuclei
    assert sample.licence
    assert sample.attribution
    readme = (sample_path(sample.name).parent / "README.md").read_text()
    assert f"`{sample.name}`" in readme


def test_the_ovule_keeps_its_voxel_size():
    assert open_image(sample_path("ovule-3d")).spacing_um == pytest.approx((0.2837, 0.1268, 0.1268), abs=1e-4)


def test_samples_are_small():
    assert sum(path.stat().st_size for path in sample_path("culture").parent.iterdir()) < 4_000_000


def test_an_unknown_sample():
    with pytest.raises(FileFormatError, match="ovule-3d"):
        sample_path("moon")
