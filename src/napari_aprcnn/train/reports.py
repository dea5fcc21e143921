"""What a training on volumes tells while it goes on. No torch here: the dock reads them, too."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EpochReport", "StepReport"]


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What is told of a training every few steps.

    Attributes
    ----------
    step, steps
        Steps done and in all, those before a resume among them.
    epoch, epochs
        The epoch that goes on, counted from 1, and all epochs.
    flow_loss, probability_loss
        Of the last step.
    seconds_per_step, seconds_left
        Wall time, by the pace of the last steps.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    flow_loss: float
    probability_loss: float
    seconds_per_step: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What is told of a training after every epoch.

    Attributes
    ----------
    epoch, epochs
        Epochs done and in all.
    loss, flow_loss, probability_loss
        Means over the epoch.
    validation_loss
        Of the averaged weights; ``None`` without validation images.
    seconds_per_step, seconds_left
        Wall time.
    """

    epoch: int
    epochs: int
    loss: float
    flow_loss: float
    probability_loss: float
    validation_loss: float | None
    seconds_per_step: float
    seconds_left: float
