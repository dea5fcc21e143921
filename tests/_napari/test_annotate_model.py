"""The Annotate dock without Qt: choosing, clicking, painting, undoing, and every step saved."""

from __future__ import annotations

import numpy as np
import pytest
from annotate_tools import begin, click, make, paint, saved
from napari.components import ViewerModel

from napari_aprcnn._napari.annotate_model import AnnotateModel


def test_clicking_through_the_slices(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    assert [words for _, words, _, _ in model.rows] == ["z 2", "z 7", "z 12", "z 17"]
    assert viewer.dims.point[0] == pytest.approx(4)
    assert model.editing.points.layer.mode == "add"
    assert viewer.layers.selection.active is model.editing.points.layer
    click(model, 5, 6)
    click(model, 10, 11.5)
    assert saved(model).points().coordinates.tolist() == [[2, 5, 6], [2, 10, 11.5]]
    assert saved(model).points().spacing_um == (2.0, 0.5, 0.5)
    assert model.here_words == "z 2: 2 points. Click the centre of each nucleus."
    model.done()
    assert model.progress_words == "1 of 4 slices done"
    assert model.editing.here == (7,)
    click(model, 3, 3)
    model.next()
    model.previous()
    model.previous()
    assert model.editing.here == (2,)
    model.previous()
    assert "first" in model.told[-1][1]
    assert [(s, n) for _, _, s, n in model.rows] == [("done", 2), ("doing", 1), ("todo", 0), ("todo", 0)]
    for _ in range(4):
        model.done()
    assert "All 4 slices are done" in model.told[-1][1]


def test_a_click_elsewhere_is_refused(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    click(model, 5, 6)
    viewer.dims.set_point(0, 5 * 2.0)
    assert model.editing.here == (5,)
    assert "is not one of the chosen" in model.here_words
    click(model, 8, 8)
    assert "Z 5 is not one of the chosen slices" in model.told[-1][1]
    assert len(model.editing.points.layer.data) == 1
    model.next()
    assert model.editing.here == (7,)
    click(model, 100, 8)
    assert "outside" in model.told[-1][1]
    assert saved(model).points().coordinates.tolist() == [[2, 5, 6]]
    viewer.dims.ndisplay = 3
    assert "in 2D" in model.here_words
    model.next()
    assert viewer.dims.ndisplay == 2


def test_moving_removing_and_undoing(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    layer = model.editing.points.layer
    click(model, 5, 6)
    click(model, 10, 11)
    layer.selected_data = {0}
    layer._move({0}, layer.data[0])
    layer._move({0}, layer.data[0] + [0, 3, 0])
    assert saved(model).points_on((2,)).tolist() == [[8, 6], [10, 11]]
    layer.selected_data = {1}
    layer.remove_selected()
    assert saved(model).points_on((2,)).tolist() == [[8, 6]]
    model.next()
    click(model, 1, 1)
    model.undo()
    assert saved(model).points_on((7,)).tolist() == []
    model.undo()
    assert model.editing.here == (2,)
    assert saved(model).points_on((2,)).tolist() == [[8, 6], [10, 11]]
    assert len(layer.data) == 2
    for expected in ([[5, 6], [10, 11]], [[5, 6]], []):
        model.undo()
        assert saved(model).points_on((2,)).tolist() == expected
    model.undo()
    assert model.told[-1] == ("info", "There is nothing to undo")


def test_painting_only_on_the_chosen_slices(viewer, tmp_path):
    model = begin(viewer, tmp_path, mode="labels")
    layer = model.editing.labels.layer
    assert layer.mode == "paint"
    assert layer.data.shape == (1, 32, 24)
    assert np.allclose(layer.translate, (4, 0, 0))
    paint(model, 10, 10, 1)
    paint(model, 20, 12, 2)
    first = layer.data[0].copy()
    assert np.array_equal(saved(model).labels_on((2,)), first)
    model.next()
    assert not layer.data.any()
    assert layer.selected_label == 1
    assert layer.mode == "paint"
    paint(model, 5, 5, 1)
    model.previous()
    assert np.array_equal(layer.data[0], first)
    assert layer.data.dtype == np.uint16
    assert layer.selected_label == 3
    paint(model, 10, 10, 0)
    model.undo()
    assert np.array_equal(saved(model).labels_on((2,)), first)
    model.undo()
    assert model.editing.here == (7,)
    assert not saved(model).labels_on((7,)).any()
    model.undo()
    assert set(np.unique(saved(model).labels_on((2,)))) == {0, 1}
    assert np.array_equal(layer.data[0] > 0, saved(model).labels_on((2,)) > 0)
    viewer.dims.set_point(0, 5 * 2.0)
    assert not layer.editable
    assert layer.mode == "pan_zoom"
    viewer.dims.set_point(0, 2 * 2.0)
    assert layer.editable
    assert layer.mode == "paint"


def test_buckets_polygons_and_what_others_change_are_saved_too(viewer, tmp_path):
    model = begin(viewer, tmp_path, mode="labels")
    layer = model.editing.labels.layer
    layer.paint_polygon([[0, 2, 2], [0, 2, 9], [0, 9, 9], [0, 9, 2]], 4)
    assert saved(model).labels_on((2,))[5, 5] == 4
    layer.fill((0, 5, 5), 6)
    assert set(np.unique(saved(model).labels_on((2,)))) == {0, 6}
    layer.data[0, 20:22, 3] = 8
    model.next()
    assert saved(model).labels_on((2,))[21, 3] == 8
    for expected in ({0, 6}, {0, 4}, {0}):
        model.undo()
        assert set(np.unique(saved(model).labels_on((2,)))) == expected
    assert not layer.data.any()


@pytest.mark.parametrize(("shape", "axes"), [((32, 24), "YX"), ((3, 5, 32, 24), "TZYX"), ((9, 3, 32, 24), "ZCYX")])
@pytest.mark.parametrize("mode", ["points", "labels"])
def test_planes_and_time_series(viewer, tmp_path, shape, axes, mode):
    viewer.add_image(np.zeros(shape, np.uint8), name="organoid", axis_labels=tuple(axes))
    model = make(viewer, tmp_path, mode=mode, n_slices=2)
    model.images.set_axes(axes)
    assert model.begin(), model.told
    for _ in model.session.slices:
        here = model.editing.here
        if mode == "points":
            layer = model.editing.points.layer
            layer.add(model.editing.frame.to_layer(np.array([[*here, 4, 5]], float))[0])
            assert saved(model).points_on(here).tolist() == [[4, 5]]
        else:
            paint(model, 4, 5, 3) if axes != "ZCYX" else model.editing.labels.layer.paint((0, 0, 4, 5), 3)
            assert saved(model).labels_on(here)[4, 5] == 3
        model.done()
    assert model.session.n_done == len(model.session.slices)


def test_a_crash_and_one_click(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    click(model, 5, 6)
    model.done()
    click(model, 7, 8)
    before = (model.rows, model.editing.here, model.editing.points.read().tolist())
    fresh = ViewerModel()  # nothing was closed: the settings file and the folder are all there is
    fresh.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid")
    again = AnnotateModel(fresh, launch=lambda run: run())
    assert again.settings.annotator == "Ann"
    assert again.left_behind == model.session.folder
    assert again.go_on()
    assert (again.rows, again.editing.here, again.editing.points.read().tolist()) == before
    assert again.editing.points.layer.mode == "add"
    model.close()
    again.close()


def test_another_image_and_a_damaged_folder_are_refused(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    folder = model.session.folder
    click(model, 5, 6)
    viewer.add_image(np.zeros((21, 32, 24), np.uint8), name="other")
    model.images.select(viewer.layers["other"])
    assert not model.open(folder)
    assert "these annotations are of organoid" in model.told[-1][1].lower()
    assert model.state == "ready"
    assert [layer.name for layer in viewer.layers] == ["organoid", "other"]
    assert not model.open(tmp_path / "nowhere")
    (folder / "points_ann.csv").write_text("nonsense")
    model.images.select(viewer.layers["organoid"])
    assert not model.open(folder)
    assert "nonsense" in model.told[-1][1]


def test_a_second_choice_has_a_folder_of_its_own(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    click(model, 5, 6)
    model.choose_more()
    assert len(model.session.slices) == 8
    assert saved(model).info.slices == model.session.slices
    model.leave()
    assert model.left_behind.name == "organoid"
    assert model.begin()
    assert model.session.folder.name == "organoid_2"
    assert model.session.points().coordinates.size == 0


def test_ranking_by_a_probability_and_by_density(viewer, tmp_path):
    probability = np.zeros((20, 32, 24), np.float32)
    probability[13] = 0.5
    labels = np.zeros((20, 32, 24), np.uint8)
    labels[5, 10:20, 10:20] = 1
    viewer.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid")
    model = make(viewer, tmp_path, method="uncertainty", n_slices=1)
    assert "needs a layer with its probability" in model.problem
    assert not model.begin()
    guide = viewer.add_image(probability, name="organoid probability")
    nuclei = viewer.add_labels(labels, name="nuclei")
    viewer.add_labels(labels[:3], name="of another size")
    model.images.select(viewer.layers["organoid"])
    assert model.guides == [guide, nuclei]
    model.choose_guide(guide)
    assert model.begin()
    assert model.state == "choosing"
    model.poll()
    assert model.session.slices == ((13,),)
    model.leave()
    model.set(method="density", n_slices=2)
    model.choose_guide(nuclei)
    assert model.begin()
    model.poll()
    assert model.state == "annotating"
    viewer.layers.remove(nuclei)
    assert model.guide is None


def test_choosing_can_be_cancelled(viewer, tmp_path):
    viewer.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid")
    model = make(viewer, tmp_path, method="density")
    model._launch = lambda run: (model.cancel(), run())
    assert model.begin()
    model.poll()
    assert model.state == "ready"
    assert model.told == []
    assert not (tmp_path / "a").exists()


def test_more_slices_by_rank_and_closing_meanwhile(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    model.set(method="density")
    waiting = []
    model._launch = waiting.append
    assert model.choose_more()
    assert model.working
    assert model.state == "annotating"
    model.leave()
    waiting[0]()
    model.poll()
    assert model.state == "ready"
    assert len(list((tmp_path / "a").iterdir())) == 1
    model._launch = lambda run: run()
    assert model.go_on()
    assert model.choose_more()
    model.poll()
    assert len(model.session.slices) == 8


def test_correcting_a_prediction(viewer, tmp_path):
    labels = np.zeros((20, 32, 24), np.uint8)
    labels[2, 4:7, 4:7], labels[2, 20:23, 10:13] = 5, 9
    viewer.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid")
    guide = viewer.add_labels(labels, name="nuclei")
    for mode in ("points", "labels"):
        model = make(viewer, tmp_path, mode=mode)
        model.images.select(viewer.layers["organoid"])
        assert model.begin()
        assert not model.copy_guide()
        assert "labels layer" in model.told[-1][1]
        model.choose_guide(guide)
        assert model.copy_guide()
        model.poll()
        if mode == "points":
            assert saved(model).points_on((2,)).tolist() == [[5, 5], [21, 11]]
        else:
            assert np.array_equal(saved(model).labels_on((2,)), labels[2])
        model.undo()
        assert not saved(model).points_on((2,)).size
        assert mode == "points" or not saved(model).labels_on((2,)).any()
        model.leave()
    assert labels[2, 5, 5] == 5


@pytest.mark.parametrize("mode", ["points", "labels"])
def test_layers_to_evaluate_against(viewer, tmp_path, mode):
    model = begin(viewer, tmp_path, mode=mode)
    assert not model.evaluate()
    assert "No slice is done" in model.told[-1][1]
    for _ in range(2):
        click(model, 5, 6) if mode == "points" else paint(model, 5, 6, 4)
        model.done()
    click(model, 5, 6) if mode == "points" else paint(model, 5, 6, 4)
    for _ in range(2):
        assert model.evaluate()
        model.poll()
    assert model.told[-1][1] == f"Evaluate against the layer 'organoid annotated {mode}', on the slices 2,7"
    layer = viewer.layers["organoid annotated points"]
    assert layer.data.tolist() == [[2, 5, 6], [7, 5, 6]]
    assert np.allclose(layer.scale, (2, 0.5, 0.5))
    assert layer.metadata["aprcnn"]["slices"] == [[2], [7]]
    names = [one.name for one in viewer.layers]
    assert len(names) == len(set(names))
    if mode == "labels":
        lazy = viewer.layers["organoid annotated labels"].data
        assert lazy[2, 5, 6] == 4
        assert not np.asarray(lazy[12]).any()
