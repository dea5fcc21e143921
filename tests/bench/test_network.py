"""The network bench: what its worker measures, and the table made of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from napari_aprcnn.bench import network, network_worker


@pytest.mark.parametrize(
    ("way", "least", "most"), [("plain", 0, 0), ("bands", 1e-9, 1e-5), ("bands bfloat16", 1e-5, 0.03)]
)
def test_the_worker_measures_and_compares(way, least, most):
    found = network_worker.run(architecture="faster_v3", way=way, edge_px=32, threads=1, repeats=2)
    assert 0 < found["seconds"] < 60
    assert found["cpu_seconds"] > 0
    assert found["peak_bytes"] >= 0
    assert least <= found["deviation"] <= most


def test_the_worker_is_a_program():
    order = {"architecture": "faster_v3", "way": "plain", "edge_px": 16, "threads": 1, "repeats": 1}
    command = [sys.executable, "-m", network.WORKER, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["deviation"] == 0


def test_ratios_are_to_the_faster_baseline_of_the_same_run(monkeypatch):
    baseline = iter([4.0, 2.0])

    def measure(job, *, threads, repeats):
        plain = job.architecture == "cellpose" and job.way == "plain"
        seconds = next(baseline) if plain else 0.1
        return {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": 2**20, "deviation": 0.0, "torch": "2"}

    monkeypatch.setattr(network, "_measure", measure)
    (table,) = network.table(quick=True)
    rows = {row[:2]: row for row in table.rows}
    assert rows["cellpose", "plain"][2:4] == (2000.0, 1.0)
    assert rows["faster_v3", "bands"][2:4] == (100.0, 20.0)
    assert "factor of 2.00" in " ".join(table.notes)
    assert rows["faster_v3", "bands"][5] == pytest.approx(4_971_329_536 / 64 / 1e9, rel=1e-3)


def test_a_worker_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_network"):
        network._measure(network._Job("no_such_network", "plain", 16, keeps=False), threads=1, repeats=1)
