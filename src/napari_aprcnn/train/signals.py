"""Ctrl-C and SIGTERM as a wish to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(*, aloud: bool = False) -> Iterator[threading.Event]:
    """Give an event that the first SIGINT or SIGTERM sets; a second one raises KeyboardInterrupt.

    Signals belong to the main thread: in another one nothing is caught.

    Parameters
    ----------
    aloud
        Whether the first one is answered on stderr, for whoever pressed Ctrl-C.

    Examples
    --------
    >>> with stop_on_signals() as stop:
    ...     stop.is_set()
    False
    """
    stop = threading.Event()

    def caught(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        if aloud:
            sys.stderr.write("\ncancelling; press Ctrl-C again to stop at once\n")

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for caught_signal in (signal.SIGINT, signal.SIGTERM):
            before[caught_signal] = signal.signal(caught_signal, caught)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
