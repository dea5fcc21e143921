"""A volume from image to labels: beside the cellpose package, and what the thesis' settings for volumes cost.

    python benchmarks/compare_volumes.py peer --peer build/peer/bin/python [--teacher cellpose.safetensors]
    python benchmarks/compare_volumes.py settings [--model fastercellpose-v3]

`peer`: our models and cellpose 3.1.1 (do_3D), as in `python -m napari_aprcnn.bench --only volumes`, of any --shape.
`settings`: resize factor and steps as in Table 4.6 of the FasterCellpose thesis, with the accuracy of each.
Both print a table and write it to --out, if given.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.bench.volumes import DIAMETER_PX, scores, simulated, table
from napari_aprcnn.config import FlowConfig, SegmentConfig
from napari_aprcnn.segment.pipeline import segment

THESIS = {(1, 200): 2231, (2, 200): 332, (1, 50): 637, (2, 50): 113}  # seconds, 237 x 1024 x 1024, v2


def peer(options: argparse.Namespace) -> BenchTable:
    """Times of both sides, and how well each finds the simulated nuclei."""
    return table(
        peer=Path(options.peer), models=options.models, teacher=options.teacher, threads=options.threads,
        shape=options.shape, repeats=options.repeats,
    )  # fmt: skip


def settings(options: argparse.Namespace) -> BenchTable:
    """Time and accuracy of a resize factor and a number of steps."""
    image, truth = simulated(options.shape)
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
        rows.append((factor, steps, seconds, stages["network"], stages["masks"], *scores(result.labels, truth), thesis))
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
    parser.add_argument(
        "--teacher", type=Path, help="weights of the `cellpose` network; default: grown from FasterCellpose v1"
    )
    parser.add_argument("--models", nargs="+", default=["fastercellpose-v3"])
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 512, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "peer" and not options.peer:
        parser.error("peer needs --peer")
    made = peer(options) if options.what == "peer" else settings(options)
    print(made.text())
    if options.out is not None:
        made.write(options.out, f"volumes_{options.what}")


if __name__ == "__main__":
    main()
