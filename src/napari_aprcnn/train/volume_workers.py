"""Crops of a training on volumes from worker processes, and what is done when one of them is killed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from napari_aprcnn.train.volume_crops import Crop

__all__ = ["KILLED", "CropLoader", "EpochNumbers", "killed"]

KILLED = (
    "a worker was killed, perhaps for memory; go on with the same command, and with fewer --workers (0: none) if it "
    "happens again"
)

_PROCESSES = "spawn" if sys.platform == "win32" else "forkserver"  # a fork would lose the threads of torch


class EpochNumbers(Sampler[int]):
    """Numbers of the crops of an epoch: every epoch has its own, by the steps that were done when it starts."""

    def __init__(self, number: int, batch_size: int, steps: Callable[[], int]) -> None:
        self.number, self.batch_size, self.steps = number, batch_size, steps

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[int]:
        start = self.steps() * self.batch_size
        return iter(range(start, start + self.number))


class CropLoader(DataLoader[Crop]):
    """Batches of crops as lists.

    A worker that is killed in the middle of a batch leaves half of it in the pipe, whose rest torch would await for
    ever. Here a thread looks at the workers: when one has died, it ends the others and closes the pipe. Torch then
    raises the error that `killed` knows.

    Parameters
    ----------
    crops
        Crops by number.
    batch_size
        Crops in a batch.
    numbers
        Which ones, in their order.
    workers
        Processes that make them; 0: this one.
    """

    def __init__(
        self, crops: Dataset[Crop], batch_size: int, *, numbers: Sampler[int] | Sequence[int], workers: int = 0
    ) -> None:
        more: dict[str, Any] = {}
        if workers:
            more = {"prefetch_factor": 4, "persistent_workers": True, "multiprocessing_context": _PROCESSES}
        super().__init__(crops, batch_size, sampler=numbers, collate_fn=_same, num_workers=workers, **more)

    def _get_iterator(self) -> Any:
        iterator: Any = super()._get_iterator()
        if self.num_workers:
            # Not the iterator itself: it ends the workers when nobody holds it any more.
            parts = (list(iterator._workers), iterator._worker_result_queue)
            threading.Thread(target=_look_after, args=parts, daemon=True).start()
        return iterator


def killed(error: BaseException) -> bool:
    """Whether an error is torch's of a worker that died."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _same(crops: list[Crop]) -> list[Crop]:
    return crops


def _look_after(workers: Sequence[Any], results: Any) -> None:
    """Wait until a worker ends; unless that was in order, end the others and what they write to."""
    with suppress(OSError, ValueError):
        wait([worker.sentinel for worker in workers])
        if all(worker.exitcode in (None, 0) for worker in workers):
            return
        for worker in workers:
            worker.kill()
    with suppress(OSError):
        results._writer.close()  # the last end for writing: what waits for more sees that there is none
