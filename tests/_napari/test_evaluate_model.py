"""The Evaluate dock without Qt: what is compared, the geometry of layers, the errors, edits, cancelling, files."""

from __future__ import annotations

import threading

import dask.array as da
import numpy as np
import pytest
from evaluate_layers_tools import CENTRES, PREDICTED, SHAPE, SPACING, TRUTH, add_layers, finish, make

from napari_aprcnn._napari.evaluate_settings import (
    EvaluateSettings,
    evaluate_settings_path,
    load_evaluate_settings,
    save_evaluate_settings,
)
from napari_aprcnn._napari.evaluate_sources import frame_of, take_source
from napari_aprcnn.errors import AxesError, ImageError
from napari_aprcnn.evaluate.mistakes import Kind


def evaluate(model):
    assert model.evaluate(), model.told
    finish(model)
    return model.evaluation


# --- from layers to scores -------------------------------------------------------------------------------------------
def test_two_layers_are_compared_and_the_errors_coloured(viewer):
    add_layers(viewer)
    model = make(viewer)
    assert (model.truth.name, [la.name for la in model.predictions]) == ("truth", ["nuclei"])
    found = evaluate(model)
    assert (found.headline.true_positives, found.headline.false_positives, found.headline.false_negatives) == (1, 4, 4)
    assert [kind.words for kind, n in found.counts.items() if n == 1] == ["split", "merge", "miss", "false positive"]
    layer = viewer.layers["nuclei errors"]
    assert layer.data[4, 2, 2] == Kind.HIT
    assert layer.data[4, 25, 25] == Kind.MISS
    assert layer.data[4, 25, 5] == Kind.MERGE
    assert layer.data[4, 2, 25] == Kind.SPLIT
    assert tuple(layer.scale) == SPACING
    assert layer.features["object"][int(Kind.MISS)] == "miss"
    # The picture is nothing to evaluate, and another run does not add another.
    assert [la.name for la in model.labels] == ["nuclei", "truth"]
    evaluate(model)
    assert [la.name for la in viewer.layers] == ["truth", "nuclei", "nuclei errors"]


def test_edited_labels_are_read_again(viewer):
    prediction, _ = add_layers(viewer)
    model = make(viewer)
    assert evaluate(model).counts[Kind.FALSE_POSITIVE] == 1
    assert not model.outdated
    prediction.data_setitem((np.full(9, 4), np.repeat([35, 36, 37], 3), np.tile([35, 36, 37], 3)), 0)
    prediction.paint((4, 0, 0), 0)
    assert model.outdated
    prediction.data = np.where(PREDICTED == 5, 0, PREDICTED)
    assert evaluate(model).counts[Kind.FALSE_POSITIVE] == 0
    assert not model.outdated


def test_points_through_the_world(viewer):
    prediction = viewer.add_labels(PREDICTED, name="nuclei", scale=SPACING, translate=(10, 20, 30))
    world = [prediction.data_to_world(place) for place in CENTRES]
    # The points layer has a scale of its own: its data are micrometres over 4.
    points = viewer.add_points(np.array(world) / 4, name="clicked", scale=(4, 4, 4))
    model = make(viewer)
    assert model.truth is points
    assert model.against_points
    found = evaluate(model)
    assert found.against == "points"
    match = found.headline
    assert (match.true_positives, match.false_positives, match.false_negatives) == (3, 2, 2)
    assert {kind.words: n for kind, n in found.counts.items() if n} == {"merge": 1, "miss": 1, "false positive": 2}
    assert viewer.layers["nuclei errors"].data[4, 25, 25] == Kind.MISS
    (miss,) = model.mistakes([Kind.MISS])
    assert model.go_to(miss)
    assert (viewer.layers.selection.active, set(points.selected_data)) == (points, {4})
    points.data = np.array([[0.0, 0, 0]])
    assert not model.evaluate() or finish(model) is None
    assert "lie outside of nuclei" in model.told[-1][1]
    assert model.state == "ready"


def test_layers_that_cover_other_parts_are_compared_where_both_are(viewer):
    viewer.add_labels(TRUTH, name="truth", scale=SPACING, translate=(2, 1, 0))
    crop = np.ascontiguousarray(PREDICTED[1:9, :, :32])
    prediction = viewer.add_labels(crop, name="nuclei", scale=SPACING, translate=(4, 1, 0))
    model = make(viewer)
    found = evaluate(model)
    assert found.headline.true_positives == 1
    assert found.counts[Kind.FALSE_POSITIVE] == 0  # it lies outside of the crop
    assert "only the part" in model.told[0][1]
    layer = viewer.layers["nuclei errors"]
    assert layer.data.shape == (8, 40, 32)
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), prediction.data_to_world((0, 0, 0)))
    source = take_source(prediction, viewer.layers["truth"])
    other = take_source(viewer.layers["truth"], prediction)
    assert (source.start, other.start) == ((0, 0, 0), (1, 0, 0))
    np.testing.assert_allclose(source.world("nuclei", (3, 5, 5)), other.world("truth", (3, 5, 5)))


def test_labels_without_a_place_are_taken_voxel_by_voxel(viewer):
    viewer.add_labels(TRUTH, name="truth")
    viewer.add_labels(PREDICTED, name="nuclei", scale=SPACING)
    model = make(viewer)
    assert evaluate(model).headline.true_positives == 1
    assert model.told == [("info", "truth has no voxel size of its own and was compared voxel by voxel")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (2, 0.6, 0.5)}, "resample one of them"),
        ({"scale": SPACING, "translate": (1, 0, 0)}, "expected whole voxels"),
        ({"scale": SPACING, "translate": (100, 0, 0)}, "no voxel in common"),
        ({"data": TRUTH[0], "scale": SPACING[1:]}, "2 axes"),
        ({"scale": SPACING, "rotate": (0, 0, 10)}, "expected the same"),
    ],
)
def test_layers_that_do_not_fit_are_told(viewer, options, words):
    viewer.add_labels(PREDICTED, name="nuclei", scale=SPACING)
    options = {"data": TRUTH, **options}
    truth = viewer.add_labels(options.pop("data"), name="truth", **options)
    model = make(viewer)
    model.choose(truth=truth, predictions=[viewer.layers["nuclei"]])
    assert not model.evaluate()
    assert words in model.told[-1][1]
    assert model.state == "ready"
    assert model.comparison is None


def test_ignored_regions_and_sizes(viewer):
    add_layers(viewer)
    region = np.zeros(SHAPE, np.uint8)
    region[:, :, 18:] = 3
    ignore = viewer.add_labels(region, name="unsure", scale=SPACING)
    model = make(viewer)
    model.choose(ignore=ignore, predictions=[viewer.layers["nuclei"]], truth=viewer.layers["truth"])
    counts = evaluate(model).counts
    assert (counts[Kind.SPLIT], counts[Kind.MISS], counts[Kind.MERGE]) == (0, 0, 1)
    model.choose(ignore=None)
    # Object 5 of the prediction has 6 x 3 x 3 voxels of .5 um3.
    assert model.set_option(min_size=28.0, min_size_unit="um")
    assert evaluate(model).counts[Kind.FALSE_POSITIVE] == 0
    assert model.set_option(min_size=27.0)
    assert evaluate(model).counts[Kind.FALSE_POSITIVE] == 1
    assert not model.set_option(iou=2.0)
    assert "iou" in model.told[-1][1].lower()


def test_slices_one_by_one(viewer):
    add_layers(viewer)
    model = make(viewer)
    assert model.set_slices("2, 4-5")
    found = evaluate(model)
    assert found.headline.true_positives == 3
    assert not viewer.layers["nuclei errors"].data[3].any()
    assert not model.set_slices("many")
    assert model.slices == "2, 4-5"
    model.set_slices("40")
    assert model.evaluate()
    finish(model)
    assert "Slice 40" in model.told[-1][1]
    assert model.evaluation is found


def test_time_points_and_lazy_layers(viewer):
    viewer.add_labels(da.from_array(np.stack([TRUTH, TRUTH]), chunks=(1, 4, 40, 40)), name="truth", scale=(1, *SPACING))
    layer = viewer.add_labels(
        da.from_array(np.stack([PREDICTED, TRUTH]), chunks=(1, 12, 40, 40)), name="nuclei", scale=(1, *SPACING)
    )
    model = make(viewer)
    found = evaluate(model)
    assert {name: m.true_positives for name, m in found.images.items()} == {"t 0": 1, "t 1": 5}
    picture = viewer.layers["nuclei errors"].data
    assert (picture.shape, picture[1].max(), picture[0, 4, 25, 25]) == ((2, *SHAPE), Kind.HIT, Kind.MISS)
    source = take_source(layer, viewer.layers["truth"])
    np.testing.assert_allclose(source.world("t 1", (4, 5, 5)), (1, 8, 2.5, 2.5))
    viewer.layers.remove("truth")
    viewer.add_points([[0, 4, 5, 5], [1, 4, 5, 5], [1, 4, 5, 25]], name="clicked", scale=(1, *SPACING))
    found = evaluate(model)
    assert {name: m.true_positives for name, m in found.images.items()} == {"t 0": 1, "t 1": 2}


def test_what_cannot_be_compared(viewer):
    prediction, truth = add_layers(viewer)
    with pytest.raises(ImageError, match="both prediction and truth"):
        take_source(truth, truth)
    deep = viewer.add_labels(np.zeros((1, 2, 2, 4, 4), int), name="deep")
    with pytest.raises(AxesError, match="5 axes"):
        take_source(deep, truth)
    flat = viewer.add_points([[1, 1]], name="flat")
    with pytest.raises(ImageError, match="2 axes"):
        take_source(prediction, flat)
    matrix, origin = frame_of(prediction)
    np.testing.assert_allclose(np.diag(matrix), SPACING)
    assert not origin.any()


# --- several, and the way to an error --------------------------------------------------------------------------------
def test_predictions_side_by_side(viewer):
    prediction, truth = add_layers(viewer)
    best = viewer.add_labels(TRUTH, name="best", scale=SPACING)
    model = make(viewer)
    model.choose(predictions=[prediction, best, truth], truth=truth)
    assert [la.name for la in model.predictions] == ["best", "nuclei"]
    evaluate(model)
    assert model.shown == "best"
    assert "| best | 1.000 ± 0.000" in model.markdown()
    assert model.mistakes() == []
    model.show("nuclei")
    finish(model)
    assert [m.kind.words for m in model.mistakes()] == ["split", "merge", "miss", "false positive"]
    assert [m.kind for m in model.mistakes([Kind.MISS])] == [Kind.MISS]
    assert {"best errors", "nuclei errors"} <= {la.name for la in viewer.layers}
    model.show("nobody")
    assert model.shown == "nuclei"


def test_an_error_is_looked_at(viewer):
    prediction, truth = add_layers(viewer)
    model = make(viewer)
    evaluate(model)
    split, merge, miss, made_up = model.mistakes()
    assert model.go_to(made_up)
    assert viewer.layers.selection.active is prediction
    assert prediction.selected_label == 5
    assert viewer.dims.current_step[0] in (4, 5)  # planes 2 to 7
    np.testing.assert_allclose(viewer.camera.center[1:], (18, 18))
    assert model.go_to(miss)
    assert (viewer.layers.selection.active, truth.selected_label) == (truth, 5)
    np.testing.assert_allclose(viewer.camera.center[1:], (12.25, 12.25))
    viewer.dims.ndisplay = 3
    assert model.go_to(merge)
    np.testing.assert_allclose(viewer.camera.center, (9, 12.25, 2.25))
    viewer.layers.remove(prediction)
    assert not model.go_to(split)
    assert "evaluate again" in model.told[-1][1]


def test_choices_follow_the_layers(viewer):
    model = make(viewer)
    assert "no labels yet" in model.problem
    assert not model.evaluate()
    prediction = viewer.add_labels(PREDICTED, name="nuclei")
    assert model.predictions == [prediction]
    assert "what is true" in model.problem
    points = viewer.add_points(CENTRES, name="clicked")
    assert (model.truth, model.problem) == (points, "")
    model.choose(predictions=[])
    assert "at least one" in model.problem
    viewer.layers.remove(points)
    assert model.truth is None
    seen = []
    model.changed.connect(seen.append)
    prediction.name = "other"
    assert "layers" in seen
    model.close()
    viewer.add_points(CENTRES, name="again")
    assert model.truth is None
    assert not model.evaluate()


# --- threads, files, settings ----------------------------------------------------------------------------------------
def test_cancel_leaves_the_last_result(viewer):
    prediction, _ = add_layers(viewer)
    threads = []

    def launch(function):
        threads.append(threading.Thread(target=function))
        threads[-1].start()

    model = make(viewer, launch=launch)
    first = evaluate(model)
    wait, seen = threading.Event(), []

    def slow(block):
        wait.wait(10)
        return block

    prediction.data = da.from_array(PREDICTED, chunks=(1, 40, 40)).map_blocks(slow, dtype=np.uint16, meta=PREDICTED[:0])
    wait.set()
    wait.clear()
    model.changed.connect(seen.append)
    assert model.evaluate()
    assert not model.evaluate()
    assert model.state == "running"
    model.cancel()
    assert model.state == "cancelling"
    wait.set()
    finish(model)
    assert model.state == "ready"
    assert model.evaluation is first
    assert model.told == []
    model.close()
    for thread in threads:
        thread.join(10)


def test_unexpected_errors_are_told_with_their_traceback(viewer):
    prediction, _ = add_layers(viewer)

    def broken(block):
        raise RuntimeError("the disk is gone")

    model = make(viewer)
    errors = []
    model.notified.connect(lambda severity, sentence, error: errors.append(error))
    lazy = da.from_array(PREDICTED, chunks=(1, 40, 40)).map_blocks(broken, dtype=np.uint16, meta=PREDICTED[:0])
    prediction._data = lazy  # napari would draw it, and fail before we do
    assert model.evaluate()
    finish(model)
    assert isinstance(errors[-1], RuntimeError)
    assert model.state == "ready"


def test_report_and_tables_are_written(viewer, tmp_path):
    add_layers(viewer)
    model = make(viewer)
    assert not model.save(tmp_path / "a.html")
    evaluate(model)
    for name in ("report.html", "scores.csv"):
        assert model.save(tmp_path / name)
        finish(model)
        assert (tmp_path / name).stat().st_size > 200
        assert "was written" in model.told[-1][1]
    assert not model.save(tmp_path / "report.doc")
    assert ".html or .csv" in model.told[-1][1]
    assert model.save(tmp_path / "none" / "a.csv")
    finish(model)
    assert "does not exist" in model.told[-1][1]
    assert model.settings.folder == str(tmp_path / "none")


def test_settings_are_remembered_and_never_in_the_way(viewer):
    add_layers(viewer)
    model = make(viewer)
    model.set_option(min_size=30.0, iou=0.7)
    model.close()
    assert load_evaluate_settings() == EvaluateSettings(iou=0.7, min_size=30.0)
    evaluate_settings_path().write_text("{")
    assert load_evaluate_settings() == EvaluateSettings()
    evaluate_settings_path().unlink()
    evaluate_settings_path().mkdir()
    assert not save_evaluate_settings(EvaluateSettings())


def test_scores_are_noted_with_the_run_and_annotated_slices_are_taken(viewer):
    from napari_aprcnn._napari.run_records import note_run
    from napari_aprcnn.bench.run_log import RunLog
    from readouts import make_readout

    truth = np.zeros((4, 30, 30), np.uint16)
    truth[1:3, 5:15, 5:15] = 1
    key = note_run(make_readout(), "image")
    viewer.add_labels(
        truth, name="truth", metadata={"aprcnn": {"kind": "annotation truth", "slices": [[1], [2]], "axes": "ZYX"}}
    )
    viewer.add_labels(truth.copy(), name="nuclei", metadata={"aprcnn": {"run": key}})
    viewer.add_labels(truth * 0, name="nothing", metadata={"aprcnn": {"run": "unknown"}})
    model = make(viewer)
    model.choose(truth=viewer.layers["truth"], predictions=[viewer.layers["nuclei"], viewer.layers["nothing"]])
    assert model.slices == "1,2"
    evaluate(model)
    (record,) = RunLog().records()
    assert (record.f1, record.f1_threshold) == (1.0, model.settings.iou)
    viewer.layers["nuclei"].metadata["aprcnn"]["edited"] = True
    RunLog().note_score(key, 0.1, threshold=0.5)
    evaluate(model)
    assert RunLog().records()[0].f1 == 0.1, "edited labels are not the run's"


def test_true_nuclei_of_a_sample_are_the_truth(viewer):
    viewer.add_labels(TRUTH, name="u2os nuclei")
    viewer.add_labels(TRUTH, name="u2os: true nuclei")
    model = make(viewer)
    assert (model.truth.name, [la.name for la in model.predictions]) == ("u2os: true nuclei", ["u2os nuclei"])
