"""The Segment dock without Qt, on a viewer model: what is chosen, and what is kept."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari_fakes import blobs, fake_backend
from segment_tools import in_place, make, settle

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.settings import Preferences, Settings, load_settings
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import DeviceError

# --- what is chosen --------------------------------------------------------------------------------------------------


def test_an_empty_viewer_says_what_to_do(viewer):
    model = make(viewer)
    assert model.problem == "Open an image, or choose an image layer."
    model.segment()
    assert model.told[0][:2] == ("error", model.problem)
    assert model.state == "ready"


def test_the_first_image_is_chosen_and_the_last_removed_one_let_go(viewer):
    model = make(viewer)
    image = viewer.add_image(blobs((32, 32)), name="cells")
    viewer.add_labels(np.zeros((32, 32), int))
    assert model.images.layer is image
    settle(model)
    assert model.estimate_words == "about 1 s for (32, 32)"
    viewer.layers.remove(image)
    assert model.images.layer is None
    assert model.problem


def test_axes_in_words_and_by_choice(viewer):
    viewer.add_image(blobs((3, 64, 64, 64)))
    model = make(viewer)
    assert model.images.mapping.order == "CZYX"
    model.images.set_axes("TZYX")
    assert model.images.shape_words == "T 3 x Z 64 x Y 64 x X 64"
    model.images.set_axes("CZYX", 2)
    assert model.images.shape_words == "Z 64 x Y 64 x X 64, channel 2 of 3"
    assert model.run_config().axes.channel == 2


@pytest.mark.parametrize("order", ["YX", "ZZYX", "QZYX", "", "TCZYX"])
def test_axes_that_do_not_fit_are_told_and_not_taken(viewer, order):
    viewer.add_image(blobs((3, 64, 64, 64)))
    model = make(viewer)
    model.images.set_axes(order)
    assert [severity for severity, *_ in model.told] == ["error"]
    assert model.images.mapping.order == "CZYX"


def test_choices_are_kept_with_their_layer(viewer):
    first, second = viewer.add_image(blobs((5, 32, 32))), viewer.add_image(blobs((5, 32, 32)))
    model = make(viewer)
    model.images.select(first)
    model.images.set_axes("TYX")
    model.images.set_spacing((3, 2, 1))
    model.images.select(second)
    assert (model.images.mapping.order, model.images.spacing.um) == ("ZYX", None)
    model.images.select(first)
    assert (model.images.mapping.order, model.images.spacing.um) == ("TYX", (3.0, 2.0, 1.0))


def test_voxel_size_follows_the_layer_and_can_be_written_to_it(viewer):
    layer = viewer.add_image(blobs((5, 32, 32)))
    model = make(viewer)
    layer.scale = (2, 0.5, 0.5)
    assert model.images.spacing.um == (2.0, 0.5, 0.5)
    model.images.set_spacing((4, 0.5, 0.25))
    assert model.run_config().spacing_um == (4.0, 0.5, 0.25)
    model.images.write_spacing_to_layer()
    np.testing.assert_allclose(layer.scale, (4, 0.5, 0.25))
    assert str(layer.units[0]) == "micrometer"
    assert model.images.spacing.words == "from the layer"


@pytest.mark.parametrize("spacing", [(0, 1, 1), (-1, 1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)])
def test_impossible_voxel_sizes_are_told(viewer, spacing):
    viewer.add_image(blobs((5, 32, 32)))
    model = make(viewer)
    model.images.set_spacing(spacing)
    assert model.told
    assert model.images.spacing.um is None


def test_a_layer_of_six_axes_says_why_it_cannot_be_segmented(viewer):
    viewer.add_image(np.zeros((2, 2, 2, 2, 16, 16)))
    model = make(viewer)
    assert "6 axes" in model.problem
    assert model.images.shape_words == model.problem


def test_a_parameter_out_of_range_is_told_and_not_taken(viewer):
    model = make(viewer)
    assert not model.set("flows", "n_steps", value=0)
    assert "n_steps" in model.told[0][1]
    assert model.get("flows", "n_steps") == 200
    assert model.set("flows", "n_steps", value=50)
    assert model.get("flows", "n_steps") == 50


def test_a_device_that_cannot_be_used_is_told_where_it_is_chosen(viewer):
    def machine(device, threads):
        raise DeviceError("device 'cuda' was asked for but cannot be used: there is none")

    model = SegmentModel(viewer, launch=in_place, backend=fake_backend(machine=machine))
    settle(model)
    assert "cannot be used" in model.machine_problem


# --- keeping and sharing ---------------------------------------------------------------------------------------------


def test_settings_are_remembered_unless_the_preferences_say_no(viewer):
    viewer.add_image(blobs((64, 64)))
    model = make(viewer)
    model.set("diameter_px", value=33.0)
    model.close()
    assert load_settings().config.diameter_px == 33.0
    assert make(ViewerModel()).get("diameter_px") == 33.0
    forgetful = make(ViewerModel(), preferences=Preferences(remember=False))
    assert forgetful.get("diameter_px") is None


def test_an_exported_run_is_one_that_loads(viewer, tmp_path):
    viewer.add_image(blobs((5, 64, 64)), scale=(2, 0.5, 0.5), units=("um",) * 3)
    model = make(viewer)
    model.set("flows", "n_steps", value=77)
    model.set_option(show_flows=True)
    assert model.export_config(tmp_path / "run.json")
    config = SegmentConfig.from_file(tmp_path / "run.json")
    assert config == model.run_config()
    assert (config.flows.n_steps, config.axes.order, config.spacing_um) == (77, "ZYX", (2.0, 0.5, 0.5))
    other = make(ViewerModel(), settings=Settings())
    assert other.load_config(tmp_path / "run.json")
    assert other.get("flows", "n_steps") == 77


@pytest.mark.parametrize("text", ["", "[]", '{"flows": {"n_steps": 0}}', '{"nonsense": 1}'])
def test_a_bad_run_file_is_told_and_changes_nothing(viewer, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    model = make(viewer)
    before = model.settings
    assert not model.load_config(tmp_path / "run.json")
    assert model.told[0][0] == "error"
    assert model.settings == before
    assert not model.load_config(tmp_path / "missing.json")
    assert not model.export_config(tmp_path / "no folder" / "run.json")
