"""Particle layers beside dense layers on a GPU: forward, backward and peak memory, sparsity by sparsity.

    python benchmarks/gpu.py [--edge 256] [--channels 16] [--dtype float32 float16] [--prr 2 5 10 20 50 100 300 1000]

The dense layer is torch's conv3d (cuDNN, channels_last_3d) on the full grid; the particle layer is the convolution with
its tree values, on synthetic trees (nested shells). TF32 as torch is set; --full-float32 turns it off for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_aprcnn._kernels.triton.guard import why_not
from synthetic_trees import Stage, nested_spheres, stage

KERNEL = (3, 3, 3)


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median time of one call, by the GPU's own clock; the first calls (compilation, tables) are not counted."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def peak_mb(work: Callable[[], object]) -> float:
    """Memory at its highest during one call, on top of what was there before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def report(forward: Callable[[], object], both: Callable[[], object]) -> dict[str, float]:
    ahead = milliseconds(forward)
    return {
        "forward_ms": ahead,
        "backward_ms": milliseconds(both) - ahead,
        "forward_peak_mb": peak_mb(forward),
        "training_peak_mb": peak_mb(both),
    }


def dense_layer(edge: int, channels: int, dtype: torch.dtype) -> dict[str, float]:
    """One conv3d and its gradients on the full grid."""
    shape = (1, channels, edge, edge, edge)
    layout = torch.channels_last_3d
    x = torch.randn(shape, device="cuda", dtype=dtype).to(memory_format=layout).requires_grad_()
    weight = (
        torch.randn(channels, channels, *KERNEL, device="cuda", dtype=dtype).to(memory_format=layout).requires_grad_()
    )
    bias = torch.zeros(channels, device="cuda", dtype=dtype, requires_grad=True)
    back = torch.randn(shape, device="cuda", dtype=dtype).to(memory_format=layout)

    def forward() -> Tensor:
        with torch.no_grad():
            return F.conv3d(x, weight, bias, padding=1)

    def both() -> object:
        return torch.autograd.grad(F.conv3d(x, weight, bias, padding=1), (x, weight, bias), back)

    return report(forward, both)


def particle_layer(s: Stage, channels: int, dtype: torch.dtype) -> dict[str, float]:
    """Tree values and convolution, and the gradients of both, by the kernels themselves."""
    ops: Any = __import__("napari_aprcnn._kernels.triton.operators", fromlist=["operators"])
    depths = int(s.segments[:, 2].max()) + 1
    x = torch.randn(s.rows, channels, device="cuda", dtype=dtype)
    weight = torch.randn(depths, channels, channels, *KERNEL, device="cuda", dtype=dtype)
    bias = torch.zeros(channels, device="cuda", dtype=dtype)
    back = torch.randn(s.rows, channels, device="cuda", dtype=dtype)

    def forward() -> tuple[Tensor, Tensor]:
        tree = ops.fill_tree(x, s.children, s.node_ranges)
        return tree, ops.gather_conv(x, tree, weight, bias, s.neighbours, s.segments)

    def both() -> tuple[Tensor, ...]:
        tree, _ = forward()
        gx, gt = ops.gather_conv_input(back, weight, s.neighbours, s.segments, None, s.cells, s.tree_rows)
        gx = gx + ops.fill_tree_back(gt, s.children, s.node_ranges, s.rows)
        gw = ops.gather_conv_weight(back, x, tree, s.neighbours, s.segments, list(weight.shape))
        return gx, gw, ops.column_sums(back)

    return report(forward, both)


def check(dtype: torch.dtype) -> None:
    """The kernels agree with a plain gather on this GPU, before anything is timed."""
    ops: Any = __import__("napari_aprcnn._kernels.triton.operators", fromlist=["operators"])
    s = stage(nested_spheres((48, 40, 36), 6.0, "cuda"), 0, KERNEL)
    depths = int(s.segments[:, 2].max()) + 1
    x = torch.randn(s.rows, 16, device="cuda", dtype=dtype)
    weight = torch.randn(depths, 16, 16, *KERNEL, device="cuda", dtype=dtype) / 20
    tree = ops.fill_tree(x, s.children, s.node_ranges)
    got = ops.gather_conv(x, tree, weight, None, s.neighbours, s.segments).double()
    extended = torch.cat([x, tree]).double()
    parts = [
        torch.einsum("nkc,ock->no", extended[s.neighbours[a:b].long()], weight[d].flatten(2).double())
        for a, b, d in s.segments.tolist()
    ]
    error = float((got - torch.cat(parts)).abs().max() / got.abs().max())
    limit = 5e-3 if dtype != torch.float32 or torch.backends.cudnn.allow_tf32 else 1e-5
    if not error < limit:
        raise SystemExit(f"the kernels are wrong on this GPU: relative error {error:.2e} for {dtype}, expected {limit}")
    print(f"{dtype}: relative error {error:.1e} against float64", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "float16"], choices=["float32", "float16", "bfloat16"]
    )
    parser.add_argument("--prr", nargs="+", type=float, default=[2, 5, 10, 20, 50, 100, 300, 1000])
    parser.add_argument("--full-float32", action="store_true", help="no TF32")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here (torch.cuda.is_available() is False): nothing to measure; see docs/gpu.md", file=sys.stderr)
        return 2
    reason = why_not("cuda")
    if reason is not None:
        print(f"the kernels do not run on this GPU: {reason.message}", file=sys.stderr)
        return 2
    torch.backends.cudnn.allow_tf32 = not options.full_float32
    torch.backends.cudnn.benchmark = True
    records: list[dict[str, Any]] = []
    print(f"{torch.cuda.get_device_name()}, {options.edge}^3 voxels, {options.channels} -> {options.channels}, 3x3x3")
    print(
        f"{'dtype':9}{'PRR':>8}{'forward ms':>12}{'backward ms':>13}{'peak MB':>9}{'train MB':>10}"
        f"{'speed-up':>10}{'backward':>10}"
    )
    for name in options.dtype:
        dtype = getattr(torch, name)
        check(dtype)
        dense = dense_layer(options.edge, options.channels, dtype)
        records.append({"dtype": name, "prr": None, **dense})
        show(name, "dense", dense, dense)
        for prr in options.prr:
            tree = nested_spheres((options.edge,) * 3, prr, "cuda")
            torch.cuda.empty_cache()
            result = particle_layer(stage(tree, 0, KERNEL), options.channels, dtype)
            records.append({"dtype": name, "prr": tree.prr, "particles": tree.particles, **result})
            show(name, f"{tree.prr:.1f}", result, dense)
    if options.json:
        options.json.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": records}, indent=1))
    return 0


def show(dtype: str, prr: str, row: dict[str, float], dense: dict[str, float]) -> None:
    print(
        f"{dtype:9}{prr:>8}{row['forward_ms']:12.3f}{row['backward_ms']:13.3f}{row['forward_peak_mb']:9.0f}"
        f"{row['training_peak_mb']:10.0f}{dense['forward_ms'] / row['forward_ms']:10.2f}"
        f"{dense['backward_ms'] / row['backward_ms']:10.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
