"""U-Nets for volumes, and the networks for planes, on a GPU: time and peak memory.

    python benchmarks/gpu_unets.py [--edge 256] [--train-edge 128] [--prr 2 6 20 54 124] [--json FILE]
    python benchmarks/gpu_unets.py --planes [--size 1024]

Volumes: the depth-3 U-Net of 16 channels with 3 outputs on particles (three filter banks, with the reconstruction to
voxels) and as Hybrid2, beside the same network on voxels (channels_last_3d, cuDNN's own choice of algorithms). Index
tables are made in the first pass, which is told apart. float32 is TF32 where torch's convolutions are.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from napari_aprcnn.bench.trees import synthetic_tree
from napari_aprcnn.bench.unets import break_even
from napari_aprcnn.models.configs import FAMILY
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.nn import Forest, ParticleTensor, Reconstruct

Record = dict[str, Any]


def milliseconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Median time of one call by the wall clock, the GPU waited for; tables and compilation are not counted."""
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def measured(work: Callable[[], object]) -> Record:
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    first = 1000 * (time.perf_counter() - start)
    torch.cuda.reset_peak_memory_stats()
    took = milliseconds(work)
    return {"first_ms": first, "ms": took, "peak_mb": (torch.cuda.max_memory_allocated() - before) / 2**20}


def volume(form: str, stages: int | None, edge: int, prr: float, dtype: torch.dtype, *, training: bool) -> Record:
    config = VolumeNetConfig(channels=16, depth=3, filter_banks=3, particle_stages=stages)
    torch.manual_seed(0)
    net = VolumeNet(config).cuda()
    if stages == 0:
        net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        x: Any = torch.randn(1, config.in_channels, edge, edge, edge, device="cuda")
        x, found = x.contiguous(memory_format=torch.channels_last_3d), 1.0
    else:
        tree = synthetic_tree(edge, prr)
        x = ParticleTensor(torch.randn(len(tree), config.in_channels, device="cuda"), Forest(tree).stage(0))
        found = tree.prr

    def forward() -> Any:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            return net(x)

    def infer() -> None:
        with torch.inference_mode():
            out = forward()
            if isinstance(out, ParticleTensor):
                Reconstruct()(out)

    def train() -> None:
        out = forward()
        out = out.features if isinstance(out, ParticleTensor) else out
        out.float().square().mean().backward()
        net.zero_grad()

    name = str(dtype).removeprefix("torch.")
    label = {"form": form, "edge": edge, "prr": round(found, 1), "dtype": name, "training": training}
    try:
        return {**label, **measured(train if training else infer)}
    except torch.cuda.OutOfMemoryError:
        return {**label, "ms": math.nan, "first_ms": math.nan, "peak_mb": math.nan}


def volumes(options: argparse.Namespace) -> None:
    records: list[Record] = []
    print(
        f"{'dtype':9}{'work':8}{'edge':>5} {'form':8}{'PRR':>7}{'ms':>10}{'first ms':>10}{'peak MB':>9}{'speed-up':>10}"
    )
    for name in options.dtype:
        dtype = getattr(torch, name)
        for training, edge in ((False, options.edge), (True, options.train_edge)):
            pixel = volume("pixel", 0, edge, 1.0, dtype, training=training)
            note(records, pixel, pixel, options.json)
            points = []
            for form, stages in (("apr", None), ("hybrid2", 2)):
                if form == "hybrid2" and training:
                    continue
                for prr in options.prr:
                    one = volume(form, stages, edge, prr, dtype, training=training)
                    note(records, one, pixel, options.json)
                    points += [(one["prr"], pixel["ms"] / one["ms"])] * (form == "apr")
            print(f"break-even at PRR {break_even(points):.2f}", flush=True)


def note(records: list[Record], row: Record, pixel: Record, path: Path | None) -> None:
    """Show a row, and write all so far: a run that is cut short leaves what it has."""
    row["speed_up"] = pixel["ms"] / row["ms"]
    records.append(row)
    work = "train" if row["training"] else "infer"
    print(
        f"{row['dtype']:9}{work:8}{row['edge']:5} {row['form']:8}{row['prr']:7.1f}{row['ms']:10.2f}"
        f"{row['first_ms']:10.0f}{row['peak_mb']:9.0f}{row['speed_up']:10.2f}",
        flush=True,
    )
    if path is not None:
        path.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": records}, indent=1))


def planes(options: argparse.Namespace) -> None:
    records: list[Record] = []
    print(f"{'network':34}{'float32 ms':>12}{'bfloat16 ms':>13}{'peak MB':>9}")
    for config in FAMILY.values():
        torch.manual_seed(0)
        net = CellposeFamily(config.name).cuda().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(1, 2, options.size, options.size, device="cuda").contiguous(memory_format=torch.channels_last)
        row: Record = {"network": config.name, "size": options.size}
        for dtype in (torch.float32, torch.bfloat16):

            def infer(net: Any = net, x: Any = x, dtype: torch.dtype = dtype) -> None:
                with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                    net(x)

            row[str(dtype)] = measured(infer)
        records.append(row)
        whole, half = row["torch.float32"], row["torch.bfloat16"]
        print(f"{config.name:34}{whole['ms']:12.3f}{half['ms']:13.3f}{whole['peak_mb']:9.0f}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": records}, indent=1))


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
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here (torch.cuda.is_available() is False): nothing to measure; see docs/gpu.md", file=sys.stderr)
        return 2
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), flush=True)
    (planes if options.planes else volumes)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
