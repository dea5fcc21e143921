import json

import pytest
from typer.testing import CliRunner

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train import sampling
from napari_aprcnn.train.command import _shares


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
    network = load_model(str(tmp_path / "tiny.safetensors"))
    assert network.card.second_channel == "asinh"
    assert network.sha256 == card["sha256"]


def test_shares_are_given_with_the_path(tmp_path):
    assert _shares(["a/b.zip=0.25", "c.zip"]) == ([*map(type(tmp_path), ("a/b.zip", "c.zip"))], {"b": 0.25})
    with pytest.raises(ConfigError, match="expected a number"):
        _shares(["a.zip=much"])


def test_missing_data_is_one_line_and_an_exit_code(tmp_path):
    result = CliRunner().invoke(app, ["train", str(tmp_path / "no.zip"), "--name", "x", "-o", str(tmp_path / "out")])
    assert result.exit_code not in (0, None)
    assert "Traceback" not in result.output
