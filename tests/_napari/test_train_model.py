"""The Training dock without Qt: what is trained on, what is refused, and a process that ends in every way."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy
from train_tools import NET, TINY, epoch, last_error, make, nuclei, step, wait

from napari_aprcnn._napari import train_runner
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.settings import load_settings
from napari_aprcnn._napari.train_settings import TrainSettings, load_train_settings, train_settings_path
from napari_aprcnn._napari.train_sources import Snapshot, write_pairs
from napari_aprcnn.errors import NotEnoughMemoryError, OutputError, TrainingDataError
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.train.process import TrainingProcess
from napari_aprcnn.train.volume_request import find_checkpoint, read_request
from napari_aprcnn.train.volume_sources import read_volumes


def add_pair(viewer, name="organoid", seed=0, **options):
    image, labels = nuclei(seed)
    return viewer.add_image(image, name=name, **options), viewer.add_labels(labels, name=f"{name} labels")


def poll(model, times=3):
    for _ in range(times):
        model.poll()


# --- what is trained on ----------------------------------------------------------------------------------------------
def test_pairs_are_checked(viewer, tmp_path):
    model = make(viewer, tmp_path)
    image, labels = add_pair(viewer)
    shifted = viewer.add_labels(np.ones((16, 40, 41), int), name="other")
    blank = viewer.add_labels(np.zeros((16, 40, 40), int), name="blank")
    colour = viewer.add_image(np.zeros((16, 40, 40, 3), np.uint8), rgb=True)
    stack = viewer.add_image(np.zeros((2, 3, 16, 40), np.uint8))
    for one, other, words in (
        (image, shifted, r"(16, 40, 40), its labels other (16, 40, 41)"),
        (image, blank, "no object"),
        (colour, labels, "colour image"),
        (stack, labels, "split channels"),
        (image, None, "labels layer"),
        (None, labels, "image layer"),
    ):
        assert not model.data.add_pair(one, other)
        assert words in last_error(model)
        assert model.state == "ready"
    assert model.data.add_pair(image, labels)
    assert not model.data.add_pair(image, labels)
    assert "already" in last_error(model)
    assert [row.words for row in model.data.rows] == ["organoid + organoid labels (16 x 40 x 40)"]


def test_the_likely_pair_is_suggested_and_removed_layers_leave(viewer, tmp_path):
    model = make(viewer, tmp_path)
    first, second = add_pair(viewer, "a"), add_pair(viewer, "b")
    viewer.layers.move(1, 4)  # the labels of a on top
    assert model.data.suggestion() == first
    model.data.add_pair(*first)
    assert model.data.suggestion() == second
    model.data.add_pair(*second)
    viewer.layers.remove(first[1])
    assert [row.labels for row in model.data.rows] == [second[1]]
    model.data.hold_back(0, held_back=True)
    assert "held back" in model.problem
    assert not model.start()
    model.data.remove(0)
    assert not model.problem


def test_folders_are_checked(viewer, tmp_path):
    model = make(viewer, tmp_path, mix=False)
    assert "Add an image" in model.problem
    (tmp_path / "set").mkdir()
    assert not model.data.add_path(tmp_path / "set")
    assert "no pairs" in last_error(model)
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    assert not model.data.add_path(tmp_path / "bad.zip")
    image, labels = nuclei()
    tifffile.imwrite(tmp_path / "set" / "a.tif", image)
    tifffile.imwrite(tmp_path / "set" / "a_labels.tif", labels)
    assert model.data.add_path(tmp_path / "set")
    assert not model.problem
    assert model.request().labelled == (tmp_path / "set",)
    model.data.add_path(tmp_path / "set")
    assert "already" in last_error(model)


def test_pairs_are_written_whole_and_old_annotations_stay(tmp_path):
    image, labels = nuclei()
    pair = Snapshot("day 1/a", image, da.from_array(labels), (0.5, 0.2, 0.2))
    folder = write_pairs([pair, pair], tmp_path / "out" / "mine_data")
    assert sorted(p.name for p in folder.rglob("*.tif")) == ["day_1_a.tif", "day_1_a.tif", *["day_1_a_2.tif"] * 2]
    read = read_volumes([folder])
    assert np.array_equal(read[0].image, image)
    assert np.array_equal(read[0].labels, labels)
    assert write_pairs([pair, pair], tmp_path / "out" / "mine_data") == folder
    more = labels.copy()
    more[0, 0, 0] = 9
    other = write_pairs([Snapshot("a", image, more)], tmp_path / "out" / "mine_data")
    assert other.name == "mine_data_2"
    assert np.array_equal(read_volumes([folder])[0].labels, labels)
    broken = image.astype(float)
    broken[0, 0, 0] = np.nan
    for bad in (Snapshot("a", image, np.zeros_like(labels)), Snapshot("a", broken, labels)):
        with pytest.raises(TrainingDataError):
            write_pairs([bad], tmp_path / "out" / "more")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine_data", "mine_data_2"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_pairs([pair], tmp_path / "file" / "data")


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_layers_of_wide_numbers_can_be_trained_on(tmp_path, dtype):
    image, labels = nuclei()
    read = read_volumes([write_pairs([Snapshot("a", image.astype(dtype), labels)], tmp_path / "data")])
    assert np.array_equal(read[0].image, image)
    assert read[0].image.dtype == np.float32


# --- parameters ------------------------------------------------------------------------------------------------------
def test_parameters_out_of_range_are_told_and_not_taken(viewer, tmp_path):
    model = make(viewer, tmp_path)
    for path, value in ((("epochs",), 0), (("crop",), (0, 5, 5)), (("network", "channels"), 0), (("simulated",), 2.0)):
        before = model.settings
        assert not model.set(*path, value=value)
        assert path[-1] in last_error(model).lower()
        assert model.settings == before
    assert not model.choose_form("hybrid7")
    assert model.choose_form("hybrid1")
    assert (model.form, model.get("network", "particle_stages")) == ("hybrid1", 1)
    assert model.choose_form("pixel")
    assert model.form == "pixel"
    assert model.choose_form("apr")
    assert model.forms == ("auto", "apr", "pixel", "hybrid1", "hybrid2")
    model.set_option(name="../evil")
    assert "name" in model.problem
    assert not model.start()
    model.set_option(name="good")
    assert not model.problem


def card(name="apr-flows", **changes):
    volume = NET.replace(channels=4, **changes)
    return ModelCard(name=name, architecture="apr_unet", title="", data="", licence="", volume=volume)


def test_a_shipped_model_is_the_start(viewer, tmp_path):
    def models():
        plane = ModelCard(name="planes", architecture="faster_v3", title="", data="", licence="")
        return [plane, card(), card("other-head", head="three_class")]

    model = make(viewer, tmp_path, models=models, start=None, config=TrainSettings().config)
    assert [one.name for one in model.models] == ["apr-flows", "other-head"]
    assert model.request().initial == "apr-flows"
    assert model.get("network") == card().volume
    assert model.get("learning_rate") == 5e-4
    model.set("epochs", value=7)
    assert model.choose_start("other-head")
    assert model.get("network", "head") == "three_class"
    model.choose_start("")
    assert model.get("network", "head") == "flows"
    assert model.request().initial is None
    assert (model.get("learning_rate"), model.get("epochs")) == (2e-3, 7)  # what was typed stays
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert not model.choose_start(str(tmp_path / "a.safetensors"))
    assert "no model for volumes" in last_error(model)
    (tmp_path / "a.json").write_text(card("a").to_json())
    assert model.choose_start(str(tmp_path / "a.safetensors"))
    assert model.get("network", "channels") == 4
    assert make(viewer, tmp_path, models=list, start="gone").request().initial is None


def test_settings_are_remembered(viewer, tmp_path):
    model = make(viewer, tmp_path)
    model.set("epochs", value=3)
    model.close()
    assert load_train_settings().config.epochs == 3
    train_settings_path().write_text("{")
    assert load_train_settings() == TrainSettings()


def test_missing_packages_say_what_to_install(viewer, tmp_path, monkeypatch):
    from napari_aprcnn.train import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "monai" else object())
    model = make(viewer, tmp_path)
    assert model.problem.startswith("Training on volumes needs monai, which is not installed")
    assert "napari-aprcnn[train]" in model.problem
    assert not model.start()


# --- a training ------------------------------------------------------------------------------------------------------
def test_a_training_from_start_to_use(viewer, tmp_path):
    model = make(viewer, tmp_path, config=TINY.replace(epochs=3, steps_per_epoch=10))
    image, labels = add_pair(viewer, scale=(0.5, 0.2, 0.2), units="um")
    held = add_pair(viewer, "held", seed=1)
    model.data.add_pair(image, labels)
    model.data.add_pair(*held)
    model.data.hold_back(1, held_back=True)
    assert model.plan_words.startswith("30 steps")
    assert model.start()
    assert not model.start()  # one at a time
    labels.data[:] = 0  # painted over after the start: what is trained on is a copy
    poll(model)
    (child,) = model.children
    assert (model.state, child.request.name) == ("running", "mine")
    written = read_volumes(child.request.labelled)
    assert [item.name for item in written] == ["organoid"]
    assert written[0].labels.max() == 3
    assert [item.name for item in read_volumes(child.request.validation)] == ["held"]
    assert "organoid" in child.request.data_words
    child.say({"kind": "start", "history": []}, step(1), step(10), epoch(1), {"kind": "noise"}, {"kind": "step"})
    poll(model)
    assert model.progress_words == "epoch 2 of 3, step 10 of 30, 20 s left"
    assert model.fraction == pytest.approx(1 / 3)
    assert [e.epoch for e in model.runner.epochs] == [1]
    assert [p.epochs for p in model.runner.points] == [0.1, 1.0]
    child.say(epoch(2), epoch(3))
    child.finish()
    poll(model)
    assert model.state == "ready"
    assert model.runner.weights == tmp_path / "models" / "mine.safetensors"
    assert "has been trained for 3 epochs" in model.problem
    assert not model.use_model()  # no dock is open: the next one takes it
    assert load_settings().config.model.endswith("mine.safetensors")
    elsewhere = SegmentModel(ViewerModel(), launch=lambda f: f())
    elsewhere.set("model", value="fastercellpose-v3")
    assert not model.use_model()  # a dock of another viewer does not count
    assert elsewhere.get("model") == "fastercellpose-v3"
    dock = SegmentModel(PublicOnlyProxy(viewer), launch=lambda f: f())
    dock.set("model", value="fastercellpose-v3")
    assert model.use_model()
    assert dock.get("model").endswith("mine.safetensors")
    dock.close()
    assert not model.use_model()
    model.set("epochs", value=5)
    assert model.resumable  # more epochs go on


def test_stop_then_resume_after_a_restart(viewer, tmp_path):
    config = TINY.replace(epochs=3, steps_per_epoch=10, simulated=0.5)
    model = make(viewer, tmp_path, config=config)
    pair = add_pair(viewer)
    model.data.add_pair(*pair)
    model.start()
    poll(model)
    model.children[0].say({"kind": "start", "history": []}, epoch(1), step(15))
    poll(model)
    model.stop()
    assert model.state == "stopping"
    poll(model)
    assert model.state == "ready"
    assert "epoch 1 of 3 is kept" in model.told[-1][1]
    assert model.resumable
    model.close()

    later = make(viewer, tmp_path, config=config)  # no rows: the data of the interrupted training is there
    assert later.resumable
    assert later.plan_words == "epoch 1 of 3 is done; 20 steps left on the data that it was started with"
    later.set("seed", value=4)
    assert "other parameters" in later.problem
    assert later.blocked
    assert not later.start()
    assert later.take_former()
    assert later.get("seed") == 0
    assert later.resumable
    later.start()
    poll(later)
    (child,) = later.children
    assert child.request.labelled == (tmp_path / "models" / "mine_data",)
    child.say({"kind": "start", "history": [{k: v for k, v in epoch(1).items() if k != "kind"}]})
    poll(later)
    assert [e.epoch for e in later.runner.epochs] == [1]
    later.stop()
    poll(later)
    later.set("seed", value=4)
    assert later.start_afresh()
    assert find_checkpoint(tmp_path / "models" / "mine_run") is None
    assert (tmp_path / "models" / "mine_old" / "mine_run" / "last.ckpt").exists()
    assert not later.problem


def test_a_process_that_does_not_stop_is_ended(viewer, tmp_path, monkeypatch):
    monkeypatch.setattr(train_runner, "STOP_GRACE_S", 0.0)
    model = make(viewer, tmp_path)
    model.start()
    poll(model)
    model.children[0].stubborn = True
    model.stop()
    poll(model)
    assert model.children[0].killed
    assert model.state == "ready"
    assert "nothing of it is kept" in model.told[-1][1]


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ({"kind": "error", "type": "TrainingDataError", "message": "no pairs", "traceback": ""}, 1, "No pairs"),
        ({"kind": "error", "type": "MemoryError", "message": "", "traceback": ""}, 1, "smaller crop"),
        ({"kind": "error", "type": "KeyError", "message": "x", "traceback": "Traceback"}, 1, "child.log"),
        (None, -9, "signal 9"),
        (None, 3, "exit code 3"),
    ],
)
def test_errors_are_told_and_leave_the_dock_ready(viewer, tmp_path, message, code, words):
    model = make(viewer, tmp_path)
    model.start()
    poll(model)
    if message:
        model.children[0].say(message)
    model.children[0].code = code
    poll(model)
    assert words in last_error(model)
    assert model.state == "ready"
    assert model.start()


def test_a_folder_that_cannot_be_written(viewer, tmp_path):
    (tmp_path / "file").write_text("")
    model = make(viewer, tmp_path, folder=str(tmp_path / "file"))
    model.start()
    poll(model)
    assert "cannot" in last_error(model).lower()
    assert model.state == "ready"
    assert model.children == []


def test_closing_stops_the_process(viewer, tmp_path):
    model = make(viewer, tmp_path)
    model.start()
    poll(model)
    model.close()
    assert model.children[0].stopped
    assert not model.pending
    model.close()


# --- the real process ------------------------------------------------------------------------------------------------
def test_a_real_training_is_stopped_goes_on_and_segments(viewer, tmp_path):
    import napari_aprcnn as aprcnn

    config = TINY.replace(epochs=500)
    model = make(viewer, tmp_path, start_child=TrainingProcess, config=config)
    model.data.add_pair(*add_pair(viewer))
    assert model.start()
    wait(model, lambda: len(model.runner.epochs) >= 2)
    assert model.runner.step is not None
    model.stop()
    wait(model, lambda: model.state == "ready", timeout=15)
    done = model.runner.epochs[-1].epoch
    assert not last_error(model), model.told
    assert model.checkpoint.epoch >= done
    assert model.resumable
    model.set("epochs", value=model.checkpoint.epoch + 1)
    assert model.start()
    wait(model, lambda: model.state == "ready")
    assert not last_error(model), model.told
    assert [e.epoch for e in model.runner.epochs] == list(range(1, model.get("epochs") + 1))
    image, _ = nuclei(3)
    result = aprcnn.segment(image, model=str(model.runner.weights))
    assert result.readout.dimensionality == "volume"
    assert read_request(tmp_path / "models" / "mine_run").labelled == (tmp_path / "models" / "mine_data",)


def test_a_real_error_comes_back_with_its_type(viewer, tmp_path):
    model = make(viewer, tmp_path, start_child=TrainingProcess, start="fastercellpose-v3")
    model.settings = model.settings.replace(start="fastercellpose-v3")
    model.start()
    wait(model, lambda: model.state == "ready")
    assert "network for planes" in last_error(model)
    assert model.told[-1][2] is None  # one of ours: a sentence, no traceback


def test_errors_of_the_child_keep_their_type():
    error = train_runner._typed({"kind": "error", "type": "MemoryError"}, None)
    assert isinstance(error, NotEnoughMemoryError)
