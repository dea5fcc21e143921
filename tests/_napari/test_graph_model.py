"""The Graph dock without Qt: what it builds, shows, selects, writes and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graph_tools import Later, boxes, built, make, shell

from napari_aprcnn._napari import graph_job
from napari_aprcnn._napari.graph_settings import (
    GraphSettings,
    graph_settings_path,
    load_graph_settings,
    save_graph_settings,
)
from napari_aprcnn.graph.export import read_graphml

UM = {"scale": (2.0, 0.5, 0.5), "units": ["um"] * 3}


def test_nodes_and_edges_lie_in_the_labels(viewer):
    labels = viewer.add_labels(boxes(), name="a", translate=(10, 20, 30), rotate=20, **UM)
    model = built(make(viewer))
    assert model.nodes.name == "a graph nodes"
    assert model.edges.name == "a graph edges"
    assert model.built.graph.edges.tolist() == [[0, 1], [1, 2]]
    for row, label in enumerate(model.built.graph.labels):
        centre = np.argwhere(labels.data == label).mean(axis=0)
        assert np.allclose(model.nodes.data_to_world(model.nodes.data[row]), labels.data_to_world(centre))
    assert np.allclose(model.edges.data[:, 0], model.nodes.data[[0, 1]])
    assert np.allclose(model.edges.data.sum(axis=1), model.nodes.data[[1, 2]])
    assert np.allclose(model.nodes.size, 0.5 * np.cbrt(6 / np.pi * model.nodes.features["volume_um3"]))
    assert model.summary.startswith("4 nuclei, 2 pairs touch, 1.0 neighbours each")
    assert [layer.name for layer in viewer.layers] == ["a", "a graph edges", "a graph nodes"]
    built(model)  # once more: replaced
    assert [layer.name for layer in viewer.layers] == ["a", "a graph edges", "a graph nodes"]


def test_sizes_follow_the_unit_of_the_layer(viewer):
    viewer.add_labels(boxes(), scale=(2000.0, 500.0, 500.0), units=["nm"] * 3)
    model = built(make(viewer))
    assert model.built.graph.spacing_um == pytest.approx((2, 0.5, 0.5))
    assert np.allclose(model.nodes.size, 500 * np.cbrt(6 / np.pi * model.nodes.features["volume_um3"]))


def test_the_kind_of_edges_and_the_voxel_size(viewer):
    viewer.add_labels(boxes())
    model = make(viewer, edges="distance", radius=8.5)
    assert model.choice.unit == "px"
    assert "voxel size unknown" in model.choice.words
    assert built(model).built.graph.parameters == {"radius_px": 8.5}
    for edges in ("touching", "delaunay", "knn"):
        assert model.set_option(edges=edges, radius=None)
        assert built(model).built.graph.kind == edges
    assert not model.set_option(k=0)
    assert model.told[-1][1].startswith("K: got 0")
    assert model.settings.k == 6


def test_the_image_is_suggested(viewer):
    other = viewer.add_image(np.zeros((8, 14, 21)), name="other")
    image = viewer.add_image(boxes() * 2.0, name="raw")
    labels = viewer.add_labels(boxes(), name="nuclei")
    model = make(viewer)
    assert model.choice.labels is labels
    assert model.choice.image is image
    assert model.choice.image_layers == [image]
    assert built(model).built.graph.nodes["intensity_mean"].tolist() == [6, 10, 14, 40]
    model.choice.select_image(None)
    viewer.layers.remove(other)
    assert model.choice.image is None  # none is a choice that stays
    assert "intensity_mean" not in built(model).built.graph.nodes


def test_planes_and_time(viewer):
    stack = np.stack([boxes() * 0, boxes()])
    viewer.add_labels(stack, name="movie", scale=(1, 2, 0.5, 0.5))
    viewer.dims.set_point(0, 1)
    model = built(make(viewer))
    assert len(model.built.graph) == 4
    assert model.nodes.ndim == 3
    viewer.dims.set_point(0, 0)
    assert model.choice.words.startswith("Z 8 x Y 14 x X 20")
    assert model.summary
    assert built(model).summary == "no nuclei: the labels are empty"
    assert not len(model.nodes.data)
    viewer.layers.clear()
    flat = viewer.add_labels(boxes()[3], name="flat")
    assert model.choice.labels is flat
    built(model)
    assert "plane" in model.built.phenotype_problem
    assert model.nodes.features["area_px2"].tolist() == [16, 16, 16, 12]


def test_selecting(viewer):
    labels = viewer.add_labels(boxes(), **UM)
    model = built(make(viewer))
    assert "Select a node" in model.selected_words
    model.nodes.selected_data = {1}
    assert labels.selected_label == 5
    assert model.selected_words.startswith("nucleus 5: 24 µm³")
    assert "2 neighbours: 3, 7" in model.selected_words
    labels.selected_label = 20
    assert set(model.nodes.selected_data) == {3}
    assert "no neighbour" in model.selected_words
    labels.selected_label = 4  # no nucleus
    assert model.selected is None
    model.nodes.selected_data = {0, 1}
    assert model.selected is None
    assert labels.selected_label == 4


def test_colours(viewer):
    viewer.add_labels(boxes())
    model = built(make(viewer, colour="volume"))
    assert model.colour_stem == "volume"
    before = np.array(model.nodes.face_color)
    assert ("volume_px3", "volume") in model.colours
    model.choose_colour("neighbours")
    assert not np.allclose(before, model.nodes.face_color)
    assert len(np.unique(model.nodes.face_color, axis=0)) == 3
    model.settings = model.settings.replace(colour="intensity_mean")  # of a graph with an image
    assert built(model).colour_stem == "neighbours"


def test_an_organoid_is_described(viewer):
    viewer.add_labels(shell(), scale=(0.5, 0.5, 0.5), units=["um"] * 3)
    model = built(make(viewer))
    assert max(model.built.phenotype, key=model.built.phenotype.get) == "cystic"
    rows = {name: (value, meaning) for name, value, meaning in model.rows()}
    assert rows["n nuclei"][0] == "60"
    assert rows["organoid volume"][0].endswith("µm³")
    assert float(rows["lumen fraction"][0]) > 0.2
    assert all(meaning for _, meaning in rows.values())


def test_painting_makes_it_stale(viewer):
    labels = viewer.add_labels(boxes())
    model = built(make(viewer))
    labels.data_setitem((np.array([7]), np.array([0]), np.array([0])), 9)
    assert "have changed" in model.summary
    assert "have changed" not in built(model).summary
    assert len(model.built.graph) == 5


def test_it_can_be_cancelled(viewer):
    viewer.add_labels(boxes())
    later = Later()
    model = make(viewer, launch=later)
    assert model.build()
    assert not model.build()
    assert model.state == "running"
    assert model.pending
    model.cancel()
    assert model.state == "cancelling"
    later.run()
    model.poll()
    assert model.state == "ready"
    assert not model.pending
    assert model.built is None
    assert len(viewer.layers) == 1
    assert model.told == []


def test_layers_come_and_go(viewer):
    model = make(viewer)
    assert "Segment an image first" in model.choice.problem
    assert not model.build()
    labels = viewer.add_labels(boxes(), name="a")
    assert model.choice.labels is labels
    built(model)
    viewer.layers.remove(model.nodes)
    assert model.nodes is None
    labels.selected_label = 7
    later = Later()
    model._launch = later
    model.build()
    viewer.layers.remove(labels)  # while it is built
    later.run()
    model.poll()
    assert model.nodes is not None
    assert model.choice.labels is None
    model.nodes.selected_data = {1}
    model.close()
    model.close()
    viewer.add_labels(boxes())


def test_errors_are_told(viewer, monkeypatch):
    viewer.add_labels(boxes())
    model = make(viewer)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(graph_job, "nuclei_graph", fail)
    built(model)
    assert model.state == "ready"
    assert model.told[-1][1].startswith("The memory was not enough")
    monkeypatch.setattr(graph_job, "nuclei_graph", lambda *_, **__: 1 / 0)
    built(model)
    assert isinstance(model.told[-1][2], ZeroDivisionError)


def test_files(viewer, tmp_path):
    viewer.add_labels(boxes(), **UM)
    model = make(viewer)
    assert not model.export(tmp_path)
    built(model)
    for path in (tmp_path, tmp_path / "a.graphml", tmp_path / "a.safetensors", tmp_path / "a.json"):
        assert model.export(path)
        model.poll()
        assert model.told[-1][0] == "info"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "a.graphml", "a.json", "a.safetensors", "edges.csv", "nodes.csv",
    ]  # fmt: skip
    assert read_graphml(tmp_path / "a.graphml").edges.tolist() == [[0, 1], [1, 2]]
    assert json.loads((tmp_path / "a.json").read_text())["descriptors"]["n_nuclei"] == 4
    assert model.export(tmp_path / "none" / "a.graphml")
    model.poll()
    assert model.told[-1][0] == "error"
    assert "does not exist" in model.told[-1][1]


def test_settings_are_kept(viewer):
    model = make(viewer, edges="knn", k=4, radius=12.5)
    model.close()
    assert load_graph_settings() == GraphSettings(edges="knn", k=4, radius=12.5)
    graph_settings_path().write_text("{broken")
    assert load_graph_settings() == GraphSettings()
    graph_settings_path().unlink()
    graph_settings_path().mkdir()
    assert not save_graph_settings(GraphSettings())
