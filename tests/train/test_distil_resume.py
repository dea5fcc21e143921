"""`aprcnn distil` by the command line: what it goes on from, what it refuses, and every option."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from typer.testing import CliRunner

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import ConfigError, TrainingDataError
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train import distil as distil_module
from napari_aprcnn.train import distil_command
from napari_aprcnn.train.checkpoint import differences, loaded, weights_digest
from napari_aprcnn.train.data import read_training_data
from napari_aprcnn.train.distil_command import distil
from napari_aprcnn.train.fit import fit
from napari_aprcnn.train.sampling import CropSampler

from .conftest import TEACHER, distil_settings


def states_equal(*paths):
    first, second = (load_model(str(path), device="cpu").module.state_dict() for path in paths)
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def done(labelled_quarters, teacher, tmp_path):
    """A finished distillation, and the call that repeats it."""
    config = distil_settings(n_steps=2, views=1, validate_every=2)

    def again(one=teacher, **changes):
        given = {"config": config, **changes}
        return distil(one, [labelled_quarters], output=tmp_path, name="s", **given)[0]

    again()
    return tmp_path / "s_run", again


def test_another_start_is_refused(done):
    folder, again = done
    with pytest.raises(TrainingDataError, match=r"configuration \(weights to start from was random, is [0-9a-f]{16}\)"):
        again(initial=TEACHER)
    (folder / "checkpoint.pt").unlink()
    again(initial=TEACHER)
    again(initial=TEACHER)  # the same weights are the same start
    with pytest.raises(TrainingDataError, match="is random"):
        again()


def test_another_teacher_is_refused(done):
    with pytest.raises(TrainingDataError, match=r"another configuration \(teacher was [0-9a-f]{16}"):
        done[1](load_model("fastercellpose-wide", device="cpu"))


def test_other_settings_are_named(done):
    with pytest.raises(TrainingDataError, match=r"\(hard was 0\.0, is 0\.25\); give another name"):
        done[1](config=distil_settings(n_steps=2, views=1, validate_every=2, hard=0.25))
    with pytest.raises(TrainingDataError, match=r"learning_rate was 0\.001, is 0\.002"):
        done[1](config=distil_settings(n_steps=2, views=1, validate_every=2, training={"learning_rate": 2e-3}))


def test_a_training_from_other_weights_is_refused(archive, teacher, tmp_path):
    """`aprcnn train` goes by the same rule."""
    config = distil_settings(n_steps=1).training
    sampler = CropSampler(read_training_data(archive), crop_px=64, collage=0.0, tissue=0.0)
    fit(sampler, config=config, run_dir=tmp_path)
    with pytest.raises(TrainingDataError, match="weights to start from"):
        fit(sampler, config=config, run_dir=tmp_path, initial=teacher.module.state_dict())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"nothing of ours", None])
@pytest.mark.parametrize("name", ["best.pt", "checkpoint.pt"])
def test_damaged_weights_are_told(done, name, content):
    folder, again = done
    path = folder / name
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(TrainingDataError, match=rf"{name} is damaged .* afresh"):
        again()


def test_best_weights_of_another_network_are_told(done):
    folder, again = done
    torch.save({"a": torch.zeros(1)}, folder / "best.pt")
    with pytest.raises(TrainingDataError, match=r"best\.pt is damaged"):
        again()


def test_a_damaged_record_is_told_and_afresh_means_afresh(done):
    folder, again = done
    (folder / "validation.csv").write_text("step,iou\nmuch,more\n")
    with pytest.raises(TrainingDataError, match=r"validation\.csv is damaged"):
        again()
    (folder / "checkpoint.pt").unlink()
    again()
    assert (folder / "validation.csv").read_text().count("\n") == 2


def test_digests_and_differences():
    state = {"b": torch.ones(3), "a": torch.tensor(2)}
    assert weights_digest(state) == weights_digest(dict(reversed(state.items())))
    for other in ({**state, "b": -torch.ones(3)}, {**state, "b": torch.ones(3, 1)}, {"b": state["b"]}):
        assert weights_digest(other) != weights_digest(state)
    assert weights_digest(None) == "random"
    assert differences({"a": "1"}, {"a": "1"}) == ""
    assert differences({"a": "1"}, {"b": "2"}) == "a was 1, is not there; b was not there, is 2"
    many = {str(number): "" for number in range(9)}
    assert differences(many, {}).endswith("; and 5 more")


def test_what_is_no_file_of_tensors_is_told(tmp_path):
    with pytest.raises(TrainingDataError, match="remedy"):
        loaded(tmp_path / "missing.pt", "remedy")


# --- by the command line ------------------------------------------------------------------------------------------


def words(data, output, *more):
    return [
        "distil", TEACHER, "faster_v3", str(data), "--name", "mine", "-o", str(output), "--steps", "4",
        "--batch-size", "2", "--patch", "64", "--views", "1", "--validate-every", "2", "--precision", "float32", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_the_same_command_goes_on(labelled_quarters, tmp_path, monkeypatch, number):
    whole = CliRunner().invoke(app, words(labelled_quarters, tmp_path / "whole"))
    assert whole.exit_code == 0, whole.output
    iou, steps = distil_module.foreground_iou, []

    def signalled(*given):
        signal.raise_signal(number)
        return iou(*given)

    monkeypatch.setattr(distil_module, "foreground_iou", signalled)
    cut = CliRunner().invoke(app, words(labelled_quarters, tmp_path / "cut"))
    assert cut.exit_code == 130, cut.output
    assert "cancelled at step 2" in cut.output
    assert not (tmp_path / "cut" / "mine.safetensors").exists()
    monkeypatch.setattr(distil_module, "foreground_iou", iou)
    step = distil_module.PatchSampler.batch
    monkeypatch.setattr(distil_module.PatchSampler, "batch", lambda *given: steps.append(given[1]) or step(*given))
    again = CliRunner().invoke(app, words(labelled_quarters, tmp_path / "cut"))
    assert again.exit_code == 0, again.output
    assert steps == [2, 3]
    assert states_equal(tmp_path / "whole" / "mine.safetensors", tmp_path / "cut" / "mine.safetensors")


def test_every_option_arrives_and_is_repeated(labelled_quarters, tmp_path, monkeypatch):
    seen = {}

    def instead(teacher, data, **given):
        seen.update(given)
        return tmp_path / "x", []

    monkeypatch.setattr(distil_command, "distil", instead)
    options = [
        "--held-out", "0.25", "--max-drop", "0.5", "--patience", "7", "--standstill", "0.01", "--foreground", "0.02",
        "--scale-jitter", "0.25", "--weight-decay", "0", "--channel", "1", "--kind", "20x", "--from", TEACHER,
        "--threads", "1",
    ]  # fmt: skip
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, *options))
    assert result.exit_code == 0, result.output
    config = seen["config"]
    assert (config.held_out, config.max_drop, config.patience, config.standstill) == (0.25, 0.5, 7, 0.01)
    assert (config.foreground, config.scale_jitter, config.training.weight_decay) == (0.02, 0.25, 0.0)
    assert (seen["channel"], seen["kinds"], seen["initial"], seen["threads"]) == (1, ["20x"], TEACHER, 1)
    first = dict(seen)
    repeated = seen["command"].split()[1:]
    repeated[3] = str(labelled_quarters)
    result = CliRunner().invoke(app, repeated)
    assert result.exit_code == 0, result.output
    for name in ("config", "channel", "kinds", "initial", "command"):
        assert seen[name] == first[name]


@pytest.mark.parametrize(("option", "value"), [("--held-out", "0"), ("--patience", "-1"), ("--max-drop", "2")])
def test_options_out_of_range_are_told(labelled_quarters, tmp_path, option, value):
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, option, value))
    assert result.exit_code == 2
    assert value in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def no_teacher(monkeypatch):
    """Any use of a teacher fails the test."""
    monkeypatch.setattr(distil_command, "teacher_for", lambda *_a, **_k: pytest.fail("the teacher was loaded"))


@pytest.mark.parametrize("share", ["0.9", "0.51"])
def test_a_held_out_share_that_cannot_be_is_told(no_teacher, labelled_quarters, tmp_path, share):
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, "--held-out", share))
    assert result.exit_code == 2, result.output
    assert "expected at most 0.5" in result.output
    with pytest.raises(ConfigError, match="at most"):
        distil(TEACHER, [], output=tmp_path, name="x", config=distil_settings(held_out=float(share)))


@pytest.mark.parametrize(("share", "told"), [("0.4", "one image of 2 is looked at, 50%"), ("0.25", "")])
def test_a_held_out_share_that_is_rounded_is_told(labelled_quarters, tmp_path, monkeypatch, share, told):
    monkeypatch.setattr(distil_command, "distil", lambda *_a, **_k: (tmp_path / "x", []))
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, "--held-out", share))
    assert result.exit_code == 0, result.output
    assert told in result.output
    assert ("is looked at" in result.output) == bool(told)


def test_name_and_test_sets_are_looked_at_first(no_teacher, labelled_quarters, tmp_path):
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, "--test", str(tmp_path / "nope.zip")))
    assert result.exit_code == 3, result.output
    assert "nope.zip" in result.output
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, "--name", ""))
    assert result.exit_code == 2, result.output
    assert "expected one that files can have" in result.output


def test_without_weight_decay_it_is_adam(archive, teacher, tmp_path, monkeypatch):
    """`--weight-decay 0` is the thesis' optimiser."""
    sampler = CropSampler(read_training_data(archive), crop_px=64, collage=0.0, tissue=0.0)
    config = distil_settings(n_steps=3, training={"weight_decay": 0.0}).training
    initial = teacher.module.state_dict()
    ours = fit(sampler, config=config, run_dir=tmp_path / "a", initial=initial).state_dict()
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, weight_decay, **more: adam(*given, **more))
    theirs = fit(sampler, config=config, run_dir=tmp_path / "b", initial=initial).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert json.loads(config.model_dump_json())["weight_decay"] == 0
