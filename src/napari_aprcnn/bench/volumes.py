"""A volume by three planes, from image to labels, beside the cellpose package with a network of the `cellpose` kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy import ndimage

from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.bench.table import BenchTable, Cell
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.evaluate.matching import evaluate_pooled
from napari_aprcnn.models.growing import grown
from napari_aprcnn.models.zoo import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.family import CellposeFamily

__all__ = ["DIAMETER_PX", "scores", "simulated", "table"]

DIAMETER_PX = 25.0
GOAL = 60.0  # times faster than the package
GROWN_FROM = "fastercellpose-v1"
SHAPE, QUICK = (64, 512, 512), (16, 64, 64)
_PEER = """
import json, sys, time
import numpy as np, torch
from cellpose import models
request = json.loads(sys.argv[1])
torch.set_num_threads(request["threads"])
model = models.CellposeModel(gpu=False, pretrained_model=request["weights"])
image = np.load(request["image"])
model.eval(image[0], diameter=request["diameter"], channels=[0, 0])  # what torch sets up once
start = time.perf_counter()
masks, *_ = model.eval(image, diameter=request["diameter"], channels=[0, 0], do_3D=True, z_axis=0)
seconds = time.perf_counter() - start
np.save(request["masks"], masks.astype(np.int32))
print(json.dumps({"seconds": seconds}))
"""
_OURS = """
import json, sys, time
import numpy as np
from napari_aprcnn import segment
from napari_aprcnn.config import SegmentConfig
request = json.loads(sys.argv[1])
config = SegmentConfig(model=request["model"], diameter_px=request["diameter"], threads=request["threads"],
                       device="cpu", dimensionality="planes", keep_flows=False)
image = np.load(request["image"])
segment(image[:8, :64, :64], config=config)
start = time.perf_counter()
result = segment(image, config=config)
seconds = time.perf_counter() - start
np.save(request["masks"], result.labels.astype(np.int32))
print(json.dumps({"seconds": seconds, "stages": result.readout.stages}))
"""


def simulated(shape: Sequence[int], *, seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Blurred ellipsoids of uneven brightness with camera noise, and their labels.

    Parameters
    ----------
    shape
        (Z, Y, X).
    seed
        Of every random choice.

    Returns
    -------
    image : (Z, Y, X) uint16
    labels : (Z, Y, X) uint32
    """
    rng = np.random.default_rng(seed)
    labels = ellipsoids(tuple(shape), max(1, int(np.prod(shape) / 14_000)), diameter=DIAMETER_PX, seed=seed)
    bright = np.concatenate([[0.0], rng.uniform(600, 2000, int(labels.max()))]).astype(np.float32)
    image = ndimage.gaussian_filter(bright[labels], 1.0) + 100.0
    return rng.poisson(image).astype(np.uint16), labels


def scores(labels: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """F1 at IoU .5 and .7."""
    found = evaluate_pooled([(labels, truth)], thresholds=(0.5, 0.7))
    return found[0].f1, found[1].f1


def table(
    *,
    peer: Path | None = None,
    models: Sequence[str] | None = None,
    teacher: Path | None = None,
    threads: int = 2,
    shape: Sequence[int] | None = None,
    repeats: int = 3,
    quick: bool = False,
) -> BenchTable:
    """Segment a simulated volume, every program in a process of its own.

    Parameters
    ----------
    peer
        Python of an environment with cellpose 3.1.1; ``None``: ours alone.
    models
        Names or files of ours; ``None``: the default one.
    teacher
        Weights of the `cellpose` network for the package; ``None``: one grown from FasterCellpose v1, which computes
        what v1 does at Cellpose's cost.
    threads
        Threads of both sides.
    shape
        (Z, Y, X) of the volume; 64 x 512 x 512.
    repeats
        Runs of ours, of which the shortest counts; the package runs once.
    quick
        A small volume, once.

    Returns
    -------
    BenchTable
        Seconds, F1 and how many times faster than the package.

    Raises
    ------
    RuntimeError
        If a program fails.
    """
    image, truth = simulated(shape or (QUICK if quick else SHAPE))
    rows: list[tuple[Cell, ...]] = []
    slow: float | None = None
    with TemporaryDirectory() as folder:
        here = Path(folder)
        np.save(here / "image.npy", image)
        request = {"image": str(here / "image.npy"), "threads": threads, "diameter": DIAMETER_PX}
        for model in models or [SegmentConfig().model]:
            masks = here / "ours.npy"
            order = {**request, "model": model, "masks": str(masks)}
            runs = [_apart(_OURS, sys.executable, order) for _ in range(1 if quick else repeats)]
            best = min(runs, key=lambda run: float(run["seconds"]))
            stages = best["stages"]
            rows.append((model, best["seconds"], stages["network"], stages["masks"], *scores(np.load(masks), truth)))
        if peer is not None:
            weights, masks = here / "cellpose_network", here / "peer.npy"
            torch.save(_state(teacher), weights)
            order = {**request, "weights": str(weights), "masks": str(masks)}
            slow = float(_apart(_PEER, str(peer), order)["seconds"])
            rows.append(("cellpose 3.1.1", slow, None, None, *scores(np.load(masks), truth)))
    times = [None if slow is None else slow / cast("float", row[1]) for row in rows]
    return BenchTable(
        title=f"{' x '.join(map(str, image.shape))}, {int(truth.max())} nuclei, three planes, image to labels",
        columns=("program", "s", "network s", "masks s", "F1 .5", "F1 .7", "times faster", "reached"),
        rows=tuple(
            (*row, ratio, None if ratio is None or row[2] is None else ratio >= GOAL)
            for row, ratio in zip(rows, times, strict=True)
        ),
        notes=(
            f"{threads} threads; ours: the shortest of {1 if quick else repeats} runs; cellpose: one run, "
            + ("weights of --teacher" if teacher else f"a Cellpose grown from {GROWN_FROM}"),
            *(() if peer else ("without cellpose 3.1.1: --peer PYTHON, see benchmarks/peer_environment.sh",)),
            f"goal: {GOAL:g} times faster",
        ),
    )


def _state(teacher: Path | None) -> dict[str, torch.Tensor]:
    if teacher is not None:
        return load_model(teacher, device="cpu").module.state_dict()
    source = cast("CellposeFamily", load_model(GROWN_FROM, device="cpu").module)
    return grown(source, "cellpose")


def _apart(code: str, python: str, request: dict[str, Any]) -> dict[str, Any]:
    threads = str(request["threads"])
    done = subprocess.run(  # noqa: S603 - our own code
        [python, "-c", code, json.dumps(request)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{python} failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
