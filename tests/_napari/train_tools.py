"""A Training model driven by hand, a stand-in for the process, and a small volume with its labels."""

from __future__ import annotations

import json
import time

import numpy as np
from scipy import ndimage

from napari_aprcnn._napari.train_model import TrainModel
from napari_aprcnn._napari.train_settings import TrainSettings
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.train.volume_request import LAST, note_checkpoint, read_request
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

NET = VolumeNetConfig(channels=2, depth=2, head="flows", in_channels=2)
# Seconds: two steps on crops of a few nuclei, made in the process itself.
TINY = VolumeTrainConfig(
    network=NET, epochs=1, steps_per_epoch=2, crop=(12, 24, 24), simulated=0.0, workers=0, elastic=0.0, warmup_steps=0
)


def nuclei(seed: int = 0, shape=(16, 40, 40)):
    """Three balls in noise, and their labels."""
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for i, (cz, cy, cx) in enumerate([(6, 10, 10), (9, 28, 24), (8, 12, 32)], 1):
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 36] = i
    rng = np.random.default_rng(seed)
    image = 100 + 400 * ndimage.gaussian_filter((labels > 0).astype(float), 1) + rng.normal(0, 10, shape)
    return image.astype(np.uint16), labels


def step(number: int, epochs: int = 3, per_epoch: int = 10) -> dict:
    return {
        "kind": "step", "step": number, "steps": epochs * per_epoch, "epoch": number // per_epoch + 1, "epochs": epochs,
        "flow_loss": 2.0, "probability_loss": 0.5, "seconds_per_step": 1.0,
        "seconds_left": float(epochs * per_epoch - number),
    }  # fmt: skip


def epoch(number: int, epochs: int = 3) -> dict:
    return {
        "kind": "epoch", "epoch": number, "epochs": epochs, "loss": 2.5 / number, "flow_loss": 2.0 / number,
        "probability_loss": 0.5 / number, "validation_loss": 2.6 / number, "seconds_per_step": 1.0,
        "seconds_left": 10.0 * (epochs - number),
    }  # fmt: skip


class FakeChild:
    """Says what it is told to say, ends when it is told to; writes the checkpoints of its epochs."""

    started: list[FakeChild]

    def __init__(self, run_dir) -> None:
        self.run_dir, self.request = run_dir, read_request(run_dir)
        self.messages, self.code, self.stopped, self.killed = [], None, False, False
        self.stubborn = False

    def say(self, *messages: dict) -> None:
        for message in messages:
            if message["kind"] == "epoch":
                (self.run_dir / LAST).write_bytes(b"checkpoint")
                note_checkpoint(self.run_dir, message["epoch"], self.request.config)
            self.messages.append(json.loads(json.dumps(message)))

    def finish(self) -> None:
        self.request.weights.write_bytes(b"weights")
        self.say({"kind": "done", "weights": str(self.request.weights)})
        self.code = 0

    def take(self):
        found, self.messages = self.messages, []
        return found

    def ended(self):
        return self.code

    def stop(self) -> None:
        self.stopped = True
        if not self.stubborn:
            self.say({"kind": "cancelled", "message": "cancelled"})
            self.code = 130

    def kill(self) -> None:
        self.killed, self.code = True, -9


def make(viewer, tmp_path, *, start_child=None, models=list, **changes):
    """A model with a stand-in process; its children are in `model.children`."""
    children = []

    def start(run_dir):
        children.append(FakeChild(run_dir))
        return children[-1]

    values = {"config": TINY, "start": "", "mix": True, "folder": str(tmp_path / "models"), "name": "mine"}
    settings = TrainSettings(**{**values, **changes})
    model = TrainModel(viewer, launch=lambda f: f(), start_child=start_child or start, models=models, settings=settings)
    model.children, model.told = children, []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence, error)))
    return model


def wait(model, condition, *, timeout=120):
    until = time.time() + timeout
    while not condition():
        assert time.time() < until, f"waited in vain: {model.told}"
        model.poll()
        time.sleep(0.02)


def last_error(model):
    errors = [sentence for severity, sentence, _ in model.told if severity == "error"]
    return errors[-1] if errors else ""
