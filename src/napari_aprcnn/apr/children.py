"""Work in a process of its own, that may crash, hang or run out of memory without harm.

A job is a folder: the parent writes ``job.json``, the child answers with ``result.json`` and raw arrays. Nothing is
unpickled, and what the child wrote is checked as well, since a hostile file may have taken it over.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ChildFailedError", "job_folder", "limit_resources", "load_result", "run_child", "save_result"]

_DTYPES = {"|u1", "<u2", "<u8", "<i8", "<f4"}
_POLL_SECONDS = 0.02
_LONGEST_RESULT = 1 << 24


class ChildFailedError(Exception):
    """The child gave no result; internal, callers turn it into a typed error.

    Attributes
    ----------
    reason
        ``cancelled``, ``time``, ``memory`` or ``crashed``.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


# --- parent ---------------------------------------------------------------------------------------------------------


@contextmanager
def job_folder(job: dict[str, Any]) -> Iterator[Path]:
    """Give a private folder with ``job.json``; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="aprcnn-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        yield folder


def run_child(
    module: str,
    folder: Path,
    *,
    seconds: float,
    memory_bytes: int,
    threads: int = 1,
    progress: Callable[[float], Any] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> None:
    """Run ``python -m module folder`` and wait for it.

    Parameters
    ----------
    module
        Module to run; its ``main(folder)`` answers with `save_result`.
    folder
        The job.
    seconds
        Longest wall time.
    memory_bytes
        Resident memory above which it is stopped. The child also limits itself, see `limit_resources`.
    threads
        Threads of OpenMP in the child.
    progress
        Called every 20 ms with the seconds gone by.
    should_cancel
        Asked every 20 ms.

    Raises
    ------
    ChildFailedError
        If it was stopped or ended in any way but well.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "BLOSC_NTHREADS": "1",
    }
    # -P: a numpy.py beside the data must not be run.
    command = [os.fsdecode(spawn.get_executable() or sys.executable), "-P", "-m", module, str(folder)]
    with (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            cwd=folder,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        try:
            _watch(process, seconds, memory_bytes, progress or (lambda _: None), should_cancel or (lambda: False))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode:
        raise ChildFailedError("crashed", _how_it_ended(process.returncode, folder / "errors.txt"))


def _watch(
    process: subprocess.Popen[bytes],
    seconds: float,
    memory_bytes: int,
    progress: Callable[[float], Any],
    should_cancel: Callable[[], bool],
) -> None:
    import psutil

    started, watched = time.monotonic(), None
    with suppress(psutil.Error):
        watched = psutil.Process(process.pid)
    while True:
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
        passed = time.monotonic() - started
        if should_cancel():
            raise ChildFailedError("cancelled", "it was cancelled")
        if passed > seconds:
            raise ChildFailedError("time", f"it took more than {seconds:.3g} s")
        with suppress(psutil.Error):
            if watched is not None and watched.memory_info().rss > memory_bytes:
                raise ChildFailedError("memory", f"it took more than {memory_bytes / 2**20:,.0f} MiB of memory")
        progress(passed)


def _how_it_ended(code: int, errors: Path) -> str:
    with suppress(ValueError):
        if code < 0:
            return f"the process was ended by signal {signal.Signals(-code).name}"
    with suppress(OSError):
        lines = errors.read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()
        if lines:
            return f"the process ended with status {code}: {lines[-1][:300]}"
    return f"the process ended with status {code}"


def load_result(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a child's answer.

    Returns
    -------
    answer, arrays
        The ``answer`` of `save_result`, and its arrays.

    Raises
    ------
    ChildFailedError
        If it is no such answer.
    """
    try:
        path = folder / "result.json"
        if path.stat().st_size > _LONGEST_RESULT:
            raise ValueError("its answer is too long")
        result = json.loads(path.read_text(encoding="utf-8"))
        answer, listed = dict(result["answer"]), dict(result["arrays"])
        arrays = {}
        for name, (dtype, count) in listed.items():
            if dtype not in _DTYPES or not name.isidentifier() or not isinstance(count, int):
                raise ValueError(f"array {name!r} of type {dtype!r} is not expected")
            raw = folder / f"{name}.raw"
            if raw.stat().st_size != count * np.dtype(dtype).itemsize:
                raise ValueError(f"array {name!r} is incomplete")
            array = np.fromfile(raw, dtype)
            arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ChildFailedError("crashed", f"the process left no usable answer ({error})") from error
    return answer, arrays


# --- child ----------------------------------------------------------------------------------------------------------


def limit_resources(memory_bytes: int) -> None:
    """Limit what this process may still take; where the system has no such limit, the parent watches alone.

    Parameters
    ----------
    memory_bytes
        Address space beyond what is in use now, and size of files written.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        total = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (total, total))


def save_result(folder: Path, answer: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> None:
    """Answer the parent with JSON and arrays."""
    listed = {}
    for name, array in (arrays or {}).items():
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        little.tofile(folder / f"{name}.raw")
        listed[name] = (little.dtype.str, little.size)
    (folder / "result.json").write_text(json.dumps({"answer": answer, "arrays": listed}), encoding="utf-8")
