"""The tables of U-Nets: what is computed from measurements, and that the worker measures."""

from __future__ import annotations

import pytest

from napari_aprcnn.bench import unets
from napari_aprcnn.bench.unet_worker import main, measure

NETWORK = {"channels": 2, "depth": 1, "filter_banks": 2}


def test_break_even_lies_between_the_points_around_one():
    assert unets.break_even([(1.0, 0.5), (4.0, 2.0)]) == pytest.approx(2.0)
    assert unets.break_even([(2.0, 2.0), (4.0, 4.0)]) == pytest.approx(1.0)  # below the first point
    assert unets.break_even([(1.0, 0.1), (2.0, 0.5), (8.0, 2.0)]) == pytest.approx(4.0)


def test_tiles_give_their_middles():
    assert unets.tiles_of(512, 512, 44) == 1
    assert unets.tiles_of(512, 344, 44) == 8
    assert unets.tiles_of(512, 343, 44) == 27


def test_the_worker_measures_every_form():
    for stages in (None, 0, 1):
        found = measure(network={**NETWORK, "particle_stages": stages}, edge=16, prr=4.0, repeats=1)
        assert 0 < found["forward_s"] <= found["first_s"]
        assert found["peak_bytes"] >= 0
        assert found["prr"] == (1.0 if stages == 0 else pytest.approx(4.0, rel=0.2))
        assert ("rows" in found) == (stages != 0)
    trained = measure(network=NETWORK, edge=16, prr=4.0, repeats=1, training=True)
    assert trained["backward_s"] > 0


def test_from_a_file_to_a_file():
    found = main({"threads": 1, "model": unets.MODEL, "edge": 48, "nuclei": 3})
    assert found["objects"] >= 1
    assert found["prr"] > 1
    assert found["seconds"] >= found["network"] + found["masks"]


def test_tables_say_whether_goals_are_met(monkeypatch):
    """Workers are replaced: particles that cost what they are, and half a second."""

    def worker(_module, order, **_):
        if "model" in order:
            return dict.fromkeys(unets.FROM_FILE, 1.0) | {"prr": 20.0, "objects": 90, "seconds": 12.0}
        stages = order["network"]["particle_stages"]
        seconds = 100.0 if stages == 0 else 100.0 / order["prr"] + 0.5 * (0 if stages is None else 4 - stages)
        form = {None: "apr", 0: "pixel"}.get(stages, f"hybrid{stages}")
        voxels = order["edge"] ** 3
        rows = [int(voxels / order["prr"] / 8**k) for k in range(4)]
        return {
            "form": form, "edge": order["edge"], "prr": order["prr"], "rows": rows, "first_s": seconds,
            "forward_s": seconds, "backward_s": 3 * seconds, "peak_bytes": int(1e10 * seconds / 100),
        }  # fmt: skip

    monkeypatch.setattr(unets, "run_worker", worker)
    inference, choice, training, large, whole = unets.table(2)
    rows = {(row[0], row[1]): row for row in inference.rows}
    assert rows["apr", 20.0][4:7] == (pytest.approx(20), 12.0, True)
    assert "break-even at PRR 1.00" in " ".join(inference.notes)
    assert all(row[6] == "apr" for row in choice.rows)
    assert [row[5] for row in training.rows[1:]] == [False] * 4  # three times the forward pass
    assert large.rows[0][-1] is True
    assert whole.rows[0][-1] is False
