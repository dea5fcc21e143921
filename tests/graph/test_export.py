"""Graphs as files, and back."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_aprcnn.errors import FileFormatError, MissingDependencyError, OutputError
from napari_aprcnn.graph.build import nuclei_graph
from napari_aprcnn.graph.export import (
    graph_tensors,
    read_graphml,
    to_networkx,
    to_pyg,
    write_csv,
    write_graphml,
    write_tensors,
)


def labelled():
    labels = np.zeros((8, 10, 12), np.uint16)
    labels[1:4, 1:4, 1:4], labels[1:4, 1:4, 4:8], labels[4:7, 4:8, 4:8], labels[1:3, 7:9, 1:3] = 3, 7, 8, 20
    return labels


def same(one, other):
    assert np.array_equal(one.edges, other.edges)
    assert one.edges.dtype == other.edges.dtype
    for mine, theirs in ((one.nodes, other.nodes), (one.edge_columns, other.edge_columns)):
        assert list(mine) == list(theirs)
        for name, column in mine.items():
            assert column.dtype == theirs[name].dtype, name
            assert np.array_equal(column, theirs[name]), name
    for name in ("kind", "spacing_um", "shape", "parameters"):
        assert getattr(one, name) == getattr(other, name)


@pytest.fixture
def graph():
    labels = labelled()
    return nuclei_graph(labels, labels * 1.5, spacing_um=(2, 0.5, 0.3))


def test_graphml_and_back(graph, tmp_path):
    same(graph, read_graphml(write_graphml(graph, tmp_path / "a.graphml")))
    for labels in (labelled() * 0, (labelled() == 3).astype(int), labelled()[2]):
        other = nuclei_graph(labels, edges="knn", k=2)
        same(other, read_graphml(write_graphml(other, tmp_path / "a.graphml", overwrite=True)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.graphml"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 9)))
def test_any_graph_comes_back(labels, tmp_path):
    graph = nuclei_graph(labels, labels, spacing_um=(1 / 3, 0.1, 0.7), edges="delaunay")
    same(graph, read_graphml(write_graphml(graph, tmp_path / "a.graphml", overwrite=True)))


def test_networkx_names_nodes_by_label(graph):
    made = to_networkx(graph)
    assert sorted(made.nodes) == [3, 7, 8, 20]
    assert sorted(map(sorted, made.edges)) == [[3, 7], [3, 8], [7, 8]]
    assert made.nodes[20]["volume_um3"] == pytest.approx(8 * 0.3)
    assert type(made.nodes[20]["at_border"]) is bool


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<graphml/>",
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><graphml/>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="undirected">'
        '<node id="1"/></graph></graphml>',
    ],
)
def test_foreign_files_are_refused(text, tmp_path):
    path = tmp_path / "a.graphml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"a\.graphml"):
        read_graphml(path)


def test_damaged_files_are_refused(graph, tmp_path):
    path = write_graphml(graph, tmp_path / "a.graphml")
    text = path.read_text()
    for bad in (text[: len(text) // 2], text.replace("int64", "object"), text.replace('version": 1', 'version": 2')):
        path.write_text(bad)
        with pytest.raises(FileFormatError):
            read_graphml(path)
    with pytest.raises(FileFormatError, match="check the path"):
        read_graphml(tmp_path / "none.graphml")


def test_csv(graph, tmp_path):
    nodes, edges = write_csv(graph, tmp_path)
    assert (nodes.name, edges.name) == ("nodes.csv", "edges.csv")
    rows = list(csv.DictReader(nodes.open()))
    assert [row["label"] for row in rows] == ["3", "7", "8", "20"]
    assert list(rows[0]) == list(graph.nodes)
    assert float(rows[0]["volume_um3"]) == pytest.approx(27 * 0.3)
    assert [row["at_border"] for row in rows] == ["0"] * 4
    rows = list(csv.DictReader(edges.open()))
    assert [(row["label_1"], row["label_2"]) for row in rows] == [("3", "7"), ("3", "8"), ("7", "8")]
    with pytest.raises(OutputError, match="exists"):
        write_csv(graph, tmp_path)
    write_csv(graph, tmp_path, stem="b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b_edges.csv", "b_nodes.csv", "edges.csv", "nodes.csv"]
    empty = nuclei_graph(labelled() * 0)
    nodes, edges = write_csv(empty, tmp_path, overwrite=True)
    assert nodes.read_text().startswith("label,centroid_z_px")
    assert len(edges.read_text().splitlines()) == 1


def test_tensors(graph, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    arrays, about = graph_tensors(graph)
    names = json.loads(about["features"])
    assert arrays["x"].shape == (4, len(names))
    assert not {"label", "centroid_z_um"} & set(names)
    assert {"volume_um3", "intensity_mean", "neighbours"} <= set(names)
    start, end = arrays["edge_index"]
    assert arrays["edge_index"].tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]
    length = np.linalg.norm(arrays["pos"][start] - arrays["pos"][end], axis=1)
    column = json.loads(about["edge_features"]).index("distance_um")
    assert np.allclose(arrays["edge_attr"][:, column], length)
    path = write_tensors(graph, tmp_path / "a.safetensors")
    back = load_file(path)
    assert all(np.array_equal(arrays[name], back[name]) for name in arrays)
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["graph"])["spacing_um"] == [2, 0.5, 0.3]
    empty, _ = graph_tensors(nuclei_graph(labelled() * 0))
    assert empty["edge_index"].shape == (2, 0)
    assert empty["edge_attr"].shape == (0, 3)


def test_pytorch_geometric_is_optional(graph, monkeypatch):
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        to_pyg(graph)
    stand_in = ModuleType("torch_geometric.data")
    stand_in.Data = dict
    monkeypatch.setitem(sys.modules, "torch_geometric", ModuleType("torch_geometric"))
    monkeypatch.setitem(sys.modules, "torch_geometric.data", stand_in)
    data = to_pyg(graph)
    assert tuple(data["edge_index"].shape) == (2, 6)
    assert data["feature_names"][0] == "volume_um3"
