"""Work on bands of rows, each on one thread from its first operation to its last.

torch's own threads meet at a barrier after every operation. That is much waiting where operations take 0.1 ms, and
worse where other programs use the cores: the slower thread sets the pace each time. Bands meet once a block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["bands", "run_all"]

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def bands(height: int, rows: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut an image into bands of rows.

    Parameters
    ----------
    height, rows
        Rows of the image and of a band, both even.
    halo
        Rows around a band that its result depends on; made even, as pooling needs it.

    Yields
    ------
    (start, stop, low, high)
        Rows of the band, and those to compute it from.

    Examples
    --------
    >>> list(bands(20, 8, 3))
    [(0, 8, 0, 12), (8, 16, 4, 20), (16, 20, 12, 20)]
    """
    halo += halo % 2
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        yield start, stop, max(0, start - halo), min(height, stop + halo)


def _pool(workers: int) -> ThreadPoolExecutor:
    with _lock:
        if workers not in _pools:
            before = torch.get_num_threads()
            ready = threading.Barrier(workers)

            def settle() -> None:
                torch.set_num_threads(1)
                torch.get_num_threads()  # so that torch does not set this thread's number again, at first use
                ready.wait()

            pool = ThreadPoolExecutor(workers, thread_name_prefix="aprcnn-bands")
            for started in [pool.submit(settle) for _ in range(workers)]:
                started.result()
            # The number that a thread sets is also the one that later threads begin with.
            torch.set_num_threads(before)
            _pools[workers] = pool
        return _pools[workers]


# The threads do not exist in a forked child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def run_all(tasks: list[Callable[[], None]], *, check: Callable[[], None] | None = None) -> None:
    """Run tasks in inference mode on as many threads as torch has here (`torch.set_num_threads`), one task each.

    `check` is called before each task, in its thread, and may raise to stop: tasks that have not begun are then left
    out. The first error is raised when all that had begun have ended.
    """
    workers = min(torch.get_num_threads(), len(tasks))
    if workers <= 1:
        with torch.inference_mode():
            for task in tasks:
                if check is not None:
                    check()
                task()
        return

    def quietly(task: Callable[[], None]) -> None:
        if check is not None:
            check()
        with torch.inference_mode():  # this setting belongs to a thread
            task()

    futures = [_pool(torch.get_num_threads()).submit(quietly, task) for task in tasks]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error
