"""Compile every GPU kernel ahead of time and write what came out, with a roofline estimate, into docs/gpu.md.

Needs triton, but no GPU:  python benchmarks/triton_report.py [--targets sm_80 sm_90 gfx90a gfx942] [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import triton

from napari_aprcnn._kernels.triton.aot import TARGETS, Compiled, Specimen, compile_specimen, specimens

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"
SHOWN = ("16->16 3x3x3", "64->64 3x3x3", "1->16 3x3x3", "C=16 fp32", "reduce")
# Peak figures of the makers' data sheets: memory GB/s, and TFLOP/s dense for each kind of product.
GPUS = {
    "A100 40 GB": (1555, {"fp16": 312.0, "tf32": 156.0, "fp32": 19.5}),
    "H100 SXM": (3350, {"fp16": 989.0, "tf32": 495.0, "fp32": 67.0}),
}


def complaints(compiled: Compiled) -> list[str]:
    """What a kernel should not be."""
    found, specimen = [], compiled.specimen
    if compiled.spills:
        found.append(f"spills {compiled.spills}")
    if compiled.shared_bytes > 48 * 1024:
        found.append(f"{compiled.shared_bytes} bytes of shared memory")
    if TARGETS[compiled.target].backend == "cuda":
        if specimen.tensor_cores and not compiled.matrix_instructions:
            found.append("no tensor cores")
        if specimen.wide_loads and not compiled.wide_loads:
            found.append("no 16-byte loads")
    return found


def _try(specimen_index: int, target: str, quick: bool) -> Compiled:
    compiled = compile_specimen(chosen(quick)[specimen_index], target)
    return replace(compiled, specimen=replace(compiled.specimen, kernel=None))  # a kernel does not travel


def chosen(quick: bool) -> list[Specimen]:
    every = list(specimens())
    return [s for s in every if any(part in s.name for part in SHOWN)] if quick else every


def compile_all(targets: list[str], quick: bool) -> dict[str, list[Compiled]]:
    number = len(chosen(quick))
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = {}
        for target in targets:
            found[target] = list(pool.map(partial(_try, target=target, quick=quick), range(number), chunksize=4))
            print(f"{target}: {number} kernels", file=sys.stderr)
    return found


def summary(found: dict[str, list[Compiled]]) -> list[str]:
    lines = [
        "| target | kernels | with spills | most registers | most shared memory | on matrix units, of those meant to | "
        "16-byte loads, of those meant to |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for target, every in found.items():
        meant = [c for c in every if c.specimen.tensor_cores]
        wide = [c for c in every if c.specimen.wide_loads]
        lines.append(
            f"| {target} | {len(every)} | {sum(c.spills > 0 for c in every)} | {max(c.registers for c in every)} "
            f"| {max(c.shared_bytes for c in every) / 1024:.1f} KiB "
            f"| {sum(bool(c.matrix_instructions) for c in meant)} of {len(meant)} "
            f"| {sum(c.wide_loads > 0 for c in wide)} of {len(wide)} |"
        )
    return lines


def details(found: dict[str, list[Compiled]]) -> list[str]:
    lines = [
        "| kernel | target | registers | spills | shared, KiB | matrix instructions | loads of 16 bytes, of all |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for target in ("sm_80", "sm_90"):
        for c in found.get(target, []):
            if not any(part in c.specimen.name for part in SHOWN) or "bf16" in c.specimen.name:
                continue
            matrix = ", ".join(c.matrix_instructions) or "-"
            lines.append(
                f"| {c.specimen.name} | {target} | {c.registers} | {c.spills} | {c.shared_bytes / 1024:.1f} "
                f"| {matrix} | {c.wide_loads} of {sum(c.loads.values())} |"
            )
    return lines


def roofline() -> list[str]:
    """Lower bounds from peak figures: each feature and index read once, each output written once."""
    lines = [
        "| layer | FLOP a particle | bytes a particle | FLOP a byte | GPU | bound by | ps a particle | "
        "dense layer, ps a voxel | break-even PRR |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cin, cout in ((1, 16), (16, 16), (64, 64), (128, 128)):
        for kind, size in (("fp16", 2), ("tf32", 4), ("fp32", 4)):
            flop = 2 * 27 * cin * cout
            features = (cin * 8 / 7 + cout) * size  # at most one interior node for seven particles
            table = 27 * 4
            for gpu, (bandwidth, peak) in GPUS.items():
                compute = flop / peak[kind]
                memory = (features + table) / bandwidth * 1000
                dense = max(compute, (cin + cout) * size / bandwidth * 1000)
                ours = max(compute, memory)
                lines.append(
                    f"| {cin}->{cout} {kind} | {flop} | {features + table:.0f} | {flop / (features + table):.1f} "
                    f"| {gpu} "
                    f"| {'memory' if memory >= compute else 'arithmetic'} | {ours:.1f} | {dense:.1f} "
                    f"| {ours / dense:.1f} |"
                )
    return lines


def write(found: dict[str, list[Compiled]]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = {"summary": summary(found), "details": details(found), "roofline": roofline()}
    for name, lines in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = before + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    PAGE.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--quick", action="store_true", help="only the kernels that the page lists one by one")
    parser.add_argument("--print", action="store_true", help="to the terminal, not into docs/gpu.md")
    options = parser.parse_args()
    print(f"triton {triton.__version__}, torch {torch.__version__}", file=sys.stderr)
    found = compile_all(options.targets, options.quick)
    wrong = [(c, complaint) for every in found.values() for c in every for complaint in complaints(c)]
    for compiled, complaint in wrong:
        print(f"{compiled.target} {compiled.specimen.name}: {complaint}", file=sys.stderr)
    if options.print:
        print("\n".join([*summary(found), "", *details(found), "", *roofline()]))
    else:
        write(found)
    return 1 if any(TARGETS[c.target].backend == "cuda" for c, _ in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
