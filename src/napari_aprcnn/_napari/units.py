"""Between the voxels of a layer and the places of its viewer, where layers have different length units. No Qt here.

napari shows all layers in one unit, the smallest of theirs: sliders, camera and clicks are in it. `layer.world_to_data`
takes places in the layer's own unit, whatever the viewer has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["in_viewer_units", "own_place", "own_units", "place_at", "ratios", "viewer_place", "voxel_at"]


def ratios(units: Sequence[Any], others: Sequence[Any]) -> NDArray[np.float64]:
    """Return how many of the other units one unit is, axis by axis; 1 along all axes if one cannot be converted.

    Examples
    --------
    >>> ratios(["um", "s"], ["nm", "s"]).tolist(), ratios(["um", "um"], ["nm", "pixel"]).tolist()
    ([1000.0, 1.0], [1.0, 1.0])
    """
    import pint

    found = []
    for one, other in zip(units, others, strict=True):
        try:
            ratio = 1.0 if one == other else pint.application_registry.Quantity(1.0, str(one)).to(str(other)).magnitude
        except (pint.PintError, AttributeError, TypeError, ValueError):
            return np.ones(len(units))
        found.append(float(ratio))
    # 1 um is 999.9999999999999 nm: that would add up over a long slider.
    return np.array([float(f"{ratio:.12g}") for ratio in found])


def own_units(layer: Any, viewer: Any) -> NDArray[np.float64]:
    """Return how many units of a layer one unit of its viewer is, along each axis of the layer."""
    # napari before 0.9 has no unit of its own; where those of the layers do not go together, it ignores them.
    shown = getattr(viewer.dims, "units", None)
    if shown is None or len(shown) < layer.ndim:
        return np.ones(layer.ndim)
    return ratios(shown[-layer.ndim :], layer.units)


def own_place(layer: Any, viewer: Any, place: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Bring a place of the viewer, or the way between two, to the units and the axes of a layer."""
    return np.asarray(place, float)[-layer.ndim :] * own_units(layer, viewer)


def viewer_place(layer: Any, viewer: Any, place: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Bring a place in the units of a layer to those of the viewer; the axes are the last ones of the viewer."""
    return np.asarray(place, float) / own_units(layer, viewer)


def voxel_at(layer: Any, viewer: Any, place: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Return the voxel of a layer (all its axes, not rounded) at a place of the viewer."""
    return np.asarray(layer.world_to_data(own_place(layer, viewer, place)), float)


def place_at(layer: Any, viewer: Any, voxel: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Return the place in the viewer, along its last axes, of a voxel of a layer."""
    return viewer_place(layer, viewer, layer.data_to_world(tuple(voxel)))


def in_viewer_units(kwargs: dict[str, Any], layer: Any, viewer: Any) -> dict[str, Any]:
    """Place a layer that belongs to another in the units of the viewer, so that napari's own tools meet its voxels.

    Parameters
    ----------
    kwargs
        Transforms of the new layer, in the units of `layer`, with ``affine`` and ``units``.
    layer
        The layer that it belongs to.
    viewer
        The viewer model.
    """
    n = len(kwargs["units"])
    shown = getattr(viewer.dims, "units", None)
    if shown is None or len(shown) < n or (own_units(layer, viewer) == 1).all():
        return kwargs
    affine = np.array(kwargs["affine"], float)
    affine[:n] /= ratios(shown[-n:], kwargs["units"])[:, None]
    return {**kwargs, "affine": affine, "units": tuple(shown[-n:])}
