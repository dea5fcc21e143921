"""Masks from flows: our time and memory beside Cellpose's on the same fields."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import instruction_sets
from napari_aprcnn.bench.fields import disturbed_field, ellipsoids
from napari_aprcnn.bench.table import BenchTable, Cell
from napari_aprcnn.bench.worker import run_worker as run_network
from napari_aprcnn.evaluate.matching import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["agreement", "run_worker", "table"]

WORKER = Path(__file__).with_name("mask_worker.py")
Stats = dict[str, Any]
MIB = 2**20
NETWORK, NETWORK_WORKER = "faster_v3", "napari_aprcnn.bench.network_worker"


def run_worker(
    python: Path | str,
    who: str,
    fields: Sequence[Path],
    out: Path,
    *,
    threads: int = 2,
    repeats: int = 1,
    kernels: str = "auto",
) -> Stats:
    """Make masks in a process of its own; labels go to ``out/NAME.npy``.

    Parameters
    ----------
    python
        Interpreter of the environment: this one for ``ours``, one with Cellpose for ``cellpose``.
    who
        ``ours`` or ``cellpose``.
    fields
        ``.npz`` files with ``flows`` and ``probability``.
    out
        Folder for the labels; made.
    threads, repeats
        Threads of both sides; the best of the repeats counts.
    kernels
        Value of ``APRCNN_KERNELS``.

    Returns
    -------
    dict
        ``version`` and ``fields``: for each name wall_s, cpu_s, peak_bytes, before_bytes, n.

    Raises
    ------
    RuntimeError
        If the process fails; with the end of what it said.
    """
    out.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(WORKER), who, str(out), str(threads), str(repeats), *map(str, fields)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "APRCNN_KERNELS": kernels}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"{who} failed with {python}: {done.stderr.strip()[-500:]}")
    stats: Stats = json.loads((out / "stats.json").read_text(encoding="utf-8"))
    return stats


def agreement(labels: NDArray[Any], other: NDArray[Any]) -> tuple[int, int, float]:
    """Return the number of objects in both and the mean IoU of those matched above 0.5 (1.0 if both are empty)."""
    matched = evaluate(labels, other, thresholds=(0.5,))[0]
    n = matched.true_positives + matched.false_positives
    n_other = matched.true_positives + matched.false_negatives
    return n, n_other, matched.mean_matched_iou if matched.true_positives else float(n == n_other == 0)


def table(*, peer: Path | None = None, threads: int = 2, quick: bool = False) -> list[BenchTable]:
    """Measure masks from flows in 2D and 3D.

    Parameters
    ----------
    peer
        Python of an environment with cellpose 3.1.1; without it only our side is measured.
    threads
        Threads of both sides.
    quick
        Small fields.
    """
    shapes: dict[str, tuple[tuple[int, ...], int, float]] = (
        {"2d": ((256, 256), 40, 34.0), "3d": ((32, 96, 96), 30, 21.0)}
        if quick
        else {"2d": ((1024, 1024), 600, 34.0), "3d": ((64, 512, 512), 1200, 21.0)}
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        fields = {}
        for title, (shape, n, diameter) in shapes.items():
            flows, probability = disturbed_field(ellipsoids(shape, n, diameter=diameter), threads=threads)
            fields[title] = folder / f"{title}.npz"
            np.savez(fields[title], flows=flows, probability=probability)
            del flows, probability
        beside = _beside_network(fields["2d"], folder, edge_px=shapes["2d"][0][0], threads=threads)
        return [_against_peer(fields, shapes, folder, peer, threads), beside, _choices(fields, folder, threads)]


def _against_peer(
    fields: dict[str, Path], shapes: dict[str, Any], folder: Path, peer: Path | None, threads: int
) -> BenchTable:
    rows: list[tuple[Cell, ...]] = []
    notes = [f"{threads} threads on both sides; each side in a process of its own, warmed up; best run."]
    for title, field in fields.items():
        ours = run_worker(sys.executable, "ours", [field], folder / "ours", threads=threads, repeats=5)
        theirs = None
        if peer is not None:
            theirs = run_worker(peer, "cellpose", [field], folder / "theirs", threads=threads, repeats=2)
        words = "x".join(map(str, shapes[title][0]))
        for stats in (ours, theirs):
            if stats is None:
                continue
            figures = stats["fields"][title]
            compared: tuple[Cell, ...] = (None, None, None)
            if stats is ours and theirs is not None:
                base = theirs["fields"][title]
                iou = agreement(np.load(folder / f"ours/{title}.npy"), np.load(folder / f"theirs/{title}.npy"))[2]
                compared = (base["wall_s"] / figures["wall_s"], base["cpu_s"] / figures["cpu_s"], f"{iou:.4f}")
            peak, before = figures["peak_bytes"] / MIB, figures["before_bytes"] / MIB
            row = (words, stats["version"], figures["n"], figures["wall_s"], figures["cpu_s"], peak, peak - before)
            rows.append((*row, *compared))
    notes.append("3D without our flow check, which Cellpose does not have.")
    notes.append("peak: of the whole process; added: beyond the input and the libraries.")
    if peer is None:
        notes.append("Cellpose not measured: give --peer PYTHON (benchmarks/peer_environment.sh makes one).")
    columns = ("field", "masks by", "objects", "wall s", "CPU s", "peak MiB", "added MiB", "x wall", "x CPU", "IoU")
    return BenchTable(title="Masks from flows", columns=columns, rows=tuple(rows), notes=tuple(notes))


def _beside_network(field: Path, folder: Path, *, edge_px: int, threads: int) -> BenchTable:
    """Masks of a plane beside the network that its flows would come from."""
    masks = run_worker(sys.executable, "ours", [field], folder / "beside", threads=threads, repeats=5)["fields"]["2d"]
    order = {"architecture": NETWORK, "way": "fused", "edge_px": edge_px, "threads": threads, "repeats": 5}
    network = run_network(NETWORK_WORKER, order, threads=threads, keeps=False, timeout_s=600)
    row = (f"{edge_px}x{edge_px}", masks["n"], masks["wall_s"], network["seconds"])
    columns = ("field", "objects", "masks s", "network s", "masks / network")
    notes = (f"{threads} threads, each in a process of its own; the network is {NETWORK} in float32.",)
    rows = ((*row, masks["wall_s"] / network["seconds"]),)
    return BenchTable(title="Masks beside the network", columns=columns, rows=rows, notes=notes)


def _choices(fields: dict[str, Path], folder: Path, threads: int) -> BenchTable:
    """Our own variants: threads and instruction sets, which must not change a voxel."""
    rows: list[tuple[Cell, ...]] = []
    for title, field in fields.items():
        first: NDArray[Any] | None = None
        variants = [("auto", count) for count in range(1, threads + 1)]
        variants += [(name, threads) for name in instruction_sets() if name != "python" or title == "2d"]
        for kernels, count in variants:
            out = folder / f"variant-{kernels}-{count}"
            repeats = 1 if kernels == "python" else 3
            stats = run_worker(sys.executable, "ours", [field], out, threads=count, repeats=repeats, kernels=kernels)
            labels = np.load(out / f"{title}.npy")
            first = labels if first is None else first
            figures = stats["fields"][title]
            same = bool(np.array_equal(labels, first))
            rows.append((title, kernels, count, figures["wall_s"], figures["cpu_s"], figures["n"], same))
    columns = ("field", "kernels", "threads", "wall s", "CPU s", "objects", "same voxels")
    notes = ("python: the numpy reference, only in 2D.",)
    return BenchTable(title="Masks from flows: our variants", columns=columns, rows=tuple(rows), notes=notes)
