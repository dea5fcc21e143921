"""Block sizes of the kernels, from sizes alone: no search at run time, so that what was compiled ahead is what runs.

Shared memory stays within 48 KiB, what every GPU gives without asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["GatherShape", "OuterShape", "RowShape", "gather_shape", "outer_shape", "precision_of", "row_shape"]


def _power_of_two(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << max(0, n - 1).bit_length()


def _cut_depth(channels: int, taps: int, depth: int) -> tuple[int, int]:
    """Taps and channels of one step of the product: together ``depth`` products, at least 16."""
    if channels <= 16:
        chunk = _power_of_two(channels)
        return max(16 // chunk, min(depth // chunk, _power_of_two(taps))), chunk
    for chunk in (64, 32, 16):
        if chunk <= depth and channels % chunk == 0:
            return 1, chunk
    return 1, min(depth, 32) if channels > 64 else 16


@dataclass(frozen=True)
class GatherShape:
    """How `gather_gemm` is cut. ``steps`` times ``depth`` is the padded number of (tap, channel) pairs."""

    taps: int
    cin: int
    cout: int
    tap_block: int
    channel_block: int
    rows: int
    cols: int
    warps: int
    stages: int

    @property
    def chunks(self) -> int:
        """Steps that one group of taps takes."""
        return -(-self.cin // self.channel_block)

    @property
    def groups(self) -> int:
        """Groups of taps."""
        return -(-self.taps // self.tap_block)

    @property
    def steps(self) -> int:
        """Steps of the product."""
        return self.chunks * self.groups

    @property
    def depth(self) -> int:
        """Products that one step adds up."""
        return self.tap_block * self.channel_block

    @property
    def col_blocks(self) -> int:
        """Programs side by side that share one tile of rows."""
        return -(-self.cout // self.cols)

    def constants(self) -> dict[str, Any]:
        """What the kernel is compiled for."""
        return {
            "CIN": self.cin,
            "COUT": self.cout,
            "TAPS": self.taps,
            "TAP_BLOCK": self.tap_block,
            "CHANNEL_BLOCK": self.channel_block,
            "BLOCK_ROWS": self.rows,
            "BLOCK_COLS": self.cols,
        }

    def options(self) -> dict[str, int]:
        """How it is compiled."""
        return {"num_warps": self.warps, "num_stages": self.stages}


class OuterShape(GatherShape):
    """How `gather_outer` is cut: there a step is an output, and ``rows`` are what it adds up."""


def precision_of(dtype: torch.dtype) -> str:
    """``tf32`` or ``ieee`` for float32 products, as torch is told to do convolutions; 16-bit types have no choice.

    ``torch.backends.cudnn.allow_tf32`` is the switch, True unless changed. AMD GPUs always get ``ieee``.
    """
    if dtype != torch.float32 or torch.version.hip is not None:
        return "ieee"
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


def gather_shape(cin: int, cout: int, taps: int, dtype: torch.dtype, precision: str) -> GatherShape:
    """Blocks of `gather_gemm` for ``cin`` channels in, ``cout`` out."""
    half = dtype != torch.float32
    tap_block, channel_block = _cut_depth(cin, taps, 32)
    # Full float32 runs outside the tensor cores and keeps its sums in twice the registers.
    cols = min(64 if half or precision != "ieee" else 32, max(16, _power_of_two(cout)))
    # The indices of a step are loaded before its sources, so that five stages keep two steps of sources under way and
    # three keep one; 64 columns of float32 leave room for one.
    rows, stages = 128 if half else 64, 5 if half or cols < 64 else 3
    return GatherShape(taps, cin, cout, tap_block, channel_block, rows, cols, warps=4, stages=stages)


def outer_shape(cin: int, cout: int, taps: int, dtype: torch.dtype, precision: str) -> OuterShape:
    """Blocks of `gather_outer` for ``cin`` channels in, ``cout`` out."""
    if cin > 64:
        tap_block, chunk = _cut_depth(cin, taps, 64)
    else:
        chunk = _power_of_two(cin)
        tap_block = max(16 // chunk, min(64 // chunk, _power_of_two(taps)), 1)
    cols = min(64, max(16, _power_of_two(cout)))
    # TF32 wants both operands transposed, which copies straight into shared memory do 4 bytes at a time only.
    stages = 1 if precision == "tf32" and tap_block == 1 else 3
    return OuterShape(taps, cin, cout, tap_block, chunk, 32, cols, warps=4, stages=stages)


@dataclass(frozen=True)
class RowShape:
    """How the kernels over nodes, cells and rows are cut."""

    rows: int
    cols: int
    channels: int

    @property
    def col_blocks(self) -> int:
        """Programs side by side that share a block of rows."""
        return -(-self.channels // self.cols)

    def constants(self) -> dict[str, Any]:
        """What the kernel is compiled for."""
        return {"C": self.channels, "BLOCK_ROWS": self.rows, "BLOCK_COLS": self.cols}


def row_shape(channels: int) -> RowShape:
    """1,024 values a program: as many channels as there are, up to 64."""
    cols = min(64, _power_of_two(channels))
    return RowShape(rows=max(16, min(256, 1024 // cols)), cols=cols, channels=channels)
