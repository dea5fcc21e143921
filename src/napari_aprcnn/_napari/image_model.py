"""Which image is segmented: the layer, the meaning of its axes, its voxel size. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_aprcnn._napari.geometry import LayerImage, Spacing, edges, image_of, plausible_orders
from napari_aprcnn._napari.result_layers import KEY, follow_image
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AprcnnError, AxesError
from napari_aprcnn.segment.axes import check_axes, describe_axes

__all__ = ["ImageModel"]

_WATCHED = ("scale", "units", "affine", "data")


class ImageModel:
    """The chosen image layer of a viewer. What the user sets for a layer (axes, voxel size) is kept with the layer.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.

    Attributes
    ----------
    changed : Signal(str)
        ``layers``: there are others, or other names; ``image``: the choice, its axes or its voxel size.
    refused : Signal(str)
        Why an input was not taken.
    """

    changed = Signal(str)
    refused = Signal(str)

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any | None = None
        self._image: LayerImage | None = None
        self._mapping: AxisMapping | None = None
        self._axes_problem = ""
        self._chosen_axes: WeakKeyDictionary[Any, AxisMapping] = WeakKeyDictionary()
        self._chosen_spacing: WeakKeyDictionary[Any, tuple[float, float, float]] = WeakKeyDictionary()
        viewer.layers.events.inserted.connect(self._layers_changed)
        viewer.layers.events.removed.connect(self._layers_changed)
        viewer.layers.events.renamed.connect(self._layers_renamed)
        active = viewer.layers.selection.active
        self.select(active if active in self.layers else (self.layers or [None])[-1])

    @property
    def layers(self) -> list[Any]:
        """The layers that can be segmented, the topmost last; pictures of our own results are left out."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image) and KEY not in layer.metadata]

    @property
    def layer(self) -> Any | None:
        """The chosen layer."""
        return self._layer

    def select(self, layer: Any | None) -> None:
        """Choose the image layer to segment; what was set for it before (axes, voxel size) is there again."""
        for name in _WATCHED:
            if self._layer is not None:
                getattr(self._layer.events, name).disconnect(self._look_at_layer)
            if layer is not None:
                getattr(layer.events, name).connect(self._look_at_layer)
        self._layer = layer
        self._look_at_layer()

    def _look_at_layer(self, _event: Any = None) -> None:
        self._image = self._mapping = None
        self._axes_problem = ""
        if self._layer is not None:
            self._image = image_of(self._layer)
            chosen = self._chosen_axes.get(self._layer)
            try:
                self._mapping = self._image.guess() if chosen is None else check_axes(self._image.shape, chosen)
            except AprcnnError as error:
                self._axes_problem = str(error)
                self._chosen_axes.pop(self._layer, None)
        self.changed.emit("image")

    def _layers_changed(self, _event: Any = None) -> None:
        layers = self.layers
        self.changed.emit("layers")
        if self._layer not in layers:
            self.select(layers[-1] if layers else None)

    def _layers_renamed(self, _event: Any = None) -> None:
        if self._layer is not None:
            self._image = image_of(self._layer)
        self.changed.emit("layers")

    # --- axes and voxel size -----------------------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why there is nothing to segment, or an empty string."""
        if self._image is None:
            return "Open an image, or choose an image layer."
        return self._axes_problem if self._mapping is None else ""

    @property
    def snapshot(self) -> LayerImage | None:
        """The chosen layer as it is now."""
        return self._image

    @property
    def mapping(self) -> AxisMapping | None:
        """Meaning of the axes of the chosen layer's array."""
        return self._mapping

    @property
    def orders(self) -> tuple[str, ...]:
        """Axis orders to choose from."""
        if self._image is None:
            return ()
        orders = plausible_orders(len(self._image.shape), rgb=self._image.rgb)
        current = () if self._mapping is None else (self._mapping.order,)
        return tuple(dict.fromkeys((*current, *orders)))

    @property
    def n_channels(self) -> int:
        """Channels to choose from; 0 without a channel axis."""
        if self._image is None or self._mapping is None or "C" not in self._mapping.order:
            return 0
        return self._image.shape[self._mapping.order.index("C")]

    @property
    def shape_words(self) -> str:
        """The shape in words, or why there is none."""
        if self._image is None:
            return "no image layer"
        if self._mapping is None:
            return self._axes_problem
        return describe_axes(self._image.shape, self._mapping)

    def set_axes(self, order: str, channel: int = 0) -> None:
        """Say what the axes are. A mapping that does not fit is told and leaves the old one."""
        if self._layer is None or self._image is None:
            return
        try:
            mapping = AxisMapping(order=order, channel=channel if "C" in order.upper() else 0)
            check_axes(self._image.shape, mapping)
            if self._image.rgb and not mapping.order.endswith("C"):
                raise AxesError(
                    f"the axes {mapping.order} do not end in C; the colours of an RGB layer are its last axis"
                )
        except AprcnnError as error:
            self.refused.emit(str(error))
        else:
            self._chosen_axes[self._layer] = self._mapping = mapping
        self.changed.emit("image")

    @property
    def spacing(self) -> Spacing:
        """Voxel size in use and where it is from."""
        if self._layer is not None and self._layer in self._chosen_spacing:
            return Spacing(self._chosen_spacing[self._layer], "set here")
        if self._image is None or self._mapping is None:
            return Spacing(None, "")
        return self._image.spacing(self._mapping)

    def set_spacing(self, spacing_um: Sequence[float] | None) -> None:
        """Set the voxel size (z, y, x) for the chosen layer, in micrometres; ``None``: what the layer says."""
        if self._layer is None:
            return
        if spacing_um is None:
            self._chosen_spacing.pop(self._layer, None)
        else:
            z, y, x = (float(value) for value in spacing_um)
            if not all(np.isfinite((z, y, x))) or min(z, y, x) <= 0:
                self.refused.emit(f"got a voxel size of {(z, y, x)}, expected three numbers above 0")
            else:
                self._chosen_spacing[self._layer] = (z, y, x)
        self.changed.emit("image")

    def write_spacing_to_layer(self) -> None:
        """Give the chosen layer the voxel size set here, so that the viewer shows it in its true shape.

        Results that lie on it are taken along.
        """
        spacing = self.spacing.um
        if self._layer is None or self._image is None or self._mapping is None or spacing is None:
            return
        before = image_of(self._layer)
        letters, sizes = before.layer_axes(self._mapping), dict(zip("ZYX", spacing, strict=True))
        scale = np.array(self._layer.scale, float)
        for axis, (letter, edge) in enumerate(zip(letters, edges(before.transform, before.affine), strict=True)):
            if letter in sizes:
                # In proportion to what it is now: a part of it may lie in the layer's affine.
                scale[axis] = scale[axis] * sizes[letter] / edge if np.isfinite(edge) and edge > 0 else sizes[letter]
        units = ["um" if letter in sizes else str(old) for letter, old in zip(letters, self._layer.units, strict=True)]
        self._chosen_spacing.pop(self._layer, None)
        self._layer.units = units
        self._layer.scale = scale
        follow_image(self._viewer, before)

    def close(self) -> None:
        """Let go of the viewer and the layer."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self._layers_changed)
        events.removed.disconnect(self._layers_changed)
        events.renamed.disconnect(self._layers_renamed)
        if self._layer is not None:
            for name in _WATCHED:
                getattr(self._layer.events, name).disconnect(self._look_at_layer)
        self._layer = None
