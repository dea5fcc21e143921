"""The particles that the shown plane cuts, as points that follow the slider. GUI thread, but no Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from napari.utils.colormaps import ensure_colormap

from napari_aprcnn._napari.units import voxel_at
from napari_aprcnn.apr.pyramid import plane_cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.geometry import Placement
    from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["MOST_POINTS", "SliceParticles"]

MOST_POINTS = 50_000
_WATCHED = ("current_step", "order", "ndisplay")


class SliceParticles:
    """A points layer with one square for each particle of the plane in view: at its cell, of its size.

    Parameters
    ----------
    viewer
        The viewer model.
    tree
        The particles.
    placement
        Where an array of the tree's voxels belongs.
    tell
        Gets a sentence when a plane has more particles than can be shown.

    Attributes
    ----------
    layer
        The points layer; the caller adds it to the viewer.
    """

    def __init__(
        self, viewer: Any, tree: ParticleTree, placement: Placement, *, tell: Callable[[str], None], **options: Any
    ) -> None:
        self._viewer = viewer
        self._tree = tree
        self._axes = placement.axes
        self._tell = tell
        self._told = False
        self._shown: tuple[int, int] | None = None
        self.layer = Points(
            np.zeros((0, len(placement.axes))),
            ndim=len(placement.axes),
            symbol="square",
            face_color="transparent",
            border_width=0.08,
            opacity=0.8,
            features={"level": np.zeros(0, int)},
            **placement.kwargs,
            **options,
        )
        for name in _WATCHED:
            getattr(viewer.dims.events, name).connect(self.follow)
        viewer.layers.events.removed.connect(self._removed)

    def follow(self, _event: Any = None) -> None:
        """Show the particles of the plane that the viewer shows now."""
        axis, at = self._plane()
        if self._shown == (axis, at):
            return
        self._shown = (axis, at)
        index, centres, sizes = plane_cells(self._tree, at, axis=axis)
        if len(index) > MOST_POINTS:
            self._say(len(index))
            middle = np.array(self._tree.shape) / 2
            nearest = np.argpartition(((centres - middle) ** 2).sum(1), MOST_POINTS)[:MOST_POINTS]
            index, centres, sizes = index[nearest], centres[nearest], sizes[nearest]
        centres[:, axis] = at  # the cell's centre may lie in another plane, where the viewer would not draw it
        self._show(centres, sizes)

    def close(self) -> None:
        """Let go of the viewer; the layer stays as it is."""
        for name in _WATCHED:
            getattr(self._viewer.dims.events, name).disconnect(self.follow)
        self._viewer.layers.events.removed.disconnect(self._removed)

    def _removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.close()

    def _plane(self) -> tuple[int, int]:
        """Axis of the tree (0 z, 1 y, 2 x) that is sliced, and the voxel where."""
        dims, layer = self._viewer.dims, self.layer
        offset = dims.ndim - layer.ndim
        shown = {axis - offset for axis in dims.displayed}
        sliced = [i for i, letter in enumerate(self._axes) if letter in "ZYX" and i not in shown]
        own = sliced[0] if sliced else self._axes.index("Z")
        point = voxel_at(layer, self._viewer, dims.point)
        axis = "ZYX".index(self._axes[own])
        return axis, int(np.clip(np.round(point[own]), 0, self._tree.shape[axis] - 1))

    def _show(self, centres: NDArray[np.float64], sizes: NDArray[np.float64]) -> None:
        positions = np.zeros((len(centres), len(self._axes)))
        for own, letter in enumerate(self._axes):
            if letter in "ZYX":
                positions[:, own] = centres[:, "ZYX".index(letter)]
        levels = self._tree.level_max - np.log2(sizes).astype(int)
        span = max(1, self._tree.level_max - 1)
        colours = ensure_colormap("viridis").map((levels - 1) / span)
        layer = self.layer
        layer.selected_data = set()
        with layer.events.blocker_all():  # one drawing, not one for each property
            layer.data = positions
            layer.size = sizes
            layer.border_color = colours
            layer.features = {"level": levels}
        layer.events.data(value=layer.data, action="changed", data_indices=(), vertex_indices=((),))
        layer.refresh()

    def _say(self, n: int) -> None:
        if not self._told:
            self._told = True
            self._tell(
                f"this plane cuts {n:,} particles; the {MOST_POINTS:,} nearest to the middle of the image are shown"
            )
