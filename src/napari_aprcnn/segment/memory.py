"""How much memory there is, and how much a run took."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

__all__ = ["MemoryMonitor", "free_bytes", "words_bytes"]

CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return the memory that this process may still take, in bytes: the machine's, or its container's if less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
            free = min(free, max(int(limit) - used, 0))
    except (OSError, ValueError):
        pass  # no container, or one that does not tell
    return free


def words_bytes(n: float) -> str:
    """Say a number of bytes: ``0.9 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= 0.1 * size:
            return f"{n / size:.1f} {unit}" if n < 10 * size else f"{n / size:.0f} {unit}"
    return f"{n / 1e3:.0f} kB"


class MemoryMonitor:
    """Samples the resident memory of this process while a block runs.

    Attributes
    ----------
    start_bytes, peak_bytes
        Resident memory when the block was entered, and the largest seen since.

    Examples
    --------
    >>> with MemoryMonitor() as memory:
    ...     pass
    >>> memory.peak_bytes >= memory.start_bytes > 0
    True
    """

    def __init__(self, *, every_s: float = 0.02) -> None:
        self._every_s = every_s
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.start_bytes = 0
        self.peak_bytes = 0

    def look(self) -> None:
        """Take a sample now."""
        self.peak_bytes = max(self.peak_bytes, int(self._process.memory_info().rss))

    def __enter__(self) -> Self:
        """Start sampling."""
        self.look()
        self.start_bytes = self.peak_bytes
        self._thread = threading.Thread(target=self._watch, name="aprcnn-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()
