"""Flows as colours: the angle is the hue, the strength the brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["flows_to_rgb", "wheel"]

# Flows of the Cellpose family have length 5 inside a nucleus.
FULL_STRENGTH = 5.0


def wheel(angle: NDArray[Any], value: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour of an angle at a brightness (HSV with full saturation).

    Parameters
    ----------
    angle : (*S) float
        Radians; 0 is red.
    value : (*S) float
        Brightness, 0..1; values outside are clipped.

    Returns
    -------
    (*S, 3) uint8

    Examples
    --------
    >>> wheel(np.array([0.0, 2 * np.pi / 3]), np.array([1.0, 0.5])).tolist()
    [[255, 0, 0], [0, 128, 0]]
    """
    sector = (np.asarray(angle, dtype=np.float32) * np.float32(3 / np.pi)) % 6
    bright = np.clip(value, 0.0, 1.0).astype(np.float32)
    rgb = np.empty((*sector.shape, 3), np.uint8)
    for channel, centre in enumerate((0.0, 2.0, 4.0)):
        distance = np.abs((sector - centre + 3) % 6 - 3)
        rgb[..., channel] = np.round(255 * bright * np.clip(2 - distance, 0, 1))
    return rgb


def flows_to_rgb(flows: NDArray[Any]) -> NDArray[np.uint8]:
    """Picture flows as a colour wheel; of 3D flows the y and x components.

    Parameters
    ----------
    flows : (D, *S) float
        Components in z, y, x or y, x order.

    Returns
    -------
    (*S, 3) uint8
        Hue is the direction in the y, x plane, brightness the length of the flow there. Non-finite flows are black.
    """
    rgb = np.empty((*flows.shape[1:], 3), np.uint8)
    # Plane by plane: a volume's intermediate floats would take ten times the memory of the result.
    y, x = flows[-2], flows[-1]
    planes = np.ndindex(*y.shape[:-2])
    for index in planes:
        flow_y, flow_x = np.nan_to_num(y[index]), np.nan_to_num(x[index])
        rgb[index] = wheel(np.arctan2(flow_y, flow_x), np.hypot(flow_y, flow_x) / FULL_STRENGTH)
    return rgb
