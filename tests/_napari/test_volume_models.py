"""Models for volumes in the dock, without Qt: which is chosen, what is measured and outlines."""

import threading
import time

import numpy as np
import pytest
from napari_fakes import blobs
from segment_tools import in_place, in_thread, names, settle, wait
from volume_model_tools import PLANES, VOLUMES, Watched, open_model, show_all

from napari_aprcnn._napari.backend import Backend
from napari_aprcnn._napari.latest import Latest
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.volume_model import default_model, kind_words
from napari_aprcnn.errors import ImageValueError
from napari_aprcnn.segment.reduction import Reduction
from volume_fakes import balls, save_tiny_model

# --- which model -----------------------------------------------------------------------------------------------------


def test_the_default_follows_the_image_until_the_user_chooses(viewer, watched):
    stack = viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, watched)
    assert model.get("model") == "apr-tiny-3d"
    assert model.for_volumes
    plane = viewer.add_image(blobs((64, 64)), name="cells")
    model.images.select(plane)
    assert model.get("model") == "fastercellpose-v3"
    assert model.problem == ""
    model.images.select(stack)
    assert model.get("model") == "apr-tiny-3d"
    model.images.set_axes("TYX")
    assert model.get("model") == "fastercellpose-v3"
    model.set("model", value="fastcellpose")
    model.images.set_axes("ZYX")
    assert model.get("model") == "fastcellpose"
    model.reset_parameters()
    assert model.get("model") == "apr-tiny-3d"


def test_a_chosen_model_is_remembered_and_a_followed_one_is_not_a_choice(viewer, watched):
    from napari.components import ViewerModel

    viewer.add_image(balls())
    open_model(viewer, watched).close()
    plane = ViewerModel()
    plane.add_image(blobs((64, 64)))
    again = open_model(plane, watched)
    assert again.get("model") == "fastercellpose-v3"
    again.set("model", value="fastercellpose-v3")
    again.close()
    stack = ViewerModel()
    stack.add_image(balls())
    assert open_model(stack, watched).get("model") == "fastercellpose-v3"


def test_a_plane_is_refused_before_the_run(viewer, watched):
    viewer.add_image(blobs((64, 64)), name="cells")
    model = open_model(viewer, watched)
    model.set("model", value="apr-tiny-3d")
    settle(model)
    assert "is for volumes and this image is a plane" in model.problem
    model.segment()
    assert model.state == "ready"
    assert model.told[-1][:2] == ("error", model.problem)
    assert watched.network.runs == 0
    assert model.estimate_words == ""
    model.preview()
    assert "no preview" in model.told[-1][1]


def test_a_way_to_do_stacks_means_nothing_to_models_for_volumes(viewer, watched):
    viewer.add_image(balls())
    model = open_model(viewer, watched)
    model.set("dimensionality", value="stitch")
    assert model.run_config().dimensionality == "auto"
    assert model.run_config().keep_flows
    model.set("model", value="fastcellpose")
    assert model.run_config().dimensionality == "stitch"


def test_a_weights_file_for_volumes_is_known_by_its_card(viewer, tmp_path):
    path = save_tiny_model(tmp_path, "mine")
    viewer.add_image(balls())
    model = open_model(viewer, Watched(card=Backend().card))
    model.set("model", value=str(path))
    assert model.for_volumes
    model.set("model", value=str(tmp_path / "missing.safetensors"))
    assert not model.for_volumes


def test_words_and_defaults():
    assert default_model((PLANES,), has_depth=True) == PLANES.name
    assert default_model((PLANES, VOLUMES), has_depth=True) == VOLUMES.name
    assert default_model((VOLUMES,), has_depth=False) is None
    assert kind_words("Apple GPU", volumes=True) == "GPU APR-CNN"
    assert kind_words(None, volumes=False) == "CPU FasterCellpose"


# --- particle reduction ----------------------------------------------------------------------------------------------


def test_reduction_is_live_and_feeds_the_estimate(viewer, watched):
    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, watched)
    known = model.volumes.reduction
    assert known.whole
    assert model.volumes.words == known.words
    assert watched.errors == [0.1]
    assert watched.prrs[-1] == known.prr
    model.set("volume", "relative_error", value=0.3)
    assert model.volumes.reduction is None
    settle(model)
    assert model.volumes.reduction.prr > known.prr
    model.set("volume", "outline", value=0.4)
    settle(model)
    assert watched.errors == [0.1, 0.3]
    assert watched.prrs[-1] == model.volumes.reduction.prr
    model.set("volume", "particle_stages", value=0)
    settle(model)
    assert model.volumes.words == "no particles: all stages run on voxels"
    assert watched.prrs[-1] is None
    model.set("model", value="fastcellpose")
    assert model.volumes.words == ""


def test_a_dragged_slider_asks_once(viewer, watched):
    viewer.add_image(balls())
    model = open_model(viewer, watched)
    for error in np.linspace(0.05, 0.4, 20):
        model.set("volume", "relative_error", value=float(error))
        model.poll()
    settle(model)
    assert watched.errors == [0.1, pytest.approx(0.4)]


def test_a_conversion_that_is_outdated_is_stopped(viewer):
    started, stopped = threading.Event(), threading.Event()

    def reduction(image, mapping, *, relative_error, should_cancel, **rest):
        if relative_error == 0.1:
            return Reduction(0.1, 1, 2, (1, 1, 1), True)
        if relative_error == 0.2:
            started.set()
            while not should_cancel():
                time.sleep(0.002)
            stopped.set()
        return Reduction(relative_error, 1, 5, (1, 1, 1), True)

    viewer.add_image(balls())
    model = open_model(viewer, Watched(reduction=reduction), launch=in_thread)
    model.set("volume", "relative_error", value=0.2)
    wait(model, started.is_set)
    model.set("volume", "relative_error", value=0.4)
    wait(model, stopped.is_set)
    settle(model)
    assert model.volumes.reduction.relative_error == 0.4


def test_an_image_that_cannot_be_converted_says_so(viewer):
    def reduction(*args, **kwargs):
        raise ImageValueError("3 voxels are NaN")

    viewer.add_image(balls())
    model = open_model(viewer, Watched(reduction=reduction))
    assert "cannot be measured: 3 voxels are NaN" in model.volumes.words
    assert model.problem == ""


def test_latest_forgets():
    seen = []
    latest = Latest(in_place, seen.append, delay_s=0.0)
    latest.ask(lambda stop: 1)
    latest.forget()
    assert not latest.pending
    latest.poll()
    assert seen == []


# --- outlines --------------------------------------------------------------------------------------------------------


def test_outlines_follow_without_the_network(viewer, watched):
    viewer.add_image(balls(), name="embryo", scale=(2, 1, 1))
    model = open_model(viewer, watched)
    assert not model.outlines_follow
    model.segment()
    settle(model)
    layer = viewer.layers["embryo nuclei"]
    before = layer.data.copy()
    assert before.max() == 12
    assert model.outlines_follow
    model.set("volume", "grow_vox", value=2)
    settle(model)
    assert viewer.layers["embryo nuclei"] is layer
    assert (layer.data > 0).sum() > 1.5 * (before > 0).sum()
    assert '"grow_vox": 2' in layer.metadata["aprcnn"]["config"]
    model.set("volume", "grow_vox", value=0)
    settle(model)
    assert np.array_equal(layer.data, before)
    assert watched.network.runs == 1
    assert watched.relabels == 2
    assert names(viewer) == ["embryo", "embryo nuclei"]
    assert model.outlines_follow


def test_edited_or_deleted_labels_are_left_alone(viewer, watched):
    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, watched)
    model.segment()
    settle(model)
    layer = viewer.layers["embryo nuclei"]
    layer.fill((0, 0, 0), 99)
    edited = layer.data.copy()
    model.set("volume", "grow_vox", value=3)
    settle(model)
    assert np.array_equal(layer.data, edited)
    assert watched.relabels == 0
    viewer.layers.remove(layer)
    model.set("volume", "outline", value=0.3)
    settle(model)
    assert names(viewer) == ["embryo"]


def test_outlines_of_another_image_or_model_do_not_move(viewer, watched):
    first = viewer.add_image(balls(), name="embryo")
    other = viewer.add_image(balls(seed=1), name="other")
    model = open_model(viewer, watched)
    model.images.select(first)
    settle(model)
    model.segment()
    settle(model)
    model.images.select(other)
    model.set("volume", "grow_vox", value=1)
    settle(model)
    model.images.select(first)
    model.set("model", value="fastcellpose")
    model.set("flows", "min_size_vox", value=30)
    settle(model)
    assert watched.relabels == 0


def test_the_right_layer_moves_and_a_cancelled_run_costs_nothing(viewer):
    stop = threading.Event()
    plain = Watched()

    def run(image, *, config, should_cancel, **rest):
        while stop.is_set() and not should_cancel():
            time.sleep(0.002)
        return plain.backend.segment(image, config=config, should_cancel=should_cancel, **rest)

    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, Watched(segment=run), launch=in_thread)
    model.set_option(rerun="version")
    for _ in range(2):
        model.segment()
        settle(model)
    first, second = viewer.layers["embryo nuclei"], viewer.layers["embryo nuclei [2]"]
    viewer.layers.move(viewer.layers.index(second), 1)
    before = first.data.copy()
    model.set("volume", "grow_vox", value=2)
    settle(model)
    assert np.array_equal(first.data, before)
    assert (second.data > 0).sum() > (before > 0).sum()
    stop.set()
    model.segment()
    wait(model, lambda: model.state == "running")
    model.cancel()
    settle(model)
    assert model.outlines_follow
    model.set("volume", "grow_vox", value=0)
    settle(model)
    assert np.array_equal(second.data, before)


def test_a_real_network_from_the_folder_of_weights_to_moved_outlines(viewer, tmp_path, monkeypatch):
    """Nothing replaced: the model is found, estimated, loaded, run, and its labels are moved."""
    from napari_aprcnn.models import zoo

    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)
    save_tiny_model(tmp_path, "apr-real-3d")
    viewer.add_image(balls((16, 24, 24)), name="embryo")
    model = SegmentModel(viewer, launch=in_place, backend=Backend())
    model.set("device", value="cpu")
    model.set("threads", value=1)
    settle(model)
    assert model.get("model") == "apr-real-3d"
    assert model.estimate_words.startswith("about ")
    assert "typical" not in model.estimate_words
    show_all(model)
    model.segment()
    settle(model, timeout=60)
    readout = model.runner.result.readout
    assert (readout.model, readout.dimensionality) == ("apr-real-3d", "volume")
    assert readout.prr == pytest.approx(model.volumes.reduction.prr)
    assert "embryo reconstruction" in names(viewer)
    before = viewer.layers["embryo nuclei"].data.copy()
    model.set("volume", "outline", value=0.05)
    settle(model)
    after = viewer.layers["embryo nuclei"].data
    assert (after > 0).sum() >= (before > 0).sum()
    assert model.runner.result.config.volume.outline == 0.05


def test_labels_follow_a_reset_and_a_loaded_configuration(viewer, watched, tmp_path):
    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, watched)
    model.segment()
    settle(model)
    layer = viewer.layers["embryo nuclei"]
    before = layer.data.copy()
    model.set("volume", "grow_vox", value=2)
    settle(model)
    wide = layer.data.copy()
    assert not np.array_equal(wide, before)
    saved = tmp_path / "run.json"
    model.export_config(saved)
    model.reset_parameters()
    settle(model)
    assert np.array_equal(layer.data, before)
    model.load_config(saved)
    settle(model)
    assert np.array_equal(layer.data, wide)
    assert watched.network.runs == 1
    relabels = watched.relabels
    model.set("threads", value=2)
    model.load_config(saved)
    settle(model)
    assert watched.relabels == relabels  # nothing to move


@pytest.mark.parametrize("cancelled", [False, True])
def test_labels_follow_what_was_moved_while_a_run_went_on(viewer, cancelled):
    go = threading.Event()
    go.set()
    plain = Watched()

    def run(image, *, config, should_cancel, **rest):
        while not go.is_set() and not should_cancel():
            time.sleep(0.002)
        return plain.backend.segment(image, config=config, should_cancel=should_cancel, **rest)

    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, Watched(segment=run), launch=in_thread)
    model.segment()
    settle(model)
    layer = viewer.layers["embryo nuclei"]
    before = layer.data.copy()
    go.clear()
    model.segment()
    wait(model, lambda: model.state == "running")
    model.set("volume", "grow_vox", value=2)
    if cancelled:
        model.cancel()
    go.set()
    settle(model)
    assert (layer.data > 0).sum() > 1.5 * (before > 0).sum()
    assert model.runner.result.config.volume.grow_vox == 2
