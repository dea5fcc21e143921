"""Layers of results: which a rerun replaces, that they lie on their image, and what they say about their axes."""

import gc
import weakref

import numpy as np
import pytest
from napari.layers import Image
from napari.layers._layer_actions import _duplicate_layer
from napari_fakes import FakeSegment, blobs
from segment_tools import in_thread, make, names, settle, wait
from volume_model_tools import open_model

from napari_aprcnn._napari.evaluate_sources import axes_of
from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn._napari.graph_layers import place_of
from napari_aprcnn._napari.inspect_layers import InspectLayers
from napari_aprcnn._napari.result_layers import LiveLabels
from napari_aprcnn._napari.writer import write_labels_layer
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.io.read import open_image
from volume_fakes import balls


def run(model):
    model.segment()
    settle(model)


def lies_on(layer, image):
    ends = np.zeros(image.ndim), np.array(image.data.shape) - 1.0
    same = all(np.allclose(layer.data_to_world(end), image.data_to_world(end)) for end in ends)
    return same and layer.units == image.units


# --- which layer a rerun replaces ------------------------------------------------------------------------------------


@pytest.mark.parametrize("painted", [False, True])
def test_a_copy_that_the_user_made_is_theirs(viewer, painted):
    image = viewer.add_image(blobs((64, 64)), name="cells")
    model = make(viewer)
    run(model)
    viewer.layers.selection.active = viewer.layers["cells nuclei"]
    _duplicate_layer(viewer.layers)
    copy = viewer.layers["cells nuclei copy"]
    if painted:
        copy.paint((30, 30), 77)
    before = copy.data.copy()
    image.data = blobs((64, 64), step=30)
    run(model)
    assert names(viewer) == ["cells", "cells nuclei", "cells nuclei copy"]
    np.testing.assert_array_equal(copy.data, before)
    assert viewer.layers["cells nuclei"].data.max() == 4


def test_a_result_that_the_user_renamed_is_theirs(viewer):
    image = viewer.add_image(blobs((64, 64)), name="cells")
    model = make(viewer)
    model.set_option(show_probability=True)
    run(model)
    mine = viewer.layers["cells nuclei"]
    mine.name = "good ones"
    viewer.layers["cells probability"].name = "good probability"
    image.data = blobs((64, 64), step=30)
    run(model)
    run(model)
    assert set(names(viewer)) == {"cells", "good probability", "good ones", "cells probability", "cells nuclei"}
    assert mine.data.max() == 16
    assert viewer.layers["cells nuclei"].data.max() == 4


def test_another_image_of_the_same_name_gets_its_own_result_above_it(viewer):
    viewer.add_image(blobs((64, 64)), name="series")
    model = make(viewer)
    run(model)
    first = viewer.layers["series nuclei"]
    viewer.layers.remove("series")
    gc.collect()
    viewer.add_image(blobs((96, 96)), name="series")
    run(model)
    run(model)
    assert names(viewer) == ["series nuclei", "series", "series nuclei [2]"]
    assert first.data.shape == (64, 64)
    assert viewer.layers[2].data.shape == (96, 96)


def test_the_preview_of_another_image_of_the_same_name_stays(viewer):
    viewer.add_image(blobs((64, 64)), name="series")
    model = make(viewer)
    model.preview()
    settle(model)
    viewer.layers.remove("series")
    viewer.add_image(blobs((96, 96)), name="series")
    run(model)
    assert names(viewer) == ["series preview", "series", "series nuclei"]


def test_a_result_takes_the_new_name_of_its_image(viewer):
    image = viewer.add_image(blobs((64, 64)), name="cells")
    model = make(viewer)
    run(model)
    result = viewer.layers["cells nuclei"]
    image.name = "DAPI"
    run(model)
    run(model)
    assert names(viewer) == ["DAPI", "DAPI nuclei"]
    assert viewer.layers["DAPI nuclei"] is result


def test_a_placement_keeps_no_image_alive():
    image = Image(np.zeros((8, 8)), scale=(3, 3))
    voxels = weakref.ref(image.data)
    placement = image_of(image).place(AxisMapping(order="YX"))
    image.scale = (2, 2)
    np.testing.assert_allclose(placement.now().kwargs["scale"], (2, 2))
    del image
    gc.collect()
    assert voxels() is None
    assert placement.layer is None
    assert placement.now() is placement


# --- where a result lies ---------------------------------------------------------------------------------------------


def test_results_lie_on_an_image_that_is_moved_while_the_run_goes_on(viewer):
    image = viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: "cells nuclei (running)" in names(viewer))
    image.translate = (7, 8)
    model.images.set_spacing((1, 0.5, 0.25))
    model.images.write_spacing_to_layer()
    assert lies_on(viewer.layers["cells nuclei (running)"], image)
    image.rotate = 30
    segment.release.set()
    settle(model)
    np.testing.assert_allclose(image.scale, (0.5, 0.25))
    assert lies_on(viewer.layers["cells nuclei"], image)


def test_set_on_layer_takes_the_results_along(viewer):
    image = viewer.add_image(blobs((5, 64, 64)), name="cells", translate=(1, 2, 3))
    other = viewer.add_image(blobs((5, 64, 64)), name="other")
    model = make(viewer)
    model.images.select(other)
    run(model)
    model.images.select(image)
    model.set_option(show_probability=True, rerun="version")
    run(model)
    run(model)
    first, second = viewer.layers["cells nuclei"], viewer.layers["cells nuclei [2]"]
    first.paint((2, 30, 30), 77)
    first.name = "mine"
    second.translate = (0, 0, 100)  # beside the image, on purpose
    model.preview()
    settle(model)
    image.scale = first.scale = (1, 2, 2)  # together, by hand
    model.images.set_spacing((2, 0.5, 0.25))
    model.images.write_spacing_to_layer()
    assert lies_on(first, image)
    assert lies_on(viewer.layers["cells probability"], image)
    np.testing.assert_allclose(viewer.layers["cells preview"].scale, (2, 0.5, 0.25))
    np.testing.assert_allclose((second.scale, second.translate), ((1, 1, 1), (0, 0, 100)))
    np.testing.assert_allclose(viewer.layers["other nuclei"].scale, 1)


def test_set_on_layer_counts_what_lies_in_the_affine(viewer):
    image = viewer.add_image(blobs((5, 64, 64)), name="cells", affine=np.diag([2, 0.5, 0.5, 1]), units=("um",) * 3)
    model = make(viewer)
    model.images.set_spacing((4, 0.5, 0.25))
    model.images.write_spacing_to_layer()
    np.testing.assert_allclose(image.scale, (2, 1, 0.5))
    assert model.images.spacing.um == pytest.approx((4, 0.5, 0.25))


def test_moved_outlines_leave_the_layer_where_it_is(viewer, watched):
    image = viewer.add_image(balls((12, 40, 40), step=20, radius=4), name="embryo")
    model = open_model(viewer, watched)
    run(model)
    layer = viewer.layers["embryo nuclei"]
    image.scale = layer.scale = (2, 1, 1)
    layer.translate = (0, 0, 50)
    before = layer.data.copy()
    model.set("volume", "grow_vox", value=2)
    settle(model)
    assert (layer.data > 0).sum() > (before > 0).sum()
    np.testing.assert_allclose((layer.scale, layer.translate), ((2, 1, 1), (0, 0, 50)))
    after = layer.data.copy()
    layer.name = "mine"
    assert not model.outlines_follow
    model.set("volume", "grow_vox", value=0)
    settle(model)
    np.testing.assert_array_equal(layer.data, after)


def test_layers_of_particles_lie_on_an_image_that_was_moved(viewer, watched):
    image = viewer.add_image(balls((12, 40, 40), step=20, radius=4), name="embryo")
    model = open_model(viewer, watched)
    model.set_option(show_levels=True, show_reconstruction=True)
    image.translate = (5, 6, 7)
    run(model)
    run(model)
    kinds = ("particle levels", "reconstruction", "nuclei")
    assert set(names(viewer)) == {"embryo", *(f"embryo {kind}" for kind in kinds)}
    model.images.set_spacing((3, 1, 1))
    model.images.write_spacing_to_layer()
    assert all(lies_on(viewer.layers[f"embryo {kind}"], image) for kind in kinds)


# --- what a result says about its axes -------------------------------------------------------------------------------


def test_axes_that_were_chosen_reach_the_result_and_whatever_reads_it(viewer, tmp_path):
    viewer.add_image(blobs((12, 64, 64)), name="movie")
    model = make(viewer)
    assert model.images.mapping.order == "ZYX"
    model.images.set_axes("TYX")
    run(model)
    labels = viewer.layers["movie nuclei"]
    assert labels.axis_labels == ("t", "y", "x")
    data, attributes, _ = labels.as_layer_data_tuple()
    assert open_image(write_labels_layer(str(tmp_path / "a.tif"), data, attributes)[0]).axes == "TYX"
    assert InspectLayers(viewer).axes == "TYX"
    assert axes_of(labels) == "TYX"
    assert place_of(labels, viewer).shape == (64, 64)


def test_saved_labels_of_a_channel_between_z_and_y_keep_z(viewer, tmp_path):
    image = np.stack([blobs((6, 64, 64))] * 2, axis=1)
    viewer.add_image(image, name="cells", scale=(2, 1, 0.5, 0.5), units=("um", "pixel", "um", "um"))
    model = make(viewer)
    assert model.images.mapping.order == "ZCYX"
    run(model)
    data, attributes, _ = viewer.layers["cells nuclei"].as_layer_data_tuple()
    source = open_image(write_labels_layer(str(tmp_path / "a.ome.tif"), data, attributes)[0])
    assert source.axes == "ZYX"
    assert source.spacing_um == pytest.approx((2, 0.5, 0.5))


def test_names_of_the_image_that_say_the_same_are_kept():
    image = Image(np.zeros((4, 6, 20, 30)), axis_labels=("time", "depth", "Y", "nonsense"))
    assert image_of(image).place(AxisMapping(order="TZYX")).kwargs["axis_labels"] == ("time", "z", "Y", "x")


# --- a dock that is closed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True])
def test_closing_the_dock_takes_provisional_labels_away(viewer, monkeypatch, gone):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: "cells nuclei (running)" in names(viewer))
    if gone:

        def remove(_self):
            raise RuntimeError("wrapped C/C++ object has been deleted")

        monkeypatch.setattr(LiveLabels, "remove", remove)
    model.close()
    segment.thread.join(5)
    assert not segment.thread.is_alive()
    if not gone:
        assert names(viewer) == ["cells"]
    assert not model.runner.busy
