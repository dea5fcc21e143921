"""Compile the kernels without a GPU, for a named architecture, and read what came out: registers, spills, loads.

What is compiled here has the block sizes and options of a launch (`configs`), with pointers that are multiples of 16
bytes, as torch's allocations are.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from napari_aprcnn._kernels.triton import device_gather, device_rows
from napari_aprcnn._kernels.triton.configs import GatherShape, gather_shape, outer_shape, row_shape

__all__ = ["TARGETS", "Compiled", "Specimen", "compile_specimen", "conv_specimens", "row_specimens", "specimens"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Specimen:
    """One kernel with everything that it is compiled for."""

    name: str
    kernel: Any
    types: dict[str, str]  # of the arguments that are no constants
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=dict)
    #: The product runs on tensor cores; sources are read 16 bytes at a time.
    tensor_cores: bool = False
    wide_loads: bool = False


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a specimen for one architecture."""

    specimen: Specimen
    target: str
    registers: int
    spills: int  # bytes of local memory, or spilled registers on AMD
    shared_bytes: int
    matrix_instructions: dict[str, int]
    loads: dict[str, int]

    @property
    def wide_loads(self) -> int:
        """Loads and asynchronous copies of 16 bytes."""
        return sum(number for name, number in self.loads.items() if "128" in name or "dwordx4" in name)


def _gather_types(dtype: torch.dtype, weight: torch.dtype | None = None) -> dict[str, str]:
    feature = f"*{_NAMES[dtype]}"
    return {
        "x": feature, "tree": feature, "table": "*i32", "weight": f"*{_NAMES[weight or dtype]}", "bias": "*fp32",
        "out": feature, "out_rows": "*i32", "tiles": "*i32", "rows_x": "i32",
    }  # fmt: skip


def _wide(shape: GatherShape, dtype: torch.dtype) -> bool:
    """Whether a row of the source is a multiple of 16 bytes."""
    return shape.cin * dtype.itemsize % 16 == 0


def conv_specimens(
    cin: int, cout: int, kernel: tuple[int, int, int], dtype: torch.dtype, precision: str
) -> Iterator[Specimen]:
    """Forward, the three launches of the input's gradient, and the weight's gradient."""
    taps = kernel[0] * kernel[1] * kernel[2]
    fine = (2 * (kernel[0] // 2) + 2) * (2 * (kernel[1] // 2) + 2) * (2 * (kernel[2] // 2) + 2) - 8
    kind = _NAMES[dtype] if dtype != torch.float32 else precision.replace("ieee", "fp32")
    label = f"{cin}->{cout} {'x'.join(map(str, kernel))} {kind}"
    launches = [
        ("forward", cin, cout, taps, {"HAS_TREE": True, "HAS_BIAS": True, "HAS_ROWS": False, "ACCUMULATE": False}),
        ("grad x", cout, cin, taps, {"HAS_TREE": False, "HAS_BIAS": False, "HAS_ROWS": False, "ACCUMULATE": False}),
        ("grad x fine", cout, cin, fine, {"HAS_TREE": False, "HAS_BIAS": False, "HAS_ROWS": True, "ACCUMULATE": True}),
        ("grad tree", cout, cin, taps, {"HAS_TREE": False, "HAS_BIAS": False, "HAS_ROWS": True, "ACCUMULATE": False}),
    ]
    tensor_cores = precision != "ieee" or dtype != torch.float32
    for name, source, target, number, flags in launches:
        if not number:
            continue
        shape = gather_shape(source, target, number, dtype, precision)
        yield Specimen(
            f"{name} {label}",
            device_gather.gather_gemm,
            _gather_types(dtype),
            {**shape.constants(), **flags, "PRECISION": precision},
            shape.options(),
            tensor_cores,
            _wide(shape, dtype),
        )
    shape = outer_shape(cin, cout, taps, dtype, precision)
    feature = f"*{_NAMES[dtype]}"
    yield Specimen(
        f"grad weight {label}",
        device_gather.gather_outer,
        {
            "x": feature,
            "tree": feature,
            "table": "*i32",
            "grad": feature,
            "partial": "*fp32",
            "chunks": "*i32",
            "rows_x": "i32",
            "limit": "i32",
        },
        {**shape.constants(), "HAS_TREE": True, "PRECISION": precision},
        shape.options(),
        tensor_cores,
        _wide(shape, dtype),
    )


def row_specimens(channels: int, dtype: torch.dtype) -> Iterator[Specimen]:
    """The kernels over nodes, cells and columns."""
    f, constants = f"*{_NAMES[dtype]}", row_shape(channels).constants()
    wide = {
        "mean_of_children",
        "max_of_children",
        "sum_of_children",
        "to_children",
        "cells_to_voxels",
        "voxels_to_cells",
    }
    types: dict[str, dict[str, str]] = {
        "mean_of_children": {"x": f, "tree": f, "children": "*i32"},
        "share_among_children": {"total": "*fp32", "grad_x": f, "children": "*i32"},
        "max_of_children": {"x": f, "out": f, "slots": "*u8", "children": "*i32"},
        "to_winners": {"grad": f, "slots": "*u8", "grad_x": f, "children": "*i32"},
        "to_children": {"x": f, "out": f, "children": "*i32"},
        "sum_of_children": {"grad": f, "grad_x": f, "children": "*i32"},
        "cells_to_voxels": {"x": f, "dense": f, "cells": "*i32"},
        "voxels_to_cells": {"dense": f, "sums": "*fp32", "cells": "*i32"},
        "voxels_to_partials": {"dense": f, "partial": "*fp32", "cells": "*i32"},
    }
    for name, pointers in types.items():
        kernel = getattr(device_rows, name)
        more = {"SHARE": 512} if name == "voxels_to_partials" else {}
        numbers = {n: "i32" for n in kernel.arg_names if n not in pointers and n not in constants and n not in more}
        yield Specimen(
            f"{name} C={channels} {_NAMES[dtype]}", kernel, {**pointers, **numbers}, {**constants, **more},
            wide_loads=name in wide and channels * dtype.itemsize % 16 == 0,
        )  # fmt: skip
    numbers = {"rows": "i32", "share": "i32"}
    yield Specimen(
        f"sum_rows C={channels} {_NAMES[dtype]}",
        device_gather.sum_rows,
        {"x": f, "partial": "*fp32", **numbers},
        constants,
    )


def _reduction() -> Specimen:
    types = {"partial": "*fp32", "out": "*fp32", "groups": "*i32", "width": "i32", "quota": "i32"}
    return Specimen("reduce_partials", device_gather.reduce_partials, types, {"BLOCK": 256, "UNIFORM": False})


def specimens() -> Iterator[Specimen]:
    """All kernels at the sizes of the APR U-Net (C = 16, depth 3) and at awkward ones."""
    sizes = [(1, 16), (16, 16), (32, 32), (48, 16), (64, 64), (128, 128), (256, 256), (16, 3), (8, 8), (13, 21)]
    modes = [(torch.float16, "ieee"), (torch.bfloat16, "ieee"), (torch.float32, "tf32"), (torch.float32, "ieee")]
    for dtype, precision in modes:
        for cin, cout in sizes:
            yield from conv_specimens(cin, cout, (3, 3, 3), dtype, precision)
        for kernel in ((1, 3, 3), (5, 5, 5), (1, 1, 1)):
            yield from conv_specimens(32, 16, kernel, dtype, precision)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for channels in (1, 16, 64):
            yield from row_specimens(channels, dtype)
    yield _reduction()


def compile_specimen(specimen: Specimen, target: str) -> Compiled:
    """Compile for a target of `TARGETS` and read the machine code."""
    kernel, names = specimen.kernel, specimen.kernel.arg_names
    signature = {name: specimen.types.get(name, "constexpr") for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    gpu = TARGETS[target]
    constants = dict(specimen.constants)
    if gpu.backend == "hip" and "PRECISION" in constants:
        constants["PRECISION"] = "ieee"
    source = ASTSource(kernel, signature, constants, aligned)
    options = dict(specimen.options)
    compiled: Any = triton.compile(source, target=gpu, options=options)
    if gpu.backend == "hip":
        return _read_amd(specimen, target, compiled.asm["amdgcn"], int(compiled.metadata.shared))
    return _read_nvidia(specimen, target, compiled.asm["cubin"], int(compiled.metadata.shared))


def _count(pattern: str, code: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in re.findall(pattern, code):
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def _read_nvidia(specimen: Specimen, target: str, cubin: bytes, shared: int) -> Compiled:
    tools = Path(str(files("triton"))) / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)

        def run(*command: str) -> str:
            return subprocess.run([*command, str(path)], check=True, capture_output=True, text=True).stdout  # noqa: S603

        usage = run(str(tools / "cuobjdump"), "--dump-resource-usage")
        code = run(str(tools / "nvdisasm"), "-c")
    registers = re.search(r"REG:(\d+)", usage)
    stack = re.search(r"STACK:(\d+)", usage)
    local = re.search(r"LOCAL:(\d+)", usage)
    if registers is None or stack is None or local is None:
        raise RuntimeError(f"cuobjdump gave no resource usage for {specimen.name}: {usage[:200]}")
    spills = int(stack[1]) + int(local[1]) + 4 * len(re.findall(r"\b(?:STL|LDL)\b", code))
    return Compiled(
        specimen,
        target,
        int(registers[1]),
        spills,
        shared,
        _count(r"\b(HMMA\.[\w.]+|HGMMA\.[\w.]+)", code),
        _count(r"\b(LDG\.E(?:\.\w+)*|LDGSTS(?:\.\w+)*|UTMALDG(?:\.\w+)*)", code),
    )


def _read_amd(specimen: Specimen, target: str, code: str, shared: int) -> Compiled:
    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", code)
        return int(found[1]) if found else 0

    return Compiled(
        specimen,
        target,
        number("vgpr_count"),
        number("vgpr_spill_count") + number("sgpr_spill_count"),
        shared,
        _count(r"\b(v_mfma_\w+)", code),
        _count(r"\b((?:global|buffer)_load_\w+)", code),
    )
