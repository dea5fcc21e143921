"""Blocks through a 2D network: plane by plane, or along three orientations with averaged flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_aprcnn.segment.scale import Scale, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_aprcnn.segment.tiles import Tiler

__all__ = ["ORIENTATIONS", "Orientation", "border_of", "predict_at", "predict_plane", "predict_volume"]


@dataclass(frozen=True)
class Orientation:
    """A stack of parallel planes through a volume.

    Attributes
    ----------
    name
        Rows and columns: ``xy``, ``zy``, ``zx``, as Cellpose calls them.
    stack, rows, columns
        Axes (z 0, y 1, x 2) along which planes are counted, and that they span.
    """

    name: str
    stack: int
    rows: int
    columns: int

    @property
    def axes(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns


ORIENTATIONS = (Orientation("xy", 0, 1, 2), Orientation("zy", 2, 0, 1), Orientation("zx", 1, 0, 2))
Z_BORDER_PX = 8
"""Zeros above and below a stack, fewer than beside it: stacks are thin, and the border is much of what is computed."""


def border_of(orientation: Orientation, border_px: int) -> tuple[int, int]:
    """Rows and columns of zeros around the planes of a stack: fewer along z."""
    return (min(border_px, Z_BORDER_PX) if orientation.rows == 0 else border_px), border_px


def predict_plane(
    plane: NDArray[np.float32],
    tiler: Tiler,
    scale: Scale,
    *,
    on_output: Callable[[tuple[slice, slice], Tensor], None] | None = None,
) -> NDArray[np.float32]:
    """Predict one plane at its own resolution.

    Parameters
    ----------
    plane : (H, W) float32
        Normalised intensities.
    tiler
        The network and its tiles.
    scale
        Rescaling to the network's resolution and back.
    on_output
        Called with the place (network pixels) and the outputs of each finished tile, where there are several.

    Returns
    -------
    (3, H, W) float32
        Flow y, flow x (5 times a unit vector, in the rescaled plane), logit of the probability.
    """
    height, width = plane.shape
    size = scale.network_size((height, width), (1, 2))
    planes = resize(torch.from_numpy(plane)[None, None], size)[:, 0]
    outputs = tiler.run(planes, on_output=on_output)
    return np.asarray(resize(outputs, (height, width))[0].contiguous().numpy())


def predict_at(planes: NDArray[np.float32], tiler: Tiler, size: tuple[int, int]) -> NDArray[np.float32]:
    """Predict planes (N, H, W) and leave the outputs (N, 3, *size) at the network's resolution."""
    resized = resize(torch.from_numpy(planes)[:, None], size)[:, 0]
    return np.asarray(tiler.run(resized).contiguous().numpy())


def predict_volume(
    volume: NDArray[np.float32],
    tiler: Tiler,
    scale: Scale,
    *,
    on_planes: Callable[[int, Tensor], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predict a volume on its xy, zy and zx planes and average.

    Each component of the flows is the mean over the two orientations that hold it, the probability over all three
    (thesis 3.1; Cellpose, Stringer et al. 2021).

    Parameters
    ----------
    volume : (Z, Y, X) float32
        Normalised intensities.
    tiler
        The network and its tiles.
    scale
        Rescaling; planes that hold z are stretched by the anisotropy so that their pixels are square.
    on_planes
        Called with the index of the first plane and the outputs (N, 3, Y, X) of each finished batch of xy planes.

    Returns
    -------
    flows : (3, Z, Y, X) float32
        Components z, y, x, 5 times a unit vector in the rescaled volume.
    probability : (Z, Y, X) float32
        Logit.
    """
    flows = np.zeros((3, *volume.shape), np.float32)
    probability = np.zeros(volume.shape, np.float32)
    for orientation in ORIENTATIONS:
        order = (orientation.stack, orientation.rows, orientation.columns)
        planes = volume.transpose(order)
        into = [flows[axis].transpose(order) for axis in orientation.axes] + [probability.transpose(order)]
        height, width = planes.shape[1:]
        size = scale.network_size((height, width), orientation.axes)
        border = border_of(orientation, tiler.border_px)
        # At least eight planes at a time where they are columns of the volume: one cache line of each is used.
        step = max(tiler.batch(size, border=border), 8 if orientation.stack == 2 else 1)
        for start in range(0, len(planes), step):
            part = slice(start, min(start + step, len(planes)))
            batch = torch.from_numpy(np.ascontiguousarray(planes[part]))
            outputs = resize(tiler.run(resize(batch[:, None], size)[:, 0], border=border), (height, width))
            for channel, target in enumerate(into):
                target[part] += outputs[:, channel].numpy()
            if on_planes is not None and orientation.stack == 0:
                on_planes(start, outputs)
    flows *= 0.5
    probability *= np.float32(1 / 3)
    return flows, probability
