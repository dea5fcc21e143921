from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.train import sampling
from napari_aprcnn.train.augment import degrade
from napari_aprcnn.train.collage import NucleiBank, collages
from napari_aprcnn.train.data import read_training_data
from napari_aprcnn.train.sampling import CropSampler, _weights
from napari_aprcnn.train.sets import mark_of_sets, source_names
from napari_aprcnn.train.signals import stop_on_signals


@pytest.fixture(scope="module")
def images(archive):
    return read_training_data(archive)


@pytest.fixture(scope="module")
def sampler(images):
    return CropSampler(images, seed=3, crop_px=96, collage=0.0, tissue=0.0)


def test_a_batch_is_a_function_of_seed_and_step(sampler, images):
    again = CropSampler(images, seed=3, crop_px=96, collage=0.0, tissue=0.0)
    for first, second in zip(sampler.batch(5, 2), again.batch(5, 2), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(sampler.batch(5, 2)[0], sampler.batch(6, 2)[0])


def test_targets_are_unit_flows_inside_and_zero_outside(sampler):
    images, target = sampler.batch(0, 8)
    assert images.shape == (8, 96, 96)
    assert target.shape == (8, 4, 96, 96)
    assert torch.isfinite(images).all()
    inside = target[:, 2] > 0
    length = target[:, :2].norm(dim=1)
    assert length[~inside].max() == 0
    assert 0.9 < float(length[inside].median()) < 1.1
    assert set(target[:, 2:].unique().tolist()) == {0.0, 1.0}


def test_turned_flows_point_to_the_centre_of_the_turned_nucleus(sampler):
    # Following the target flows must end near the centroid of each connected nucleus: a wrong rotation or mirror fails.
    from scipy import ndimage

    hits = total = 0
    for step in range(6):
        _, target = sampler.batch(step, 4)
        for flow_y, flow_x, inside, _ in target.numpy():
            pieces, count = ndimage.label(inside)
            for number in range(1, count + 1):
                ys, xs = np.nonzero(pieces == number)
                if len(ys) < 60:
                    continue
                centre = np.array([ys.mean(), xs.mean()])
                to_centre = centre[:, None] - np.stack([ys, xs])
                distance = np.linalg.norm(to_centre, axis=0)
                far = distance > 0.5 * distance.max()
                dot = (flow_y[ys, xs] * to_centre[0] + flow_x[ys, xs] * to_centre[1]) / np.maximum(distance, 1)
                hits += int((dot[far] > 0.5).sum())
                total += int(far.sum())
    assert total > 1000
    assert hits / total > 0.8


def test_outside_the_image_has_no_weight(images):
    # Crops larger than the image: some of them must reach over its border.
    sampler = CropSampler(images, seed=0, crop_px=224, collage=0.0, tissue=0.0)
    _, target = sampler.batch(0, 4)
    assert (target[:, 3] == 0).any()
    assert (target[:, 3] == 1).any()


def test_shares_of_sources_and_kinds(images):
    weights = _weights(images, {})
    assert weights.sum() == pytest.approx(1)
    assert weights == pytest.approx(np.full(4, 0.25))


@pytest.mark.parametrize(
    ("shares", "told"),
    [({"disks": 0.0}, "are 0"), ({"disks": -1.0}, "0 or more"), ({"disk": 1.0}, "one of the sources")],
)
def test_shares_that_do_not_fit_are_refused(images, shares, told):
    with pytest.raises(ConfigError, match=told):
        _weights(images, shares)


def test_sources_are_told_apart_by_as_much_of_the_path_as_it_takes():
    assert source_names(["a/x.zip", "b/y.zip", "a/x.zip"]) == ["x", "y", "x"]
    assert source_names(["a/x.zip", "a/x"]) == ["x.zip", "a/x"]
    assert source_names(["p/a/x.zip", "q/a/x.zip"]) == ["p/a/x.zip", "q/a/x.zip"]
    assert source_names(["a/x.y", "x.y.zip", "b/x.zip"]) == ["a/x.y", "x.y.zip", "x.zip"]


def test_the_mark_of_a_set_is_what_the_training_sees(images):
    mark = mark_of_sets(images)
    assert mark == mark_of_sets([replace(item, name="n", source="s", kind=f"k{item.kind}") for item in images])
    labels = images[0].labels.copy()
    labels[0, 0] += 1
    for other in (
        images[1:],
        images[::-1],
        [replace(images[0], labels=labels), *images[1:]],
        [replace(item, kind="") for item in images],
        [replace(images[0], source="s"), *images[1:]],
    ):
        assert mark_of_sets(other) != mark


@pytest.mark.parametrize("workers", [0, 2])
def test_scenes_are_told_and_their_making_ends_when_it_is_cancelled(images, monkeypatch, workers):
    monkeypatch.setattr(sampling, "N_COLLAGES", 12)
    monkeypatch.setattr(sampling, "N_TISSUES", 2)
    told = []

    def tell(*given):
        told.append(given)
        if len(told) == 3:
            raise InterruptedError

    # The handlers of the command: processes that inherit them must still end.
    with stop_on_signals(), pytest.raises(InterruptedError):
        CropSampler(images, collage=0.1, tissue=0.1, workers=workers, progress=tell)
    assert told == [("simulated crowds", n, 12) for n in (1, 2, 3)]


def test_collages_are_crowded_and_consistent(images):
    bank = NucleiBank(images)
    assert bank
    first, second = collages(bank, count=1, seed=4, edge_px=128), collages(bank, count=1, seed=4, edge_px=128)
    assert np.array_equal(first[0].image, second[0].image)
    scenes = collages(bank, count=4, seed=1, edge_px=128)
    assert max(scene.labels.max() for scene in scenes) > 10
    for scene in scenes:
        assert scene.source == "collage"
        assert np.isfinite(scene.image).all()
        assert (np.abs(scene.flows).max(0)[scene.labels > 0] > 0).mean() > 0.95


def test_degrading_keeps_shape_and_input(images):
    image = images[0].image.astype(np.float32)
    before = image.copy()
    changed = 0
    for seed in range(40):
        result = degrade(image, np.random.default_rng(seed))
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        changed += not np.array_equal(result, image)
    assert np.array_equal(image, before)
    assert changed > 30
