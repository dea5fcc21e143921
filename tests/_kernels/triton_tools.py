"""What the cases of `triton_cases.py` share: where the kernels run, trees, random tensors, comparisons."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from napari_aprcnn._kernels.triton import operators
from synthetic_trees import Stage, batch, scattered_boxes, stage, tree_from_fine_cells

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
interpreter_only = pytest.mark.skipif(not INTERPRETED, reason="is about the interpreter")
gpu_only = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")


class OnGPU:
    """The kernels' operators for tensors on the CPU, run on the GPU. Lists of ranges (int64) belong on the CPU."""

    def __init__(self) -> None:
        self.moved: dict[int, tuple[Tensor, Tensor]] = {}

    def there(self, part: Any) -> Any:
        if not isinstance(part, Tensor) or part.dtype == torch.int64:
            return part
        if part.dtype != torch.int32:
            return part.cuda()
        # The same table is the same tensor there, too: what is derived from it is kept.
        return self.moved.setdefault(id(part), (part, part.cuda()))[1]

    def back(self, part: Any) -> Any:
        if isinstance(part, tuple | list):
            return tuple(self.back(one) for one in part)
        return part.cpu() if isinstance(part, Tensor) else part

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operator = getattr(operators, name)
        return lambda *parts: self.back(operator(*(self.there(part) for part in parts)))


ops: Any = operators if INTERPRETED else OnGPU()
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False


def placed(s: Stage) -> Stage:
    """The stage with its tables where the kernels run; lists of ranges stay on the CPU."""
    parts = {f.name: getattr(s, f.name) for f in fields(s)}
    tables = {k: t.to(DEVICE) for k, t in parts.items() if isinstance(t, Tensor) and t.dtype == torch.int32}
    return replace(s, **tables)


def cases(*given: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Those given, whose last part is a type; on a GPU float16 as bfloat16, too, which the interpreter gets wrong."""
    return [*given, *((*c[:-1], torch.bfloat16) for c in given if c[-1] == torch.float16 and not INTERPRETED)]


def odd_tree() -> object:
    """One voxel-fine spot and a corner at the odd end of the grid: six levels, clipped blocks of all kinds."""
    fine = torch.zeros(11, 10, 9, dtype=torch.bool)
    fine[4, 5, 3] = fine[10, 9, 8] = fine[0, 9, 4] = True
    return tree_from_fine_cells((21, 19, 17), fine)


def items(depth: int, kernel: tuple[int, int, int]) -> Stage:
    """Two items, ragged."""
    return batch([stage(odd_tree(), depth, kernel), stage(scattered_boxes((9, 7, 5), 0.05), depth, kernel)])


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(got: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Equal up to rounding, relative to the largest value."""
    assert got.shape == expected.shape
    got, expected = got.detach(), expected.detach()
    error = float((got.double() - expected.double()).abs().max()) if got.numel() else 0.0
    limit = TOLERANCE.get(got.dtype, 2e-5) if tolerance is None else tolerance
    assert error <= limit * max(1.0, float(expected.abs().max()) if expected.numel() else 1.0), error


def case(s: Stage, cin: int, cout: int, kernel: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, ...]:
    depths = int(s.segments[:, 2].max()) + 1
    x = random(s.rows, cin, seed=1, dtype=dtype)
    tree = random(s.tree_rows + 1, cin, seed=2, dtype=dtype)
    tree[-1] = 0
    scale = (cin * kernel[0] * kernel[1] * kernel[2]) ** -0.5
    weight = (random(depths, cout, cin, *kernel, seed=3, dtype=torch.float32) * scale).to(dtype)
    bias = random(cout, seed=4, dtype=dtype)
    grad = random(s.rows, cout, seed=5, dtype=dtype)
    return x, tree, weight, bias, grad
