"""Masks from given flows in a process of its own, by this package or by Cellpose, with time and peak memory.

Run by path (``PYTHON mask_worker.py WHO OUT THREADS REPEATS FIELD.npz...``), so that it also works in an environment
that has Cellpose but not this package. Writes OUT/NAME.npy and OUT/stats.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Masks = Callable[[Any, Any], Any]


def cellpose_masks(threads: int) -> tuple[Masks, str]:
    """Cellpose's compute_masks with default settings; volumes as its 3D mode does."""
    from importlib import import_module
    from importlib.metadata import version

    import_module("torch").set_num_threads(threads)
    dynamics = import_module("cellpose.dynamics")

    def masks(flows: Any, probability: Any) -> Any:
        return dynamics.compute_masks(flows, probability, do_3D=probability.ndim == 3, min_size=15)

    return masks, "cellpose " + version("cellpose")


def our_masks(threads: int) -> tuple[Masks, str]:
    """The masks of this package with default settings."""
    from napari_aprcnn import __version__, _kernels
    from napari_aprcnn.config import FlowConfig
    from napari_aprcnn.segment.flows import masks_from_flows

    def masks(flows: Any, probability: Any) -> Any:
        return masks_from_flows(
            flows, probability, config=FlowConfig(flow_threshold_3d=0), threads=threads
        )  # as Cellpose

    return masks, f"napari-aprcnn {__version__}, {_kernels.instruction_set()}"


def peak_bytes() -> int:
    """Largest memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory before the exec, too
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(who: str, out: str, threads: int, repeats: int, paths: list[str]) -> None:
    """Measure each field; the best of the repeats counts."""
    masks, version = (our_masks if who == "ours" else cellpose_masks)(threads)
    stats: dict[str, Any] = {"version": version, "fields": {}}
    for path in map(Path, paths):
        with np.load(path) as field:
            flows, probability = field["flows"], field["probability"]
        small = tuple(slice(0, 48) for _ in probability.shape)
        masks(flows[(slice(None), *small)].copy(), probability[small].copy())  # compiles, loads, warms up
        before = peak_bytes()
        runs = []
        for _ in range(repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            labels = masks(flows, probability)
            runs.append((time.perf_counter() - wall, time.process_time() - cpu))
        stats["fields"][path.stem] = {
            "wall_s": min(run[0] for run in runs),
            "cpu_s": min(run[1] for run in runs),
            "peak_bytes": peak_bytes(),
            "before_bytes": before,
            "n": len(np.unique(labels)) - 1,
        }
        np.save(Path(out) / f"{path.stem}.npy", labels)
    (Path(out) / "stats.json").write_text(json.dumps(stats), encoding="utf-8")


if __name__ == "__main__":
    # This folder's modules must not shadow those of the other environment.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
