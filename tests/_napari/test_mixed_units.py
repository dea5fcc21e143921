"""Layers in micrometres beside one in nanometres: napari's sliders, camera and clicks are in nanometres then."""

from __future__ import annotations

import numpy as np
import pytest
from annotate_tools import click, paint, saved
from annotate_tools import make as make_annotate
from evaluate_layers_tools import CENTRES, PREDICTED, SPACING, TRUTH, finish
from evaluate_layers_tools import make as make_evaluate
from graph_tools import boxes, built
from graph_tools import make as make_graph

from napari_aprcnn._napari.evaluate_sources import take_source
from napari_aprcnn._napari.geometry import view_region
from napari_aprcnn._napari.inspect_ortho import OrthoModel
from napari_aprcnn._napari.units import in_viewer_units, own_units, place_at, ratios, viewer_place, voxel_at
from napari_aprcnn.config import AxisMapping

NM = ("nm",) * 3
UM = ("um",) * 3


@pytest.fixture
def viewer(viewer):
    """A viewer with an image in nanometres."""
    if not hasattr(viewer.dims, "units"):
        pytest.skip("this napari has no unit of its own")
    viewer.add_image(np.zeros((8, 30, 40), np.uint8), name="em", scale=(2000, 500, 500), units=NM)
    return viewer


def shown_plane(layer):
    return float(layer._data_slice.point[0])


def test_voxels_and_places(viewer):
    layer = viewer.add_labels(boxes(), scale=(2, 0.5, 0.5), translate=(10, 0, 0), units=UM)
    assert own_units(layer, viewer).tolist() == [0.001] * 3
    assert place_at(layer, viewer, (3, 2, 1)).tolist() == pytest.approx([16_000, 1000, 500])
    assert voxel_at(layer, viewer, (5.0, 16_000, 1000, 500)).tolist() == pytest.approx([3, 2, 1])
    viewer.dims.set_point(0, place_at(layer, viewer, (3, 0, 0))[0])
    assert shown_plane(layer) == pytest.approx(3)
    assert voxel_at(layer, viewer, viewer.dims.point)[0] == pytest.approx(3)
    assert viewer_place(layer, viewer, layer.scale).tolist() == pytest.approx([2000, 500, 500])
    viewer.add_image(np.zeros((8, 30, 40)), name="no unit")  # napari has no common unit any more, and ignores all
    assert own_units(layer, viewer).tolist() == [1.0] * 3
    assert voxel_at(layer, viewer, (16, 1, 0.5)).tolist() == pytest.approx([3, 2, 1])


def test_ratios():
    assert ratios(("nm", "mm"), ("um", "um")).tolist() == [0.001, 1000.0]
    assert ratios(("nm",), ("second",)).tolist() == [1.0]
    assert ratios(("nm", "um"), ("nothing known", "nm")).tolist() == [1.0, 1.0]


def test_a_layer_in_the_units_of_the_viewer_lies_where_it_lay(viewer):
    there = viewer.add_labels(boxes(), scale=(2, 0.5, 0.5), translate=(1, 2, 3), rotate=30, units=UM)
    names = ("scale", "translate", "rotate", "shear", "affine", "units")
    kwargs = in_viewer_units({name: getattr(there, name) for name in names}, there, viewer)
    new = viewer.add_labels(boxes(), **kwargs)
    assert tuple(str(unit) for unit in new.units) == ("nanometer",) * 3
    for voxel in ((0, 0, 0), (3, 5, 7)):
        np.testing.assert_allclose(new.data_to_world(voxel), place_at(there, viewer, voxel))


def test_inspect_goes_to_objects_and_takes_clicks(viewer, opened):
    model = opened()
    layer = model.layers.labels
    model.go_to((None, 3))
    assert shown_plane(layer) == pytest.approx(3.5, abs=0.51)
    assert viewer.camera.center[-2:] == pytest.approx((20.5 * 500, 29.5 * 500))
    assert viewer.camera.zoom < 1
    viewer.dims.set_point(0, 8000.0)
    assert model.layers.shown_voxel[0] == pytest.approx(4)
    model.pointer.click((8000.0, 21 * 500.0, 30 * 500.0))
    assert model.sheet.selected == ((None, 3),)
    viewer.dims.ndisplay = 3
    model.sheet.select([])
    layer._slice_dims(viewer.dims)
    ray = np.array([1.0, 0.0, 0.0])
    model.pointer.click((-9000.0, 21 * 500.0, 30 * 500.0), view_direction=ray, dims_displayed=[0, 1, 2])
    assert model.sheet.selected == ((None, 3),)


def test_the_orthogonal_views_follow_and_move_the_slider(viewer, opened):
    model = opened()
    planes = OrthoModel(viewer, model, lambda job: job())
    planes.move({0: 5})
    assert shown_plane(model.layers.labels) == pytest.approx(5)
    viewer.dims.set_point(0, 4000.0)
    assert planes.cursor[0] == 2
    planes.close()


@pytest.mark.parametrize("mode", ["points", "labels"])
def test_annotate_shows_its_slices_and_takes_clicks(viewer, tmp_path, mode):
    image = viewer.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid", scale=(2, 0.5, 0.5), units=UM)
    model = make_annotate(viewer, tmp_path, mode=mode)
    model.images.select(image)
    assert model.begin(), model.told
    model.poll()
    assert model.editing.here == (2,)
    assert shown_plane(image) == pytest.approx(2)
    model.next()
    assert model.editing.here == (7,)
    assert shown_plane(image) == pytest.approx(7)
    if mode == "points":
        layer = model.editing.points.layer
        layer.add(layer.world_to_data((14_000.0, 5 * 500.0, 6 * 500.0)))  # what napari does with a click
        np.testing.assert_allclose(saved(model).points_on((7,)), [[5, 6]])
    else:
        layer = model.editing.labels.layer
        np.testing.assert_allclose(layer.world_to_data((14_000.0, 2500.0, 3000.0)), (0, 5, 6))
        paint(model, 5, 6, 3)
        assert saved(model).labels_on((7,))[5, 6] == 3


def test_annotate_alone_keeps_the_units_of_the_image(tmp_path):
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid", scale=(2, 0.5, 0.5), units=UM)
    model = make_annotate(viewer, tmp_path)
    model.begin()
    model.poll()
    assert str(model.editing.points.layer.units[0]) == "micrometer"
    click(model, 5, 6)
    assert saved(model).points_on((2,)).tolist() == [[5, 6]]


def test_evaluate_brings_points_and_labels_to_one_unit(viewer):
    prediction = viewer.add_labels(PREDICTED.copy(), name="nuclei", scale=SPACING, units=UM)
    points = viewer.add_points(np.array(CENTRES) * SPACING * 1000, name="points", units=NM)
    truth = viewer.add_labels(TRUTH.copy(), name="truth", scale=np.array(SPACING) * 1000, units=NM)
    found = take_source(prediction, points).pairs[0].truth.coordinates
    np.testing.assert_allclose(found, CENTRES)
    source = take_source(prediction, truth)
    assert source.start == (0, 0, 0)
    truth.translate = (4000, 0, 0)
    assert take_source(prediction, truth).start == (2, 0, 0)
    truth.scale = (1000, 500, 500)
    with pytest.raises(ValueError, match=r"\(1000, 500, 500\) nanometer, nuclei \(2, 0\.5, 0\.5\) micrometer"):
        take_source(prediction, truth)


def test_evaluate_goes_to_an_error(viewer):
    prediction = viewer.add_labels(PREDICTED.copy(), name="nuclei", scale=SPACING, units=UM)
    truth = viewer.add_labels(TRUTH.copy(), name="truth", scale=SPACING, units=UM)
    model = make_evaluate(viewer)
    model.choose(predictions=[prediction], truth=truth)
    model.evaluate()
    finish(model)
    mistake = model.mistakes()[0]
    assert model.go_to(mistake)
    assert shown_plane(prediction) == pytest.approx(mistake.centroid[0], abs=0.51)
    assert viewer.camera.center[-2:] == pytest.approx(np.array(mistake.centroid[1:]) * 500)


def test_the_graph_is_built_of_the_time_point_that_is_shown(viewer):
    series = np.stack([np.zeros_like(boxes()), boxes(), np.zeros_like(boxes())])
    units = ("second", *UM)
    labels = viewer.add_labels(series, scale=(60, 2, 0.5, 0.5), axis_labels=("t", "z", "y", "x"), units=units)
    viewer.add_labels(series, name="faster", scale=(60_000, 2, 0.5, 0.5), units=("ms", *UM))
    viewer.dims.set_point(0, 60_000.0)
    model = make_graph(viewer)
    model.choice.select_labels(labels)
    assert len(built(model).built.graph) == 4


def test_the_nodes_of_a_graph_reach_through_planes_in_the_unit_of_the_viewer(viewer):
    viewer.add_labels(boxes(), name="nuclei", scale=(2, 0.5, 0.5), units=UM)
    model = built(make_graph(viewer))
    if not any(viewer.dims.margin_left):
        pytest.skip("this napari has no margins")
    assert 500 < viewer.dims.margin_left[0] < 10_000
    assert model.nodes is not None


@pytest.mark.parametrize(("unit", "factor"), [("um", 1.0), ("nm", 1000.0)])
def test_particles_follow_the_slider(viewer, unit, factor):
    from napari_aprcnn._napari.annotate_layers import Frame
    from napari_aprcnn._napari.geometry import image_of
    from napari_aprcnn._napari.slice_particles import SliceParticles
    from napari_aprcnn.config import AxisMapping

    class Tree:
        shape = (8, 30, 40)

    scale = np.array((2.0, 0.5, 0.5)) * factor
    image = viewer.add_image(np.zeros(Tree.shape, np.uint8), scale=scale, units=(unit,) * 3)
    place = Frame(image, image_of(image), AxisMapping(order="ZYX")).place()
    particles = SliceParticles(viewer, Tree(), place, tell=print)
    viewer.layers.append(particles.layer)
    particles._shown = (0, 5)  # nothing to draw
    viewer.dims.set_point(0, 10_000.0)
    assert particles._plane() == (0, 5)
    particles.close()


def test_the_preview_is_of_the_plane_that_is_shown(viewer):
    layer = viewer.add_image(np.zeros((20, 30, 40), np.uint8), scale=(2, 0.5, 0.5), units=UM)
    viewer.dims.set_point(0, place_at(layer, viewer, (7, 0, 0))[0])
    assert view_region(layer, viewer, AxisMapping(order="ZYX"))[0] == slice(7, 8)
