"""Particle layers beside their pixel twins: a convolution should cost what its particles cost.

Every figure comes from a process of its own, particle and pixel layers taking turns in it. Large allocations are kept
(otherwise both sides mostly pay for fresh pages); one table shows the first row as the system gives memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_aprcnn._kernels import instruction_set
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.bench.worker import run_worker

__all__ = ["conv_rows", "table"]

WORKER = "napari_aprcnn.bench.particle_worker"
TIMEOUT_S = 1200
# Channels, edge of the dense twin (scaled by voxels: the widest would not fit the memory), wanted PRR, goal.
CASES: tuple[tuple[int, int, int, tuple[float, ...], float], ...] = (
    (16, 16, 256, (2, 6, 16, 36), 0.9),
    (1, 16, 256, (6, 36), 0.8),
    (8, 8, 256, (6, 36), 0.8),
    (32, 32, 128, (6, 36), 0.8),
    (48, 16, 128, (6, 36), 0.8),
    (64, 64, 128, (6, 36), 0.8),
)
# Channels and edge of the image: 10^6, 3 * 10^5 and 2 * 10^5 rows.
NORMS = ((16, 100), (32, 67), (64, 58))
_OFFICIAL = {16: 1.8}  # the official CPU code's speed-up over a dense convolution, measured on two cores
CONV_COLUMNS = (
    "channels",
    "PRR",
    "dense s",
    "particles s",
    "speed-up",
    "/ PRR",
    "goal",
    "met",
    "training s",
    "backward s",
    "/ training",
    "speed-up / PRR",
    "met (<= 2.2, >= 0.8)",
    "bfloat16 s",
    "bfloat16 gain",
)


def _measure(order: dict[str, Any], *, keeps: bool = True) -> Any:
    return run_worker(WORKER, order, threads=order["threads"], keeps=keeps, timeout_s=TIMEOUT_S)


def conv_rows(channels: str, goal: float, records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows of the table of convolutions from what the worker measured."""
    rows = []
    for one in records:
        prr, forward, backward = one["prr"], one["forward_s"], one["backward_s"]
        speed = one["dense_forward_s"] / forward
        back = one["dense_backward_s"] / backward / prr
        rows.append(
            (
                channels,
                round(prr, 1),
                one["dense_forward_s"],
                forward,
                speed,
                speed / prr,
                goal,
                speed / prr >= goal,
                one["learning_s"],
                backward,
                backward / one["learning_s"],
                back,
                backward / one["learning_s"] <= 2.2 and back >= 0.8,
                one["bfloat16_s"],
                forward / one["bfloat16_s"],
            )
        )
    return rows


def _half_note() -> str:
    module = extension()
    if module is not None and module.has_bf16_products() and instruction_set() == "avx512":
        return "bfloat16: this processor multiplies pairs of bfloat16 (AVX512_BF16); one input channel runs in float32"
    return "bfloat16: this processor has no bfloat16 products, so features are widened to float32 first: no gain"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _convolutions(threads: int, *, quick: bool) -> list[BenchTable]:
    edge, repeats = (64, 1) if quick else (256, 3)
    rows: list[tuple[Any, ...]] = []
    default: list[tuple[Any, ...]] = []
    for channels_in, channels_out, dense_edge, prr, goal in CASES[:2] if quick else CASES:
        order = {
            "what": "convolutions",
            "channels_in": channels_in,
            "channels_out": channels_out,
            "edge": edge,
            "dense_edge": min(edge, dense_edge),
            "prr": list(prr[-2:] if quick else prr),
            "repeats": repeats,
            "threads": threads,
        }
        name = f"{channels_in} -> {channels_out}"
        rows += conv_rows(name, goal, _measure(order))
        if (channels_in, channels_out) == (16, 16):
            default += conv_rows(name, goal, _measure(order, keeps=False))
    notes = (
        f"{threads} threads, float32, {edge}^3 voxels, 3 filter banks, best of {repeats}; {_processor()}, "
        f"{instruction_set()}",
        "dense: torch.nn.Conv3d, channels last; wide channels on a smaller volume, scaled by its voxels",
        "particles: APRConv with the tree of means, tables built before; training s: the forward pass of "
        "a training, without minimal filtering; backward: gradients of input and filters",
        *(
            f"official APR-CNN code on a CPU: speed-up {speed} at PRR {prr} for 16 -> 16; ours is "
            f"{row[4] / speed:.1f} times that"
            for prr, speed in _OFFICIAL.items()
            for row in rows
            if row[0] == "16 -> 16" and abs(row[1] / prr - 1) < 0.1
        ),
        _half_note(),
    )
    title = "Convolution 3x3x3 over particles"
    return [
        BenchTable(title=title, columns=CONV_COLUMNS, rows=tuple(rows), notes=notes),
        BenchTable(title=f"{title}, memory as the system gives it", columns=CONV_COLUMNS, rows=tuple(default)),
    ]


def _norms(threads: int, *, quick: bool) -> BenchTable:
    rows = []
    for channels, edge in NORMS[:1] if quick else NORMS:
        order = {"what": "norms", "channels": channels, "edge": 20 if quick else edge, "repeats": 1 if quick else 9}
        one = _measure({**order, "threads": threads})
        rows.append(
            (
                channels,
                one["rows"],
                one["copies_s"],
                one["forward_s"],
                one["forward_s"] / one["copies_s"],
                one["dense_forward_s"] / one["forward_s"],
                one["forward_s"] <= min(1.6 * one["copies_s"], one["dense_forward_s"]),
                one["backward_s"],
                one["dense_backward_s"] / one["backward_s"],
            )
        )
    columns = ("channels", "rows", "two copies s", "forward s", "/ copies", "speed-up", "met (<= 1.6, >= 1)")
    return BenchTable(
        title="Group norm and ReLU in one operator",
        columns=(*columns, "backward s", "speed-up "),
        rows=tuple(rows),
        notes=("speed-up: over torch.nn.functional.group_norm and relu on an image of as many voxels, channels last",),
    )


def table(threads: int = 2, *, quick: bool = False) -> list[BenchTable]:
    """Measure convolutions, index tables, norms, and the layers that move bytes."""
    edge, repeats = (64, 2) if quick else (256, 7)
    common = {"edge": edge, "prr": 6.0 if quick else 16.0, "repeats": repeats, "threads": threads}
    index = _measure({"what": "index_tables", **common})
    passes = _measure({"what": "passes", **common, "prr": 6.0, "channels": 16})
    return [
        *_convolutions(threads, quick=quick),
        BenchTable(
            title="Index tables of one stage (3x3x3): for trainings, for inference",
            columns=("table", "particles", "s", "s / million", "bytes / particle", "met (<= 0.05 s, <= 108)"),
            rows=tuple(
                (
                    one["table"],
                    one["particles"],
                    one["seconds"],
                    one["seconds"] / one["particles"] * 1e6,
                    one["bytes"] / one["particles"],
                    one["seconds"] / one["particles"] * 1e6 <= 0.05 and one["bytes"] <= 108 * one["particles"],
                )
                for one in index
            ),
        ),
        BenchTable(
            title="Layers that move bytes, 16 channels, PRR 6",
            columns=("layer", "MB touched", "copy s", "forward s", "/ copy", "backward s", "/ copy ", "met (<= 3)"),
            rows=tuple(
                (
                    one["layer"],
                    one["bytes"] / 1e6,
                    one["copy_s"],
                    one["forward_s"],
                    one["forward_s"] / one["copy_s"],
                    one["backward_s"],
                    one["backward_s"] / one["copy_s"],
                    max(one["forward_s"], one["backward_s"]) <= 3 * one["copy_s"],
                )
                for one in passes
            ),
            notes=(
                "copy: torch's copy between two arrays that together have the bytes that the layer reads and writes",
            ),
        ),
        _norms(threads, quick=quick),
    ]
