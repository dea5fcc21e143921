"""A training in a process of its own: its messages, and every way in which it is stopped and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from scipy import ndimage

pytest.importorskip("lightning", reason="lightning is not installed: pip install 'napari-aprcnn[train]'")

from napari_aprcnn.errors import CancelledError, ConfigError, MissingDependencyError, TrainingError
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.train import extras
from napari_aprcnn.train.child import HISTORY, run_request
from napari_aprcnn.train.process import TrainingProcess
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.volume_request import TrainRequest, find_checkpoint, read_request, set_aside
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

NET = VolumeNetConfig(channels=2, depth=2, head="flows", in_channels=2)
TINY = VolumeTrainConfig(
    network=NET, epochs=1, steps_per_epoch=2, crop=(12, 24, 24), simulated=0.0, workers=0, elastic=0.0, warmup_steps=0
)


@pytest.fixture
def request_of(tmp_path):
    """Make a request on one small labelled volume."""
    z, y, x = np.indices((14, 32, 32))
    labels = ((z - 7) ** 2 + (y - 14) ** 2 + (x - 15) ** 2 < 36).astype(np.uint8)
    image = 100 + 400 * ndimage.gaussian_filter(labels.astype(float), 1)
    for part, array in (("images", image.astype(np.uint16)), ("labels", labels)):
        (tmp_path / "set" / part).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "set" / part / "ball.tif", array)

    def make(**changes):
        config = TINY.replace(**changes)
        request = TrainRequest(output=tmp_path / "out", name="ball", config=config, labelled=(tmp_path / "set",))
        request.run_dir.mkdir(parents=True, exist_ok=True)
        request.write()
        return request

    return make


def wait_for(process, kind, *, timeout=90):
    found, until = [], time.monotonic() + timeout
    while not any(message["kind"] == kind for message in found):
        assert time.monotonic() < until, found
        assert process.ended() is None or process.take(), (process.ended(), process.log.read_text())
        found += process.take()
        time.sleep(0.02)
    return found


def wait_for_end(process, *, timeout=30):
    until = time.monotonic() + timeout
    while process.ended() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return process.ended()


# --- in this process -------------------------------------------------------------------------------------------------
def test_messages_of_a_training_and_of_its_continuation(request_of):
    told = []
    run_request(request_of(epochs=2, steps_per_epoch=11), told.append, lambda: False)
    kinds = [message["kind"] for message in told]
    assert kinds == ["start", "step", "step", "epoch", "step", "epoch", "done"]
    steps = [message for message in told if message["kind"] == "step"]
    assert [(s["step"], s["steps"], s["epoch"]) for s in steps] == [(1, 22, 1), (10, 22, 1), (20, 22, 2)]
    assert all(np.isfinite(s["flow_loss"]) and s["seconds_left"] > 0 for s in steps)
    request = request_of(epochs=3, steps_per_epoch=11)
    assert find_checkpoint(request.run_dir).epoch == 2
    assert find_checkpoint(request.run_dir).continues(request.config)
    assert not find_checkpoint(request.run_dir).continues(request.config.replace(seed=1))
    more = []
    run_request(request, more.append, lambda: False)
    assert [line["epoch"] for line in more[0]["history"]] == [1, 2]
    assert [message["epoch"] for message in more if message["kind"] == "epoch"] == [3]
    (request.run_dir / HISTORY).write_text('{"epoch": 1}\n{"epo')  # cut by a crash: the curve is lost, nothing else
    last = []
    run_request(request, last.append, lambda: False)
    assert last[0]["history"] == []
    assert last[-1]["kind"] == "done"


def test_the_fastest_form_is_found_once(request_of):
    """Told before the first epoch, written into the checkpoint, and kept when the training goes on."""
    request = request_of().replace(auto_form=True)
    told: list[dict] = []
    run_request(request, told.append, lambda: False)
    form = next(message["form"] for message in told if message["kind"] == "form")
    found = find_checkpoint(request.run_dir)
    assert found.config.network.form == form
    assert found.continues(request.config, any_form=True)
    other = request.config.network.replace(particle_stages=0 if form != "pixel" else 1)
    again = request.replace(config=request.config.replace(network=other, epochs=request.config.epochs + 1))
    told.clear()
    run_request(again, told.append, lambda: False)
    assert next(message["form"] for message in told if message["kind"] == "form") == form
    assert find_checkpoint(request.run_dir).epoch == again.config.epochs


def test_a_loss_that_is_no_number_ends_the_training(request_of):
    request = request_of(epochs=50, learning_rate=1.0, clip_norm=1e30)
    from napari_aprcnn.train.volume_fit import VolumeTask

    before = VolumeTask.losses
    try:
        VolumeTask.losses = lambda self, net, crops: tuple(loss * np.nan for loss in before(self, net, crops))
        with pytest.raises(TrainingError, match="lower the learning rate"):
            run_request(request, lambda _: None, lambda: False)
    finally:
        VolumeTask.losses = before
    assert find_checkpoint(request.run_dir) is None


def test_cancelled_in_its_first_epoch(request_of):
    with pytest.raises(CancelledError, match="go on"):
        run_request(request_of(), lambda _: None, lambda: True)


def test_requests_are_kept_and_checked(request_of, tmp_path):
    request = request_of(epochs=5)
    assert read_request(request.run_dir) == request
    (request.run_dir / "request.json").write_text("{")
    with pytest.raises(ConfigError, match="request"):
        read_request(request.run_dir)
    for name in ("", "../up", "a/b", "-x", "." * 3):
        with pytest.raises(ConfigError):
            TrainRequest(output=tmp_path, name=name)
    request.weights.write_bytes(b"")
    assert [set_aside(request).name, set_aside(request).name] == ["ball_old", "ball_old_2"]
    assert not request.run_dir.exists()
    assert (tmp_path / "out" / "ball_old" / "ball.safetensors").exists()


def test_missing_packages(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"lightning and monai and tensorboard.*napari-aprcnn\[train\]"):
        extras.need_extras()


def test_the_first_signal_is_answered_where_somebody_listens(capsys):
    for aloud in (False, True):
        with stop_on_signals(aloud=aloud):
            signal.raise_signal(signal.SIGINT)
        assert ("press Ctrl-C again" in capsys.readouterr().err) is aloud


def test_signals_are_a_wish_first():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


# --- in a process of its own -----------------------------------------------------------------------------------------
def test_a_crash_loses_only_the_epoch_in_work(request_of):
    request = request_of(epochs=1000)
    process = TrainingProcess(request.run_dir)
    wait_for(process, "epoch")
    process.kill()
    assert wait_for_end(process) != 0
    done = find_checkpoint(request.run_dir).epoch
    assert done >= 1
    shorter = TrainingProcess(request_of(epochs=done + 1).run_dir)
    wait_for(shorter, "done")
    assert wait_for_end(shorter) == 0
    assert "Fatal" not in shorter.log.read_text()
    again = TrainingProcess(request_of(epochs=1000).run_dir)
    start = next(message for message in wait_for(again, "epoch") if message["kind"] == "start")
    assert len(start["history"]) in (done, done + 1)
    again.stop()
    assert wait_for_end(again) == 130
    assert again.take()[-1]["kind"] == "cancelled"
    assert not (request.run_dir / "last.part").exists()


def test_the_child_stops_when_its_parent_is_gone(request_of):
    request = request_of(epochs=1000)
    command = [sys.executable, "-m", "napari_aprcnn.train.child", "--watch", str(request.run_dir)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        kinds = [json.loads(process.stdout.readline())["kind"] for _ in range(4)]  # nothing but messages
        assert kinds[:3] == ["start", "step", "epoch"]
        process.stdin.close()
        process.stdout.read()
        assert process.wait(30) == 130
    finally:
        process.kill()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_the_command_is_cancelled_cleanly(request_of, tmp_path):
    request_of()
    words = "--name ball --channels 2 --depth 2 --epochs 1000 --steps 2 --crop 12 24 24 --simulated 0"
    command = [sys.executable, "-m", "napari_aprcnn.cli", "train-volumes", str(tmp_path / "set"), *words.split()]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    try:
        while not process.stderr.readline().startswith("epoch 1/1000"):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert "run it again to go on" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "out" / "ball_run" / "last.ckpt").exists()


def test_the_child_tells_its_own_errors(tmp_path):
    lines = subprocess.run(
        [sys.executable, "-m", "napari_aprcnn.train.child", str(tmp_path)], capture_output=True, text=True, check=False
    )
    message = json.loads(lines.stdout)
    assert (message["kind"], message["type"], lines.returncode) == ("error", "ConfigError", 1)
