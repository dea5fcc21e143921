"""The networks' time and memory beside the ``cellpose`` configuration in plain torch, in the same run.

Each figure comes from a process of its own, so that peak memory is that network's alone and no allocation of one
helps the next. Torch's times depend much on how large allocations are given back to the system (each pass over memory
then pays for page faults), so both ways are measured: as the system does it, and with large allocations kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_aprcnn._kernels.planes import can_halve, can_quantise
from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.bench.worker import KEEP_LARGE, run_worker
from napari_aprcnn.models.configs import NETWORKS
from napari_aprcnn.models.counting import count_macs

__all__ = ["table"]

BASELINE = "cellpose"
WORKER = "napari_aprcnn.bench.network_worker"
TIMEOUT_S = 600


@dataclass(frozen=True)
class _Job:
    """One network, the way it is run, and the input's edge."""

    architecture: str
    way: str
    edge_px: int
    keeps: bool


def _measure(job: _Job, *, threads: int, repeats: int) -> dict[str, Any]:
    order = {
        "architecture": job.architecture,
        "way": job.way,
        "edge_px": job.edge_px,
        "threads": threads,
        "repeats": repeats,
    }
    result: dict[str, Any] = run_worker(WORKER, order, threads=threads, keeps=job.keeps, timeout_s=TIMEOUT_S)
    return result


def _ways(architecture: str) -> tuple[str, ...]:
    if architecture == BASELINE:
        return ("plain", "bands")
    if not NETWORKS[architecture].separable:
        return ("plain", "bands", "bands bfloat16")
    fewer = (("fused bfloat16",) if can_halve() else ()) + (("fused int8",) if can_quantise() else ())
    return ("plain", "bands", "bands bfloat16", "fused", *fewer)


def _one_size(edge_px: int, *, keeps: bool, threads: int, repeats: int, architectures: tuple[str, ...]) -> BenchTable:
    base = _Job(BASELINE, "plain", edge_px, keeps)
    base_repeats = max(2, repeats // 3)
    first = _measure(base, threads=threads, repeats=base_repeats)
    jobs = [_Job(name, way, edge_px, keeps) for name in architectures for way in _ways(name)]
    measured = {
        job: _measure(job, threads=threads, repeats=base_repeats if job.architecture == BASELINE else repeats)
        for job in jobs
        if job != base
    }
    # The baseline once before and once after: a load that came in between shows, and the faster one counts.
    again = _measure(base, threads=threads, repeats=base_repeats)
    measured = {base: min(first, again, key=lambda found: found["seconds"]), **measured}
    rows = []
    for job, found in measured.items():
        macs = count_macs(job.architecture, shape=(1, 2, edge_px, edge_px))
        rows.append(
            (
                job.architecture,
                job.way,
                1e3 * found["seconds"],
                measured[base]["seconds"] / found["seconds"],
                measured[base]["cpu_seconds"] / found["cpu_seconds"],
                macs / 1e9,
                macs / 1e9 / found["seconds"],
                found["peak_bytes"] / 2**20,
                f"{found['deviation']:.0e}" if found["deviation"] else "0",
            )
        )
    allocation = "large allocations kept" if keeps else "default allocation"
    drift = max(first["seconds"], again["seconds"]) / min(first["seconds"], again["seconds"])
    return BenchTable(
        title=f"Networks, 1 x 2 x {edge_px} x {edge_px}, {threads} threads, {allocation}",
        columns=(
            "network",
            "run as",
            "wall ms",
            "x faster (wall)",
            "x faster (CPU time)",
            "true GMAC",
            "GMAC/s",
            "peak MB",
            "deviation",
        ),
        rows=tuple(rows),
        notes=(
            f"plain: torch in channels_last, the baseline is plain {BASELINE}",
            "bands: rewritten for torch; fused: compiled kernels",
            f"the shortest of {repeats} runs after one to warm up ({base_repeats} for {BASELINE})",
            f"torch {first['torch']}, random weights",
            f"the baseline before and after the others differed by a factor of {drift:.2f}; where that is far from 1, "
            "other programs were running, and the ratio of CPU times says more",
            "peak MB: what the run adds to the process; deviation: rms difference from the plain float32 network, over "
            "the spread of its output",
            *(f"environment: {key}={value}" for key, value in KEEP_LARGE.items() if keeps),
        ),
    )


def table(*, threads: int = 2, quick: bool = False, network: list[str] | None = None) -> list[BenchTable]:
    """Measure every network that is shipped, and the baseline, at 512 and 1024 px, with both ways of allocation.

    Parameters
    ----------
    threads
        Torch's threads, for all.
    quick
        One small size, two networks, few repeats: to see that it runs.
    network
        Only these beside the baseline; ``None``: all that are shipped.
    """
    if quick:
        return [_one_size(128, keeps=False, threads=threads, repeats=3, architectures=(BASELINE, "faster_v3"))]
    wanted = {BASELINE, *(network or ("fastcellpose", "faster_v1", "faster_v2", "faster_v3", "faster_wide"))}
    shipped = tuple(name for name in NETWORKS if name in wanted)
    return [
        _one_size(edge_px, keeps=keeps, threads=threads, repeats=9, architectures=shipped)
        for edge_px in (512, 1024)
        for keeps in (False, True)
    ]
