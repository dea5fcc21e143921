"""Runs are kept, compared and forgotten; nothing that is in the file is lost by accident."""

from __future__ import annotations

import json

import pytest

from napari_aprcnn.bench import run_log
from napari_aprcnn.bench.run_log import COLUMNS, METRICS, RunLog, RunRecord, markdown, run_log_path, write_runs
from napari_aprcnn.errors import OutputError
from readouts import make_readout


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path / "folder" / "runs.jsonl")


def test_runs_come_back_in_their_order(log):
    assert log.records() == []
    made = [RunRecord(image=f"image {i}", readout=make_readout(seconds=i + 1.0)) for i in range(3)]
    assert all(log.add(record) for record in made)
    assert log.records() == made
    assert len({record.key for record in made}) == 3


def test_runs_are_forgotten_by_key(log):
    made = [RunRecord(image="a", readout=make_readout()) for _ in range(3)]
    for record in made:
        log.add(record)
    log.remove([made[1].key, "unknown"])
    assert log.records() == [made[0], made[2]]


def test_a_score_is_noted(log):
    made = [RunRecord(image="a", readout=make_readout()) for _ in range(2)]
    for record in made:
        log.add(record)
    assert log.note_score(made[0].key, 0.75, threshold=0.5)
    assert not log.note_score("unknown", 0.1, threshold=0.5)
    assert [record.f1 for record in log.records()] == [0.75, None]
    assert log.records()[0].f1_threshold == 0.5


def test_lines_that_cannot_be_read_stay(log):
    log.add(RunRecord(image="a", readout=make_readout()))
    newer = json.dumps({"image": "b", "readout": {"unknown": 1}})
    with log.path.open("a", encoding="utf-8") as file:
        file.write(newer + "\n\nhalf a li")
    (record,) = log.records()
    log.note_score(record.key, 1.0, threshold=0.5)
    assert log.path.read_text(encoding="utf-8").splitlines()[1:] == [newer, "half a li"]


def test_the_file_does_not_grow_without_end(log, monkeypatch):
    monkeypatch.setattr(run_log, "KEPT", 20)
    for number in range(30):
        log.add(RunRecord(image=str(number), readout=make_readout()))
    names = [record.image for record in log.records()]
    assert len(names) <= 22
    assert names[-1] == "29"


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    log = RunLog(tmp_path / "file" / "runs.jsonl")
    assert not log.add(RunRecord(image="a", readout=make_readout()))
    assert log.records() == []


def test_cells_and_figures():
    record = RunRecord(image="embryo", readout=make_readout(seconds=2.5, prr=20.0, voxels_per_s=3e6), f1=0.912)
    cells = dict(zip(COLUMNS, record.cells(), strict=True))
    assert (cells["time"], cells["Mvoxel/s"], cells["PRR"], cells["F1"]) == ("2.50 s", "3.00", "20.0", "0.912")
    assert record.value("voxels_per_s") == pytest.approx(3.0)
    planar = RunRecord(image="plane", readout=make_readout(prr=0.0))
    assert planar.value("prr") is None
    assert planar.value("f1") is None
    assert all(record.value(metric) is not None for metric in METRICS)


def test_markdown_and_json(tmp_path):
    records = [RunRecord(image="a|b", readout=make_readout()) for _ in range(2)]
    lines = markdown(records).splitlines()
    assert len(lines) == 4
    assert "a\\|b" in lines[2]
    assert write_runs(records, tmp_path / "t.md").read_text(encoding="utf-8").startswith("| when")
    back = json.loads(write_runs(records, tmp_path / "t.json").read_text(encoding="utf-8"))
    assert [RunRecord(**values) for values in back] == records
    with pytest.raises(OutputError, match="segment an image first"):
        write_runs([], tmp_path / "none.json")


def test_the_place_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("APRCNN_CONFIG_DIR", str(tmp_path))
    assert run_log_path() == tmp_path / "runs.jsonl"
