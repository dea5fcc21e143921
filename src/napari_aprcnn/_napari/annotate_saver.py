"""Write in another thread, one file after the other; the newest of each kind is enough."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Saver"]

Write = Callable[[], None]


class Saver:
    """A queue of writings.

    Parameters
    ----------
    launch
        Runs a callable in another thread; tests call it in place.

    Examples
    --------
    >>> saver, written = Saver(lambda run: run()), []
    >>> saver.put("points", lambda: written.append(1))
    >>> written, saver.busy
    ([1], False)
    """

    def __init__(self, launch: Callable[[Write], Any]) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: dict[str, Write] = {}
        self._failed: dict[str, Write] = {}
        self._errors: deque[Exception] = deque()
        self._running = False

    @property
    def busy(self) -> bool:
        """Whether something is not written yet, and will be."""
        with self._lock:
            return self._running or bool(self._waiting)

    def words(self, folder: Any) -> str:
        """Say whether everything is saved, and where."""
        if self.failed:
            return f"NOT saved in {folder}: it is tried again with the next step."
        return f"{'Saving' if self.busy else 'Saved'} in {folder}"

    @property
    def failed(self) -> bool:
        """Whether something could not be written; it is tried again with the next step."""
        with self._lock:
            return bool(self._failed)

    def put(self, key: str, write: Write) -> None:
        """Write soon. An earlier writing under this key that has not begun is left out."""
        with self._lock:
            self._waiting = {**self._failed, **self._waiting}
            self._failed = {}
            self._waiting[key] = write
            start, self._running = not self._running, True
        if start:
            self._launch(self._run)

    def take_error(self) -> Exception | None:
        """Return the oldest error that was not taken yet."""
        try:
            return self._errors.popleft()
        except IndexError:
            return None

    def flush(self) -> None:
        """Write in this thread whatever has not been, and wait for what is being written."""
        with self._lock:
            self._waiting = {**self._failed, **self._waiting}
            self._failed = {}
        while self._next():
            pass

    def _run(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        # Held while a file is written, so that two threads never write out of order.
        with self._writing:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return False
                key = next(iter(self._waiting))
                write = self._waiting.pop(key)
            try:
                write()
            except Exception as error:  # noqa: BLE001 - it crosses threads: whatever it is, the GUI thread shows it
                with self._lock:
                    self._failed.setdefault(key, write)
                self._errors.append(error)
            return True
