"""Two trainings of one name never run in the same folder, and a lock that was left behind is no obstacle."""

from __future__ import annotations

import json
import os

import psutil
import pytest
from train_tools import FakeChild, epoch, last_error, make, nuclei

from napari_aprcnn.errors import CancelledError, OutputError, TrainingError
from napari_aprcnn.train.run_lock import RunLock, need_free


def lock_file(folder):
    return folder / "training.lock"


def two_models(tmp_path, **options):
    from napari.components import ViewerModel

    models = []
    for _ in range(2):
        viewer = ViewerModel()
        image, labels = nuclei()
        model = make(viewer, tmp_path, **options)
        model.data.add_pair(viewer.add_image(image, name="o"), viewer.add_labels(labels, name="o labels"))
        models.append(model)
    return models


def test_a_second_training_of_the_name_is_refused_until_the_first_has_ended(tmp_path):
    one, other = two_models(tmp_path)
    assert one.start()
    one.poll()
    assert one.state == "running"
    assert not other.start()
    assert "Mine is being trained right now" in last_error(other)
    assert other.state == "ready"
    assert not other.start_afresh()
    assert "being trained" in last_error(other)
    assert other.set_option(name="another")
    assert other.start()
    other.poll()
    assert other.state == "running"
    one.children[0].say(epoch(1, 1))
    one.children[0].finish()
    one.poll()
    assert one.state == "ready"
    assert not lock_file(one.request().run_dir).exists()
    assert one.start_afresh()


def test_a_training_that_began_at_the_same_moment_is_refused_too(tmp_path):
    one, other = two_models(tmp_path)
    later = []
    other.runner._launch = later.append
    assert other.start()
    assert one.start()
    one.poll()
    later[0]()
    other.poll()
    assert other.state == "ready"
    assert "being trained right now" in last_error(other)
    assert one.state == "running"
    assert lock_file(one.request().run_dir).exists()  # it is still the other's
    assert other.children == []


def test_the_folder_is_free_after_every_end(tmp_path):
    model, other = two_models(tmp_path)
    folder = model.request().run_dir
    model.start()
    model.poll()
    model.stop()
    model.poll()
    need_free(folder, "mine")
    model.start()
    model.poll()
    model.children[-1].code = 1
    model.poll()
    need_free(folder, "mine")
    later = []
    model.runner._launch = later.append
    model.start()
    model.stop()
    later[0]()
    model.poll()
    need_free(folder, "mine")
    model.start()
    model.close()  # before the layers were written
    later[1]()
    need_free(folder, "mine")
    other.start()
    other.poll()
    other.close()  # a stand-in has no process
    need_free(folder, "mine")


def test_the_process_that_trains_keeps_the_lock(tmp_path, sleeper):
    class Child(FakeChild):
        pid = sleeper.pid

    model, other = two_models(tmp_path, start_child=Child)
    model.start()
    model.poll()
    folder = model.request().run_dir
    assert json.loads(lock_file(folder).read_text())["pid"] == sleeper.pid
    model.close()
    assert not other.start()  # it is asked to stop, and has not ended yet
    assert f"process {sleeper.pid}" in last_error(other)
    sleeper.kill()
    sleeper.wait()
    assert other.start()
    other.poll()
    assert other.state == "running"


@pytest.mark.parametrize(
    "note",
    [
        {"pid": 2**22 + 5},  # no process has this number
        {"started": 1.0},  # another process had it
    ],
)
def test_a_lock_that_was_left_behind_is_taken_over(tmp_path, note):
    import platform

    there = {"pid": os.getpid(), "started": psutil.Process().create_time(), "host": platform.node()}
    lock_file(tmp_path).write_text(json.dumps(there))
    with pytest.raises(TrainingError, match="mine is being trained right now"):
        RunLock(tmp_path, "mine").take()
    lock_file(tmp_path).write_text(json.dumps(there | note))
    lock = RunLock(tmp_path, "mine")
    lock.take()
    assert json.loads(lock_file(tmp_path).read_text())["pid"] == os.getpid()
    lock.release()
    assert not tmp_path.exists()  # nothing else was in it


def test_a_lock_of_another_computer_is_told(tmp_path):
    lock_file(tmp_path).write_text(json.dumps({"pid": 1, "started": 1.0, "host": "elsewhere"}))
    with pytest.raises(TrainingError, match=r"on elsewhere.*delete .*training\.lock"):
        need_free(tmp_path, "mine")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '{"pid": "x", "started": 1, "host": ""}'])
def test_a_lock_that_cannot_be_read_holds_while_it_may_be_being_written(tmp_path, text):
    lock_file(tmp_path).write_text(text)
    with pytest.raises(TrainingError, match="being trained"):
        need_free(tmp_path, "mine")
    os.utime(lock_file(tmp_path), (1e9, 1e9))
    need_free(tmp_path, "mine")


def test_a_lock_is_not_taken_once_it_was_released(tmp_path):
    lock = RunLock(tmp_path / "run", "mine")
    lock.release()
    with pytest.raises(CancelledError):
        lock.take()
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        RunLock(tmp_path / "file" / "run", "mine").take()
