"""The Inspect dock without Qt: table, selection, edits, colours, files, planes."""

from __future__ import annotations

import time

import dask.array as da
import numpy as np
import pytest
from inspect_tools import SCALE, labels_of, scene, wait

from napari_aprcnn._napari.inspect_model import InspectModel
from napari_aprcnn.io.object_table import ObjectTable


# --- table -----------------------------------------------------------------------------------------------------------
def test_layers_are_found_and_measured(viewer, opened):
    model = opened()
    table = model.sheet.table
    assert table["label"].tolist() == [1, 2, 3, 4]
    assert table["volume_um3"].tolist() == [128, 128, 360, 24]
    assert table["intensity_mean"].tolist() == [107, 207, 307, 407]
    assert table["neighbours"].tolist() == [1, 1, 0, 0]
    assert model.words == "4 objects"
    assert model.sheet.column == "volume_um3"
    model.layers.choose_image(None)
    wait(model)
    assert "intensity_mean" not in model.sheet.table.names


def test_empty_states_say_what_to_do(viewer, opened):
    model = InspectModel(viewer, launch=lambda job: job())
    assert "Segment an image" in model.words
    assert not model.edit("delete")
    viewer.add_labels(np.zeros((4, 5), int), name="blank")
    wait(model)
    assert "no object" in model.words
    assert model.sheet.histogram() is None
    viewer.layers.clear()
    assert "Segment an image" in model.words
    assert len(model.sheet.rows) == 0
    model.close()


def test_lazy_labels_are_measured_on_request(opened):
    labels, image = scene()
    model = opened(da.from_array(labels, chunks=(1, 30, 40)), da.from_array(image, chunks=(1, 30, 40)))
    assert model.sheet.table is None
    assert "click Measure" in model.words
    model.measure()
    wait(model)
    assert len(model.sheet.table) == 4
    model.sheet.select([(None, 1)])
    assert not model.edit("delete")
    assert "cannot be edited" in model.told[-1][1]


def test_filter_and_sort(opened):
    model = opened()
    sheet = model.sheet
    sheet.sort("volume_um3", descending=True)
    assert labels_of(model, sheet.rows) == [3, 1, 2, 4]
    assert sheet.set_filter("volume_um3 > 100 and intensity_mean > 150")
    assert labels_of(model, sheet.rows) == [3, 2]
    assert model.words == "4 objects, 2 shown"
    assert not sheet.set_filter("volum > 1")
    assert "did you mean volume" in sheet.filter_problem
    assert len(sheet.rows) == 4
    sheet.set_filter("")
    sheet.choose_column("intensity_mean")
    counts, edges = sheet.histogram()
    assert counts.sum() == 4
    assert edges[[0, -1]].tolist() == [107, 407]
    sheet.select_range(200, 310)
    assert sorted(label for _, label in sheet.selected) == [2, 3]


# --- selection -------------------------------------------------------------------------------------------------------
def test_selection_is_that_of_the_viewer(viewer, opened):
    model = opened()
    layer = model.layers.labels
    model.sheet.select_rows([2])
    assert layer.selected_label == 3
    layer.selected_label = 2
    assert model.sheet.selected == ((None, 2),)
    layer.selected_label = 77  # a new object to paint: not in the table
    assert model.sheet.selected == ((None, 2),)
    viewer.dims.set_point(0, 6.0)
    model.pointer.click((6.0, 10 * 0.5, 30 * 0.5))
    assert model.sheet.selected == ()
    model.pointer.click((6.0, 20 * 0.5, 30 * 0.5))
    assert model.sheet.selected == ((None, 3),)
    model.pointer.click((6.0, 5 * 0.5, 5 * 0.5), add=True)
    assert model.sheet.selected == ((None, 3), (None, 1))
    model.pointer.click((6.0, 5 * 0.5, 5 * 0.5), add=True)
    assert model.sheet.selected == ((None, 3),)
    model.pointer.click((6.0, 500.0, 5.0))
    assert model.sheet.selected == ()


def test_going_to_an_object(viewer, opened):
    model = opened()
    viewer.camera.zoom = 0.001
    model.go_to((None, 3))
    assert viewer.dims.point[0] == pytest.approx(7.0, abs=1.01)  # between two planes
    assert viewer.camera.center[-2:] == pytest.approx((20.5 * 0.5, 29.5 * 0.5))
    assert viewer.camera.zoom > 1
    model.go_to((None, 99))


# --- edits -----------------------------------------------------------------------------------------------------------
def same_as_new(model):
    layers = model.layers
    fresh = ObjectTable.from_labels(layers.data, image=layers.image_data, spacing_um=layers.spacing_um)
    for name in fresh.names:
        np.testing.assert_allclose(model.sheet.table[name], fresh[name], err_msg=name)


def test_edits_change_labels_and_table_and_can_be_undone(opened):
    model = opened()
    layer = model.layers.labels
    start = layer.data.copy()
    model.sheet.select([(None, 1), (None, 2)])
    assert model.edit("merge")
    assert model.sheet.selected == ((None, 1),)
    same_as_new(model)
    assert model.edits.history.undo_words == "Merge 1, 2"
    assert model.edit("split", n_parts=2)
    assert model.sheet.selected == ((None, 1), (None, 5))
    same_as_new(model)
    assert model.edit("grow", n_voxels=1)
    model.sheet.select([(None, 3)])
    for kind in ("shrink", "smooth", "delete"):
        assert model.edit(kind)
        same_as_new(model)
    assert 3 not in layer.data
    assert not model.edit("fill")
    assert "no object is selected" in model.told[-1][1].lower()
    end = layer.data.copy()
    while model.undo():
        same_as_new(model)
    np.testing.assert_array_equal(layer.data, start)
    while model.redo():
        pass
    np.testing.assert_array_equal(layer.data, end)
    same_as_new(model)


def test_whole_volume_edits(opened):
    model = opened()
    assert model.remove("touches_border")
    assert model.sheet.table["label"].tolist() == [1, 2, 3]
    assert model.remove("volume_um3 < 130")
    assert not model.remove("volume_um3 < 130")
    assert "nothing to remove" in model.told[-1][1]
    assert model.renumber()
    wait(model)
    assert model.sheet.table["label"].tolist() == [1]
    model.undo()
    assert model.sheet.table["label"].tolist() == [3]


def test_errors_are_sentences_and_change_nothing(opened):
    model = opened()
    for kind, keys, words in (
        ("merge", [(None, 1)], "expected two objects"),
        ("split", [(None, 1), (None, 2)], "expected one to split"),
        ("delete", [(None, 77)], "no object 77"),
        ("shrink", [(None, 4)], "would vanish"),
    ):
        model.sheet.select(keys)
        assert not model.edit(kind, **({"n_voxels": 9} if kind == "shrink" else {}))
        severity, sentence, error = model.told[-1]
        assert (severity, error) == ("error", None)
        assert words in sentence
        assert not sentence[0].islower()
    assert not model.undo()


def test_splitting_by_clicks(viewer, opened):
    model = opened()
    viewer.dims.set_point(0, 6.0)
    model.sheet.select([(None, 3)])
    assert model.start_splitting("seeds")
    assert "Click in each part of object 3: 0 seeds" in model.edits.split_words
    for x in (26, 34):
        model.pointer.click((6.0, 20 * 0.5, x * 0.5))
    marks = viewer.layers["split here"]
    assert marks.data.tolist() == [[3, 20, 26], [3, 20, 34]]
    assert viewer.layers.selection.active is model.layers.labels
    assert model.split_here()
    assert marks not in viewer.layers
    data = model.layers.data
    assert data[3, 20, 25] != data[3, 20, 35]
    assert model.edits.splitting == ""
    model.undo()
    model.sheet.select([(None, 3)])
    assert model.start_splitting("cut")
    model.pointer.click((6.0, 21 * 0.5, 2 * 0.5))
    model.pointer.click((6.0, 21 * 0.5, 39 * 0.5))  # the second click cuts
    assert data[3, 18, 30] != data[3, 24, 30]
    assert len(set(data[1:7, 18, 30])) == 1
    model.undo()
    model.sheet.select([(None, 3)])
    model.start_splitting("seeds")
    model.pointer.click((6.0, 1.0, 1.0))
    model.pointer.click((6.0, 10.0, 15.0))
    assert not model.split_here()
    assert "in the background" in model.told[-1][1]
    model.edits.stop_splitting()
    viewer.dims.ndisplay = 3
    assert not model.start_splitting("cut")
    assert "2D view" in model.told[-1][1]


def test_painting_is_measured_after_a_pause(opened):
    model = opened()
    layer = model.layers.labels
    layer.data_setitem((np.array([7, 7]), np.array([0, 0]), np.array([0, 1])), 9)
    assert model.pending
    end = time.monotonic() + 20
    while model.pending and time.monotonic() < end:
        time.sleep(0.02)
        model.poll()
    assert model.sheet.table["label"].tolist() == [1, 2, 3, 4, 9]
    # An edit under a stroke of the brush is not taken back over it.
    model.sheet.select([(None, 9)])
    assert model.edit("delete")
    layer.data_setitem((np.array([7]), np.array([0]), np.array([0])), 4)
    assert not model.undo()
    assert "changed since" in model.told[-1][1]


def test_an_edit_keeps_the_labels_from_being_replaced(viewer, opened):
    from napari_aprcnn._napari.result_layers import KEY

    labels, image = scene()
    model = opened(labels, image)
    model.layers.labels.metadata[KEY] = {"source": "organoid", "kind": "nuclei", "edited": False}
    model.sheet.select([(None, 4)])
    model.edit("delete")
    assert model.layers.labels.metadata[KEY]["edited"]


def test_series(viewer, opened):
    labels, image = scene()
    model = opened(np.stack([labels, labels]), np.stack([image, image]), scale=(1.0, *SCALE))
    assert len(model.sheet.table) == 8
    viewer.dims.set_point(0, 1)
    viewer.dims.set_point(1, 6.0)
    model.pointer.click((1.0, 6.0, 20 * 0.5, 30 * 0.5))
    assert model.sheet.selected == ((1, 3),)
    assert model.edit("delete")
    assert 3 in model.layers.data[0]
    assert 3 not in model.layers.data[1]
    assert len(model.sheet.table) == 7
    model.sheet.select([(0, 1), (1, 2)])
    assert not model.edit("merge")
    assert "2 time points" in model.told[-1][1]
    assert not model.renumber()
    model.go_to((0, 3))
    assert viewer.dims.current_step[0] == 0
    assert model.undo()
    same = ObjectTable.from_labels(model.layers.data, spacing_um=model.layers.spacing_um, axes="TZYX")
    assert model.sheet.table["volume_vox"].tolist() == same["volume_vox"].tolist()


def test_another_layer_starts_anew(viewer, opened):
    model = opened()
    model.sheet.select([(None, 4)])
    model.edit("delete")
    labels, _ = scene()
    other = viewer.add_labels(labels[:, :20], name="other")
    model.layers.choose_labels(other)
    wait(model)
    assert model.edits.history.undo_words == ""
    assert model.sheet.selected == ()
    assert model.layers.image is None
    assert model.sheet.table["label"].tolist() == [1, 2, 3]
    viewer.layers.remove(other)
    wait(model)
    assert model.layers.labels.name == "organoid nuclei"
    assert len(model.sheet.table) == 3


def test_other_data_in_the_layer_starts_anew(opened):
    model = opened()
    model.sheet.select([(None, 4)])
    model.edit("delete")
    labels, _ = scene()
    model.layers.labels.data = labels[:, :10]
    wait(model)
    assert model.edits.history.undo_words == ""
    assert not model.undo()
    assert model.sheet.table["label"].tolist() == [1, 2]
