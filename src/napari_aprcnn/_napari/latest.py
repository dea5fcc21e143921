"""Questions that come faster than they can be answered: only the newest counts, and only when there is a pause."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from napari_aprcnn._napari.jobs import Job, Outcome

__all__ = ["Latest"]

Question = Callable[[Callable[[], bool]], Any]


class Latest:
    """Answers the newest of a stream of questions (a slider that is dragged), one at a time, in another thread.

    A new question cancels the one in work, and starts when nothing newer has come for a while. GUI thread only.

    Parameters
    ----------
    launch
        Runs a callable in another thread.
    answered
        Gets the `Outcome` of a question that no newer one has replaced.
    delay_s
        Pause that a question waits for, in seconds.

    Examples
    --------
    >>> answers = []
    >>> latest = Latest(lambda job: job(), lambda outcome: answers.append(outcome.value), delay_s=0.0)
    >>> latest.ask(lambda should_cancel: 1)
    >>> latest.ask(lambda should_cancel: 2)
    >>> while latest.pending:
    ...     latest.poll()
    >>> answers
    [2]
    """

    def __init__(
        self, launch: Callable[[Callable[[], None]], Any], answered: Callable[[Outcome], None], *, delay_s: float
    ) -> None:
        self._launch = launch
        self._answered = answered
        self._delay_s = delay_s
        self._due = 0.0
        self._next: Question | None = None
        self._job: Job | None = None

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._next is not None or self._job is not None

    def ask(self, question: Question) -> None:
        """Ask; the question gets a callable that says whether it is outdated."""
        self.forget()
        self._next, self._due = question, time.perf_counter() + self._delay_s

    def forget(self) -> None:
        """Drop what was asked; the work on it is told to stop."""
        self._next = None
        if self._job is not None:
            self._job.cancel()

    def poll(self) -> None:
        """Start what is due and hand out what is ready."""
        job = self._job
        if job is not None and job.outcome is not None:
            self._job = None
            if not (job.cancelled or job.outcome.cancelled):
                self._answered(job.outcome)
        # One at a time: the outdated one is left to notice that it is.
        if self._job is None and self._next is not None and time.perf_counter() >= self._due:
            question, self._next = self._next, None
            started = Job(lambda: question(lambda: started.cancelled))
            self._job = started
            self._launch(started.run)
