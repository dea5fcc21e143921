"""Crops of a training on volumes: what augmentation does, shapes within a batch, and images that are too small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

pytest.importorskip("lightning", reason="lightning is not installed: pip install 'napari-aprcnn[train]'")

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.train.volume_augment import augment, turn
from napari_aprcnn.train.volume_crops import VolumeCrops
from napari_aprcnn.train.volume_fit import VolumeTask, fit_volumes
from napari_aprcnn.train.volume_sources import SimulatedVolumes, window

from .volume_balls import NET, SIMULATION, balls, training

BARE = {"rescale": 1.0, "elastic": 0.0, "gamma": 1.0, "noise": 0.0}
SEEDS = range(12)


def augmented(volume, seed, **changes):
    """The whole volume, augmented by nothing but the changes (and turned)."""
    wanted = training(crop=volume.image.shape, **{**BARE, **changes})
    return augment(volume.image, volume.labels, np.random.default_rng(seed), wanted, window)


# --- grey values and geometry -----------------------------------------------------------------------------------------
def test_gamma_bends_grey_values_in_half_of_the_crops():
    volume, exponents = balls(), []
    for seed in SEEDS:
        (plain, labels), (bent, same) = augmented(volume, seed), augmented(volume, seed, gamma=2.0)
        assert np.array_equal(labels, same)
        low, high = np.percentile(plain, [1, 99.8])
        middle = (plain > low + 0.2 * (high - low)) & (plain < high)
        before, after = ((image[middle] - low) / (high - low) for image in (plain, bent))
        exponents.append(np.median(np.log(after) / np.log(before)))
        assert np.allclose(np.log(after) / np.log(before), exponents[-1], atol=1e-2)
    changed = [exponent for exponent in exponents if abs(exponent - 1) > 1e-3]
    assert 2 <= len(changed) <= 10
    assert all(0.49 < exponent < 2.01 for exponent in changed)


def test_noise_is_added_to_half_of_the_crops():
    volume, shares = balls(), []
    for seed in SEEDS:
        (plain, labels), (noisy, same) = augmented(volume, seed), augmented(volume, seed, noise=0.2)
        assert np.array_equal(labels, same)
        low, high = np.percentile(plain, [1, 99.8])
        added = (noisy - plain) / (high - low)
        assert abs(added.mean()) < 0.01
        shares.append(added.std())
    changed = [share for share in shares if share > 1e-4]
    assert 2 <= len(changed) <= 10
    assert max(changed) < 0.21


def test_the_affine_path_moves_image_and_labels_alike():
    """Without elastic deformation: an image of its own labels stays so but at their rims; objects change in size."""
    volume, sizes = balls((16, 40, 40)), []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        wanted = training(crop=(16, 40, 40), **{**BARE, "rescale": 1.5})
        image, labels = augment(1000.0 * (volume.labels > 0), volume.labels, rng, wanted, window)
        assert set(np.unique(labels)) <= {0, 1, 2}
        inside, near = labels > 0, np.ones((3, 3, 3))
        core = ndimage.binary_erosion(inside, near, iterations=2, border_value=1)
        rest = ~ndimage.binary_dilation(inside, near, iterations=2)
        # At the border an object may begin that has no whole voxel there yet.
        image, core, rest = (array[1:-1, 1:-1, 1:-1] for array in (image, core, rest))
        assert image[core].min() > 900
        assert image[rest].max() < 100
        sizes.append((labels > 0).sum() / (volume.labels > 0).sum())
    assert max(sizes) > 1.2
    assert min(sizes) < 0.85


# --- shapes -----------------------------------------------------------------------------------------------------------
def test_only_square_planes_are_turned():
    rng, square, oblong = np.random.default_rng(0), np.arange(48).reshape(3, 4, 4), np.arange(60).reshape(3, 4, 5)
    found = [turn(square, square, rng)[0] for _ in range(30)]
    flipped = [image for image in found if abs(int(image[0, 0, 1]) - int(image[0, 0, 0])) == 1]
    assert 0 < len(flipped) < 30  # in the others, x is what y was
    assert {turn(oblong, oblong, rng)[0].shape for _ in range(30)} == {(3, 4, 5)}


@pytest.mark.parametrize("stages", [0, 1, None])
@pytest.mark.parametrize(
    ("volumes", "crop"),
    [
        ([balls((14, 24, 40))], (20, 36, 36)),  # smaller than the crop
        ([balls((14, 40, 40))], (12, 20, 32)),  # a crop that is no square
        ([balls((14, 24, 40), source="a"), balls((10, 30, 20), source="b")], (20, 36, 36)),
    ],
)
@pytest.mark.parametrize("loss_on", ["particles", "voxels"])
def test_batches_of_every_form_have_the_mean_of_the_losses_of_their_crops(stages, volumes, crop, loss_on):
    wanted = training(network=NET.replace(particle_stages=stages), crop=crop, batch_size=4, loss_on=loss_on)
    task, crops = VolumeTask(wanted, None, volumes), VolumeCrops(wanted, None, volumes)
    batch = [crops[number] for number in range(4, 8)]
    assert len({one.labels.shape for one in batch}) == len(volumes)
    with torch.no_grad():
        together = torch.stack(task.losses(task.net, batch))
        alone = torch.stack([torch.stack(task.losses(task.net, [one])) for one in batch]).mean(0)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_a_training_in_batches_of_small_oblong_images(tmp_path):
    wanted = training(network=NET.replace(particle_stages=0), crop=(20, 36, 36), batch_size=2, epochs=1)
    fit_volumes(wanted, run_dir=tmp_path, labelled=[balls((14, 24, 40))], validation=[balls((12, 20, 28))] * 2)


def test_crops_do_not_depend_on_the_number_of_workers(tmp_path):
    """Labelled and simulated ones, with every augmentation."""
    found = []
    for workers in (0, 2):
        wanted = training(
            workers=workers, simulated=0.5, elastic=1.5, noise=0.1, gamma=1.5, steps_per_epoch=4, batch_size=2
        )
        task = VolumeTask(wanted, SimulatedVolumes(tmp_path, number=1, config=SIMULATION), [balls((14, 28, 40))])
        found.append([crop for batch in task.train_dataloader() for crop in batch])
    assert len(found[0]) == 8
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.tree.cells(), b.tree.cells())
        for part in ("features", "targets", "weights"):
            assert torch.equal(getattr(a, part), getattr(b, part))


# --- too small --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stages", [None, 0, 1, 2])
@pytest.mark.parametrize("shape", [(4, 6, 6), (4, 8, 8), (1, 5, 8)])
def test_images_that_are_too_small_are_refused_at_once(tmp_path, shape, stages):
    wanted = training(network=NET.replace(depth=3, particle_stages=stages))
    with pytest.raises(TrainingDataError, match=r"balls of own has .* 3 poolings needs more than 8 along one axis"):
        fit_volumes(wanted, run_dir=tmp_path / "run", labelled=[balls((14, 32, 32)), balls(shape)])
    with pytest.raises(TrainingDataError, match="poolings"):
        fit_volumes(wanted, run_dir=tmp_path / "run", labelled=[balls()], validation=[balls(shape)])
    with pytest.raises(TrainingDataError, match="crops of it 8 x 8 x 8"):
        fit_volumes(wanted.replace(crop=(8, 8, 8)), run_dir=tmp_path / "run", labelled=[balls()])
    with pytest.raises(TrainingDataError, match="the simulation has"):
        fit_volumes(wanted.replace(crop=(8, 8, 8), simulated=1.0), run_dir=tmp_path / "run", simulation=SIMULATION)
    assert not (tmp_path / "run").exists()


def test_stardist_refuses_planes_at_once(tmp_path):
    wanted = training(network=NET.replace(head="stardist", rays=8))
    with pytest.raises(TrainingDataError, match="StarDist needs two or more along every axis"):
        fit_volumes(wanted, run_dir=tmp_path, labelled=[balls((1, 24, 24))])


@pytest.mark.parametrize("head", ["flows", "three_class", "stardist"])
@pytest.mark.parametrize("stages", [None, 0, 1])
@pytest.mark.parametrize("shape", [(4, 6, 6), (2, 2, 5), (2, 3, 9)])
def test_images_just_large_enough_have_finite_losses(shape, stages, head):
    wanted = training(network=NET.replace(head=head, particle_stages=stages, rays=8), elastic=1.5)
    volume = balls(shape)
    volume.labels[1, 1, 1:3] = 3
    task, crops = VolumeTask(wanted, None, [volume]), VolumeCrops(wanted, None, [volume])
    for number in range(4):
        assert torch.isfinite(sum(task.losses(task.net, [crops[number]])))


def test_a_tiny_image_trains(tmp_path):
    fit_volumes(training(epochs=1, elastic=1.5), run_dir=tmp_path, labelled=[balls((4, 6, 6))])
