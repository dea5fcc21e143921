"""One training at a time in the folder of a run, whoever started it: a file says which process it is."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from napari_aprcnn.errors import CancelledError, OutputError, TrainingError
from napari_aprcnn.io.atomic import make_folder, write_text

__all__ = ["RunLock", "need_free", "training_in"]

_FILE = "training.lock"
# A lock that cannot be read is being written, or was when the computer stopped.
_WRITING_S = 10.0
# The system's clock may have been set since a process was started.
_CLOCK_S = 10.0


class RunLock:
    """Keeps the folder of a run for one training. That of a process which has ended is taken over.

    Parameters
    ----------
    run_dir
        Folder of the run.
    name
        Of the training, for messages.
    """

    def __init__(self, run_dir: Path, name: str) -> None:
        self._run_dir, self._name = run_dir, name
        self._guard = threading.Lock()
        self._held = self._released = False
        self._made: list[Path] = []

    def take(self) -> None:
        """Lock the folder for this process; makes the folder.

        Raises
        ------
        TrainingError
            If something is trained there.
        OutputError
            If the folder cannot be written to.
        CancelledError
            If the lock was released before.
        """
        with self._guard:
            if self._released:
                raise CancelledError("the training was stopped before it began")
            self._made = [folder for folder in self._run_dir.parents if not folder.exists()]
            make_folder(self._run_dir)
            path = self._run_dir / _FILE
            need_free(self._run_dir, self._name)
            try:
                path.unlink(missing_ok=True)  # of a process that has ended
                with path.open("x", encoding="utf-8") as file:
                    file.write(_note(os.getpid()))
            except FileExistsError:
                raise _refusal(self._run_dir, self._name, "another process") from None
            except OSError as error:
                raise OutputError(
                    f"cannot write {path}: {error.strerror or error}; choose another folder for the model"
                ) from error
            self._held = True

    def pass_to(self, pid: int | None) -> None:
        """Say which process trains: the lock holds until it ends, even if this one ends before."""
        with self._guard, suppress(psutil.Error, OutputError):
            if self._held and pid is not None:
                write_text(_note(pid), self._run_dir / _FILE, overwrite=True)

    def release(self) -> None:
        """Unlock the folder; it goes if nothing else is in it, and so do those that were made for it."""
        with self._guard:
            self._released = True
            if not self._held:
                return
            self._held = False
            with suppress(OSError):
                (self._run_dir / _FILE).unlink(missing_ok=True)
                for folder in (self._run_dir, *self._made):
                    folder.rmdir()


@contextmanager
def training_in(run_dir: Path, name: str) -> Iterator[None]:
    """Keep the folder of a run for a training of this process as long as it is entered.

    Where this process, or the one that started it, keeps the folder already (as the dock does for the process that it
    starts), nothing changes.

    Parameters
    ----------
    run_dir
        Folder of the run; made if there is none.
    name
        Of the training, for messages.

    Raises
    ------
    TrainingError
        If another process trains there.
    OutputError
        If the folder cannot be written to.
    """
    if _keeper(run_dir) in {os.getpid(), os.getppid()}:
        yield
        return
    lock = RunLock(run_dir, name)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def _keeper(run_dir: Path) -> int | None:
    """Number of the process of this computer that the lock names, if it lives."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        note = json.loads((run_dir / _FILE).read_text(encoding="utf-8"))
        pid = int(note["pid"])
        if note["host"] == platform.node() and _lives(pid, float(note["started"])):
            return pid
    return None


def need_free(run_dir: Path, name: str) -> None:
    """Refuse where a training goes on.

    Raises
    ------
    TrainingError
        If the folder of the run is locked by a process that lives, or by one of another computer.
    """
    path = run_dir / _FILE
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        pid, started, host = int(note["pid"]), float(note["started"]), str(note["host"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        with suppress(OSError):
            if abs(time.time() - path.stat().st_mtime) > _WRITING_S:
                return
        raise _refusal(run_dir, name, "another process") from None
    if host != platform.node():
        raise TrainingError(
            f"{name} is being trained right now on {host}, or was when that computer stopped; if nothing is trained "
            f"there, delete {path}, else choose another name"
        )
    if _lives(pid, started):
        raise _refusal(run_dir, name, f"process {pid}")


def _refusal(run_dir: Path, name: str, who: str) -> TrainingError:
    return TrainingError(
        f"{name} is being trained right now ({who}, in {run_dir}); wait until that has ended, stop it where it was "
        "started, or choose another name"
    )


def _note(pid: int) -> str:
    values: dict[str, Any] = {"pid": pid, "started": psutil.Process(pid).create_time(), "host": platform.node()}
    return json.dumps(values) + "\n"


def _lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # A number is given to another process once its own has ended.
        return bool(abs(process.create_time() - started) < _CLOCK_S and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
