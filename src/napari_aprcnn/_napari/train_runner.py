"""One training at a time: its data written, its process watched, its curves kept. GUI thread, but no Qt."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from psygnal import Signal

from napari_aprcnn import errors
from napari_aprcnn._napari.jobs import Job, Outcome
from napari_aprcnn._napari.train_sources import Snapshot, write_pairs
from napari_aprcnn.train.reports import EpochReport, StepReport
from napari_aprcnn.train.run_lock import RunLock
from napari_aprcnn.train.volume_request import TrainRequest

__all__ = ["Child", "StepPoint", "TrainRunner", "TrainState"]

logger = logging.getLogger(__name__)

TrainState = Literal["ready", "writing", "running", "stopping"]
# Stop is to be felt at once: a step that takes longer is not waited for. Nothing is lost, checkpoints are renamed.
STOP_GRACE_S = 3.0
_STEPS_KEPT = 5000


class Child(Protocol):
    """A training in a process of its own, as `train.process.TrainingProcess`."""

    def take(self) -> list[dict[str, Any]]:
        """Return the messages since the last call."""

    def ended(self) -> int | None:
        """Return the exit code once it has ended."""

    def stop(self) -> None:
        """Ask it to stop."""

    def kill(self) -> None:
        """End it."""


class StepPoint(NamedTuple):
    """A point of the curve inside an epoch: epochs done as a fraction, and the two losses of one step."""

    epochs: float
    flow_loss: float
    probability_loss: float


class TrainRunner:
    """Starts trainings, follows and stops them.

    Parameters
    ----------
    launch
        Runs a callable in another thread.
    start_child
        Starts the process for the folder of a run.

    Attributes
    ----------
    state
        ``ready``, ``writing`` (the layers are written), ``running``, ``stopping``.
    step, epochs, points
        The last report of a step, the reports of all epochs, and the curve inside epochs.
    weights
        What the last training made, else ``None``.
    changed : Signal(str)
        ``state``, ``progress``, ``epochs``, ``pending``.
    notified : Signal(str, str, object)
        Severity, sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(self, *, launch: Callable[[Callable[[], None]], Any], start_child: Callable[[Path], Child]) -> None:
        self._launch, self._start_child = launch, start_child
        self.state: TrainState = "ready"
        self.request: TrainRequest | None = None
        self.step: StepReport | None = None
        self.epochs: list[EpochReport] = []
        self.points: deque[StepPoint] = deque(maxlen=_STEPS_KEPT)
        self.weights: Path | None = None
        self._job: Job | None = None
        self._child: Child | None = None
        self._lock: RunLock | None = None
        self._last: dict[str, Any] | None = None
        self._stop_by = 0.0

    @property
    def busy(self) -> bool:
        """Whether a training goes on."""
        return self.state != "ready"

    def start(self, request: TrainRequest, trained: Sequence[Snapshot], held_back: Sequence[Snapshot]) -> None:
        """Write what is trained on, then start, or go on with, a training.

        Parameters
        ----------
        request
            The training; the written pairs are added to its data.
        trained, held_back
            Pairs of layers to train on, and to look at after every epoch.
        """
        self.request, self.step, self.weights, self._last = request, None, None, None
        self.epochs, self.points = [], deque(maxlen=_STEPS_KEPT)
        lock = self._lock = RunLock(request.run_dir, request.name)
        self._job = Job(lambda: _prepare(request, trained, held_back, lock))
        self._change("writing")
        self._launch(self._job.run)
        self.changed.emit("pending")

    def stop(self) -> None:
        """Stop the training; the checkpoint of the last whole epoch stays."""
        if self.state == "writing" and self._job is not None:
            self._job.cancel()
            self._change("stopping")
        elif self.state == "running" and self._child is not None:
            self._child.stop()
            self._stop_by = time.monotonic() + STOP_GRACE_S
            self._change("stopping")

    def close(self) -> None:
        """Ask the training to stop and forget it; the process ends by itself."""
        if self._job is not None:
            self._job.cancel()
        if self._child is not None:
            self._child.stop()
        if self._child is None or _pid(self._child) is None:
            self._unlock()
        self._job, self._child, self.state = None, None, "ready"

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def poll(self) -> None:
        """Take what the thread and the process have ready; about ten times a second."""
        job = self._job
        if job is not None and job.outcome is not None:
            self._job = None
            self._prepared(job.outcome)
        child = self._child
        if child is None:
            return
        code = child.ended()  # before its messages are taken, or the last might be missed
        for message in child.take():
            self._hear(message)
        if code is not None:
            self._child = None
            self._unlock()
            self._end(code)
        elif self.state == "stopping" and time.monotonic() > self._stop_by:
            child.kill()

    # --- the steps of a training -------------------------------------------------------------------------------------

    def _prepared(self, outcome: Outcome) -> None:
        if outcome.error is not None or outcome.cancelled or self.state == "stopping":
            self._unlock()
        if outcome.error is not None:
            self._change("ready")
            self._tell_error(outcome.error)
        elif outcome.cancelled or self.state == "stopping":
            self._change("ready")
            self.notified.emit("info", "the training was stopped before it began", None)
        else:
            self.request = outcome.value
            try:
                self._child = self._start_child(outcome.value.run_dir)
            except errors.AprcnnError as error:
                self._unlock()
                self._change("ready")
                self._tell_error(error)
            else:
                if self._lock is not None:
                    self._lock.pass_to(_pid(self._child))
                self._change("running")

    def _hear(self, message: dict[str, Any]) -> None:
        values = {name: value for name, value in message.items() if name != "kind"}
        kind = message["kind"]
        try:
            if kind == "step":
                self.step = StepReport(**values)
                self._add_point(self.step)
                self.changed.emit("progress")
            elif kind == "epoch":
                self.epochs.append(EpochReport(**values))
                self.changed.emit("epochs")
            elif kind == "start":
                self.epochs = [EpochReport(**line) for line in values["history"]]
                self.changed.emit("epochs")
            elif kind == "form":
                self.notified.emit("info", f"the fastest form of this network on these images: {values['form']}", None)
            elif kind in ("done", "cancelled", "error"):
                self._last = message
            else:
                logger.warning("the training said what is no report: %r", message)
        except (TypeError, KeyError):
            logger.warning("the training said what is no report: %r", message)

    def _add_point(self, step: StepReport) -> None:
        per_epoch = max(1, step.steps // max(1, step.epochs))
        self.points.append(StepPoint(step.step / per_epoch, step.flow_loss, step.probability_loss))

    def _end(self, code: int) -> None:
        last, stopping = self._last or {}, self.state == "stopping"
        self._change("ready")
        request = self.request
        if last.get("kind") == "done":
            self.weights = Path(last["weights"])
            self.notified.emit("info", f"the model is trained: {self.weights}", None)
            self._change("ready")  # now with a model to use
        elif last.get("kind") == "error":
            self._tell_error(_typed(last, request))
        elif stopping or last.get("kind") == "cancelled":
            self.notified.emit("info", f"the training was stopped; {self.kept_words}", None)
        else:
            self._tell_error(_crashed(code, request, self.kept_words))

    @property
    def kept_words(self) -> str:
        """What of the training is kept."""
        if not self.epochs:
            return "its first epoch was not whole, so nothing of it is kept"
        return f"epoch {self.epochs[-1].epoch} of {self.epochs[-1].epochs} is kept: Resume goes on from there"

    def _tell_error(self, error: Exception) -> None:
        if isinstance(error, errors.AprcnnError):
            text = str(error)
            self.notified.emit("error", text[:1].upper() + text[1:], None)
        else:
            logger.error("the training failed unexpectedly", exc_info=error)
            self.notified.emit("error", f"{type(error).__name__}: {error}", error)

    def _change(self, state: TrainState) -> None:
        self.state = state
        self.changed.emit("state")


def _pid(child: Child) -> int | None:
    return getattr(child, "pid", None)


def _prepare(
    request: TrainRequest, trained: Sequence[Snapshot], held_back: Sequence[Snapshot], lock: RunLock
) -> TrainRequest:
    lock.take()  # also makes the folder of the run
    changes: dict[str, Any] = {}
    for pairs, ending, field in ((trained, "data", "labelled"), (held_back, "check", "validation")):
        if pairs:
            written = write_pairs(pairs, request.output / f"{request.name}_{ending}")
            changes[field] = (*getattr(request, field), written)
    request = request.replace(**changes)
    request.write()
    return request


def _typed(message: dict[str, Any], request: TrainRequest | None) -> Exception:
    """Make the child's error one of ours again."""
    words = str(message.get("message", ""))
    kind = getattr(errors, str(message.get("type")), None)
    if isinstance(kind, type) and issubclass(kind, errors.AprcnnError):
        return kind(words)
    if message.get("type") == "MemoryError":
        return errors.NotEnoughMemoryError("the memory was not enough for this training; choose a smaller crop")
    trace = str(message.get("traceback", ""))
    logger.error("the training failed unexpectedly:\n%s", trace)
    where = "" if request is None else f"; what it wrote last is in {request.run_dir / 'child.log'}"
    return RuntimeError(f"the training failed with {message.get('type')}: {words}{where}")


def _crashed(code: int, request: TrainRequest | None, kept: str) -> Exception:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    hint = "; the system may have wanted its memory: choose a smaller crop" if code == -9 else ""
    log = "" if request is None else f" What it wrote last is in {request.run_dir / 'child.log'}."
    return errors.TrainingError(f"the training ended without a word ({how}){hint}; {kept}.{log}")
