"""What the Training dock says of a training before it starts."""

from __future__ import annotations

from napari_aprcnn._napari.train_settings import TrainSettings
from napari_aprcnn.train.volume_request import Checkpoint, TrainRequest

__all__ = ["conflict_words", "plan_words", "time_words"]


def conflict_words(request: TrainRequest, found: Checkpoint | None) -> str:
    """Why a training cannot start under its name, or an empty string.

    Parameters
    ----------
    request
        The training.
    found
        What is there under its name.
    """
    name = request.name
    if found is None:
        exists = request.weights.exists()
        return f"{request.weights} exists already; choose another name, or start afresh." if exists else ""
    if not found.continues(request.config, any_form=request.auto_form):
        return (
            f"A training called {name} is there, with other parameters ({found.epoch} epochs done). Take its "
            "parameters to go on with it, start afresh, or choose another name."
        )
    if found.epoch >= request.config.epochs and request.weights.exists():
        return f"{name} has been trained for {found.epoch} epochs; set more of them to go on, or another name."
    return ""


def plan_words(settings: TrainSettings, *, done: int, labels: bool, stored: bool, pace: float | None) -> str:
    """What a training would do, in one line.

    Parameters
    ----------
    settings
        The state of the dock.
    done
        Epochs that are done already.
    labels
        Whether there are labels to train on.
    stored
        Whether it goes on with data of its own.
    pace
        Seconds of a step of the last training, if there was one.
    """
    config = settings.config
    steps = (config.epochs - done) * config.steps_per_epoch
    if not settings.mix:
        what = "the labels above"
    elif not labels:
        what = "simulated volumes alone"
    else:
        what = f"the labels above, {config.simulated:.0%} simulated"
    if stored:
        what = "the data that it was started with"
    lasts = "" if pace is None else f", about {time_words(steps * pace)}"
    begun = f"epoch {done} of {config.epochs} is done; " if done else ""
    return f"{begun}{max(0, steps)} steps{' left' if done else ''} on {what}{lasts}"


def time_words(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
