"""Trainings on volumes that break off or cannot begin: killed workers, damaged files, and requests that are refused."""

from __future__ import annotations

import json
import logging
import time
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from typer.testing import CliRunner

pytest.importorskip("lightning", reason="lightning is not installed: pip install 'napari-aprcnn[train]'")

from napari_aprcnn.cli.app import app
from napari_aprcnn.cli.console import exit_code
from napari_aprcnn.errors import ConfigError, DeviceError, OutputError, StageError, TrainingDataError, TrainingError
from napari_aprcnn.models.cards import read_card
from napari_aprcnn.train.volume_augment import augment
from napari_aprcnn.train.volume_command import fastest_form, train_volumes
from napari_aprcnn.train.volume_fit import VolumeTask, fit_volumes
from napari_aprcnn.train.volume_request import LAST
from napari_aprcnn.train.volume_sources import SimulatedVolumes, window
from napari_aprcnn.train.volume_start import accelerator_of
from napari_aprcnn.train.volume_workers import CropLoader, killed

from .volume_balls import NET, SIMULATION, balls, training, written


def run(*words):
    return CliRunner().invoke(app, ["train-volumes", *map(str, words)])


TINY = ["--channels", 2, "--depth", 1, "--steps", 1, "--epochs", 1, "--crop", 12, 24, 24, "--simulated", 1]
TINY += ["--simulated-volumes", 1, "--threads", 1, "--workers", 0]


# --- workers ----------------------------------------------------------------------------------------------------------
class Large(Dataset):
    """Items that do not fit into a pipe: a worker waits in the middle of one until somebody reads."""

    def __getitem__(self, index):
        return np.full(3_000_000, index, np.uint8)


def test_a_worker_that_is_killed_is_told_and_not_awaited():
    before = set(active_children())
    loader = CropLoader(Large(), 1, numbers=range(40), workers=1)
    batches = iter(loader)
    assert next(batches)[0][0] == 0
    time.sleep(0.5)  # it writes
    (set(active_children()) - before).pop().kill()
    start = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        list(batches)
    assert killed(caught.value)
    assert time.monotonic() - start < 30
    assert not killed(RuntimeError("CUDA out of memory"))


def died(*_args):
    raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")


def test_a_training_says_that_a_worker_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(VolumeTask, "training_step", died)
    with pytest.raises(TrainingError, match=r"a worker was killed, perhaps for memory; go on with the same command"):
        fit_volumes(training(), run_dir=tmp_path, labelled=[balls()])


# --- the best weights -------------------------------------------------------------------------------------------------
def test_a_training_with_patience_keeps_the_best_weights(tmp_path, monkeypatch):
    losses = [3.0, 2.0, 2.5, 2.4, 2.6]
    averages = {}

    def step(self, batch, _index):
        averages[self.current_epoch] = {k: v.clone() for k, v in self.average.state_dict().items()}
        self.log("validation_loss", torch.tensor(losses[self.current_epoch]), on_epoch=True, batch_size=len(batch))

    monkeypatch.setattr(VolumeTask, "validation_step", step)
    images = {"labelled": [balls()], "validation": [balls(seed=1)]}

    def same(net, epoch):
        return all(torch.equal(value, averages[epoch][name]) for name, value in net.state_dict().items())

    assert same(fit_volumes(training(epochs=4, patience=2), run_dir=tmp_path / "a", **images), 1)
    assert same(fit_volumes(training(epochs=4, patience=2), run_dir=tmp_path / "a", **images), 1)  # ended already
    # Interrupted after the best epoch: the weights of the part before are still those.
    asked = []
    with pytest.raises(Exception, match="cancelled"):
        fit_volumes(
            training(epochs=4, patience=3), run_dir=tmp_path / "b", **images,
            should_cancel=lambda: asked.append(1) or len(asked) == 5,
        )  # fmt: skip
    assert same(fit_volumes(training(epochs=4, patience=3), run_dir=tmp_path / "b", **images), 1)
    assert same(fit_volumes(training(epochs=4), run_dir=tmp_path / "c", **images), 3)  # no patience: the last ones


# --- requests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--name", "../esc", "-o", "o"], 2, "got the name"),
        (["--name", "m", "-o", "o", "--device", "nonsense"], 2, "got device 'nonsense'"),
        (["--name", "m", "-o", "file"], 6, "is a file, expected a folder"),
        (["--name", "m", "-o", "o", "--form", "auto", "--depth", "7"], 3, "7 poolings needs more than 128"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_code(tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = run(*TINY, *words)
    assert result.exit_code == code, result.output
    assert said in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_errors_of_trainings_are_no_bugs():
    assert [exit_code(error) for error in (TrainingError(""), StageError(""), DeviceError(""))] == [7, 3, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="cannot be used"):
        train_volumes(output=tmp_path, name="m", config=training(), accelerator="cuda")
    with pytest.raises(DeviceError, match="cannot be used"):
        fit_volumes(training(), run_dir=tmp_path / "run", labelled=[balls()], accelerator="cuda:1")
    assert accelerator_of("auto") == "cpu"
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_too_small_for_the_form_is_named(tmp_path):
    folder = written(tmp_path / "set", balls())
    with pytest.raises(TrainingDataError, match=r"balls of set has 14 x 32 x 32 voxels"):
        fastest_form(training(network=NET.replace(depth=6)), [folder])


# --- starts -----------------------------------------------------------------------------------------------------------
def test_rays_and_thresholds_are_those_of_the_start(tmp_path):
    """Unless other rays are asked for, or thresholds are chosen anew."""
    words = [*TINY, "--head", "stardist", "-o", tmp_path]
    assert run(*words, "--name", "a", "--ray-spacing", 2, 1, 1).exit_code == 0
    card = tmp_path / "a.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "settings": {"probability_threshold": 0.7}}))
    for name, more in (("b", []), ("c", ["--ray-spacing", 1, 1, 1]), ("d", ["--head", "three_class"])):
        result = run(*words, "--name", name, "--from", tmp_path / "a.safetensors", *more)
        assert result.exit_code == 0, result.output
    found = {name: read_card(tmp_path / f"{name}.json") for name in "bcd"}
    assert [found[name].volume.ray_spacing for name in "bc"] == [(2, 1, 1), (1, 1, 1)]
    assert "--ray-spacing 2 1 1" in found["b"].command
    assert found["b"].settings == found["c"].settings == {"probability_threshold": 0.7}
    assert found["d"].settings == {}


# --- lengths ----------------------------------------------------------------------------------------------------------
def test_the_command_of_the_card_says_with_what_lengths_a_training_was(tmp_path):
    folder = written(tmp_path / "set", balls())
    same = {"output": tmp_path, "name": "m", "labelled": [folder], "command": "make m"}

    def command():
        return read_card(tmp_path / "m.json").command

    train_volumes(**same, config=training(epochs=2))
    assert command() == "make m"
    before = (tmp_path / "m.json").read_bytes()
    with pytest.raises(ConfigError, match=r"got 1 epochs, but .*m_run holds a training of which 2 are done"):
        train_volumes(**same, config=training(epochs=1))
    assert (tmp_path / "m.json").read_bytes() == before
    train_volumes(**same, config=training(epochs=3))
    assert command() == "make m  # epochs 1 to 2 with --epochs 2, epoch 3 with --epochs 3"
    train_volumes(**same, config=training(epochs=3))
    assert command().endswith("epoch 3 with --epochs 3")


# --- damage -----------------------------------------------------------------------------------------------------------
def without_weights(found):
    return {**found, "state_dict": dict(list(found["state_dict"].items())[1:])}


def without_optimiser(found):
    return {name: value for name, value in found.items() if name != "optimizer_states"}


@pytest.mark.parametrize("change", [None, without_weights, without_optimiser])
def test_the_advice_for_a_damaged_checkpoint_works(tmp_path, change):
    same = {"output": tmp_path, "name": "m", "labelled": [written(tmp_path / "set", balls())]}
    path = train_volumes(**same, config=training(epochs=1))
    last = tmp_path / "m_run" / LAST
    if change is None:
        last.write_bytes(b"damaged")
    else:
        torch.save(change(torch.load(last, weights_only=True)), last)
    with pytest.raises(TrainingDataError, match=r"damaged.*remove the folder .*m_run and the model") as caught:
        train_volumes(**same, config=training(epochs=2))
    assert "weights_only" not in str(caught.value)
    assert "m.safetensors and m.json" in str(caught.value)
    for old in last.parent.rglob("*"):
        if old.is_file():
            old.unlink()
    path.unlink()
    path.with_suffix(".json").unlink()
    train_volumes(**same, config=training(epochs=1))


def test_a_damaged_simulation_is_made_again(tmp_path, caplog):
    source = SimulatedVolumes(tmp_path / "s", number=1, config=SIMULATION)
    clean, labels = source.clean(0)
    (path,) = (tmp_path / "s").iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    turned = whole[:middle] + bytes(255 - b for b in whole[middle : middle + 8]) + whole[middle + 8 :]
    for damaged in (turned, whole[:middle], b"PK\3\4", b""):
        path.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            again = SimulatedVolumes(tmp_path / "s", number=1, config=SIMULATION).clean(0)
        assert np.array_equal(again[0], clean)
        assert np.array_equal(again[1], labels)
        assert path.read_bytes() != damaged
    assert "made again" in caplog.text
    np.savez(path, clean=clean[:4], labels=labels[:4])  # of something else
    assert np.array_equal(SimulatedVolumes(tmp_path / "s", number=1, config=SIMULATION).clean(0)[1], labels)


def test_a_file_in_the_place_of_the_simulations_is_told(tmp_path):
    (tmp_path / "simulated").write_text("")
    with pytest.raises(OutputError, match="simulated is a file, expected a folder"):
        fit_volumes(training(simulated=1.0), run_dir=tmp_path, simulation=SIMULATION)


# --- labels -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [np.uint32, np.int64])
def test_large_numbers_of_labels_stay_apart(kind):
    volume = balls()
    large = np.where(volume.labels, volume.labels.astype(kind) + 2**31 - 8, 0).astype(kind)
    for seed in range(4):
        made = [
            augment(volume.image, labels, np.random.default_rng(seed), training(elastic=1.5), window)
            for labels in (volume.labels, large)
        ]
        assert np.array_equal(made[0][0], made[1][0])
        assert made[1][1].dtype == kind
        assert np.array_equal(np.where(made[1][1], made[1][1] - (2**31 - 8), 0), made[0][1])
