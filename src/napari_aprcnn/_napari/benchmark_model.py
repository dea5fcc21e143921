"""The Benchmark dock without its widgets: the runs that were made, their comparison, the measuring of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal

from napari_aprcnn._napari.jobs import Job, Outcome
from napari_aprcnn._napari.run_records import events
from napari_aprcnn.bench.run_log import METRICS, RunLog, RunRecord, markdown, write_runs
from napari_aprcnn.errors import AprcnnError, OutputError

if TYPE_CHECKING:
    from napari_aprcnn.segment.speeds import MachineSpeeds

__all__ = ["Bar", "BenchmarkModel"]

BARS = 12
LEAST_SHARE = 0.01
State = Literal["ready", "measuring", "cancelling"]
Bar = tuple[str, list[tuple[str, float]]]
"""Words of a run, and the parts of its bar: name and length."""


def _calibrate(**options: Any) -> MachineSpeeds:
    from napari_aprcnn.segment.calibrate import calibrate
    from napari_aprcnn.segment.speeds import save_speeds

    measured = calibrate(**options)
    save_speeds(measured)
    return measured


def _current() -> MachineSpeeds:
    from napari_aprcnn.segment.speeds import speeds

    return speeds()


class BenchmarkModel:
    """State and actions of the Benchmark dock.

    Parameters
    ----------
    launch
        Runs a callable in another thread; tests call it in place.
    log
        Where the runs are; ``None``: the user's.
    calibrate
        ``calibrate(progress=, should_cancel=) -> MachineSpeeds``, which also keeps them.
    current
        ``current() -> MachineSpeeds``: those in use.

    Attributes
    ----------
    records
        The runs, the newest first.
    selected
        Keys of the runs that are compared; none: the newest ones.
    metric
        What the bars show, a name in `METRICS`.
    state
        ``ready``, ``measuring`` or ``cancelling``.
    share, doing
        How far the measuring is, 0..1, and at what.
    changed : Signal(str)
        ``runs``, ``selection``, ``metric``, ``state``, ``progress``, ``speeds``, ``pending``.
    notified : Signal(str, str, object)
        Severity, sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(
        self,
        *,
        launch: Callable[[Callable[[], None]], Any],
        log: RunLog | None = None,
        calibrate: Callable[..., MachineSpeeds] = _calibrate,
        current: Callable[[], MachineSpeeds] = _current,
    ) -> None:
        self.log = log or RunLog()
        self.records: list[RunRecord] = []
        self.selected: tuple[str, ...] = ()
        self.metric = "seconds"
        self.state: State = "ready"
        self.share, self.doing = 0.0, ""
        self._launch, self._calibrate, self._current = launch, calibrate, current
        self._job: Job | None = None
        self._told: tuple[float, str] | None = None
        self._closed = False
        events.noted.connect(self.reload)
        self.reload()

    # --- runs --------------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the runs again."""
        self.records = self.log.records()[::-1]
        known = {record.key for record in self.records}
        self.selected = tuple(key for key in self.selected if key in known)
        self.changed.emit("runs")

    @property
    def shown(self) -> list[RunRecord]:
        """The runs that are compared: the selected ones, or the newest."""
        if not self.selected:
            return self.records[:BARS]
        return [record for record in self.records if record.key in self.selected]

    def select(self, keys: Iterable[str]) -> None:
        """Compare these runs; none: the newest ones."""
        chosen = tuple(keys)
        if chosen != self.selected:
            self.selected = chosen
            self.changed.emit("selection")

    def set_metric(self, metric: str) -> None:
        """Choose what the bars show."""
        if metric not in METRICS:
            raise ValueError(f"got the metric {metric!r}, expected one of {', '.join(METRICS)}")
        if metric != self.metric:
            self.metric = metric
            self.changed.emit("metric")

    def bars(self) -> list[Bar]:
        """Return the bars: of the time one part a stage, else a single part. Runs without the figure are left out."""
        bars: list[Bar] = []
        for record in self.shown[:BARS]:
            words = f"{record.readout.model}, {record.image}"
            if self.metric == "seconds":
                least = LEAST_SHARE * record.readout.seconds  # parts that nobody could see only fill the legend
                stages = [(name, seconds) for name, seconds in record.readout.stages.items() if seconds > least]
                rest = record.readout.seconds - sum(seconds for _, seconds in stages)
                bars.append((words, [*stages, ("other", rest)] if rest > 0 else stages))
                continue
            value = record.value(self.metric)
            if value is not None:
                bars.append((words, [("", value)]))
        return bars

    def words(self) -> str:
        """Say what is shown, or what to do where there is nothing."""
        if not self.records:
            return "No run yet: segment an image, and its time, speed and memory appear here."
        if self.metric == "f1" and not self.bars():
            return "No F1 yet: evaluate the labels of a run in the Evaluate dock."
        if self.metric == "prr" and not self.bars():
            return "No particles yet: only models for volumes work on particles."
        n = len(self.shown)
        return f"{n} of {len(self.records)} runs" if n < len(self.records) else f"{n} run{'s' if n > 1 else ''}"

    def markdown(self) -> str:
        """Return the compared runs as a Markdown table."""
        return markdown(self.shown)

    def save(self, path: Path | str) -> bool:
        """Write the compared runs as JSON (or Markdown for ``.md``); whether it worked."""
        try:
            write_runs(self.shown, path)
        except OutputError as error:
            self.notified.emit("error", str(error), None)
            return False
        self.notified.emit("info", f"{len(self.shown)} runs are in {path}", None)
        return True

    def remove_selected(self) -> None:
        """Forget the selected runs."""
        if not self.selected:
            self.notified.emit("error", "no run is selected; select runs in the table first", None)
            return
        try:
            self.log.remove(self.selected)
        except OutputError as error:
            self.notified.emit("error", str(error), None)
        events.noted.emit()

    # --- this machine ------------------------------------------------------------------------------------------------

    @property
    def speeds_words(self) -> str:
        """Say what estimates are based on."""
        found = self._current()
        if not found.created:
            return "Estimates are for a typical machine with two threads: measure this one (about 20 s)."
        when = datetime.fromisoformat(found.created).astimezone()
        speed = ", ".join(f"{name} {1e-6 / s:.1f}" for name, s in found.network_s_per_px.items() if s > 0)
        busy = " Other programs were busy then: measure again when they are done." if found.busy else ""
        return f"Measured {when:%d %b %Y, %H:%M}, {found.threads} threads. Million pixels/s: {speed}.{busy}"

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._job is not None

    def calibrate(self) -> None:
        """Measure this machine in another thread; estimates use it from then on."""
        if self.state != "ready":
            return
        self.share, self.doing = 0.0, "starting"
        job = Job(lambda: self._calibrate(progress=self._tell, should_cancel=lambda: job.cancelled))
        self._job = job
        self._set_state("measuring")
        self._launch(job.run)
        self.changed.emit("pending")

    def _tell(self, share: float, words: str) -> None:
        self._told = (share, words)  # from the worker thread; taken by `poll`

    def cancel(self) -> None:
        """Ask the measuring to stop; the last calibration stays."""
        if self._job is not None and self.state == "measuring":
            self._job.cancel()
            self._set_state("cancelling")

    def _set_state(self, state: State) -> None:
        self.state = state
        self.changed.emit("state")

    def poll(self) -> None:
        """Take what the thread has ready; call it on the GUI thread."""
        job = self._job
        if job is None:
            return
        outcome = job.outcome
        if self._told is not None:
            (self.share, self.doing), self._told = self._told, None
            self.changed.emit("progress")
        if outcome is not None:
            self._job = None
            self._set_state("ready")
            self._ended(outcome)

    def _ended(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            expected = isinstance(outcome.error, AprcnnError)
            self.notified.emit("error", str(outcome.error), None if expected else outcome.error)
        elif not outcome.cancelled:
            self.changed.emit("speeds")
            events.calibrated.emit()

    def close(self) -> None:
        """Stop listening and measuring."""
        if self._closed:
            return
        self._closed = True
        if self._job is not None:
            self._job.cancel()
        self._job = None
        events.noted.disconnect(self.reload, missing_ok=True)
