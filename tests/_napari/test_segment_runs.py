"""The Segment dock without Qt, on a viewer model, with a stand-in for the networks: runs."""

import json
import threading

import dask.array as da
import numpy as np
import pytest
from napari.layers import Labels
from napari_fakes import FakeSegment, blobs
from segment_tools import in_thread, make, names, settle, wait

from napari_aprcnn._napari.settings import Preferences
from napari_aprcnn.errors import ModelNotFoundError


def test_labels_lie_above_the_image_with_its_scale_and_name(viewer):
    viewer.add_image(blobs((64, 64)), name="cells", scale=(0.5, 0.25), translate=(7, 8), units=("um", "um"))
    viewer.add_image(blobs((64, 64)), name="other")
    model = make(viewer)
    model.images.select(viewer.layers["cells"])
    model.segment()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei", "other"]
    labels = viewer.layers["cells nuclei"]
    assert labels.data.max() == 16
    assert labels.data.dtype == np.uint16
    np.testing.assert_allclose(labels.scale, (0.5, 0.25))
    np.testing.assert_allclose(labels.translate, (7, 8))
    assert [str(unit) for unit in labels.units] == ["micrometer"] * 2
    assert model.state == "ready"
    assert json.loads(labels.metadata["aprcnn"]["readout"])["n_objects"] == 16
    assert not model.told


def test_labels_appear_while_tiles_finish(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: "cells nuclei (running)" in names(viewer))
    live = viewer.layers["cells nuclei (running)"]
    assert live.data[:16].max() > 0
    assert live.data[16:].max() == 0
    assert model.runner.progress.message.startswith("tile 1 of 4")
    assert viewer.layers.selection.active is viewer.layers["cells"]
    segment.release.set()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]
    assert viewer.layers["cells nuclei"].data.max() == 16
    assert segment.thread is not threading.main_thread()


def test_without_live_labels_there_are_none(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread, preferences=Preferences(live_labels=False))
    model.segment()
    wait(model, lambda: model.runner.progress is not None)
    assert names(viewer) == ["cells"]
    segment.release.set()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]


def test_cancel_leaves_no_half_layer_and_keeps_earlier_results(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment()
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    settle(model)
    before = viewer.layers["cells nuclei"].data.copy()
    segment.hold = True
    model.segment()
    wait(model, lambda: "cells nuclei (running)" in names(viewer))
    model.cancel()
    assert model.state == "cancelling"
    assert [layer.name for layer in viewer.layers if layer.opacity] == ["cells", "cells nuclei"]
    settle(model)
    assert model.state == "ready"
    assert names(viewer) == ["cells", "cells nuclei"]
    np.testing.assert_array_equal(viewer.layers["cells nuclei"].data, before)
    assert not model.told


def test_cancelling_twice_or_without_a_run_is_harmless(viewer):
    viewer.add_image(blobs((64, 64)))
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.cancel()
    assert model.state == "ready"
    model.segment()
    model.segment()
    model.cancel()
    model.cancel()
    settle(model)
    assert len(segment.configs) == 1


def test_a_result_that_arrives_after_the_cancel_is_not_shown(viewer):
    """The run was past its last look at should_cancel."""

    class Deaf(FakeSegment):
        def __call__(self, image, **options):
            return super().__call__(image, **{**options, "should_cancel": lambda: False})

    viewer.add_image(blobs((64, 64)))
    segment = Deaf(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: len(viewer.layers) == 2)
    model.cancel()
    assert model.state == "cancelling"
    segment.release.set()
    settle(model)
    assert model.state == "ready"
    assert len(viewer.layers) == 1


@pytest.mark.parametrize(
    ("error", "words", "traceback"),
    [
        (ModelNotFoundError("there is no model 'x'; choose another"), "There is no model", False),
        (MemoryError("3 GB"), "memory was not enough", False),
        (RuntimeError("strange"), "RuntimeError: strange", True),
    ],
)
def test_errors_are_told_and_the_dock_is_ready_again(viewer, error, words, traceback):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(error=error)
    model = make(viewer, segment)
    model.segment()
    settle(model)
    (severity, sentence, exception) = model.told[0]
    assert severity == "error"
    assert words in sentence
    assert (exception is error) is traceback
    assert names(viewer) == ["cells"]
    assert model.state == "ready"
    segment.error = None
    model.segment()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]


def test_reruns_replace_in_place_or_version(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    model = make(viewer)
    model.segment()
    settle(model)
    first = viewer.layers["cells nuclei"]
    first.opacity, first.contour = 0.2, 1
    model.segment()
    settle(model)
    assert viewer.layers["cells nuclei"] is first
    assert (first.opacity, first.contour) == (0.2, 1)
    model.set_option(rerun="version")
    model.segment()
    model.poll()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei", "cells nuclei [2]"]


def test_labels_that_were_edited_are_never_replaced(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    model = make(viewer)
    model.segment()
    settle(model)
    viewer.layers["cells nuclei"].paint((30, 30), 77)
    model.segment()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei", "cells nuclei [2]"]
    assert 77 in viewer.layers["cells nuclei"].data
    assert 77 not in viewer.layers["cells nuclei [2]"].data


def test_a_rerun_with_other_axes_gets_a_fitting_layer(viewer):
    viewer.add_image(blobs((5, 3, 64, 64)), name="cells")
    model = make(viewer)
    model.images.set_axes("TZYX")
    model.segment()
    settle(model)
    assert viewer.layers["cells nuclei"].ndim == 4
    model.images.set_axes("CZYX")
    model.segment()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]
    assert viewer.layers["cells nuclei"].data.shape == (3, 64, 64)


def test_probability_and_flows_lie_between_image_and_labels(viewer):
    viewer.add_image(blobs((64, 64)), name="cells", scale=(0.5, 0.5))
    model = make(viewer)
    model.set_option(show_probability=True, show_flows=True)
    model.segment()
    settle(model)
    assert set(names(viewer)[1:3]) == {"cells probability", "cells flows"}
    assert names(viewer)[3] == "cells nuclei"
    probability, flows = viewer.layers["cells probability"], viewer.layers["cells flows"]
    assert 0 <= probability.data.min() < probability.data.max() <= 1
    assert flows.rgb
    assert flows.data.shape == (64, 64, 3)
    np.testing.assert_allclose(flows.scale, (0.5, 0.5))
    # Pictures of results are no images to segment.
    assert [layer.name for layer in model.images.layers] == ["cells"]


def test_flows_are_kept_only_on_request(viewer):
    viewer.add_image(blobs((64, 64)))
    segment = FakeSegment()
    model = make(viewer, segment)
    model.segment()
    settle(model)
    assert not segment.configs[0].keep_flows


@pytest.mark.parametrize(
    ("data", "options", "order", "shape"),
    [
        (blobs((3, 64, 64)), {}, "CYX", (64, 64)),
        (blobs((4, 6, 64, 64)), {"axis_labels": ("t", "z", "y", "x")}, "TZYX", (4, 6, 64, 64)),
        (blobs((4, 2, 64, 64)), {"axis_labels": ("t", "c", "y", "x")}, "TCYX", (4, 1, 64, 64)),
        (np.moveaxis(blobs((3, 64, 64)), 0, -1), {"rgb": True}, "YXC", (64, 64)),
        ([blobs((64, 64)), blobs((64, 64))[::2, ::2]], {"multiscale": True}, "YX", (64, 64)),
    ],
)
def test_every_kind_of_layer(viewer, data, options, order, shape):
    viewer.add_image(data, name="cells", **options)
    segment = FakeSegment()
    model = make(viewer, segment)
    assert model.images.mapping.order == order
    model.segment()
    settle(model)
    assert not model.told
    assert viewer.layers["cells nuclei"].data.shape == shape
    assert viewer.layers["cells nuclei"].data.max() > 0
    model.preview()
    settle(model)
    assert not model.told
    assert viewer.layers["cells preview"].data.ndim == len(shape)
    assert viewer.layers["cells preview"].data.max() > 0


def test_lazy_layers_are_handed_over_unread(viewer):
    read = []

    def block(block_info=None):
        read.append(block_info[None]["array-location"])
        return blobs((1, 64, 64))

    lazy = da.map_blocks(block, chunks=((1,) * 50, (64,), (64,)), dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8))
    viewer.add_image(lazy, name="big", contrast_limits=(0, 255))
    segment = FakeSegment()
    model = make(viewer, segment)
    read.clear()
    viewer.dims.set_point(0, 7)
    read.clear()
    model.preview()
    settle(model)
    assert isinstance(segment.images[0], da.Array)
    assert segment.images[0].shape == (64, 64)
    assert {location[0] for location in read} == {(7, 8)}
    model.segment()
    settle(model)
    assert segment.images[1] is lazy


def test_zarr_layers_are_read_in_the_worker_only(viewer, tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(tmp_path / "a.zarr", shape=(6, 64, 64), chunks=(1, 64, 64), dtype="uint8")
    array[:] = blobs((6, 64, 64))
    viewer.add_image(array, name="cells", contrast_limits=(0, 255))
    segment = FakeSegment()
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    settle(model)
    assert segment.images[0] is array
    assert viewer.layers["cells nuclei"].data.shape == (6, 64, 64)


def test_the_preview_lies_where_the_camera_looks(viewer):
    layer = viewer.add_image(blobs((5, 64, 64)), name="cells", scale=(2, 0.5, 0.5))
    segment = FakeSegment()
    model = make(viewer, segment)
    viewer.dims.set_point(0, 6)
    layer.corner_pixels = np.array([[0, 16, 16], [0, 47, 55]])
    model.preview()
    settle(model)
    preview = viewer.layers["cells preview"]
    assert preview.data.shape == (1, 32, 40)
    np.testing.assert_allclose(preview.data_to_world((0, 0, 0)), (6, 8, 8))
    config = segment.configs[0]
    assert (config.dimensionality, config.axes.order, config.keep_flows) == ("2d", "YX", False)
    model.preview()
    settle(model)
    assert names(viewer) == ["cells", "cells preview"]
    model.segment()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]


def test_an_image_that_vanishes_while_the_run_goes(viewer):
    image = viewer.add_image(blobs((64, 64)), name="cells", scale=(0.5, 0.5))
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: len(viewer.layers) == 2)
    viewer.layers.remove(image)
    segment.release.set()
    settle(model)
    assert names(viewer) == ["cells nuclei"]
    np.testing.assert_allclose(viewer.layers[0].scale, (0.5, 0.5))
    assert not model.told


def test_provisional_labels_that_the_user_deletes_stay_deleted(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: len(viewer.layers) == 2)
    viewer.layers.remove(viewer.layers[1])
    segment.hold = False
    segment.release.set()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]


def test_labels_that_cannot_be_shown_meanwhile_do_not_stop_the_run(viewer, monkeypatch):
    from napari_aprcnn._napari.result_layers import LiveLabels

    def show(self, partial):
        raise MemoryError("no room for provisional labels")

    monkeypatch.setattr(LiveLabels, "show", show)
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: model.runner._live is None)
    segment.release.set()
    settle(model)
    assert names(viewer) == ["cells", "cells nuclei"]
    assert not model.told


def test_closing_stops_the_run_and_touches_nothing(viewer):
    viewer.add_image(blobs((64, 64)), name="cells")
    segment = FakeSegment(hold=True)
    model = make(viewer, segment, launch=in_thread)
    model.segment()
    wait(model, lambda: segment.thread is not None)
    model.close()
    segment.thread.join(5)
    assert not segment.thread.is_alive()
    model.poll()
    assert not [layer for layer in viewer.layers if isinstance(layer, Labels) and layer.name == "cells nuclei"]
    viewer.add_image(blobs((32, 32)))
    model.close()
