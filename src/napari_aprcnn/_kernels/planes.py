"""Convolutions of planes, separable networks and dense filters: the numpy-facing side of the kernels.

There is no reference beside them: torch runs the same networks, slower (`models.optimise`).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels.dispatch import default_threads, extension

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bytes = tuple[NDArray[np.int8], Floats, Floats, float, float]
    Pointwise = tuple[Floats, Floats, int, NDArray[np.uint16] | None, Bytes | Floats | None]
    Separable = tuple[Floats, int, Pointwise]

__all__ = [
    "DIRECT",
    "DOUBLED",
    "PLANES",
    "aligned",
    "can_filter",
    "can_halve",
    "can_quantise",
    "can_run",
    "filter_plane",
    "filter_weights",
    "heads",
    "lanes",
    "pack",
    "pair",
    "plain_decoder",
    "pool",
    "up",
]

DIRECT, DOUBLED, PLANES = 0, 1, 2
FEWEST_FILTERED = 16
_LEAST = 8
_LINE, _PAGE, _LARGE = 64, 4096, 1 << 20  # bytes of a cache line, of a page, from which on an array is large
# Neighbours in time lie far apart, and none where a page begins: there begins the memory of the threads (Scratch).
_PLACES = itertools.cycle(17 * _LINE * i % _PAGE for i in range(1, _PAGE // _LINE))


def aligned(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    """Uninitialised memory that begins with a cache line, large arrays with another line of a page each time.

    What numpy makes begins 16 bytes behind a line, so that kernels would take every register of 64 bytes from two. And
    all its large arrays begin at the same place of a page: where images are as wide as a power of two, a row that is
    read and the row that is written then want the same places of the cache, and loads wait for stores to addresses
    that only look alike.

    Examples
    --------
    >>> aligned(3, 5).ctypes.data % 64
    0
    """
    item = np.dtype(dtype).itemsize
    size = math.prod(shape)
    large = size * item >= _LARGE
    whole = _PAGE if large else _LINE
    room = np.empty(size + 2 * whole // item, dtype)
    at = (-room.ctypes.data % whole + (next(_PLACES) if large else 0)) // item
    return room[at : at + size].reshape(shape)


def _aligned_copy(values: NDArray[Any]) -> NDArray[Any]:
    out = aligned(*values.shape, dtype=values.dtype)
    out[...] = values
    return out


def can_run() -> bool:
    """Whether the kernels are there and in use."""
    return extension() is not None


def can_filter(weight: NDArray[Any]) -> bool:
    """Whether `filter_plane` takes these weights [columns, channels, y, x]: dense, 3 x 3, not too few channels."""
    columns, channels, *size = weight.shape
    enough = channels <= _LEAST or (channels % _LEAST == 0 and channels >= FEWEST_FILTERED)
    return can_run() and size == [3, 3] and enough and columns >= FEWEST_FILTERED


def filter_weights(weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
    """Weights [columns, channels, 3, 3] and bias [columns] as `filter_plane` takes them: four times as large.

    A few channels become 8, the last of which count for nothing.
    """
    weight = np.pad(weight, ((0, 0), (0, max(0, _LEAST - weight.shape[1])), (0, 0), (0, 0)))
    columns, channels = weight.shape[:2]
    size, padded = extension().plane_weights_size(channels, columns)
    filters, shift = aligned(size), np.zeros(padded, np.float32)
    extension().plane_weights(np.ascontiguousarray(weight), filters)
    shift[:columns] = bias
    return filters, shift


def filter_plane(
    x: Floats,
    filters: Floats,
    bias: Floats,
    out: Floats,
    *,
    norm: tuple[Floats, Floats] | None = None,
    add: Floats | None = None,
    add_scale: Floats | None = None,
    relu: bool = False,
    rows: tuple[int, int] | None = None,
) -> None:
    """Convolve a plane 3 x 3 by minimal filtering, F(4, 3) along both axes, on this thread; zeros lie outside.

    out = filters * x + bias + add_scale * add, then ReLU: in one pass, 36 products for what 144 taps give, equal to
    some 1e-6 of the largest.

    Parameters
    ----------
    x : (H, W, channels) float32
        At most 8 channels, or a multiple of 8.
    filters, bias
        Of `filter_weights`.
    out : (rows, W, columns) float32
        Written.
    norm
        Scale and shift (channels,) of a batch norm that comes before, with a ReLU behind it.
    add : (rows, W, columns) float32
        Added to the result.
    add_scale
        Factor of that, as long as the bias; ``None``: 1.
    relu
        Whether a ReLU follows.
    rows
        The first row of the result and the one behind its last; ``None``: all H.
    """
    first, last = (0, x.shape[0]) if rows is None else rows
    if x.shape[2] < _LEAST:
        x, few = np.zeros((*x.shape[:2], _LEAST), np.float32), x
        x[..., : few.shape[2]] = few
        missing = (0, _LEAST - few.shape[2])
        norm = None if norm is None else (np.pad(norm[0], missing), np.pad(norm[1], missing))
    extension().filter_plane(x, filters, bias, norm, add, add_scale, relu, first, last, out)


def can_halve() -> bool:
    """Whether this processor multiplies bfloat16, so that `half` is faster."""
    return can_run() and bool(extension().planes_half())


def can_quantise() -> bool:
    """Whether this processor multiplies 8 bits (AVX512-VNNI), and the kernels that do it are in use."""
    return can_run() and bool(extension().planes_int8())


def lanes() -> int:
    """Channels in a register of the instruction set in use; weights are packed for it."""
    return int(extension().planes_lanes())


def pack(
    weight: NDArray[Any],
    bias: NDArray[Any],
    *,
    span: tuple[float, float] | None = None,
    seen: Floats | None = None,
) -> Pointwise:
    """Weights (columns, channels) and bias (columns,) of a pointwise convolution as the kernels want them.

    Where the processor multiplies bfloat16 they are there rounded, too.

    Parameters
    ----------
    weight, bias
        Of the convolution.
    span
        Smallest and largest value of what is multiplied: with it `half` means 8 bits where `can_quantise` says yes,
        one scale for each column and one range for what is multiplied; values beyond are cut off.
    seen : (2,) float32
        Instead of that: the smallest and the largest value are kept up to date here, on one thread.
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
    halves = [_pairs(part) for part in parts] if can_halve() and channels % 16 == 0 else None
    joined = _aligned_copy(np.concatenate([part.ravel() for part in parts]))
    more: Any = seen
    if span is not None and seen is None and can_quantise() and channels % 16 == 0:
        more = _bytes(parts, span)
    return joined, shift, channels, None if halves is None else _aligned_copy(np.concatenate(halves)), more


def _bytes(parts: list[Floats], span: tuple[float, float]) -> Bytes:
    """Blocks [channel][column] in 8 bits, in fours of channels, and what makes values of their sums."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    step = max(high - low, 1e-30) / 255.0
    zero = float(np.clip(round(-low / step), 0, 255))
    quads, scales, shifts = [], [], []
    for part in parts:
        size = np.maximum(np.abs(part).max(axis=0), 1e-30) / 127.0
        whole = np.rint(part / size).astype(np.int8)
        quads.append(whole.reshape(len(part) // 4, 4, -1).transpose(0, 2, 1).ravel())
        scales.append(size * step)
        shifts.append(-zero * step * size * whole.sum(axis=0, dtype=np.int64))
    scale, shift = (np.concatenate(values).astype(np.float32) for values in (scales, shifts))
    return _aligned_copy(np.concatenate(quads)), scale, shift, 1.0 / step, zero


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
        Round what pointwise convolutions multiply to bfloat16, or to 8 bits where they were packed with a range; sums
        stay float32, or whole numbers. Nothing where `can_halve` says no and there is no range.
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


def pool(x: Floats, out: Floats) -> None:
    """Largest of 2 x 2 pixels, on this thread: x (2 H, 2 W, C) to out (H, W, C), C whole registers.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    extension().planes_pool(x, out)


def heads(x: Floats, head: Pointwise, out: Floats, *, first: int = 0) -> None:
    """Mix the channels of rows to a few planes, on this thread.

    Parameters
    ----------
    x : (rows, W, C) float32
        C whole registers.
    head
        Packed pointwise convolution of no more columns than a register has.
    out : (heads, H, W) float32
        Rows `first` .. `first` + rows - 1 are filled.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    extension().planes_heads(x, head, out, first)


def up(
    x: Floats,
    upper: Pointwise,
    lower: Pointwise,
    out: Floats,
    *,
    add: tuple[Floats, Floats] | None = None,
    relu: bool = False,
    half: bool = False,
    threads: int | None = None,
) -> None:
    """Transposed convolution, kernel 2, stride 2: x (H, W, C) to out (2 H, 2 W, K), then sum and ReLU in one pass.

    Parameters
    ----------
    x : (H, W, C) float32
    upper, lower
        Packed pointwise convolutions to the 2 K values of each row of 2 x 2 pixels.
    out : (2 H, 2 W, K) float32
        Filled.
    add
        Skip, as `out`, and its scale (2 K,) for two pixels side by side.
    relu
        Whether a ReLU follows.
    half, threads
        As `pair` takes them.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    skip, scale = add if add is not None else (None, None)
    extension().planes_up(x, upper, lower, skip, scale, relu, out, half, default_threads(threads))
