"""Particle values in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels.reference_conversion import coarser, mean_of_eight

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["sample_values"]


def _exact_means(image: NDArray[Any], shift: int, kind: np.dtype[Any]) -> NDArray[Any]:
    whole = kind.kind == "u"
    total: NDArray[Any] = image.astype(np.int64 if whole else np.float64)
    for axis in range(3):
        total = np.add.reduceat(total, np.arange(0, image.shape[axis], 1 << shift), axis)
    grid = coarser(image.shape, shift)
    count: NDArray[Any] = np.ones((), np.int64)
    for axis, n in enumerate(image.shape):
        edge = np.minimum((np.arange(grid[axis]) + 1) << shift, n) - (np.arange(grid[axis]) << shift)
        shape = [1, 1, 1]
        shape[axis] = grid[axis]
        count = count * edge.reshape(shape)
    means: NDArray[Any] = total / count
    if whole:
        floor, rest = total // count, 2 * (total % count)
        means = floor + ((rest > count) | ((rest == count) & (floor % 2 == 1)))
    return means.astype(kind)


def sample_values(
    image: NDArray[Any],
    level_rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    x: NDArray[np.uint16],
    level_max: int,
    repeated: bool,
    out: NDArray[Any],
) -> None:
    """Fill in the particle values; see `values.sample_values`."""
    pyramid = image.astype(out.dtype)
    for level in range(level_max, -1, -1):
        if level < level_max and repeated:
            pyramid = mean_of_eight(pyramid).astype(out.dtype)
        r0, r1 = int(level_rows[level]), int(level_rows[level + 1])
        if offsets[r0] == offsets[r1]:
            continue
        means = pyramid if repeated or level == level_max else _exact_means(image, level_max - level, out.dtype)
        rows = np.repeat(np.arange(r1 - r0), np.diff(offsets[r0 : r1 + 1]))
        inside = slice(int(offsets[r0]), int(offsets[r1]))
        out[inside] = means.reshape(r1 - r0, -1)[rows, x[inside]]
