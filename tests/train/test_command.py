import json
import shutil
import signal

import pytest
import tifffile
from typer.testing import CliRunner

from napari_aprcnn._kernels import planes
from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import CancelledError, ConfigError, DeviceError
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train import command, sampling
from napari_aprcnn.train.command import _shares, train
from napari_aprcnn.train.sets import read_sets

from .conftest import disks


def words(data, output, *more, name="t"):
    return [
        "train", str(data), "--name", name, "-o", str(output), "--steps", "2", "--batch-size", "1", "--crop", "64",
        "--collage", "0", "--tissue", "0", "--precision", "float32", *more,
    ]  # fmt: skip


@pytest.fixture
def pairs(tmp_path):
    """A folder of pairs, and one of the same name with other labels."""
    for parent, count in (("one", 8), ("two", 7)):
        folder = tmp_path / parent / "set"
        folder.mkdir(parents=True)
        image, _ = disks()
        tifffile.imwrite(folder / "a.tif", image)
        tifffile.imwrite(folder / "a_masks.tif", disks(count=count)[1])
    return tmp_path / "one" / "set", tmp_path / "two" / "set"


@pytest.fixture
def no_training(monkeypatch):
    """Any step, and any reading of training data, fails the test."""
    monkeypatch.setattr(command, "fit", lambda *_a, **_k: pytest.fail("it trained"))
    monkeypatch.setattr(command, "read_sets", lambda *_a, **_k: pytest.fail("it read the training data"))


def test_the_command_trains_scores_and_writes_a_model_that_loads(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "N_TISSUES", 4)  # of 160
    run = ["train", str(archive), "--name", "tiny", "-o", str(tmp_path), "--steps", "2", "--batch-size", "1"]
    run += ["--crop", "64", "--collage", "0", "--test", str(archive), "--precision", "float32", "--licence", "CC0"]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "tiny.json").read_text())
    assert card["architecture"] == "faster_v3"
    assert card["licence"] == "CC0"
    assert card["command"].startswith(f"aprcnn train {archive} --name tiny")
    assert "--steps 2 --batch-size 1 --crop 64" in card["command"]
    assert set(card["metrics"]["disks"]) == {"f1@0.5", "f1@0.6", "f1@0.7", "f1@0.8", "f1@0.9"}
    assert bool(card["int8_spans"]) == planes.can_run()
    network = load_model(str(tmp_path / "tiny.safetensors"))
    assert network.card.second_channel == "asinh"
    assert network.sha256 == card["sha256"]


def test_shares_are_given_with_the_path(tmp_path):
    assert _shares(["a/b.zip=0.25", "c.zip"]) == ([*map(type(tmp_path), ("a/b.zip", "c.zip"))], {"b": 0.25})
    with pytest.raises(ConfigError, match="expected a number"):
        _shares(["a.zip=much"])


def test_sources_with_the_same_stem_keep_their_shares(pairs):
    one, two = pairs
    paths, shares = _shares([f"{one}=0.9", f"{two}=0.1"])
    assert shares == {"one/set": 0.9, "two/set": 0.1}
    images = read_sets(paths)
    assert [item.source for item in images] == list(shares)
    assert list(sampling._weights(images, shares)) == pytest.approx([0.9, 0.1])
    with pytest.raises(ConfigError, match=r"shares 0\.9 and 0\.1; give it once"):
        _shares([f"{one}=0.9", f"{one}=0.1"])


@pytest.mark.parametrize(
    ("shares", "told"),
    [(["a.zip=-0.5", "b.zip"], "0 or more"), (["a.zip=nan"], "0 or more"), (["a.zip=0", "b.zip=0"], "are 0; give")],
)
def test_shares_that_nothing_can_be_drawn_by_are_told(tmp_path, shares, told):
    with pytest.raises(ConfigError, match=told):
        _shares(shares)
    result = CliRunner().invoke(app, ["train", *shares, "--name", "x", "-o", str(tmp_path)])
    assert result.exit_code == 2, result.output


def test_a_name_belongs_to_its_data(pairs, tmp_path):
    one, two = pairs
    out = tmp_path / "out"
    assert CliRunner().invoke(app, words(one, out)).exit_code == 0
    written = [path.read_bytes() for path in sorted(out.glob("t.*"))]
    result = CliRunner().invoke(app, words(two, out))
    assert result.exit_code == 3, result.output
    assert "images was" in result.output
    assert [path.read_bytes() for path in sorted(out.glob("t.*"))] == written
    shutil.copytree(one, tmp_path / "moved")  # the same images under another name are the same data
    again = CliRunner().invoke(app, words(tmp_path / "moved", out))
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "x" * 300])
def test_a_name_that_no_file_can_have_is_told_before_the_training(no_training, pairs, tmp_path, name):
    result = CliRunner().invoke(app, words(pairs[0], tmp_path / "out", name=name))
    assert result.exit_code == 2, result.output
    assert "expected one that files can have" in result.output
    assert not (tmp_path / "out").exists()


def test_test_sets_are_read_before_the_training(no_training, pairs, tmp_path):
    one, two = pairs
    result = CliRunner().invoke(app, words(one, tmp_path / "out", "--test", str(tmp_path / "nope.zip")))
    assert result.exit_code == 3, result.output
    assert "nope.zip" in result.output
    (two / "a_masks.tif").write_bytes((two / "a_masks.tif").read_bytes()[:200])
    result = CliRunner().invoke(app, words(one, tmp_path / "out", "--test", str(two)))
    assert result.exit_code == 3, result.output
    tifffile.imwrite(two / "a_masks.tif", disks(shape=(96, 96))[1])
    result = CliRunner().invoke(app, words(one, tmp_path / "out", "--test", str(two)))
    assert result.exit_code == 3, result.output
    assert "expected equal shapes" in result.output


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--threads", "0", "1"), ("--architecture", "none", "expected one of"), ("--device", "none", "expected auto")],
)
def test_options_that_cannot_be_are_told_before_the_training(no_training, pairs, tmp_path, option, value, told):
    result = CliRunner().invoke(app, words(pairs[0], tmp_path / "out", option, value))
    assert result.exit_code == 2, result.output
    assert told in result.output


def test_no_threads_are_told_in_python(no_training, pairs, tmp_path):
    with pytest.raises(DeviceError, match="got 0 threads"):
        train([pairs[0]], output=tmp_path, name="t", config=command.TrainConfig(), threads=0)


def test_a_signal_is_heard_while_images_are_read(archive, tmp_path, monkeypatch):
    real = command._seldom()

    def signalled(what, done, total):
        real(what, done, total)
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(command, "_seldom", lambda: signalled)
    result = CliRunner().invoke(app, words(archive, tmp_path / "out"))
    assert result.exit_code == 130, result.output
    assert "cancelled at images of disks, 2 of 4" in result.output
    assert not (tmp_path / "out").exists()


def test_what_is_read_and_made_is_told_and_cancelled(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "N_TISSUES", 3)
    told = []

    def made():
        return told[-1][0] == "simulated tissues" if told else False

    config = command.TrainConfig(n_steps=1, batch_size=1, crop_px=64, collage=0.0)
    with pytest.raises(CancelledError, match="at simulated tissues, 1 of 3"):
        train(
            [archive], output=tmp_path, name="t", config=config, test=[archive],
            on_data=lambda *given: told.append(given), should_cancel=made,
        )  # fmt: skip
    assert told[3::4] == [("test images of disks", 4, 4), ("images of disks", 4, 4)]
    assert told[-1] == ("simulated tissues", 1, 3)


def test_missing_data_is_one_line_and_an_exit_code(tmp_path):
    result = CliRunner().invoke(app, ["train", str(tmp_path / "no.zip"), "--name", "x", "-o", str(tmp_path / "out")])
    assert result.exit_code not in (0, None)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["train", "distil", "cross-validate", "train-volumes"])
def test_help_has_its_short_form_everywhere(name):
    short, long = (CliRunner().invoke(app, [name, option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.output == long.output
    assert "--name" in long.output or "--diameter" in long.output
