"""Commands keep the folder of a run for themselves, beside the dock's trainings."""

from __future__ import annotations

import json
import os
import platform

import psutil
import pytest

from napari_aprcnn.errors import TrainingError
from napari_aprcnn.train import command, distil_command, volume_command
from napari_aprcnn.train.command import train
from napari_aprcnn.train.distil_command import distil
from napari_aprcnn.train.run_lock import training_in
from napari_aprcnn.train.volume_command import train_volumes

from .conftest import TEACHER, distil_settings
from .volume_balls import SIMULATION, training


def lock(folder, pid):
    folder.mkdir(exist_ok=True)
    note = {"pid": pid, "started": psutil.Process(pid).create_time(), "host": platform.node()}
    (folder / "training.lock").write_text(json.dumps(note))


def ways(archive, tmp_path):
    config = distil_settings()
    return {
        "train": lambda: train([archive], output=tmp_path, name="m", config=config.training),
        "distil": lambda: distil(TEACHER, [archive], output=tmp_path, name="m", config=config),
        "volumes": lambda: train_volumes(
            output=tmp_path, name="m", config=training(), simulation=SIMULATION, accelerator="cpu"
        ),
    }


@pytest.mark.parametrize("way", ["train", "distil", "volumes"])
def test_a_folder_where_another_process_trains_is_left_alone(archive, tmp_path, monkeypatch, sleeper, way):
    for module, name in ((command, "fit"), (distil_command, "distil_on"), (volume_command, "fit_volumes")):
        monkeypatch.setattr(module, name, lambda *_a, **_k: pytest.fail("it trained"))
    lock(tmp_path / "m_run", sleeper.pid)
    before = (tmp_path / "m_run" / "training.lock").read_bytes()
    with pytest.raises(TrainingError, match=f"m is being trained right now .process {sleeper.pid}"):
        ways(archive, tmp_path)[way]()
    assert (tmp_path / "m_run" / "training.lock").read_bytes() == before
    assert [p.name for p in (tmp_path / "m_run").iterdir()] == ["training.lock"]


def test_a_training_keeps_its_folder_and_leaves_no_lock(archive, tmp_path, monkeypatch):
    seen = []

    def fit(*_args, run_dir, **_options):
        seen.append(json.loads((run_dir / "training.lock").read_text())["pid"])
        raise RuntimeError("enough")

    monkeypatch.setattr(command, "fit", fit)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="enough"):
            ways(archive, tmp_path)["train"]()
    assert seen == [os.getpid()] * 2
    assert not (tmp_path / "m_run").exists()  # nothing else was in it


@pytest.mark.parametrize("keeper", ["this", "parent"])
def test_what_the_dock_keeps_for_its_process_is_not_taken_away(tmp_path, keeper):
    pid = os.getpid() if keeper == "this" else os.getppid()
    lock(tmp_path, pid)
    with training_in(tmp_path, "m"):
        pass
    assert json.loads((tmp_path / "training.lock").read_text())["pid"] == pid


def test_a_lock_that_was_left_behind_is_taken_over(tmp_path, sleeper):
    lock(tmp_path, sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    with training_in(tmp_path, "m"):
        assert json.loads((tmp_path / "training.lock").read_text())["pid"] == os.getpid()
    assert not tmp_path.exists()


def test_folders_that_were_made_for_it_go_with_it(tmp_path):
    with training_in(tmp_path / "models" / "m_run", "m"):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "models").mkdir()
    with training_in(tmp_path / "models" / "m_run", "m"):
        (tmp_path / "models" / "m.json").write_text("{}")
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["m.json"]
