"""Clicks on objects in the viewer, and the way to an object. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from napari.layers import Points
from numpy.typing import NDArray

from napari_aprcnn._napari.inspect_layers import InspectLayers
from napari_aprcnn._napari.units import own_place, viewer_place
from napari_aprcnn.io.object_table import ObjectTable

__all__ = ["Marks", "Pointer"]

_STILL_PX = 4.0  # a click may tremble
_LEAST_PX = 80.0  # an object that the camera goes to is at least this large


class _Clicked(Protocol):
    def __call__(self, voxel: NDArray[np.float64], label: int, *, add: bool) -> None: ...


class Marks:
    """Shows the clicks of a split as a layer of points, which goes with them.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    layers
        The chosen labels.
    """

    def __init__(self, viewer: Any, layers: InspectLayers) -> None:
        self._viewer, self._layers = viewer, layers
        self._layer: Any | None = None

    def show(self, points: Sequence[Sequence[float]], t: int | None) -> None:
        """Show points, in voxels without T; none: take the layer away."""
        labels, shown = self._layers.labels, self._viewer.layers
        if self._layer is not None and (self._layer not in shown or not points):
            if self._layer in shown:
                shown.remove(self._layer)
            self._layer = None
        if not points or labels is None:
            return
        data = np.array([point if t is None else (t, *point) for point in points], float)
        if self._layer is not None:
            self._layer.data = data
            return
        before = shown.selection.active
        size = max(2.0, 0.012 * max(self._layers.shape))
        self._layer = Points(
            data, name="split here", size=size, face_color="#D55E00", border_color="white", scale=labels.scale,
            translate=labels.translate, rotate=labels.rotate, shear=labels.shear, affine=labels.affine,
            units=labels.units, out_of_slice_display=False,
        )  # fmt: skip
        shown.append(self._layer)
        shown.selection.active = before  # clicks go on in the labels


class Pointer:
    """Tells clicks on objects, follows the selected label, and moves the view.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    layers
        The chosen labels.
    clicked
        Gets the voxel and label of a click, and whether Shift or Ctrl was held.
    picked
        Gets a label that was selected elsewhere in napari.
    """

    def __init__(self, viewer: Any, layers: InspectLayers, clicked: _Clicked, picked: Callable[[int], None]) -> None:
        self._viewer, self._layers = viewer, layers
        self._clicked, self._picked = clicked, picked
        self._layer: Any | None = None
        self._quiet = False
        self._label = 0
        self.is_new = False
        viewer.mouse_drag_callbacks.append(self._on_mouse)

    def watch(self, layer: Any | None) -> None:
        """Follow the selected label of a layer; `is_new` says whether it is another one than before."""
        self.is_new = layer is not self._layer
        if self.is_new:
            if self._layer is not None:
                self._layer.events.selected_label.disconnect(self._label_selected)
            if layer is not None:
                layer.events.selected_label.connect(self._label_selected)
            self._layer = layer
            self._label = int(layer.selected_label) if layer is not None else 0

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Do not tell of what is selected meanwhile."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _label_selected(self, _event: Any = None) -> None:
        label = int(self._layer.selected_label) if self._layer is not None else 0
        # napari tells this also when only the colours are others.
        if label != self._label:
            self._label = label
            if not self._quiet:
                self._picked(label)

    def _on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Tell a click that is no drag; while labels are painted, clicks belong to the brush."""
        layer = self._layer
        active = viewer.layers.selection.active
        free = active is None or str(getattr(active, "mode", "pan_zoom")) in ("pan_zoom", "Mode.PAN_ZOOM")
        if layer is None or not layer.visible or not free or getattr(event, "button", 1) != 1:
            return
        start = np.asarray(event.pos, float)
        add = bool({str(getattr(m, "name", m)) for m in event.modifiers} & {"Shift", "Control"})
        world, ray, shown = event.position, event.view_direction, event.dims_displayed
        yield
        while event.type == "mouse_move":
            if np.abs(np.asarray(event.pos, float) - start).max() > _STILL_PX:
                return
            yield
        self.click(world, view_direction=ray, dims_displayed=shown, add=add)

    def click(self, world: Any, *, view_direction: Any = None, dims_displayed: Any = None, add: bool = False) -> None:
        """Tell a click at a place of the viewer."""
        layer = self._layer
        if layer is None or not self._layers.axes:
            return
        voxel = self._layers.voxel_at(world)
        if self._viewer.dims.ndisplay == 2:
            label = self._layers.label_at(voxel)
        else:
            place, ray = (self._own(there) for there in (world, view_direction))
            value = layer.get_value(place, view_direction=ray, dims_displayed=dims_displayed, world=True)
            value = value[1] if isinstance(value, tuple) else value  # of a multiscale layer: level and value
            label = int(value or 0)
        self._clicked(voxel, label, add=add)

    def _own(self, place: Any) -> Any:
        """Bring a place or a direction to the unit of the labels, which is what napari takes; other axes stay."""
        layer = self._layer
        if place is None or layer is None:
            return place
        place = np.array(place, float)
        place[-layer.ndim :] = own_place(layer, self._viewer, place)
        return place

    def go_to(self, table: ObjectTable, row: int, t: int | None) -> None:
        """Move sliders and camera to the object of a row; zoom in on one that would be tiny."""
        letters = table.axes.replace("T", "").lower()
        voxel = [float(table[f"centroid_{letter}_px"][row]) for letter in letters]
        world = self._layers.world_at(voxel if t is None else [t, *voxel])
        dims, camera = self._viewer.dims, self._viewer.camera
        offset = dims.ndim - len(world)
        dims.set_point(tuple(range(offset, dims.ndim)), tuple(world))
        place = np.concatenate([np.zeros(offset), world])
        middle = np.asarray(camera.center, float)
        displayed = list(dims.displayed)
        middle[-len(displayed) :] = place[displayed]
        camera.center = tuple(middle)
        edges = np.array([s.stop - s.start for s in table.box([row])], float)
        layer = self._layer
        scale = np.ones(1) if layer is None else np.abs(viewer_place(layer, self._viewer, layer.scale))
        size = float((edges * scale[-len(edges) :]).max())
        if size > 0 and camera.zoom * size < _LEAST_PX:
            camera.zoom = _LEAST_PX / size

    def close(self) -> None:
        """Forget the viewer."""
        self.watch(None)
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)
