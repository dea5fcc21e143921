"""A volume from image to labels: beside the cellpose package, and what the thesis' settings for volumes cost.

    python benchmarks/compare_volumes.py peer --peer build/peer/bin/python --teacher cellpose.safetensors
    python benchmarks/compare_volumes.py settings [--model fastercellpose-v3]

`peer`: our model and cellpose 3.1.1 with the given weights of the `cellpose` network (do_3D, three planes), one after
the other, each in a process of its own with --threads threads, on a simulated volume of --shape. `settings`: resize
factor and steps as in Table 4.6 of the FasterCellpose thesis, with the accuracy of each.
Both print a table and write it to --out, if given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.config import FlowConfig, SegmentConfig
from napari_aprcnn.evaluate.matching import evaluate_pooled
from napari_aprcnn.segment.pipeline import segment

DIAMETER_PX = 25.0
THESIS = {(1, 200): 2231, (2, 200): 332, (1, 50): 637, (2, 50): 113}  # seconds, 237 x 1024 x 1024, v2
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


def volume(shape: tuple[int, ...], *, seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Blurred ellipsoids of uneven brightness with camera noise, and their labels."""
    rng = np.random.default_rng(seed)
    labels = ellipsoids(shape, int(np.prod(shape) / 14_000), diameter=DIAMETER_PX, seed=seed)
    bright = np.concatenate([[0.0], rng.uniform(600, 2000, int(labels.max()))]).astype(np.float32)
    image = ndimage.gaussian_filter(bright[labels], 1.0) + 100.0
    return rng.poisson(image).astype(np.uint16), labels


def _apart(code: str, python: str, request: dict[str, Any]) -> dict[str, Any]:
    threads = str(request["threads"])
    done = subprocess.run(
        [python, "-c", code, json.dumps(request)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _scores(labels: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    found = evaluate_pooled([(labels, truth)], thresholds=(0.5, 0.7))
    return found[0].f1, found[1].f1


def peer(options: argparse.Namespace) -> BenchTable:
    """Times of both sides, and how well each finds the simulated nuclei."""
    import torch

    from napari_aprcnn.models.zoo import load_model

    image, truth = volume(tuple(options.shape))
    rows: list[tuple[Any, ...]] = []
    with TemporaryDirectory() as folder:
        here = Path(folder)
        np.save(here / "image.npy", image)
        torch.save(load_model(options.teacher, device="cpu").module.state_dict(), here / "cellpose_network")
        request = {"image": str(here / "image.npy"), "threads": options.threads, "diameter": DIAMETER_PX}
        for model in options.models:
            masks = here / "ours.npy"
            ours = [
                _apart(_OURS, sys.executable, {**request, "model": model, "masks": str(masks)})
                for _ in range(options.repeats)
            ]
            best = min(ours, key=lambda run: run["seconds"])
            rows.append((model, best["seconds"], best["stages"]["network"], best["stages"]["masks"],
                         *_scores(np.load(masks), truth)))  # fmt: skip
        masks = here / "peer.npy"
        theirs = _apart(
            _PEER, options.peer, {**request, "weights": str(here / "cellpose_network"), "masks": str(masks)}
        )
        rows.append(("cellpose 3.1.1", theirs["seconds"], None, None, *_scores(np.load(masks), truth)))
    slow = theirs["seconds"]
    return BenchTable(
        title=f"{' x '.join(map(str, options.shape))}, {int(truth.max())} nuclei, image to labels",
        columns=("program", "s", "network s", "masks s", "F1 .5", "F1 .7", "times faster"),
        rows=tuple((*row, slow / row[1]) for row in rows),
        notes=(f"{options.threads} threads; ours: the shortest of {options.repeats}; cellpose: one run",),
    )


def settings(options: argparse.Namespace) -> BenchTable:
    """Time and accuracy of a resize factor and a number of steps."""
    image, truth = volume(tuple(options.shape))
    base = SegmentConfig(model=options.models[0], diameter_px=DIAMETER_PX, threads=options.threads, device="cpu",
                         dimensionality="planes", keep_flows=False)  # fmt: skip
    segment(image[:8, :64, :64], config=base)
    rows: list[tuple[Any, ...]] = []
    for (factor, steps), thesis in THESIS.items():
        config = base.replace(flows=FlowConfig(resize_factor=factor, n_steps=steps))
        start = time.perf_counter()
        result = segment(image, config=config)
        seconds = time.perf_counter() - start
        stages = result.readout.stages
        rows.append(
            (factor, steps, seconds, stages["network"], stages["masks"], *_scores(result.labels, truth), thesis)
        )
        print(f"resize {factor}, {steps} steps: {seconds:.1f} s, F1 {rows[-1][5]:.3f}", file=sys.stderr, flush=True)
    first = rows[0]
    return BenchTable(
        title=f"{' x '.join(map(str, options.shape))}, {int(truth.max())} nuclei, {options.models[0]}: Table 4.6",
        columns=("resize", "steps", "s", "network s", "masks s", "F1 .5", "F1 .7", "thesis s", "speed-up", "thesis'"),
        rows=tuple((*row, first[2] / row[2], first[7] / row[7]) for row in rows),
        notes=(f"{options.threads} threads; thesis: 237 x 1024 x 1024 on its machine, network and masks",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peer", "settings"])
    parser.add_argument("--peer", help="Python of an environment with cellpose 3.1.1 (peer_environment.sh)")
    parser.add_argument("--teacher", help="weights of the `cellpose` network, for both sides to be of one kind")
    parser.add_argument("--models", nargs="+", default=["fastercellpose-v3"])
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 512, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "peer" and not (options.peer and options.teacher):
        parser.error("peer needs --peer and --teacher")
    table = peer(options) if options.what == "peer" else settings(options)
    print(table.text())
    if options.out is not None:
        table.write(options.out, f"volumes_{options.what}")


if __name__ == "__main__":
    main()
