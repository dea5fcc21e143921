"""Training on volumes: crops, their targets, losses, and a training that is cancelled, goes on and ends the same."""

from __future__ import annotations

import json
import logging
import shlex

import numpy as np
import pytest
import torch
from scipy import ndimage
from typer.testing import CliRunner

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import CancelledError, ConfigError, TrainingDataError, WeightsError
from napari_aprcnn.models.cards import read_card
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train.simulation import SimulationConfig, read_simulation
from napari_aprcnn.train.volume_augment import augment, turn
from napari_aprcnn.train.volume_command import train_volumes
from napari_aprcnn.train.volume_crops import VolumeCrops, make_crop
from napari_aprcnn.train.volume_fit import VolumeTask, fit_volumes
from napari_aprcnn.train.volume_heads import voxel_targets
from napari_aprcnn.train.volume_losses import volume_flow_loss
from napari_aprcnn.train.volume_settings import VolumeTrainConfig
from napari_aprcnn.train.volume_sources import LabelledVolume, SimulatedVolumes, read_volumes, window

SMALL = SimulationConfig(shape=(24, 48, 48), diameter_px=(10, 14), scene="compact")
NET = VolumeNetConfig(channels=2, depth=2, head="flows", in_channels=2)


def config(**changes):
    values = {"network": NET, "epochs": 2, "steps_per_epoch": 3, "crop": (20, 36, 36), "simulated_volumes": 3}
    return VolumeTrainConfig(**{**values, "workers": 0, **changes})


@pytest.fixture
def labelled():
    """Three balls, one of them cut by the border."""
    z, y, x = np.mgrid[:24, :40, :40]
    labels = np.zeros((24, 40, 40), np.uint16)
    for i, (cz, cy, cx) in enumerate([(8, 10, 10), (14, 28, 24), (12, 12, 36)], 1):
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 49] = i
    rng = np.random.default_rng(0)
    image = 100 + 400 * ndimage.gaussian_filter((labels > 0).astype(float), 1) + rng.normal(0, 10, labels.shape)
    return LabelledVolume("balls", "own", image.astype(np.uint16), labels)


# --- sources ------------------------------------------------------------------------------------------------------
def test_simulated_volumes_are_kept_and_the_same(tmp_path):
    first = SimulatedVolumes(tmp_path / "a", number=3, seed=1, config=SMALL)
    other = SimulatedVolumes(tmp_path / "b", number=3, seed=1, config=SMALL)
    for _ in range(2):  # made, then read
        a, b = (s.draw(np.random.default_rng(5), (20, 32, 32)) for s in (first, other))
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
        assert a[0].shape == (20, 32, 32)
        first = SimulatedVolumes(tmp_path / "a", number=3, seed=1, config=SMALL)
    (broken,) = list((tmp_path / "a").glob("*.npz"))
    broken.write_bytes(b"damaged")
    again = SimulatedVolumes(tmp_path / "a", number=3, seed=1, config=SMALL).draw(
        np.random.default_rng(5), (20, 32, 32)
    )
    assert np.array_equal(again[1], b[1])


def test_windows_lie_inside_and_mostly_hold_objects(labelled):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        part = window(labelled.labels, (16, 16, 16), rng)
        assert labelled.labels[part].shape == (16, 16, 16)
        found.append(labelled.labels[part].any())
    assert np.mean(found) > 0.7
    assert labelled.labels[window(labelled.labels, (99, 99, 99), rng)].shape == labelled.labels.shape


def test_what_cannot_be_trained_on(tmp_path, labelled):
    import tifffile

    for name, image, labels, words in (
        ("shape", labelled.image[:4], labelled.labels, "the same shape"),
        ("type", labelled.image, labelled.labels.astype(np.float32), "expected integers"),
        ("nan", np.full(labelled.image.shape, np.nan, np.float32), labelled.labels, "NaN"),
        ("none", labelled.image, np.zeros_like(labelled.labels), "nothing to learn"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        tifffile.imwrite(folder / "a.tif", image)
        tifffile.imwrite(folder / "a_labels.tif", labels)
        with pytest.raises(TrainingDataError, match=words):
            read_volumes([folder])
    with pytest.raises(TrainingDataError, match="neither simulated"):
        VolumeCrops(config(simulated=0.0), None)
    with pytest.raises(ConfigError, match="crop"):
        config(crop=(0, 8, 8))
    with pytest.raises(ConfigError, match="relative_error"):
        config(relative_error=(0.2, 0.1))


# --- augmentation -------------------------------------------------------------------------------------------------
def test_turning_moves_image_and_labels_alike(labelled):
    image, labels = turn(labelled.labels.astype(float), labelled.labels, np.random.default_rng(3))
    assert np.array_equal(image, labels)
    assert sorted(labels.shape) == sorted(labelled.labels.shape)


def test_augmentation_deforms_image_and_labels_alike(labelled):
    """Labels cut out of the deformed image are bright, and no object is lost or merged."""
    changes = []
    for seed in range(4):
        wanted = config(crop=(24, 40, 40), elastic=2.0, rescale=1.3)
        image, labels = augment(labelled.image, labelled.labels, np.random.default_rng(seed), wanted, window)
        again = augment(labelled.image, labelled.labels, np.random.default_rng(seed), wanted, window)
        assert np.array_equal(image, again[0])
        assert np.array_equal(labels, again[1])
        assert image[labels > 0].mean() > image[labels == 0].mean() + 150
        changes.append((labels > 0).sum() / (labelled.labels > 0).sum())
    assert np.std(changes) > 0.02


# --- crops and losses ---------------------------------------------------------------------------------------------
def test_targets_of_a_crop_are_means_over_cells(labelled):
    crop = make_crop(labelled.image, labelled.labels, NET, relative_error=0.1)
    assert crop.features.shape == (len(crop.tree), 2)
    assert float(crop.weights.sum()) == labelled.labels.size
    dense, ones = voxel_targets(NET, labelled.labels)
    assert (ones == 1).all()
    inside = (crop.targets[:, 3] * crop.weights).sum()
    assert abs(float(inside) - float((labelled.labels > 0).sum())) < 1e-2 * float(inside)
    assert torch.allclose(dense.sum(0), (crop.targets * crop.weights[:, None]).sum(0), atol=0.5)


def test_loss_on_particles_has_the_gradient_of_the_voxels(labelled):
    """For what is constant on the cells, as the reconstruction is, and away from the Dice term's share of inside."""
    crop = make_crop(labelled.image, labelled.labels, NET, relative_error=0.1)
    whole = crop.targets.clone()
    whole[:, 3] = (whole[:, 3] > 0.5).float()  # inside is then constant on cells, too
    output = torch.randn(len(crop.tree), 4, requires_grad=True)
    cells = torch.from_numpy(crop.tree.reconstruct(np.arange(len(crop.tree)))).long().flatten()
    sums = [sum(volume_flow_loss(output, whole, crop.weights))]
    sums.append(sum(volume_flow_loss(output[cells], whole[cells], torch.ones(len(cells)))))
    first, second = (torch.autograd.grad(s, output)[0] for s in sums)
    assert torch.allclose(first, second, atol=1e-5 * float(second.abs().max()) + 1e-9)
    assert abs(float(sums[0] - sums[1])) < 1e-4


def test_loss_is_small_for_the_truth(labelled):
    crop = make_crop(labelled.image, labelled.labels, NET, relative_error=0.05)
    output = torch.cat([5 * crop.targets[:, :3], 20 * (crop.targets[:, 3:] - 0.5)], 1)
    flow, probability = volume_flow_loss(output, crop.targets, crop.weights)
    assert float(flow) < 1e-6
    assert float(probability) < 0.1
    wrong = volume_flow_loss(-output, crop.targets, crop.weights)
    assert float(wrong[0]) > 1
    assert float(wrong[1]) > 1


@pytest.mark.parametrize("head", ["flows", "three_class", "stardist"])
@pytest.mark.parametrize("stages", [None, 0, 1])
@pytest.mark.parametrize("loss_on", ["particles", "voxels"])
def test_every_form_has_a_loss(labelled, stages, loss_on, head):
    network = NET.replace(particle_stages=stages, head=head, rays=8)
    wanted = config(network=network, loss_on=loss_on, simulated=0.0, batch_size=2)
    task = VolumeTask(wanted, None, [labelled])
    crops = VolumeCrops(wanted, None, [labelled])
    flow, probability = task.losses(task.net, [crops[0], crops[1]])
    (flow + probability).backward()
    assert all(p.grad is not None for p in task.net.parameters())


# --- fitting ------------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def test_a_cancelled_training_goes_on_and_ends_the_same(tmp_path, labelled):
    seen = []
    whole = fit_volumes(config(), run_dir=tmp_path / "a", labelled=[labelled], simulation=SMALL, progress=seen.append)
    assert [r.epoch for r in seen] == [1, 2]
    assert all(np.isfinite(r.loss) for r in seen)
    asked = []

    def cancel():
        asked.append(1)
        return len(asked) == 5  # in the second epoch

    with pytest.raises(CancelledError, match="go on"):
        fit_volumes(config(), run_dir=tmp_path / "b", labelled=[labelled], simulation=SMALL, should_cancel=cancel)
    resumed = fit_volumes(config(), run_dir=tmp_path / "b", labelled=[labelled], simulation=SMALL)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(TrainingDataError, match=r"another configuration.*seed differ"):
        fit_volumes(config(seed=1), run_dir=tmp_path / "b", labelled=[labelled], simulation=SMALL)
    (tmp_path / "b" / "last.ckpt").write_bytes(b"PK damaged")
    with pytest.raises(TrainingDataError, match="damaged"):
        fit_volumes(config(), run_dir=tmp_path / "b", labelled=[labelled], simulation=SMALL)


def test_training_ends_early_without_a_better_validation(tmp_path, labelled):
    seen = []
    wanted = config(epochs=6, patience=1, learning_rate=1e-12, simulated=0.0, steps_per_epoch=1)
    fit_volumes(wanted, run_dir=tmp_path, labelled=[labelled], validation=[labelled], progress=seen.append)
    assert len(seen) < 6
    assert seen[0].validation_loss is not None


def test_the_loss_falls(tmp_path, labelled):
    seen = []
    wanted = config(epochs=4, steps_per_epoch=12, simulated=0.0, learning_rate=1e-2, warmup_steps=2, elastic=0.0)
    fit_volumes(wanted, run_dir=tmp_path, labelled=[labelled], progress=seen.append)
    assert seen[-1].loss < 0.9 * seen[0].loss


def test_command_writes_a_model_that_segments(tmp_path, labelled):
    import napari_aprcnn as aprcnn

    path = train_volumes(output=tmp_path, name="small", config=config(epochs=1), simulation=SMALL, licence="CC0")
    network = load_model(path, device="cpu")
    assert network.card.volume == NET
    assert 0.08 <= network.card.relative_error <= 0.15
    result = aprcnn.segment(labelled.image, model=str(path))
    assert result.readout.dimensionality == "volume"
    assert result.readout.prr > 1
    further = train_volumes(
        output=tmp_path, name="further", config=config(epochs=1), simulation=SMALL, initial=path, licence="CC0"
    )
    assert further.exists()
    with pytest.raises(ConfigError, match="planes"):
        train_volumes(output=tmp_path, name="no", config=config(), initial="fastercellpose-v3")
    wider = config(network=NET.replace(channels=4), epochs=1)
    with pytest.raises(WeightsError, match="in common"):
        train_volumes(output=tmp_path, name="no", config=wider, simulation=SMALL, initial=path)
    assert isinstance(network.module, VolumeNet)


def test_the_command_chooses_the_form_and_the_head(tmp_path):
    """Sparse simulated volumes: particles pay; the network that was trained is the one that is written."""
    words = ["train-volumes", "--name", "stars", "-o", str(tmp_path), "--head", "stardist", "--form", "auto"]
    words += ["--ray-spacing", "2", "1", "1", "--channels", "2", "--depth", "1", "--banks", "1", "--epochs", "1"]
    words += ["--steps", "1", "--crop", "12", "24", "24", "--simulated", "1", "--simulated-volumes", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "stars.json")
    assert card.volume.head == "stardist"
    assert card.volume.ray_spacing == (2, 1, 1)
    assert f"form: {card.volume.form}" in result.output
    assert f"--form {card.volume.form} --head stardist" in card.command
    refused = CliRunner().invoke(app, ["train-volumes", "--name", "x", "-o", str(tmp_path), "--form", "sparse"])
    assert refused.exit_code != 0
    assert "auto" in refused.output + str(refused.exception)


def test_the_command_in_the_card_makes_the_same_weights(tmp_path):
    """A residual network with fewer banks below, its loss on voxels: what was not told shows in the digest."""
    words = [
        "train-volumes",
        "--name",
        "net",
        "-o",
        str(tmp_path / "first"),
        "--block",
        "residual",
        "--norm",
        "instance",
    ]
    words += [
        "--decreasing-banks",
        "--banks",
        "2",
        "--channels",
        "2",
        "--depth",
        "1",
        "--loss-on",
        "voxels",
        "--epochs",
        "1",
    ]
    words += ["--apr-error", "0.1", "0.2", "--rescale", "1", "--elastic", "0", "--gamma", "1", "--noise", "0.1"]
    words += ["--steps", "2", "--crop", "12", "24", "24", "--simulated", "1", "--simulated-volumes", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "first" / "net.json")
    assert (card.volume.block, card.volume.norm, card.volume.decreasing_banks) == ("residual", "instance", True)
    assert read_note(tmp_path / "first" / "net_run")["loss_on"] == "voxels"
    again = shlex.split(card.command)[1:]
    again[again.index("--output") + 1] = str(tmp_path / "second")
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 0, result.output
    assert read_card(tmp_path / "second" / "net.json").sha256 == card.sha256


def read_note(run_dir):
    return json.loads((run_dir / "last.json").read_text())["config"]


def test_a_block_that_there_is_not_is_told(tmp_path):
    refused = CliRunner().invoke(app, ["train-volumes", "--name", "x", "-o", str(tmp_path), "--block", "dense"])
    assert refused.exit_code != 0
    assert "residual" in refused.output + str(refused.exception)


def test_volumes_of_several_simulations_take_turns(tmp_path):
    bright, empty = SMALL, SMALL.replace(scene="empty")
    source = SimulatedVolumes(tmp_path, number=4, seed=1, config=[empty, bright])
    assert [bool(source.clean(i)[1].any()) for i in range(4)] == [False, True, False, True]
    # Another simulation in the same folder does not find the volumes of the first.
    assert SimulatedVolumes(tmp_path, number=4, seed=1, config=bright).clean(0)[1].any()


def test_simulations_are_read_from_files(tmp_path):
    path = tmp_path / "late.json"
    path.write_text('{"scene": "embryo", "nuclei": [24, 64]}')
    read = read_simulation(path, scene="tissue", outline_level=0.14)
    assert (read.scene, read.nuclei, read.outline_level) == ("embryo", (24, 64), 0.14)
    path.write_text('{"scenes": 3}')
    with pytest.raises(ConfigError, match="scenes"):
        read_simulation(path)
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="holds a list"):
        read_simulation(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_simulation(tmp_path / "missing.json")
