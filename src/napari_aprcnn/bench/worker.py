"""Measuring in a process of its own: no allocation, cache or peak of one figure helps or harms the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

__all__ = ["KEEP_LARGE", "run_worker"]

# glibc then keeps large allocations instead of giving them back to the system after each use.
KEEP_LARGE = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "400000000",
}


def run_worker(module: str, order: dict[str, Any], *, threads: int, keeps: bool, timeout_s: float) -> Any:
    """Run ``python -m module ORDER`` and give what it printed last, as JSON.

    Parameters
    ----------
    module
        Takes its order as JSON in the first argument.
    order
        What to measure.
    threads
        For OpenMP.
    keeps
        Whether large allocations are kept.
    timeout_s
        Longest wall time in seconds.

    Raises
    ------
    RuntimeError
        If it failed.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    environment.update(KEEP_LARGE if keeps else {}, OMP_NUM_THREADS=str(threads))
    done = subprocess.run(  # noqa: S603 - our own module in our own Python
        [sys.executable, "-m", module, json.dumps(order)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} failed for {order}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
