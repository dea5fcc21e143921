"""Models for volumes in the dock, without Qt: layers of particles."""

import dataclasses

import dask.array as da
import numpy as np
from napari.layers import Image, Points
from napari_fakes import FakeSegment, blobs, fake_backend
from segment_tools import in_place, names, settle
from volume_model_tools import VOLUMES, open_model, show_all

from napari_aprcnn._napari import slice_particles
from napari_aprcnn._napari.backend import Machine
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn.apr.pyramid import TreeArray, plane_cells
from napari_aprcnn.config import AxisMapping
from volume_fakes import BallNetwork, balls

# --- layers of particles ---------------------------------------------------------------------------------------------


def world(layer, index):
    return np.asarray(layer.data_to_world(index))


def test_particles_as_layers(viewer, watched):
    image = viewer.add_image(balls(), name="embryo", scale=(2, 0.5, 0.5), translate=(1, 2, 3), units=("um",) * 3)
    model = open_model(viewer, watched)
    show_all(model)
    model.segment()
    settle(model)
    assert names(viewer) == [
        "embryo", "embryo reconstruction", "embryo particle levels", "embryo slice particles", "embryo nuclei",
    ]  # fmt: skip
    tree = model.runner.result.particles
    levels, painted = viewer.layers["embryo particle levels"], viewer.layers["embryo reconstruction"]
    assert isinstance(painted, Image)
    assert np.array_equal(np.asarray(painted.data), tree.reconstruct())
    assert np.array_equal(np.asarray(levels.data), tree.level_image())
    for index in ((0, 0, 0), (31, 39, 47)):
        np.testing.assert_allclose(world(painted, index), world(image, index))
    assert not model.told
    model.segment()
    settle(model)
    assert len(viewer.layers) == 5
    model.set("model", value="fastcellpose")


def test_points_follow_the_slider(viewer, watched):
    viewer.add_image(balls(), name="embryo", scale=(2, 0.5, 0.5))
    model = open_model(viewer, watched)
    model.set_option(show_particles=True)
    model.segment()
    settle(model)
    points = viewer.layers["embryo slice particles"]
    assert isinstance(points, Points)
    tree = model.runner.result.particles
    for z in (8, 20, 0):
        viewer.dims.set_current_step(0, z)
        index, centres, sizes = plane_cells(tree, z)
        assert len(points.data) == len(index)
        assert (points.data[:, 0] == z).all()
        np.testing.assert_allclose(points.data[:, 1:], centres[:, 1:])
        np.testing.assert_allclose(points.size, sizes)
        assert set(points.features["level"]) == set((tree.level_max - np.log2(sizes)).astype(int))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 30)
    assert (points.data[:, 1] == 30).all()
    assert len(points.data) == len(plane_cells(tree, 30, axis=1)[0])
    viewer.layers.remove(points)
    before = len(points.data)
    viewer.dims.set_current_step(1, 5)
    assert len(points.data) == before
    model.close()


def test_too_many_points_are_capped_with_a_sentence(viewer, watched, monkeypatch):
    monkeypatch.setattr(slice_particles, "MOST_POINTS", 50)
    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, watched)
    model.set_option(show_particles=True)
    model.segment()
    settle(model)
    points = viewer.layers["embryo slice particles"]
    assert len(points.data) == 50
    assert abs(points.data[:, 1:].mean(0) - (20, 24)).max() < 3
    viewer.dims.set_current_step(0, 9)
    assert len(model.told) == 1
    assert "the 50 nearest to the middle" in model.told[0][1]


def test_particles_of_an_enlarged_image_lie_on_it(viewer, watched):
    image = viewer.add_image(balls(), name="embryo", scale=(2, 0.5, 0.5))
    model = open_model(viewer, watched)
    show_all(model)
    model.set("volume", "zoom", value=2.0)
    settle(model)
    model.segment()
    settle(model)
    painted = viewer.layers["embryo reconstruction"]
    assert painted.data.shape == (64, 80, 96)
    np.testing.assert_allclose(world(painted, (-0.5, -0.5, -0.5)), world(image, (-0.5, -0.5, -0.5)))
    np.testing.assert_allclose(world(painted, (63.5, 79.5, 95.5)), world(image, (31.5, 39.5, 47.5)))


def test_particles_of_an_image_with_channels_behind_z(viewer, watched):
    stack = np.stack([np.zeros_like(balls()), balls()], 1)
    image = viewer.add_image(stack, name="embryo", axis_labels=("z", "c", "y", "x"))
    model = open_model(viewer, watched)
    show_all(model)
    model.images.set_axes("ZCYX", 1)
    settle(model)
    model.segment()
    settle(model)
    painted = viewer.layers["embryo reconstruction"]
    assert painted.data.shape == (32, 1, 40, 48)
    np.testing.assert_allclose(world(painted, (3, 0.25, 7, 9)), world(image, (3, 1, 7, 9)))
    assert viewer.layers["embryo slice particles"].ndim == 4
    assert len(viewer.layers["embryo slice particles"].data) > 0


def test_where_there_are_no_particles_it_is_said(viewer, watched):
    viewer.add_image(np.stack([balls(), balls()]), name="film", axis_labels=("t", "z", "y", "x"))
    model = open_model(viewer, watched)
    show_all(model)
    model.segment()
    settle(model)
    assert names(viewer) == ["film", "film nuclei"]
    assert "no layers of particles" in model.told[-1][1]


def test_a_large_volume_becomes_multiscale(viewer):
    from napari_aprcnn._napari.geometry import image_of
    from napari_aprcnn._napari.result_layers import pyramid_layer
    from napari_aprcnn.apr.pyramid import tree_pyramid
    from napari_aprcnn.apr.to_apr import to_apr

    image = balls((20, 200, 230), step=40)
    tree = to_apr(image, threads=1)
    base = viewer.add_image(image, name="embryo")
    placement = image_of(base).place(AxisMapping(order="ZYX"))
    layer = pyramid_layer(tree_pyramid(tree), "reconstruction", placement)
    viewer.layers.append(layer)
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(20, 200, 230), (10, 100, 115)]
    assert all(isinstance(level, TreeArray) for level in layer.data)
    viewer.dims.ndisplay = 3


def test_planes_models_are_as_they_were(viewer):
    viewer.add_image(da.from_array(blobs((5, 64, 64)), chunks=(1, 64, 64)), name="cells")
    fake = FakeSegment()
    model = SegmentModel(viewer, launch=in_place, backend=fake_backend(fake))
    settle(model)
    show_all(model)
    model.segment()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]
    assert fake.configs[0].model == "fastercellpose-v3"
    assert not fake.configs[0].keep_flows


def test_a_model_without_flows_is_not_blamed_on_the_memory(viewer, watched):
    star = VOLUMES.replace(volume=VOLUMES.volume.replace(head="three_class"))
    network = watched.network

    def predict(image, *args, **options):
        out = BallNetwork.predict(network, image, *args, **options)
        inside = out.dense[..., 3:]
        dense = np.concatenate([-inside, inside, np.full_like(inside, -9.0)], -1)
        return dataclasses.replace(out, dense=dense, features=dense.reshape(-1, 3))

    network.predict, network.card, network.module.config = predict, star, star.volume
    watched.backend = dataclasses.replace(
        watched.backend, machine=lambda device, threads: Machine((star,), "CPU, 2 threads", "")
    )
    viewer.add_image(balls(), name="embryo")
    model = open_model(viewer, watched)
    model.set_option(show_flows=True)
    model.segment()
    settle(model)
    assert model.told[-1][:2] == ("info", "there is no layer of flows: apr-tiny-3d has none")
    layer = viewer.layers["embryo nuclei"]
    before = layer.data.copy()
    assert before.max() == 12
    model.set("volume", "grow_vox", value=2)  # labels of this head follow, too
    settle(model)
    assert (layer.data > 0).sum() > 1.5 * (before > 0).sum()
    assert network.runs == 1
