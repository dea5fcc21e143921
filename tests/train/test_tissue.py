import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.train import sampling
from napari_aprcnn.train.sampling import CropSampler
from napari_aprcnn.train.tissue import ARRANGEMENTS, tissue_scenes


@pytest.fixture(scope="module")
def scenes():
    return tissue_scenes(count=9, seed=5, edge_px=256)


def test_scenes_are_a_function_of_the_seed(scenes):
    again, other = tissue_scenes(count=1, seed=5, edge_px=256)[0], tissue_scenes(count=1, seed=6, edge_px=256)[0]
    np.testing.assert_array_equal(scenes[0].image, again.image)
    np.testing.assert_array_equal(scenes[0].labels, again.labels)
    assert not np.array_equal(scenes[0].labels, other.labels)


def test_every_arrangement_has_its_shapes_and_density(scenes):
    assert [scene.kind for scene in scenes[:3]] == list(ARRANGEMENTS)

    def mean(kind, of):
        return np.mean([of(scene) for scene in scenes if scene.kind == kind])

    def elongation(scene):
        parts = [p for p in regionprops(scene.labels) if p.area > 40]
        return np.median([p.axis_major_length / max(p.axis_minor_length, 1.0) for p in parts])

    def coverage(scene):
        return (scene.labels > 0).mean()

    assert mean("fibres", elongation) > 1.3 * mean("packed", elongation)
    assert mean("packed", coverage) > 1.5 * mean("scattered", coverage)
    assert all(12 < scene.diameter_px < 45 for scene in scenes)


def test_labelled_nuclei_are_in_one_piece_and_brighter_than_around_them(scenes):
    brighter = []
    for scene in scenes:
        image = scene.image.astype(np.float32)
        background = ndimage.grey_dilation(scene.labels, size=5) == 0
        for part in regionprops(scene.labels):
            mask = scene.labels[part.slice] == part.label
            assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
            brighter.append(image[part.slice][mask].mean() > image[background].mean())
    assert len(brighter) > 100
    assert np.mean(brighter) > 0.95


def test_the_sampler_draws_the_share_that_was_asked_for(scenes, monkeypatch):
    monkeypatch.setattr(sampling, "N_TISSUES", 5)
    sampler = CropSampler(scenes[:2], seed=0, crop_px=64, collage=0.0, tissue=0.25)
    share = sum(w for item, w in zip(sampler.images[2:], sampler.weights[2:], strict=True) if item.source == "tissue")
    assert share == pytest.approx(0.25)
    assert sampler.weights.sum() == pytest.approx(1.0)


def test_simulated_shares_above_one_are_refused(scenes):
    with pytest.raises(ConfigError, match="at most 1"):
        CropSampler(scenes, collage=0.6, tissue=0.6)
