"""Settings compared by folds: the better one is found, files are kept together, the table is written."""

from __future__ import annotations

import copy
import csv

import pytest
import torch
from typer.testing import CliRunner

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import CancelledError, ConfigError, TrainingDataError
from napari_aprcnn.models.zoo import save_model
from napari_aprcnn.train import cross_validate as module
from napari_aprcnn.train.cross_validate import Fold, cross_validate, folds_table, write_folds

from .conftest import TEACHER, distil_settings

FOLDS = [Fold(25.0, 1e-3, 8, (0.5, 0.75)), Fold(20.0, 2e-3, 4, (0.25, 0.25))]


@pytest.fixture(scope="module")
def upside_down(teacher, tmp_path_factory):
    """Weights that take nuclei for background: an IoU of 0, and a start from which few steps suffice."""
    network = copy.deepcopy(teacher.module)
    for parameter in network.output.parameters():
        parameter.data.mul_(-1)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_model(network, path, teacher.card.replace(name="start"))
    return path


def test_a_sensible_rate_is_ranked_first(labelled_quarters, teacher, upside_down, tmp_path):
    told = []
    config = distil_settings(views=4, consistency=False, max_drop=1.0, training={"ema_decay": 0.5})
    given = {
        "output": tmp_path, "config": config, "diameters": [25.0], "learning_rates": [1e-9, 4e-3], "batch_sizes": [2],
        "folds": 2, "epochs": 8, "initial": upside_down, "threads": 1,
    }  # fmt: skip
    before = torch.get_num_threads()
    found = cross_validate(
        teacher, [labelled_quarters], on_fold=lambda fold, part: told.append((fold.learning_rate, part)), **given
    )
    assert torch.get_num_threads() == before
    assert told == [(1e-9, 0), (1e-9, 1), (4e-3, 0), (4e-3, 1)]
    assert [fold.learning_rate for fold in found] == [4e-3, 1e-9]
    assert min(found[0].ious) > max(found[1].ious) + 0.1
    first, second = folds_table(found).splitlines()[2:]
    assert first.startswith("| 25 | 0.004 | 2 |")
    assert second.startswith("| 25 | 1e-09 | 2 |")
    assert cross_validate(teacher, [labelled_quarters], **given) == found  # nothing is trained again


def test_other_folds_are_other_runs(labelled_quarters, teacher, tmp_path):
    given = {
        "output": tmp_path, "config": distil_settings(), "diameters": [25.0], "learning_rates": [1e-3],
        "batch_sizes": [2], "epochs": 1,
    }  # fmt: skip
    two, three = (cross_validate(teacher, [labelled_quarters], folds=folds, **given)[0] for folds in (2, 3))
    assert (len(two.ious), len(three.ious)) == (2, 3)
    with pytest.raises(TrainingDataError, match=r"got 4 images with nuclei.*expected at least 5"):
        cross_validate(teacher, [labelled_quarters], folds=5, on_fold=lambda *_: pytest.fail("trained"), **given)
    with pytest.raises(CancelledError):
        cross_validate(teacher, [labelled_quarters], folds=4, should_cancel=lambda: True, **given)


def test_the_table_is_written(tmp_path):
    path = write_folds(FOLDS, tmp_path / "made" / "table.csv")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["diameter_px"]) for row in rows] == [25, 20]
    assert [float(row["learning_rate"]) for row in rows] == [1e-3, 2e-3]
    assert (rows[0]["iou_mean"], rows[0]["iou_sd"], rows[0]["iou_fold_1"]) == ("0.625000", "0.125000", "0.750000")
    assert write_folds(FOLDS, tmp_path / "table.md").read_text() == folds_table(FOLDS) + "\n"
    assert write_folds(FOLDS[:1], path).read_text().count("\n") == 2  # replaced
    with pytest.raises(ConfigError, match=r"table\.txt.*\.csv or \.md"):
        write_folds(FOLDS, tmp_path / "table.txt")


def words(data, output, *more):
    return [
        "cross-validate", TEACHER, "faster_v3", str(data), "-o", str(output), "--diameter", "25", "--learning-rate",
        "1e-3", "--batch-size", "2", "--folds", "2", "--epochs", "1", "--views", "1", "--patch", "64", *more,
    ]  # fmt: skip


def test_the_command_writes_its_table(labelled_quarters, tmp_path):
    options = ["--device", "cpu", "--threads", "1", "--from", TEACHER]
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, *options))
    assert result.exit_code == 0, result.output
    assert "| 25 | 0.001 | 2 |" in result.output
    header = (tmp_path / "folds.csv").read_text().splitlines()[0]
    assert header == "diameter_px,learning_rate,batch_size,iou_mean,iou_sd,iou_fold_0,iou_fold_1"
    other = CliRunner().invoke(app, words(labelled_quarters, tmp_path, *options, "--table", str(tmp_path / "t.md")))
    assert other.exit_code == 0, other.output
    assert "| 25 | 0.001 | 2 |" in (tmp_path / "t.md").read_text()
    wrong = CliRunner().invoke(app, words(labelled_quarters, tmp_path, "--table", "t.xlsx"))
    assert wrong.exit_code == 2
    assert "t.xlsx" in wrong.output


def test_every_option_arrives(labelled_quarters, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "cross_validate", lambda *_given, **more: seen.update(more) or FOLDS)
    options = [
        "--device", "auto", "--threads", "2", "--from", "w.pth", "--workers", "1", "--channel", "2", "--kind", "40x",
        "--scale-jitter", "0.1", "--foreground", "0.2", "--weight-decay", "0",
    ]  # fmt: skip
    result = CliRunner().invoke(app, words(labelled_quarters, tmp_path, *options))
    assert result.exit_code == 0, result.output
    assert [seen[name] for name in ("device", "threads", "initial", "workers", "channel", "kinds")] == [
        "auto", 2, "w.pth", 1, 2, ["40x"],
    ]  # fmt: skip
    config = seen["config"]
    assert (config.scale_jitter, config.foreground, config.training.weight_decay) == (0.1, 0.2, 0.0)
