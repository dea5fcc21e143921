"""Tables of measurements, and the runner that skips what is not there."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_aprcnn.bench import __main__ as runner
from napari_aprcnn.bench.fields import disturbed_field, ellipsoids
from napari_aprcnn.bench.masks import agreement, run_worker
from napari_aprcnn.bench.table import BenchTable, machine

TABLE = BenchTable(
    title="Speed",
    columns=("who", "wall s", "same"),
    rows=(("ours", 0.0421, True), ("theirs", None, False)),
    notes=("n",),
)


def test_text_is_aligned():
    assert TABLE.text().splitlines() == [
        "Speed",
        "who     wall s  same",
        "------  ------  ----",
        "ours    0.0421   yes",
        "theirs       -    no",
        "* n",
    ]


def test_json_holds_the_numbers_and_the_machine():
    read = json.loads(TABLE.to_json())
    assert read["rows"][0] == ["ours", 0.0421, True]
    assert set(machine()) <= set(read["machine"])


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="row of 1"):
        BenchTable(title="x", columns=("a", "b"), rows=(("only",),))


def test_write(tmp_path):
    text, values = TABLE.write(tmp_path / "new", "speed")
    assert text.read_text().startswith("Speed\n")
    assert json.loads(values.read_text())["title"] == "Speed"
    assert len(list((tmp_path / "new").iterdir())) == 2


def run(monkeypatch, tables, *arguments):
    app = runner.typer.Typer()
    app.command()(runner.main)
    monkeypatch.setattr(runner, "TABLES", tables)
    return CliRunner().invoke(app, list(arguments))


def test_runner_writes_tables_and_skips_missing_modules(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "a_table_here", SimpleNamespace(table=lambda *, threads: TABLE))
    done = run(monkeypatch, {"speed": "a_table_here", "later": "not_there_yet"}, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "later: no such table" in done.output
    assert (tmp_path / "speed.json").exists()


def test_runner_knows_its_names(monkeypatch):
    assert run(monkeypatch, {"speed": "x"}, "--only", "spede").exit_code == 2


def test_several_tables_of_a_module_and_only_the_options_it_takes():
    module = SimpleNamespace(table=lambda *, quick: [TABLE, TABLE] if quick else TABLE)
    assert len(runner.run_table(module, {"quick": True, "peer": None})) == 2


def test_agreement():
    labels = ellipsoids((60, 60), 8, diameter=14)
    assert agreement(labels, labels) == (8, 8, 1.0)
    assert agreement(labels * 0, labels * 0) == (0, 0, 1.0)
    assert agreement(labels, labels * 0) == (8, 0, 0.0)


def test_a_worker_measures_in_a_process_of_its_own(tmp_path):
    flows, probability = disturbed_field(ellipsoids((64, 64), 6, diameter=16), noise=0.3)
    np.savez(tmp_path / "field.npz", flows=flows, probability=probability)
    stats = run_worker(sys.executable, "ours", [tmp_path / "field.npz"], tmp_path / "out", threads=1)
    figures = stats["fields"]["field"]
    assert figures["n"] == np.load(tmp_path / "out/field.npy").max() > 3
    assert 0 < figures["wall_s"] < 60
    assert figures["peak_bytes"] >= figures["before_bytes"] > 2**20
    with pytest.raises(RuntimeError, match="cellpose failed"):
        run_worker(sys.executable, "cellpose", [tmp_path / "field.npz"], tmp_path / "none")
