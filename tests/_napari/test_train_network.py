"""The Training dock without Qt: what network it trains."""

from __future__ import annotations

from train_tools import last_error, make, nuclei

from napari_aprcnn.train.volume_request import LAST, note_checkpoint


def test_the_head_is_chosen_and_rays_follow_the_voxels(viewer, tmp_path):
    model = make(viewer, tmp_path, start="")
    image, labels = nuclei()
    assert model.choose_head("three_class")
    assert (model.request().config.network.head, model.request().config.network.out_channels) == ("three_class", 3)
    assert not model.choose_head("boxes")
    assert "three_class" in last_error(model)
    assert model.choose_head("stardist")
    assert model.get("network", "ray_spacing") == (1, 1, 1)
    first = viewer.add_image(image, name="a", scale=(2.0, 0.5, 0.5), units=("um",) * 3)
    model.data.add_pair(first, viewer.add_labels(labels, scale=(2.0, 0.5, 0.5)))
    assert model.get("network", "ray_spacing") == (2, 0.5, 0.5)
    model.set("network", "ray_spacing", value=(3.0, 1.0, 1.0))
    second = viewer.add_image(image, name="b", scale=(4.0, 1.0, 1.0), units=("um",) * 3)
    model.data.add_pair(second, viewer.add_labels(labels))
    assert model.get("network", "ray_spacing") == (3, 1, 1)  # what was typed stays


def test_the_fastest_form_is_chosen_by_the_process(viewer, tmp_path):
    """The dock only says so; a training that was begun so goes on in the form that it has."""
    model = make(viewer, tmp_path)
    assert model.choose_form("auto")
    assert model.form == "auto"
    request = model.request()
    assert request.auto_form
    request.run_dir.mkdir(parents=True)
    (request.run_dir / LAST).write_bytes(b"checkpoint")
    pixels = request.config.replace(network=request.config.network.replace(particle_stages=0))
    note_checkpoint(request.run_dir, 1, pixels.replace(epochs=3))
    model.set("epochs", value=3)
    assert model.resumable, model.problem
    assert model.choose_form("apr")
    assert not model.resumable
    assert "other parameters" in model.problem
    request.write()
    assert model.take_former()
    assert model.form == "auto"
    assert make(viewer, tmp_path).settings.auto_form is False
