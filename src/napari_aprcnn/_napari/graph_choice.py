"""Which labels a graph is built of, and whose intensities are measured. No Qt here."""

from __future__ import annotations

from typing import Any

from napari.layers import Image, Labels
from psygnal import Signal

from napari_aprcnn._napari.graph_layers import LabelsPlace, place_of
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn.errors import AprcnnError

__all__ = ["GraphChoice"]

_PASSING = ("provisional", "preview")


class GraphChoice:
    """The chosen labels layer of a viewer, and the image that belongs to it.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.

    Attributes
    ----------
    changed : Signal()
        Other layers, other names, another choice.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._labels: Any | None = None
        self._image: Any | None = None
        self._image_chosen = False
        events = viewer.layers.events
        self._events = (events.inserted, events.removed, events.renamed)
        for event in self._events:
            event.connect(self._layers_changed)
        self._layers_changed()

    @property
    def labels_layers(self) -> list[Any]:
        """The labels layers that a graph can be built of; provisional ones are left out."""
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and layer.metadata.get(KEY, {}).get("kind") not in _PASSING
        ]

    @property
    def image_layers(self) -> list[Any]:
        """The image layers of the shape of the chosen labels."""
        if self._labels is None:
            return []
        shape = _full(self._labels).shape
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not layer.rgb and tuple(_full(layer).shape) == tuple(shape)
        ]

    @property
    def labels(self) -> Any | None:
        """The chosen labels layer."""
        return self._labels

    @property
    def image(self) -> Any | None:
        """The chosen image layer; ``None``: without intensities."""
        return self._image

    @property
    def image_data(self) -> Any | None:
        """Its array, at full resolution."""
        return None if self._image is None else _full(self._image)

    def select_labels(self, layer: Any | None) -> None:
        """Choose the labels; the image follows."""
        self._labels = layer
        self._suggest_image()
        self.changed.emit()

    def select_image(self, layer: Any | None) -> None:
        """Choose the image whose intensities are measured, or none."""
        self._image, self._image_chosen = layer, True
        self.changed.emit()

    def _suggest_image(self) -> None:
        self._image_chosen = False
        images = [layer for layer in self.image_layers if KEY not in layer.metadata]
        source = self._labels.metadata.get(KEY, {}).get("source") if self._labels is not None else None
        named = [layer for layer in images if layer.name == source]
        self._image = next(iter((named or images)[::-1]), None)

    def _layers_changed(self, _event: Any = None) -> None:
        layers = self.labels_layers
        if self._labels not in layers:
            active = self._viewer.layers.selection.active
            self._labels = active if active in layers else next(iter(layers[::-1]), None)
            self._image_chosen = False
        # None is a choice, too.
        if not self._image_chosen or (self._image is not None and self._image not in self.image_layers):
            self._suggest_image()
        self.changed.emit()

    @property
    def place(self) -> LabelsPlace | None:
        """Where the chosen labels lie now; ``None`` where there are none that can be used."""
        try:
            return None if self._labels is None else place_of(self._labels, self._viewer)
        except AprcnnError:
            return None

    @property
    def problem(self) -> str:
        """Why there is nothing to build a graph of, or an empty string."""
        if self._labels is None:
            return "Segment an image first, or open labels: a graph is built of the nuclei in a labels layer."
        try:
            place_of(self._labels, self._viewer)
        except AprcnnError as error:
            return str(error)
        return ""

    @property
    def words(self) -> str:
        """Shape and voxel size of the chosen labels."""
        place = self.place
        if place is None:
            return self.problem if self._labels is not None else "no labels layer"
        letters = "ZYX"[-len(place.shape) :]
        shape = " x ".join(f"{letter} {n}" for letter, n in zip(letters, place.shape, strict=True))
        if place.spacing_um is None:
            return f"{shape}; voxel size unknown: lengths are in voxels"
        size = " x ".join(f"{value:.3g}" for value in place.spacing_um)
        return f"{shape}; voxel {size} µm, {place.spacing_words}"

    @property
    def unit(self) -> str:
        """Of the lengths that are put in: ``µm``, or ``px`` where the voxel size is unknown."""
        place = self.place
        return "px" if place is not None and place.spacing_um is None else "µm"

    def close(self) -> None:
        """Let go of the viewer."""
        for event in self._events:
            event.disconnect(self._layers_changed)


def _full(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data
