"""U-Nets for volumes, and the networks for planes, on a GPU: time and peak memory.

    python benchmarks/gpu_unets.py [--edge 256] [--train-edge 128] [--prr 2 6 20 54 124] [--json FILE]
    python benchmarks/gpu_unets.py --planes [--size 1024]
    python benchmarks/gpu_unets.py --compile-only     # fills triton's cache, so that a later run starts at once

Volumes: the depth-3 U-Net of 16 channels with 3 outputs on particles (three filter banks, with the reconstruction to
voxels) and as Hybrid2, beside the same network on voxels (channels_last_3d, cuDNN's own choice of algorithms). Index
tables are made in the first pass, whose time is told apart, and count as memory. float32 is TF32 where torch's
convolutions are. Kernels are compiled by several processes beforehand, layer by layer.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from gpu import milliseconds
from napari_aprcnn import nn
from napari_aprcnn._kernels.triton.guard import why_not
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.bench.trees import synthetic_tree
from napari_aprcnn.bench.unets import break_even
from napari_aprcnn.models.configs import FAMILY
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.volume_config import VolumeNetConfig, describe
from napari_aprcnn.models.volumes import VolumeNet

DEVICE = "cuda"
FORMS: dict[str, int | None] = {"pixel": 0, "apr": None, "hybrid2": 2}
NETWORK = VolumeNetConfig(channels=16, depth=3, filter_banks=3)

Record = dict[str, Any]
Layer = tuple[int, int, tuple[int, int, int], bool]  # channels in, out, kernel, bias


def layers() -> list[Layer]:
    """Particle convolutions of the network, each once."""
    found = {(s.inside, s.outside, s.kernel, s.key.startswith("head.")) for s in describe(NETWORK) if s.particles}
    return sorted(found, reverse=True)


def compile_layer(layer: Layer, name: str) -> None:
    """Run one layer forward and backward on few particles, with tree values, pooling and upsampling."""
    torch.set_num_threads(1)
    inside, outside, kernel, bias = layer
    dtype = getattr(torch, name)
    conv = nn.APRConv(inside, outside, kernel, filter_banks=NETWORK.filter_banks, bias=bias, device=DEVICE)
    stage = nn.Forest(synthetic_tree(32, 4.0)).stage(0)
    x = torch.randn(stage.rows, inside, device=DEVICE, dtype=dtype, requires_grad=True)
    with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
        out = conv(nn.ParticleTensor(x, stage))
        out = nn.APRUpsample()(nn.APRMaxPool()(out))
    out.features.float().sum().backward()


def compile_ahead(names: list[str], processes: int) -> None:
    """Compile what the network needs in several processes; they share triton's cache on the disk."""
    jobs = [(layer, name) for name in names for layer in layers()]
    start = time.perf_counter()
    with ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn")) as pool:
        for job in as_completed([pool.submit(compile_layer, *job) for job in jobs]):
            if job.exception() is not None:  # the run itself will tell, or do without
                print(f"compiling ahead: {job.exception()}", file=sys.stderr, flush=True)
    print(f"{len(jobs)} layers compiled in {time.perf_counter() - start:.0f} s", flush=True)


def measured(work: Callable[[], object], before: int) -> Record:
    """First pass, median of ten more, and memory at its highest in those beyond ``before``."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    first = 1000 * (time.perf_counter() - start)
    torch.cuda.reset_peak_memory_stats()
    took = milliseconds(work, 10)
    return {"first_ms": first, "ms": took, "peak_mb": (torch.cuda.max_memory_allocated() - before) / 2**20}


@cache
def tree_of(edge: int, prr: float) -> ParticleTree:
    return synthetic_tree(edge, prr)


def volume(form: str, edge: int, prr: float, dtype: torch.dtype, *, training: bool) -> Record:
    """One network on one input."""
    config = NETWORK.replace(particle_stages=FORMS[form])
    torch.manual_seed(0)
    net = VolumeNet(config).to(DEVICE).train(training)
    if form == "pixel":
        net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        dense = torch.randn(1, config.in_channels, edge, edge, edge, device=DEVICE)
        x: Any = dense.contiguous(memory_format=torch.channels_last_3d)
    else:
        tree = tree_of(edge, prr)
        features = torch.randn(len(tree), config.in_channels, device=DEVICE)
        x = nn.ParticleTensor(features, nn.Forest(tree).stage(0))

    def forward() -> Any:
        with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
            return net(x)

    def infer() -> None:
        with torch.inference_mode():
            out = forward()
            if isinstance(out, nn.ParticleTensor):
                nn.Reconstruct()(out)

    def train() -> None:
        out = forward()
        out = out.features if isinstance(out, nn.ParticleTensor) else out
        out.float().square().mean().backward()
        net.zero_grad()

    return measured(train if training else infer, torch.cuda.memory_allocated())


def case(form: str, edge: int, prr: float, name: str, *, training: bool) -> Record:
    """`volume`, or a record without numbers where memory does not suffice."""
    found: Record = {"first_ms": None, "ms": None, "peak_mb": None}
    with contextlib.suppress(torch.cuda.OutOfMemoryError):
        found = volume(form, edge, prr, getattr(torch, name), training=training)
    gc.collect()  # stages and their forest refer to each other
    torch.cuda.empty_cache()
    true = 1.0 if form == "pixel" else tree_of(edge, prr).prr
    return {"form": form, "edge": edge, "prr": true, "dtype": name, "training": training, **found}


def volumes(options: argparse.Namespace) -> None:
    records: list[Record] = []
    print(
        f"{'work':8}{'dtype':9}{'edge':>5} {'form':8}{'PRR':>7}{'ms':>10}{'first ms':>10}{'peak MB':>9}{'speed-up':>10}"
    )
    for training, edge in ((False, options.edge), (True, options.train_edge)):
        run = partial(case, edge=edge, training=training)
        pixel = {name: run("pixel", prr=1.0, name=name) for name in options.dtype}
        for name in options.dtype:
            note(records, pixel[name], pixel[name], options.json)
        for form in ("apr",) if training else ("apr", "hybrid2"):
            for prr in options.prr:
                for name in options.dtype:
                    note(records, run(form, prr=prr, name=name), pixel[name], options.json)
        for name in options.dtype:
            rows = [r for r in records if (r["form"], r["dtype"], r["training"]) == ("apr", name, training)]
            points = sorted((r["prr"], r["speed_up"]) for r in rows if r["speed_up"] is not None)
            with contextlib.suppress(ValueError, ZeroDivisionError, OverflowError):
                work = "train" if training else "infer"
                print(f"{work:8}{name:9} break-even at PRR {break_even(points):.2f}", flush=True)


def note(records: list[Record], row: Record, pixel: Record, path: Path | None) -> None:
    """Show a row, and write all so far: a run that is cut short leaves what it has."""
    row["speed_up"] = pixel["ms"] / row["ms"] if pixel["ms"] and row["ms"] else None
    records.append(row)
    work = "train" if row["training"] else "infer"
    label = f"{work:8}{row['dtype']:9}{row['edge']:5} {row['form']:8}{row['prr']:7.1f}"
    if row["ms"] is None:
        print(f"{label} out of memory", flush=True)
    else:
        speed = math.nan if row["speed_up"] is None else row["speed_up"]
        print(f"{label}{row['ms']:10.2f}{row['first_ms']:10.0f}{row['peak_mb']:9.0f}{speed:10.2f}", flush=True)
    write(records, path)


def write(records: list[Record], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": records}, indent=1))


def plane(net: torch.nn.Module, x: torch.Tensor, dtype: torch.dtype) -> None:
    with torch.inference_mode(), torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
        net(x)


def planes(options: argparse.Namespace) -> None:
    records: list[Record] = []
    print(f"{'network':16}{'dtype':9}{'edge':>6}{'ms':>10}{'first ms':>10}{'peak MB':>9}")
    for name in FAMILY:
        torch.manual_seed(0)
        net: Any = CellposeFamily(name).to(DEVICE).eval()
        net.to(memory_format=torch.channels_last)
        x = torch.randn(1, 2, options.size, options.size, device=DEVICE).contiguous(memory_format=torch.channels_last)
        for dtype in (torch.float32, torch.bfloat16):
            label = str(dtype).removeprefix("torch.")
            row: Record = {"network": name, "dtype": label, "size": options.size, "ms": None}
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                row |= measured(partial(plane, net, x, dtype), torch.cuda.memory_allocated())
            numbers = "  out of memory"
            if row["ms"] is not None:
                numbers = f"{row['ms']:10.3f}{row['first_ms']:10.0f}{row['peak_mb']:9.0f}"
            print(f"{name:16}{label:9}{options.size:6}{numbers}", flush=True)
            records.append(row)
            write(records, options.json)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--train-edge", type=int, default=128)
    parser.add_argument("--prr", nargs="+", type=float, default=[2, 6, 20, 54, 124])
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "float16"], choices=["float32", "float16", "bfloat16"]
    )
    parser.add_argument("--planes", action="store_true", help="the networks for planes instead")
    parser.add_argument("--size", type=int, default=1024, help="edge of the image for --planes")
    parser.add_argument("--processes", type=int, default=min(12, os.cpu_count() or 1), help="that compile; 0: none")
    parser.add_argument("--compile-only", action="store_true", help="measure nothing")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here (torch.cuda.is_available() is False): nothing to measure; see docs/gpu.md", file=sys.stderr)
        return 2
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), flush=True)
    if options.planes:
        planes(options)
        return 0
    reason = why_not(DEVICE)
    if reason is not None:
        print(f"the kernels do not run on this GPU, this is plain torch: {reason.message}", file=sys.stderr, flush=True)
    elif options.processes > 0:
        compile_ahead(options.dtype, options.processes)
    if not options.compile_only:
        volumes(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
