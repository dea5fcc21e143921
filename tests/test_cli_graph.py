"""``aprcnn graph``."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
import typer
from typer.testing import CliRunner

from napari_aprcnn.cli.graph import graph as graph_command
from napari_aprcnn.graph.export import read_graphml
from napari_aprcnn.io.write import write_labels


@pytest.fixture
def run():
    app = typer.Typer()
    app.command("graph")(graph_command)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path):
    labels = np.zeros((6, 40, 40), np.uint16)
    labels[1:4, 2:8, 2:8], labels[1:4, 2:8, 8:14], labels[1:4, 20:26, 20:26] = 1, 2, 5
    write_labels(labels, tmp_path / "a.tif", axes="ZYX", spacing_um=(2.0, 0.5, 0.5))
    tifffile.imwrite(tmp_path / "image.tif", (labels * 10).astype(np.uint16), metadata={"axes": "ZYX"}, imagej=True)
    return tmp_path


def test_tables(run, files):
    result = run(files / "a.tif", files / "image.tif", "-o", files / "out")
    assert result.exit_code == 0, result.output
    assert "3 nuclei, 1 edges (touching)" in result.output
    assert sorted(p.name for p in (files / "out").iterdir()) == ["a_edges.csv", "a_nodes.csv"]
    rows = list(csv.DictReader((files / "out" / "a_nodes.csv").open()))
    assert [row["label"] for row in rows] == ["1", "2", "5"]
    assert [float(row["volume_um3"]) for row in rows] == [54.0] * 3
    assert [float(row["intensity_mean"]) for row in rows] == [10, 20, 50]
    again = run(files / "a.tif", "-o", files / "out")
    assert again.exit_code == 6
    assert "exists" in again.output
    assert run(files / "a.tif", "-o", files / "out", "--overwrite").exit_code == 0


def test_all_formats_and_options(run, files):
    formats = ["--format", "csv", "--format", "graphml", "--format", "tensors"]
    result = run(
        files / "a.tif", "-o", files / "out", "--edges", "knn", "-k", 1, "--spacing", "1,1,1", *formats,
        "--descriptors", "--json", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["n_nuclei"] == 3
    assert found["descriptors"]["n_edges"] == 2
    assert found["phenotype"] is None
    assert "nuclei" in found["why_not"]
    assert sorted(p.name for p in (files / "out").iterdir()) == [
        "a.graphml", "a.safetensors", "a_descriptors.json", "a_edges.csv", "a_nodes.csv",
    ]  # fmt: skip
    graph = read_graphml(files / "out" / "a.graphml")
    assert graph.spacing_um == (1, 1, 1)
    assert graph.parameters == {"k": 1, "radius_um": None}


def test_only_descriptors(run, files):
    result = run(files / "a.tif", "--descriptors", "--edges", "distance", "--radius", 40)
    assert result.exit_code == 0, result.output
    assert "n_edges" in result.output
    assert "lumen_fraction" in result.output


def test_what_is_refused(run, files):
    tifffile.imwrite(files / "float.tif", np.zeros((6, 40, 40), np.float32))
    tifffile.imwrite(files / "small.tif", np.zeros((4, 4), np.uint8))
    for arguments, code, words in (
        ((files / "a.tif",), 2, "expected at least one"),
        ((files / "none.tif", "-o", files / "out"), 3, "no file"),
        ((files / "float.tif", "-o", files / "out"), 3, "integers"),
        ((files / "a.tif", files / "small.tif", "-o", files / "out"), 2, "expected the same"),
        ((files / "a.tif", "-o", files / "out", "--radius", 0, "--edges", "distance"), 2, "radius"),
        ((files / "a.tif", "-o", files / "out", "--radius", 5), 2, "got --radius 5 with --edges touching"),
        ((files / "a.tif", "-o", files / "out", "--edges", "knn", "--gap", 5), 2, "got --gap 5 with --edges knn"),
        ((files / "a.tif", "-o", files / "out", "--edges", "distance", "-k", 5), 2, "got -k 5 with --edges distance"),
        ((files / "a.tif", "-o", files / "out", "--channel", 1), 2, "without an image"),
        ((files / "a.tif", files / "image.tif", "-o", files / "out", "--channel", 1), 2, "no channels"),
    ):
        result = run(*arguments)
        assert result.exit_code == code, result.output
        assert words in " ".join(result.output.split())
    assert not (files / "out").exists() or not list((files / "out").iterdir())


def test_the_channel_that_is_measured_is_said(run, files):
    image = np.stack([np.zeros((6, 40, 40), np.uint16), np.full((6, 40, 40), 500, np.uint16)])
    tifffile.imwrite(files / "two.tif", image, metadata={"axes": "CZYX"}, ome=True)
    arguments = (files / "a.tif", files / "two.tif", "-o", files / "out", "--overwrite")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "two.tif: the image has 2 channels; channel 0 is measured: choose another with --channel" in words
    first = (files / "out" / "a_nodes.csv").read_text()
    result = run(*arguments, "--channel", 1)
    assert "is measured" not in result.output
    assert (files / "out" / "a_nodes.csv").read_text() != first
    assert "is measured" not in run(*arguments, "-q").output
    assert "without an image" in " ".join(run(files / "a.tif", "-o", files / "out", "--channel", 0).output.split())
