"""A training on volumes that goes on: with the same data alone, to the same end, and over no model of others."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="lightning is not installed: pip install 'napari-aprcnn[train]'")

from napari_aprcnn.errors import CancelledError, ConfigError, OutputError, TrainingDataError
from napari_aprcnn.models.cards import read_card
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.train.volume_command import train_volumes
from napari_aprcnn.train.volume_fit import VolumeTask, fit_volumes
from napari_aprcnn.train.volume_identity import mark_of_images
from napari_aprcnn.train.volume_request import LAST

from .volume_balls import SIMULATION, balls, training, written


def cancel_at(step):
    """Says yes after so many steps."""
    asked = []
    return lambda: asked.append(1) or len(asked) == step


# --- the same training ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("training images", {"labelled": [balls(seed=1)]}),
        ("simulation", {"simulation": SIMULATION.replace(outline_level=0.3)}),
        ("initial weights", {"initial": VolumeNet(training().network)}),
        ("seed", {"config": training(simulated=0.5, seed=3)}),
    ],
)
def test_what_is_not_the_same_is_refused(tmp_path, what, other):
    same = {"config": training(epochs=1, simulated=0.5), "labelled": [balls()], "simulation": SIMULATION}
    first = fit_volumes(**same, run_dir=tmp_path)
    with pytest.raises(TrainingDataError, match=rf"{what} differ; give another name, or start afresh: remove"):
        fit_volumes(**same | other, run_dir=tmp_path)
    again = fit_volumes(**same, run_dir=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_validation_images_matter_only_where_they_end_the_training(tmp_path):
    watched = {"labelled": [balls()], "validation": [balls(seed=1)]}
    fit_volumes(training(epochs=1), run_dir=tmp_path / "a", **watched)
    fit_volumes(training(), run_dir=tmp_path / "a", labelled=[balls()])
    fit_volumes(training(epochs=1, patience=5), run_dir=tmp_path / "b", **watched)
    with pytest.raises(TrainingDataError, match="validation images differ"):
        fit_volumes(training(patience=5), run_dir=tmp_path / "b", labelled=[balls()], validation=[balls(seed=2)])


def test_a_checkpoint_that_says_nothing_of_its_data_is_refused(tmp_path):
    fit_volumes(training(epochs=1), run_dir=tmp_path, labelled=[balls()])
    found = torch.load(tmp_path / LAST, weights_only=True)
    torch.save({**found, "aprcnn": training(epochs=1).model_dump_json()}, tmp_path / LAST)
    with pytest.raises(TrainingDataError, match="another version"):
        fit_volumes(training(), run_dir=tmp_path, labelled=[balls()])


def test_the_mark_is_of_values_not_of_names():
    first, second = balls(), balls(source="zzz")
    assert mark_of_images([first]) == mark_of_images([second])
    assert mark_of_images([first, second]) != mark_of_images([first, first])
    assert mark_of_images([first]) != mark_of_images([balls(seed=1)])
    assert mark_of_images([]) == ""
    painted = balls()
    painted.labels[0, 0, 0] = 7
    assert mark_of_images([painted]) != mark_of_images([first])


def test_a_name_is_not_given_to_other_data(tmp_path):
    folder = written(tmp_path / "set", balls())
    path = train_volumes(output=tmp_path, name="m", config=training(epochs=1), labelled=[folder])
    before = path.read_bytes()
    other = written(tmp_path / "other", balls(seed=1))
    with pytest.raises(TrainingDataError, match=r"training images differ.*m_run"):
        train_volumes(output=tmp_path, name="m", config=training(), labelled=[other])
    assert path.read_bytes() == before
    assert read_card(tmp_path / "m.json").data == "set"
    moved = shutil.copytree(folder, tmp_path / "moved")
    train_volumes(output=tmp_path, name="m", config=training(), labelled=[moved])  # goes on, and replaces its own model
    assert path.read_bytes() != before


# --- the place --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("present", ["m.safetensors", "m.json"])
def test_a_model_of_others_is_not_replaced(tmp_path, present):
    (tmp_path / present).write_bytes(b"precious")
    folder = written(tmp_path / "set", balls())
    with pytest.raises(OutputError, match=rf"{present} is there already.*another name"):
        train_volumes(output=tmp_path, name="m", config=training(epochs=1), labelled=[folder])
    assert (tmp_path / present).read_bytes() == b"precious"
    assert not (tmp_path / "m_run").exists()


# --- patience ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def validations(monkeypatch):
    """Losses of the validation by epoch: the second is the best."""
    losses = [3.0, 2.0, 2.5, 2.4, 2.3, 2.2, 2.1]

    def step(self, batch, _index):
        self.log("validation_loss", torch.tensor(losses[self.current_epoch]), on_epoch=True, batch_size=len(batch))

    monkeypatch.setattr(VolumeTask, "validation_step", step)


def epochs_of(run_dir, config, **options):
    """Fit; the numbers of the epochs that were told, and the weights."""
    told = []
    images = {"labelled": [balls()], "validation": [balls(seed=1)]}
    net = fit_volumes(config, run_dir=run_dir, **images, progress=lambda r: told.append(r.epoch), **options)
    return told, list(net.parameters())


def test_patience_ends_a_resumed_training_where_it_would_have_ended(tmp_path, validations):
    wanted = training(epochs=7, patience=2)
    told, weights = epochs_of(tmp_path / "a", wanted)
    assert told == [1, 2, 3, 4]
    with pytest.raises(CancelledError):
        epochs_of(tmp_path / "b", wanted, should_cancel=cancel_at(7))  # in the fourth epoch: one has been waited
    told, resumed = epochs_of(tmp_path / "b", wanted)
    assert told == [4]
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))


def test_an_ended_training_does_nothing_more_unless_it_shall_wait_longer(tmp_path, validations):
    wanted = training(epochs=7, patience=2)
    _, weights = epochs_of(tmp_path, wanted)
    before = (tmp_path / LAST).read_bytes()
    told, again = epochs_of(tmp_path, wanted)
    assert told == []
    assert (tmp_path / LAST).read_bytes() == before
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert epochs_of(tmp_path, wanted.replace(patience=4))[0] == [5, 6]
    assert epochs_of(tmp_path, wanted.replace(patience=0))[0] == [7]
    assert epochs_of(tmp_path, wanted.replace(patience=0))[0] == []


def test_patience_without_validation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"patience of 3 epochs and no validation images.*--validation"):
        fit_volumes(training(patience=3), run_dir=tmp_path / "run", labelled=[balls()])
    assert not (tmp_path / "run").exists()


# --- logs -------------------------------------------------------------------------------------------------------------
def test_logs_of_a_resumed_training_are_those_of_one(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    images = {"labelled": [balls()], "validation": [balls(seed=1)]}
    wanted = training(epochs=3, steps_per_epoch=3)
    fit_volumes(wanted, run_dir=tmp_path / "a", **images)
    with pytest.raises(CancelledError):
        fit_volumes(wanted, run_dir=tmp_path / "b", **images, should_cancel=cancel_at(5))
    with (tmp_path / "b" / "metrics.csv").open("a") as file:
        file.write("2,9,9,9,9,9\n2,9")  # as a crash may leave it: an epoch without a checkpoint
    fit_volumes(wanted, run_dir=tmp_path / "b", **images)
    whole, resumed = (list(csv.DictReader((tmp_path / run / "metrics.csv").open())) for run in "ab")
    assert [int(line["epoch"]) for line in whole] == [1, 2, 3]
    assert list(whole[0]) == [
        "epoch", "loss", "flow_loss", "probability_loss", "validation_loss", "seconds_per_step"
    ]  # fmt: skip
    for a, b in zip(whole, resumed, strict=True):
        assert {**a, "seconds_per_step": ""} == {**b, "seconds_per_step": ""}
        assert float(a["loss"]) == pytest.approx(float(a["flow_loss"]) + float(a["probability_loss"]), rel=1e-4)
        assert np.isfinite(float(a["validation_loss"]))
    for run in "ab":
        assert len(list((tmp_path / run).rglob("metrics.csv"))) == 1
        events = EventAccumulator(str(tmp_path / run / "tensorboard")).Reload()
        assert [event.step for event in events.Scalars("loss")] == [2, 5, 8]
        assert [f"{event.value:.6g}" for event in events.Scalars("loss")] == [line["loss"] for line in whole]


def test_a_log_without_validation_has_an_empty_field_and_starts_afresh(tmp_path):
    for _ in range(2):
        fit_volumes(training(epochs=1), run_dir=tmp_path, labelled=[balls()])
        (tmp_path / LAST).unlink()
    (line,) = csv.DictReader((tmp_path / "metrics.csv").open())
    assert line["validation_loss"] == ""
