"""Which labels are inspected and on which image; where their voxels are in the viewer. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from psygnal import Signal

from napari_aprcnn._napari.foreign import steady
from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn._napari.units import place_at, voxel_at
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AprcnnError

__all__ = ["InspectLayers"]

Spacing = tuple[float, float, float]
_VOXELS = ("data", "paint", "labels_update")
_PLACE = ("scale", "units", "affine")


class InspectLayers:
    """A labels layer and, if there is one of the same shape, an image layer.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.

    Attributes
    ----------
    labels, image
        The chosen layers.
    axes
        Letters out of T, Z, Y, X of the labels' axes.
    spacing_um
        Edges (z, y, x) of a voxel; ``None`` where the layer does not tell.
    changed : Signal(str)
        ``layers``: there are others, or other names; ``choice``: another one is chosen, or its place has changed;
        ``voxels``: the labels were painted or replaced.
    """

    changed = Signal(str)

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.labels: Any | None = None
        self.image: Any | None = None
        self.axes = ""
        self.spacing_um: Spacing | None = None
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        found = self.all_labels
        active = viewer.layers.selection.active
        self.choose_labels(active if active in found else (found or [None])[-1])

    # --- choosing ----------------------------------------------------------------------------------------------------

    @property
    def all_labels(self) -> list[Any]:
        """Labels layers, the topmost last."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Labels)]

    @property
    def all_images(self) -> list[Any]:
        """Image layers of the shape of the labels."""
        if self.labels is None:
            return []
        shape = self.shape
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not layer.rgb and tuple(_full(layer).shape) == shape
        ]

    def choose_labels(self, layer: Any | None) -> None:
        """Choose the labels; an image of the same shape is chosen with them."""
        self._watch(self.labels, connect=False)
        self.labels = layer
        self._watch(layer, connect=True)
        self._look()
        fitting = self.all_images
        if self.image not in fitting:
            named = [image for image in fitting if layer is not None and str(layer.name).startswith(image.name)]
            self.image = (named or fitting or [None])[0]
        self.changed.emit("choice")

    def choose_image(self, layer: Any | None) -> None:
        """Choose the image whose intensities are measured; ``None``: no intensities."""
        self.image = layer
        self.changed.emit("choice")

    def _watch(self, layer: Any | None, *, connect: bool) -> None:
        for names, slot in ((_VOXELS, self._voxels_changed), (_PLACE, self._place_changed)):
            for name in names:
                event = getattr(layer.events, name, None) if layer is not None else None
                if event is not None:
                    event.connect(slot) if connect else event.disconnect(slot)

    def _layers_changed(self, _event: Any = None) -> None:
        found = self.all_labels
        gone = self.image is not None and self.image not in self._viewer.layers
        if gone:
            self.image = None
        if self.labels not in found:
            self.choose_labels(found[-1] if found else None)
        elif gone or (self.image is None and self.all_images and not self._declined):
            self.choose_labels(self.labels)
        self.changed.emit("layers")

    @property
    def _declined(self) -> bool:
        """An image that the user did not want is not forced on them, but the first that is opened is taken."""
        return len(self.all_images) > 1

    def _voxels_changed(self, event: Any = None) -> None:
        if getattr(event, "type", "") == "data":  # strokes of the brush change no shape
            self._look()
        self.changed.emit("voxels")

    def _place_changed(self, _event: Any = None) -> None:
        self._look()
        self.changed.emit("choice")

    def _look(self) -> None:
        self.axes, self.spacing_um = "", None
        if self.labels is None:
            return
        snapshot = image_of(self.labels)
        try:
            guessed = snapshot.guess().order
        except AprcnnError:
            return
        rank = len(snapshot.shape)
        # Labels have no channels: a short first axis is time or depth.
        self.axes = {2: "YX", 3: "TYX" if guessed == "TYX" else "ZYX", 4: "TZYX"}.get(rank, "")
        if self.axes:
            self.spacing_um = snapshot.spacing(AxisMapping(order=self.axes)).um

    def close(self) -> None:
        """Forget the viewer."""
        self._watch(self.labels, connect=False)
        self.labels = self.image = None
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.disconnect(self._layers_changed)

    # --- arrays ------------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why there is nothing to measure, or an empty string."""
        if self.labels is None:
            return "Segment an image, or open labels: their objects are listed here."
        return (
            "" if self.axes else f"The labels have {self.labels.data.ndim} axes; expected Y, X with Z and T or without."
        )

    @property
    def in_memory(self) -> bool:
        """Whether there are labels, and reading them costs nothing."""
        return not self.problem and isinstance(self.data, np.ndarray)

    @property
    def data(self) -> Any:
        """The labels at full resolution, as lazy as the layer holds them."""
        return _full(self.labels)

    @property
    def image_data(self) -> Any | None:
        """The image at full resolution, or ``None``."""
        return None if self.image is None or self.image not in self.all_images else steady(_full(self.image))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the labels."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def has_time(self) -> bool:
        """Whether the first axis is time."""
        return self.axes.startswith("T")

    # --- places ------------------------------------------------------------------------------------------------------

    def voxel_at(self, world: Sequence[float]) -> NDArray[np.float64]:
        """Voxel of the labels (all axes, not rounded) at a place of the viewer."""
        layer = self.labels
        if layer is None:
            return np.zeros(0)
        return voxel_at(layer, self._viewer, world)

    def world_at(self, voxel: Sequence[float]) -> NDArray[np.float64]:
        """Place in the viewer (axes of the labels) of a voxel."""
        return place_at(self.labels, self._viewer, voxel) if self.labels is not None else np.zeros(0)

    @property
    def shown_voxel(self) -> NDArray[np.float64]:
        """Voxel of the labels where the sliders are."""
        return self.voxel_at(self._viewer.dims.point)

    @property
    def shown_time(self) -> int | None:
        """Time point that is shown, where there is a time axis."""
        if not self.has_time:
            return None
        return int(np.clip(np.round(self.shown_voxel[0]), 0, self.shape[0] - 1))

    @property
    def slider_axis(self) -> int:
        """Axis (of Z, Y, X or Y, X) that runs away from who looks at the plane."""
        dims, rank = self._viewer.dims, len(self.axes.replace("T", ""))
        return max(0, dims.order[-3] - (dims.ndim - rank)) if dims.ndim >= 3 else 0

    def inside(self, voxel: Sequence[float] | NDArray[np.float64]) -> bool:
        """Whether a voxel is one of the image."""
        return all(-0.5 <= v < n - 0.5 for v, n in zip(voxel, self.shape, strict=True))

    def label_at(self, voxel: Sequence[float] | NDArray[np.float64]) -> int:
        """Label of a voxel, 0 outside."""
        if len(voxel) != len(self.shape) or not self.inside(voxel):
            return 0
        return int(np.asarray(self.data[tuple(int(np.floor(v + 0.5)) for v in voxel)]))


def _full(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data
