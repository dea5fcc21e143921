"""Particle values: the numpy-facing side of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels import reference_values as reference
from napari_aprcnn._kernels.conversion import ask, finish, require_volume
from napari_aprcnn._kernels.dispatch import default_threads, extension

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Poll = Callable[[float], bool]

__all__ = ["sample_values", "value_dtype"]


def value_dtype(image: NDArray[Any]) -> np.dtype[Any]:
    """Type of the particle values of an image: uint8 and uint16 keep theirs, others become float32."""
    native = image.dtype.newbyteorder("=")
    return native if native in {np.dtype(np.uint8), np.dtype(np.uint16)} else np.dtype(np.float32)


def sample_values(
    image: NDArray[Any],
    level_rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    x: NDArray[np.uint16],
    *,
    level_max: int,
    repeated: bool = False,
    threads: int | None = None,
    poll: Poll | None = None,
) -> NDArray[Any]:
    """Particle values.

    Parameters
    ----------
    image : (Z, Y, X)
        As in `ConversionImage`.
    level_rows : (level_max + 2,) int64
    offsets : (rows + 1,) int64
    x : (particles,) uint16
        Rows of particles of the levels 0..level_max (tree.hpp).
    repeated
        The reference's values: means of eight, level by level, cut to the voxel type each time, odd ends counted twice.
        Otherwise the mean over the voxels of the cell that lie in the image, rounded once, half to even.

    Returns
    -------
    (particles,) uint8, uint16 or float32
        See `value_dtype`.

    Raises
    ------
    ValueError
        If the rows do not fit the image.
    Stopped
        If ``poll`` said yes.
    """
    require_volume(image)
    out = np.empty(len(x), value_dtype(image))
    kernels = extension()
    if kernels is None:
        ask(poll)
        reference.sample_values(image, level_rows, offsets, x, level_max, repeated, out)
        return out
    finished = kernels.sample_values(
        image,
        np.ascontiguousarray(level_rows, np.int64),
        np.ascontiguousarray(offsets, np.int64),
        np.ascontiguousarray(x, np.uint16),
        level_max,
        repeated,
        out,
        default_threads(threads),
        poll,
    )
    finish(finished)
    return out
