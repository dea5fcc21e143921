"""The tables of what models find: the package's samples, other sets, and a volume."""

from __future__ import annotations

import sys

import pytest
import tifffile
from typer.testing import CliRunner

from napari_aprcnn._kernels import planes
from napari_aprcnn.bench import __main__ as bench
from napari_aprcnn.bench import accuracy, volumes
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.io.samples import sample_labels_path, sample_path


def rows_of(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_the_samples_are_scored_where_nothing_is_given():
    table = accuracy.table()
    full, half, *eighth = rows_of(table)
    assert (full["set"], full["model"], full["arithmetic"]) == ("samples", "fastercellpose-v3", "float32")
    assert full["F1 .5"] > 0.85
    assert full["F1 .7"] < full["F1 .5"]
    assert [row["arithmetic"] for row in eighth] == (["int8"] if planes.can_quantise() else [])
    for fewer in (half, *eighth):
        assert fewer["lost by fewer bits"] == pytest.approx(full["F1 .5"] - fewer["F1 .5"])
        assert fewer["F1 .5"] > 0.85
    assert half["reached"] in ("bfloat16 yes", "bfloat16 no")
    assert any("samples of the package" in note for note in table.notes)


def test_a_teacher_and_goals(tmp_path):
    folder = tmp_path / "bbbc039_test"
    for part, path in (("images", sample_path("u2os")), ("labels", sample_labels_path("u2os"))):
        (folder / part).mkdir(parents=True)
        tifffile.imwrite(folder / part / "a.tif", tifffile.imread(path))
    taught, full, *_fewer = rows_of(accuracy.table(data=[folder], teacher="fastercellpose-v1", quick=True))
    assert taught["model"] == "teacher"
    assert taught["reached"] is None
    assert full["to teacher"] == pytest.approx(full["F1 .5"] - taught["F1 .5"])
    met = full["F1 .5"] >= 0.97 and full["F1 .7"] >= 0.95
    assert full["reached"].startswith(f"F1 {'yes' if met else 'no'}, teacher ")
    with pytest.raises(ConfigError, match="volumes"):
        accuracy.table(data=[folder], models=["apr-unet-nuclei-3d"])


@pytest.mark.parametrize(
    ("gap", "lost", "words"),
    [(-0.009, None, "F1 no, teacher yes"), (-0.011, None, "F1 no, teacher no"), (None, 0.004, "bfloat16 no")],
)
def test_what_is_reached(gap, lost, words):
    assert accuracy._reached("dsb2018_fluo_test", "bfloat16", 0.94, 0.86, gap, lost) == words


def test_a_volume_without_the_package_is_ours_alone():
    table = volumes.table(quick=True)
    (row,) = rows_of(table)
    assert row["F1 .5"] > 0.6
    assert row["times faster"] is None
    assert any("peer_environment.sh" in note for note in table.notes)


def test_the_package_is_given_a_cellpose_that_segments(monkeypatch):
    """Grown from FasterCellpose v1: what stands in for the package here measures nothing, but sees the weights."""
    seen = {}
    apart = volumes._apart

    def run(code, python, request):
        if "weights" not in request:
            return apart(code, python, request)
        import numpy as np
        import torch

        seen.update(torch.load(request["weights"], weights_only=True))
        np.save(request["masks"], np.zeros(volumes.QUICK, np.int32))
        return {"seconds": 1e9}

    monkeypatch.setattr(volumes, "_apart", run)
    ours, theirs = rows_of(volumes.table(peer="python", quick=True))
    assert sum(value.numel() for value in seen.values() if value.dim() > 1) > 6_000_000
    assert ours["reached"] is True
    assert (theirs["program"], theirs["times faster"]) == ("cellpose 3.1.1", 1.0)


def test_a_program_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_thing"):
        volumes._apart("import no_such_thing", sys.executable, {"threads": 1})


def test_options_reach_the_tables(tmp_path):
    result = CliRunner().invoke(bench_app(), ["--only", "accuracy", "--quick", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "F1 of labelled images" in result.output
    assert (tmp_path / "accuracy.json").is_file()


def bench_app():
    import typer

    app = typer.Typer()
    app.command()(bench.main)
    return app
