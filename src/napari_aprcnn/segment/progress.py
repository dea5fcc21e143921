"""What a run tells while it works: how far it is, what it has already found, and whether it should stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_aprcnn.errors import CancelledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PartialLabels", "Progress", "Reporter"]

# The part of the bar before the amount of work is known (percentiles, diameter).
PREPARATION = 0.05


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    stage
        What is done now: ``reading``, ``diameter``, ``network``, ``masks``, ``done``.
    done, total
        Finished and planned steps of this stage.
    seconds_left
        Estimate for the whole run, in seconds; ``None`` while there is nothing to base it on.
    fraction
        Share of the whole run, 0..1; it never goes back.
    message
        The same in words: ``tile 5 of 12, 6 s left``.
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None
    fraction: float
    message: str


@dataclass(frozen=True)
class PartialLabels:
    """Labels that a run has found so far in a part of the image.

    Attributes
    ----------
    region
        Where the part lies in the labels of the result.
    labels : uint32
        The labels of that part, with the axes of the result.
    final
        The part will not change any more. Provisional labels are cut at tile borders and have other numbers than
        the final ones.
    """

    region: tuple[slice, ...]
    labels: NDArray[Any]
    final: bool = False


class Reporter:
    """Adapts a run's steps to the caller's callables, and times its stages.

    Work is counted in expected seconds, so that a fraction of the work is a fraction of the time.

    Parameters
    ----------
    progress, should_cancel
        The caller's callables.

    Examples
    --------
    >>> seen = []
    >>> reporter = Reporter(seen.append)
    >>> reporter.plan(10.0)
    >>> reporter.advance("network", 5.0, done=1, total=2, what="tile 1 of 2")
    >>> round(seen[-1].fraction, 3)
    0.525
    """

    def __init__(
        self,
        progress: Callable[[Progress], Any] | None = None,
        should_cancel: Callable[[], bool] | None = None,
    ) -> None:
        self._progress = progress
        self.should_cancel: Callable[[], bool] = should_cancel or (lambda: False)
        self.seconds: dict[str, float] = {}
        self._work = 0.0
        self._done = 0.0
        self._since = time.perf_counter()
        self._fraction = 0.0

    def check(self) -> None:
        """Stop here if the caller wants it.

        Raises
        ------
        CancelledError
            If ``should_cancel`` says so.
        """
        if self.should_cancel():
            raise CancelledError("cancelled: the run was stopped on request and nothing was written")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage `name`; a stage inside another is taken from the outer one."""
        self.check()
        start, others = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            inner = sum(self.seconds.values()) - others
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start - inner

    def plan(self, work: float) -> None:
        """Say how much work (expected seconds) follows."""
        self._work, self._done, self._since = max(work, 1e-9), 0.0, time.perf_counter()

    def advance(self, stage: str, work: float, *, done: int, total: int, what: str) -> None:
        """Report a finished step and look for a cancel.

        Parameters
        ----------
        stage
            Name of the stage.
        work
            Expected seconds of the step that was finished.
        done, total
            Steps of this stage.
        what
            The step in words.
        """
        self.check()
        self._done += work
        if self._work:
            share = min(self._done / self._work, 1.0)
            fraction = PREPARATION + (1.0 - PREPARATION) * share
        else:
            share, fraction = 0.0, PREPARATION * done / max(total, 1)
        self._tell(stage, done, total, share, fraction, what)

    def finish(self) -> None:
        """Report the end."""
        self._tell("done", 1, 1, 1.0, 1.0, "done")

    def _tell(self, stage: str, done: int, total: int, share: float, fraction: float, what: str) -> None:
        if self._progress is None:
            return
        self._fraction = max(self._fraction, min(fraction, 1.0))
        elapsed = time.perf_counter() - self._since
        left = elapsed * (1.0 - share) / share if share > 0.02 else None
        message = what if left is None or stage == "done" else f"{what}, {_words(left)} left"
        self._progress(Progress(stage, done, total, left, self._fraction, message))


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
