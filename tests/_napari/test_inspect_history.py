"""The edits of the Inspect dock when another layer is chosen: each layer keeps its history."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from graph_tools import Later
from inspect_tools import scene, wait
from napari.layers import Labels

from napari_aprcnn._napari import inspect_model
from napari_aprcnn._napari.inspect_history import Histories
from napari_aprcnn._napari.inspect_model import InspectModel
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn.segment.edits import delete_objects


def settled(model, later):
    for _ in range(6):
        later.run()
        model.poll()


@pytest.fixture
def slow(viewer, monkeypatch):
    """A model whose every edit is a large one, with two layers; the work waits for `later.run`."""
    monkeypatch.setattr(inspect_model, "_AT_ONCE", 0)
    labels, _ = scene()
    record = {"kind": "nuclei", "source": "organoid", "edited": False}
    layer = viewer.add_labels(labels, name="organoid nuclei", metadata={KEY: record})
    other = viewer.add_labels(labels[:, :20].copy(), name="other")
    later = Later()
    model = InspectModel(viewer, launch=later)
    model.told = []
    model.notified.connect(lambda *message: model.told.append(message))
    model.layers.choose_labels(layer)
    settled(model, later)
    yield model, later, layer, other
    model.close()


def test_a_look_at_another_layer_keeps_what_can_be_undone(viewer, opened):
    model = opened()
    layer = model.layers.labels
    start = layer.data.copy()
    model.sheet.select([(None, 3)])
    assert model.edit("delete")
    other = viewer.add_labels(start[:, :20].copy(), name="other")
    model.layers.choose_labels(other)
    wait(model)
    assert model.edits.history.undo_words == ""
    assert not model.undo()
    model.sheet.select([(None, 1)])
    assert model.edit("delete")
    model.layers.choose_labels(layer)
    wait(model)
    assert model.edits.history.undo_words == "Delete 3"
    assert model.undo()
    np.testing.assert_array_equal(layer.data, start)
    assert 1 not in other.data


def test_labels_of_another_shape_have_no_history(viewer, opened):
    model = opened()
    layer = model.layers.labels
    model.sheet.select([(None, 3)])
    assert model.edit("delete")
    model.layers.choose_labels(viewer.add_labels(np.ones((8, 8, 8), np.uint8), name="other"))
    wait(model)
    layer.data = layer.data[:, :10].copy()
    model.layers.choose_labels(layer)
    wait(model)
    assert model.edits.history.undo_words == ""
    assert not model.undo()


def test_a_large_edit_is_kept_when_another_layer_is_chosen_meanwhile(slow):
    model, later, layer, other = slow
    start = layer.data.copy()
    model.sheet.select([(None, 3)])
    assert model.edit("delete")
    assert model.state == "editing"
    model.layers.choose_labels(other)
    assert model.state == "editing"
    assert not model.edit("delete", keys=[(None, 1)])  # one after the other
    settled(model, later)
    assert model.state == "ready"
    assert layer.metadata[KEY]["edited"]
    assert KEY not in other.metadata
    assert 3 not in layer.data
    assert sorted(model.sheet.table["label"]) == [1, 2, 3]
    model.layers.choose_labels(layer)
    settled(model, later)
    assert sorted(model.sheet.table["label"]) == [1, 2, 4]
    assert model.undo()
    np.testing.assert_array_equal(layer.data, start)


def test_objects_are_measured_again_when_their_layer_was_chosen_during_an_edit(slow):
    model, later, layer, other = slow
    model.sheet.select([(None, 3)])
    assert model.edit("delete")
    model.layers.choose_labels(other)
    model.layers.choose_labels(layer)
    settled(model, later)
    assert sorted(model.sheet.table["label"]) == [1, 2, 4]
    assert model.state == "ready"
    assert model.edits.history.undo_words == "Delete 3"


def test_an_edit_of_labels_that_were_replaced_is_told(slow):
    model, later, layer, _ = slow
    model.sheet.select([(None, 3)])
    assert model.edit("delete")
    layer.data = layer.data[:, :10].copy()
    settled(model, later)
    assert "has other labels now" in model.told[-1][1]
    assert model.edits.history.undo_words == ""


def test_histories_share_a_limit_and_go_with_their_layers():
    layers = [Labels(scene()[0]) for _ in range(3)]
    edits = [delete_objects(layer.data, [3]) for layer in layers]
    histories = Histories(limit_bytes=int(edits[0].nbytes * 2.5))
    for layer, edit in zip(layers, edits, strict=True):
        histories.push(layer, edit)
    assert [histories.of(layer).undo_words for layer in layers] == ["", "Delete 3", "Delete 3"]
    histories.push(layers[1], delete_objects(layers[1].data, [4]))  # small, and now layers[2] is the older one
    histories.push(layers[1], delete_objects(layers[1].data, [1, 2]))
    assert histories.of(layers[2]).undo_words == ""
    assert histories.of(layers[1]).undo_words == "Delete 1, 2"
    histories.forget(layers[1])
    assert histories.of(layers[1]).undo_words == ""
    assert histories.of(None).undo_words == ""
    del layer, layers[:]
    gc.collect()
    assert len(histories._of) == 0
