"""The parent's end of a training in a process of its own (`train.child`)."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

from napari_aprcnn.errors import OutputError

__all__ = ["LOG", "TrainingProcess"]

LOG = "child.log"
_log = logging.getLogger(__name__)


class TrainingProcess:
    """A child that trains. It ends by itself when this process does.

    Parameters
    ----------
    run_dir
        Folder of the run, with its ``request.json``.

    Raises
    ------
    OutputError
        If the process cannot be started.
    """

    def __init__(self, run_dir: Path) -> None:
        self.log = run_dir / LOG
        # -P: a module that happens to lie in the working folder is not taken for one of Python's.
        command = [sys.executable, "-P", "-m", "napari_aprcnn.train.child", "--watch", str(run_dir)]
        try:
            with self.log.open("wb") as errors:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except OSError as error:
            raise OutputError(f"the training cannot be started in {run_dir}: {error.strerror or error}") from error
        self._messages: deque[dict[str, Any]] = deque()
        if self._process.stdout is None:  # cannot be, with PIPE
            raise OutputError("the training has no output to read")
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                try:
                    message = json.loads(line)
                    message["kind"]
                except (ValueError, TypeError, KeyError):
                    _log.warning("the training said what is no message: %r", line[:200])
                else:
                    self._messages.append(message)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def take(self) -> list[dict[str, Any]]:
        """Return the messages since the last call, the oldest first."""
        found = []
        while self._messages:
            found.append(self._messages.popleft())
        return found

    def ended(self) -> int | None:
        """Return the exit code once the process has ended and all it said was read; negative: the signal."""
        code = self._process.poll()
        return None if code is None or self._reader.is_alive() else code

    def stop(self) -> None:
        """Ask the training to stop after the step in work."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with suppress(OSError):  # gone already
                stdin.write(b"stop\n")
                stdin.close()

    def kill(self) -> None:
        """End the process and the workers that it started, at once."""
        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            parent = psutil.Process(self._process.pid)
            family = [*parent.children(recursive=True), parent]
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
