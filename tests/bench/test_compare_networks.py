"""The comparison of networks: what is concluded from given runs, and that results are neither lost nor repeated."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare_networks.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="a checkout has benchmarks, an installed package has not")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_networks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(script, network, seed, level, data="simulation"):
    accuracy = {f"{t:g}": level for t in script.THRESHOLDS}
    return {"data": data, "network": network, "seed": seed, "channels": 8, "steps": 10, "accuracy": accuracy}


def test_claims_are_answered_from_the_runs(script):
    runs = [record(script, "pixel", s, 0.60) for s in range(3)]
    runs += [record(script, "apr eta 1", s, 0.50 + 0.05 * s) for s in range(3)]
    runs += [record(script, "apr eta 3", s, 0.59 + 0.01 * s) for s in range(3)]
    runs += [record(script, "pixel stardist", 0, 0.7), record(script, "apr stardist", 0, 0.6)]
    expected = [
        "simulation, C = 8: particles at most 0.02 below pixels on average: yes (+0.000)",
        "simulation, C = 8: three filter banks more consistent than one: yes (deviation 0.010 against 0.050)",
        "simulation, C = 8: apr stardist without loss against pixels: no (-0.100)",
    ]
    assert script.answers(runs) == expected
    wider = [r | {"channels": 16} for r in (record(script, "pixel", 0, 0.8), record(script, "apr eta 3", 0, 0.7))]
    assert script.answers([*runs, *wider]) == ["simulation, C = 8: " + line.partition(": ")[2] for line in expected] + [
        "simulation, C = 16: particles at most 0.02 below pixels on average: no (-0.100)"
    ]
    text = script.table(runs)
    assert "| apr eta 1 | 3 | 0.550 ± 0.050 |" in text
    assert "| apr stardist | 1 | 0.600 |" in text
    assert "hybrid1" not in text


def test_results_are_kept_in_order(script, tmp_path):
    path = tmp_path / "deep" / "results.json"
    for seed in (1, 0):
        script._append(path, record(script, "pixel", seed, 0.5))
    assert [r["seed"] for r in script._read(path)] == [0, 1]
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_a_whole_run(script, tmp_path, monkeypatch, capsys):
    """Smallest sizes: every network trains, is tuned and scored; what is there is not done again."""
    monkeypatch.setattr(script, "SIMULATED", {"train": 1, "tune": 1, "test": 1})
    monkeypatch.setattr(script, "SHAPE", (16, 24, 24))
    path = tmp_path / "results.json"
    command = ["compare_networks.py", "run", "--results", str(path), "--seeds", "0", "--channels", "2", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--networks", "pixel", "apr stardist"])
    script.main()
    found = script._read(path)
    assert {r["network"] for r in found} == {"pixel", "apr stardist"}
    assert all(set(r["accuracy"]) == {f"{t:g}" for t in script.THRESHOLDS} for r in found)
    script.main()
    assert script._read(path) == found
    assert "| pixel | 1 |" in capsys.readouterr().out
