"""Evaluating labels: time and memory of our sparse overlaps, and of the stardist package where it can keep up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.bench.table import BenchTable, Cell

__all__ = ["shifted_balls", "table"]

# (z, y, x) voxels; the last is the volume that has to be evaluated within GOAL_S and GOAL_GB.
_SHAPES = ((64, 256, 256), (100, 512, 512), (200, 1024, 1024))
_QUICK = ((32, 128, 128),)
# Distance of the centres of simulated nuclei.
_PITCH = (20, 22, 22)
GOAL_S, GOAL_GB = 20.0, 2.0
# The package makes a matrix of all objects times all objects, and an assignment in it for every threshold.
_MOST_FOR_STARDIST = 3000

_WORKER = """
import json, resource, sys, time
import numpy as np
who, folder = sys.argv[1:]
mode = "r" if who == "ours" else None
labels, truth = (np.load(f"{folder}/{name}.npy", mmap_mode=mode) for name in ("labels", "truth"))
if who == "ours":
    from napari_aprcnn.evaluate.scores import ImagePair, evaluate_images
    start = time.perf_counter()
    found = evaluate_images([ImagePair(name="a", labels=labels, truth=truth)])
    f1, _ = found.headline.f1, found.intervals
else:
    from stardist.matching import matching
    matching(truth[:2], labels[:2])  # compiles
    start = time.perf_counter()
    f1 = matching(truth, labels, thresh=tuple(round(0.1 * i, 1) for i in range(1, 10)))[4].f1
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status")) if sys.platform == "linux" else {}
mapped = int(status["RssFile"].split()[0]) if "RssFile" in status else 0
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"s": seconds, "f1": f1, "peak_gb": peak / 2**20, "peak_without_files_gb": (peak - mapped) / 2**20}))
"""


def shifted_balls(shape: tuple[int, int, int], *, seed: int) -> NDArray[np.uint32]:
    """Balls of 13 to 21 voxels on a grid, each moved by up to two voxels: quick to make, and a few touch.

    Parameters
    ----------
    shape
        (z, y, x) voxels.
    seed
        Of sizes and shifts; two seeds are prediction and truth of the same nuclei.

    Returns
    -------
    (z, y, x) uint32
        Labels from 1.

    Examples
    --------
    >>> labels = shifted_balls((32, 64, 64), seed=0)
    >>> int(labels.max())
    4
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    z, y, x = np.ogrid[-9:10, -10:11, -10:11]
    distance = (z / 0.9) ** 2 + y**2 + x**2
    grid = (max(0, (edge - 23) // step + 1) for edge, step in zip(shape, _PITCH, strict=True))
    for number, corner in enumerate(np.ndindex(*grid), 1):
        moved = np.array(corner) * _PITCH + rng.integers(0, 3, 3)
        part = labels[tuple(slice(int(a), int(a) + n) for a, n in zip(moved, distance.shape, strict=True))]
        part[distance < rng.uniform(6.5, 10.5) ** 2] = number
    return labels


def table(*, quick: bool = False) -> BenchTable:
    """Evaluate simulated predictions of growing volumes, each in a process of its own.

    Parameters
    ----------
    quick
        One small volume.

    Returns
    -------
    BenchTable
        Seconds and peak memory of our evaluation (nine thresholds, errors, intervals), of which the mapped input files
        are a part, and those of the stardist package's ``matching`` at the same thresholds.
    """
    rows: list[tuple[Cell, ...]] = []
    for shape in _QUICK if quick else _SHAPES:
        with TemporaryDirectory() as folder:
            for seed, name in enumerate(("labels", "truth")):
                labels = shifted_balls(shape, seed=seed)
                np.save(Path(folder) / f"{name}.npy", labels)
            n = int(labels.max())
            del labels
            ours = _run("ours", folder)
            theirs = _run("stardist", folder) if n <= _MOST_FOR_STARDIST else {}
        what = " x ".join(str(edge) for edge in shape)
        same = None if "f1" not in theirs else abs(float(theirs["f1"]) - float(ours["f1"])) < 1e-9
        reached = None if shape != _SHAPES[-1] else ours["s"] <= GOAL_S and ours["peak_gb"] <= GOAL_GB
        rows.append(
            (what, n, ours["s"], ours["peak_gb"], ours["peak_without_files_gb"], theirs.get("s"), theirs.get("peak_gb"),
             same, reached)
        )  # fmt: skip
    return BenchTable(
        title="Evaluation of labels against labels",
        columns=(
            "voxels", "objects", "ours s", "ours peak GB", "without mapped files GB", "stardist s", "stardist peak GB",
            "same F1", "reached",
        ),
        rows=tuple(rows),
        notes=(
            "nine IoU thresholds; ours with the list of errors and 1,000 bootstrap draws, from memory-mapped files",
            f"goal of the largest: {GOAL_S:g} s and {GOAL_GB:g} GB in all",
            f"stardist.matching.matching (arrays in memory) is left out above {_MOST_FOR_STARDIST:,} objects",
        ),
    )  # fmt: skip


def _run(who: str, folder: str) -> dict[str, float]:
    """Evaluate in a fresh process, because the peak of memory is that of a process; nothing if it cannot."""
    command = [sys.executable, "-c", _WORKER, who, folder]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        if who == "ours":
            seconds = time.perf_counter() - started
            raise RuntimeError(f"the evaluation failed after {seconds:.0f} s: {done.stderr.strip()[-500:]}")
        return {}
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
