"""The layers that are annotated in: points of the whole image, or the labels of one slice. GUI thread only.

A labels layer as large as the image would take its memory, so the one that is painted in has the size of a slice and
lies where the slice is: other slices cannot be painted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points
from napari.layers.base import ActionType

from napari_aprcnn._napari.geometry import LayerImage, Placement
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn._napari.units import in_viewer_units, place_at, voxel_at
from napari_aprcnn.evaluate.slice_choice import SliceIndex, slice_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import AxisMapping

__all__ = ["Frame", "LabelsCanvas", "PointsCanvas"]

# Orange and white stand out on grey and on the colours of labels, for all eyes (Okabe-Ito).
FACE, EDGE = "#E69F00", "white"


@dataclass(frozen=True, eq=False)
class Frame:
    """Where slices lie in the image's array and in the viewer.

    Attributes
    ----------
    layer
        The image layer.
    image
        A snapshot of it.
    mapping
        Meaning of its axes.
    spacing_um
        Voxel size (z, y, x) that is used for it, if any is known.
    """

    layer: Any
    image: LayerImage
    mapping: AxisMapping
    spacing_um: tuple[float, float, float] | None = None

    @property
    def axes(self) -> str:
        """Axes of annotations: those of the image in the order T, Z, Y, X, without channels."""
        return "".join(letter for letter in "TZYX" if letter in self.mapping.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with these axes."""
        return tuple(self.image.shape[self.mapping.order.index(letter)] for letter in self.axes)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.shape[-2], self.shape[-1]

    def place(self, index: SliceIndex | None = None) -> Placement:
        """Say where a layer of all slices belongs, or that of one."""
        places = {} if index is None else dict(zip(slice_axes(self.axes), index, strict=True))
        start = [places.get(letter, 0) for letter in self.image.layer_axes(self.mapping)]
        return self.image.place(self.mapping, start=start)

    def to_layer(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring (N, D) points with `axes` to the axes of the layer."""
        letters = self.place().axes
        out = np.zeros((len(coordinates), len(letters)))
        for column, letter in enumerate(self.axes):
            out[:, letters.index(letter)] = coordinates[:, column]
        return out

    def from_layer(self, data: NDArray[Any]) -> NDArray[np.float64]:
        """Bring (N, D) points of the layer to `axes`."""
        letters = self.place().axes
        return np.asarray(data, np.float64)[:, [letters.index(letter) for letter in self.axes]]

    def plane_to_layer(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Bring a slice (Y, X) to an array of the layer's rank."""
        letters = self.place().axes
        turned = plane if letters.index("Y") < letters.index("X") else plane.T
        return turned.reshape([self.plane_shape["YX".index(a)] if a in "YX" else 1 for a in letters])

    def plane_from_layer(self, data: NDArray[Any]) -> NDArray[Any]:
        """Bring the array of a layer of one slice to (Y, X)."""
        letters = self.place().axes
        plane = data[tuple(slice(None) if letter in "YX" else 0 for letter in letters)]
        return plane if letters.index("Y") < letters.index("X") else plane.T

    # --- the viewer --------------------------------------------------------------------------------------------------

    def shown(self, viewer: Any) -> SliceIndex | None:
        """Return the slice that the viewer shows; nothing in 3D, outside, or where Y and X are not what it shows."""
        letters, dims = self.image.layer_axes(self.mapping), viewer.dims
        offset = dims.ndim - len(letters)
        seen = {letters[axis - offset] for axis in dims.displayed if axis >= offset}
        if dims.ndisplay != 2 or seen != {"Y", "X"}:
            return None
        point = voxel_at(self.layer, viewer, dims.point)[-len(letters) :]
        index = tuple(int(np.round(point[letters.index(letter)])) for letter in slice_axes(self.axes))
        inside = all(0 <= i < n for i, n in zip(index, self.shape[:-2], strict=True))
        return index if inside else None

    def show(self, viewer: Any, index: SliceIndex) -> None:
        """Move the viewer's sliders to a slice."""
        letters, dims = self.image.layer_axes(self.mapping), viewer.dims
        offset = dims.ndim - len(letters)
        point = voxel_at(self.layer, viewer, dims.point)[-len(letters) :]
        for letter, i in zip(slice_axes(self.axes), index, strict=True):
            point[letters.index(letter)] = i
        world = place_at(self.layer, viewer, point)
        for letter in slice_axes(self.axes):
            axis = letters.index(letter)
            dims.set_point(axis + offset, float(world[axis]))


class _Canvas:
    """A layer of the viewer that tells when the user has changed it."""

    layer: Any

    def __init__(self, viewer: Any, frame: Frame, edited: Callable[[], bool]) -> None:
        self._viewer, self._frame, self._edited = viewer, frame, edited
        self._quiet = False

    @property
    def there(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    def activate(self) -> None:
        """Make it the layer that clicks and keys go to; the tool in use stays."""
        if self.there:
            self._viewer.layers.selection.active = self.layer

    def bind(self, key: str, action: Callable[[], object]) -> None:
        """Bind a key: it works while this layer is the active one, and nowhere else."""
        self.layer.bind_key(key, lambda _layer: action() and None, overwrite=True)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        if self.there:
            self._viewer.layers.remove(self.layer)


class PointsCanvas(_Canvas):
    """The points of all chosen slices.

    Parameters
    ----------
    viewer
        The viewer model.
    frame
        Of the image.
    name
        Of the layer.
    edited
        Called after every step of the user.
    """

    def __init__(self, viewer: Any, frame: Frame, *, name: str, edited: Callable[[], bool]) -> None:
        super().__init__(viewer, frame, edited)
        place = frame.place()
        self.layer = Points(
            np.empty((0, len(place.axes))),
            name=name,
            ndim=len(place.axes),
            size=max(3.0, min(frame.plane_shape) / 40),
            face_color=FACE,
            border_color=EDGE,
            border_width=0.15,
            metadata={KEY: {"kind": "annotation points", "source": frame.image.name}},
            **in_viewer_units(place.kwargs, frame.layer, viewer),
        )
        viewer.layers.append(self.layer)
        self.layer.mode = "add"
        self.layer.events.data.connect(self._changed)

    def _changed(self, event: Any) -> None:
        if not self._quiet and event.action in (ActionType.ADDED, ActionType.REMOVED, ActionType.CHANGED):
            self._edited()

    def show(self, coordinates: NDArray[np.float64]) -> None:
        """Show (N, D) points, and tell nobody."""
        self._quiet = True
        try:
            self.layer.selected_data = set()
            self.layer.data = self._frame.to_layer(coordinates)
        finally:
            self._quiet = False

    def read(self) -> NDArray[np.float64]:
        """Return the points, (N, D)."""
        return self._frame.from_layer(self.layer.data)


class LabelsCanvas(_Canvas):
    """The labels of the slice that is shown.

    Parameters
    ----------
    viewer
        The viewer model.
    frame
        Of the image.
    name
        Of the layer.
    edited
        Called after every stroke of the user; returns whether it found one.
    """

    def __init__(self, viewer: Any, frame: Frame, *, name: str, index: SliceIndex, edited: Callable[[], bool]) -> None:
        super().__init__(viewer, frame, edited)
        self._tool, self._locked = "paint", True
        self.layer = Labels(
            frame.plane_to_layer(np.zeros(frame.plane_shape, np.uint16)),
            name=name,
            opacity=0.5,
            metadata={KEY: {"kind": "annotation labels", "source": frame.image.name}},
            **in_viewer_units(frame.place(index).kwargs, frame.layer, viewer),
        )
        self.layer.brush_size = max(2, min(frame.plane_shape) // 80)
        viewer.layers.append(self.layer)
        self._announced = False
        self.layer.events.paint.connect(self._painted)
        self.layer.events.labels_update.connect(self._drawn)
        self.layer.events.set_data.connect(self._drawn)

    def _painted(self, _event: Any) -> None:
        # After a brush stroke napari tells when it is in the array, of buckets and polygons just before.
        if not self._quiet:
            self._announced = not self._edited()

    def _drawn(self, _event: Any) -> None:
        if self._announced and not self._quiet:
            self._announced = not self._edited()

    def show(self, index: SliceIndex, plane: NDArray[Any] | None) -> None:
        """Show the labels of a slice, ready to paint on, and tell nobody."""
        values = np.zeros(self._frame.plane_shape, np.uint16) if plane is None else plane
        # Files have the smallest type that holds their labels; there must be room for more.
        values = values.astype(np.promote_types(values.dtype, np.uint16), copy=False)
        self.lock()  # the layer forgets its own history, which is of another slice
        self._quiet = True
        try:
            self.layer.data = np.ascontiguousarray(self._frame.plane_to_layer(values))
            self.layer.translate = self._frame.place(index).kwargs["translate"]
            self.layer.selected_label = int(values.max(initial=0)) + 1
        finally:
            self._quiet = False
        self.unlock()

    def lock(self) -> None:
        """Take no strokes: napari would paint on this slice while the one before it is shown."""
        if not self._locked:
            self._locked, self._tool = True, str(self.layer.mode)
        self.layer.editable = False

    def unlock(self) -> None:
        """Take strokes again, with the tool that was in use."""
        self.layer.editable = True
        if self._locked:
            self._locked = False
            self.layer.mode = self._tool

    def read(self) -> NDArray[Any]:
        """Return the labels of the slice, (Y, X); a view."""
        return self._frame.plane_from_layer(self.layer.data)

    def put(self, box: tuple[slice, slice], patch: NDArray[Any]) -> None:
        """Put labels back into a part of the slice, and tell nobody."""
        self.read()[box] = patch
        self.layer.refresh()
