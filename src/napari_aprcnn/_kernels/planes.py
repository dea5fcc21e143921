"""Networks of separable convolutions on planes: the numpy-facing side of the kernels.

There is no reference beside them: torch runs the same networks, slower (`models.optimise`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels.dispatch import default_threads, extension

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Pointwise = tuple[Floats, Floats, int, NDArray[np.uint16] | None]
    Separable = tuple[Floats, int, Pointwise]

__all__ = ["DIRECT", "DOUBLED", "PLANES", "can_halve", "can_run", "lanes", "pack", "pair", "plain_decoder", "up"]

DIRECT, DOUBLED, PLANES = 0, 1, 2


def can_run() -> bool:
    """Whether the kernels are there and in use."""
    return extension() is not None


def can_halve() -> bool:
    """Whether this processor multiplies bfloat16, so that `half` is faster."""
    return can_run() and bool(extension().planes_half())


def lanes() -> int:
    """Channels in a register of the instruction set in use; weights are packed for it."""
    return int(extension().planes_lanes())


def pack(weight: NDArray[Any], bias: NDArray[Any]) -> Pointwise:
    """Weights (columns, channels) and bias (columns,) of a pointwise convolution as the kernels want them.

    Where the processor multiplies bfloat16 they are there rounded, too.
    """
    width, (columns, channels) = lanes(), weight.shape
    whole = -(-columns // width) * width
    padded = np.zeros((whole, channels), np.float32)
    padded[:columns] = weight
    shift = np.zeros(whole, np.float32)
    shift[:columns] = bias
    parts, at = [], 0
    while at < whole:
        step = 2 * width if whole - at >= 2 * width else width
        parts.append(padded[at : at + step].T)
        at += step
    # Only whole registers of channels are multiplied in pairs.
    halves = np.concatenate([_pairs(part) for part in parts]) if can_halve() and channels % 16 == 0 else None
    return np.concatenate([part.ravel() for part in parts]), shift, channels, halves


def _pairs(part: Floats) -> NDArray[np.uint16]:
    """(channels, columns) rounded to bfloat16, to even, in pairs of channels: [channel / 2][column][2]."""
    bits = np.ascontiguousarray(part).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return rounded.reshape(len(part) // 2, 2, -1).transpose(0, 2, 1).ravel()


def pair(
    x: Floats,
    source: int,
    norm: tuple[Floats, Floats],
    first: Separable,
    second: Separable,
    out: Floats,
    *,
    add: tuple[Floats, Floats] | None = None,
    identity: bool = False,
    projection: Pointwise | None = None,
    head: tuple[Pointwise, Floats, Floats] | None = None,
    pooled: Floats | None = None,
    rows: tuple[int, int] | None = None,
    half: bool = False,
    threads: int | None = None,
) -> None:
    """Two separable convolutions: ``second(relu(first(relu(scale x + shift)) + skip * add_scale)) + residual``.

    Parameters
    ----------
    x : (H, W, C) float32
        The block's size (`DIRECT`) or half of it (`DOUBLED`, nearest); or (C, H, W), any number of channels (`PLANES`).
    norm
        Scale and shift (C,).
    first, second
        Taps (9, C), dilation 1 or 2, packed pointwise convolution.
    out : (H, W, K) float32, or (heads, H, W) with a head
        Filled.
    add
        Skip (H, W, M) and its scale (M,).
    identity, projection
        What is added to the result: the source itself, or a pointwise convolution of it.
    head
        Pointwise convolution, scale and shift: planes of ``head(relu(scale result + shift))`` instead of the result.
    pooled : (H / 2, W / 2, K) float32
        Filled with the largest of 2 x 2 results.
    rows
        First row and last row + 1 to compute; ``None``: all.
    half
        Round what pointwise convolutions multiply to bfloat16; sums stay float32. Nothing where `can_halve` says no.
    threads
        ``None``: as many as torch uses. The result does not depend on it.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    height = x.shape[1] if source == PLANES else x.shape[0] * (2 if source == DOUBLED else 1)
    skip, scale = add if add is not None else (None, None)
    low, high = rows if rows is not None else (0, height)
    residual = (skip, scale, identity, projection, head, pooled)
    extension().planes_pair(x, source, *norm, first, second, *residual, out, low, high, half, default_threads(threads))


def plain_decoder(
    scales: tuple[tuple[Any, ...], ...],
    last: Pointwise,
    head: Pointwise,
    out: Floats,
    *,
    doubled: bool = False,
    rows: tuple[int, int] | None = None,
    half: bool = False,
    threads: int | None = None,
) -> None:
    """A decoder without residuals, from the coarsest skip to the output planes.

    Parameters
    ----------
    scales
        Four, the finest first: skip (H, W, C), its scale (2 C,) for two pixels side by side (coarsest: (C,)), shift
        (C,) of the coarsest or ``None``, taps (9, C), and the pointwise convolutions that make the upper and the lower
        row of 2 x 2 pixels of the finer scale (``None`` at the finest).
    doubled
        The 2 x 2 pixels are alike: one pointwise convolution each, to the channels of the finer scale, and ``None``.
    last, head
        Pointwise convolutions at the finest scale; a ReLU lies between them.
    out : (heads, H, W) float32
        Filled; height and width are multiples of 8.
    rows, half, threads
        As `pair` takes them.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    low, high = rows if rows is not None else (0, out.shape[1])
    extension().planes_plain_decoder(scales, last, head, out, low, high, doubled, half, default_threads(threads))


def up(
    x: Floats, upper: Pointwise, lower: Pointwise, out: Floats, *, half: bool = False, threads: int | None = None
) -> None:
    """Transposed convolution, kernel 2, stride 2: x (H, W, C) to out (2 H, 2 W, K).

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    extension().planes_up(x, upper, lower, out, half, default_threads(threads))
