"""Layers for the labels of a run: provisional ones while it goes on, final ones after it. GUI thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.geometry import Placement
    from napari_aprcnn.apr.pyramid import TreeArray
    from napari_aprcnn.segment.progress import PartialLabels

__all__ = ["KEY", "Kind", "LiveLabels", "publish", "publish_layer", "pyramid_layer", "remove_preview"]

KEY = "aprcnn"
OPACITY = 0.6
_WRAP = np.uint32(np.iinfo(np.uint16).max - 1)

Kind = Literal["nuclei", "probability", "flows", "preview", "particle levels", "reconstruction", "slice particles"]


class LiveLabels:
    """A provisional labels layer that fills while tiles finish.

    The layer appears with the first labels and is gone after `remove`, however the run ended. A user who deletes it
    meanwhile is believed: it does not come back.

    Parameters
    ----------
    viewer
        The viewer model.
    source
        Name of the image layer.
    shape
        Shape of the labels (axes of the image without C).
    placement
        Where they belong.
    """

    def __init__(self, viewer: Any, *, source: str, shape: tuple[int, ...], placement: Placement) -> None:
        self._viewer = viewer
        self._source = source
        self._shape = shape
        self._placement = placement
        self.layer: Labels | None = None

    def show(self, partial: PartialLabels) -> None:
        """Write the labels of one part. The viewer draws them at the next `refresh`."""
        if self.layer is None:
            # 16 bits are what the viewer draws best; the numbers are provisional, so they may wrap around.
            blank = self._placement.array(np.zeros(self._shape, np.uint16))
            self.layer = Labels(
                blank,
                name=f"{self._source} nuclei (running)",
                opacity=OPACITY,
                metadata={KEY: {"source": self._source, "kind": "provisional"}},
                **self._placement.kwargs,
            )
            selected = set(self._viewer.layers.selection)
            self._viewer.layers.insert(_index_above(self._viewer, self._source), self.layer)
            # What the user had selected stays selected: this layer comes and goes by itself.
            self._viewer.layers.selection = selected
        if self.layer not in self._viewer.layers:
            return
        labels = partial.labels
        small = np.where(labels > 0, (labels - np.uint32(1)) % _WRAP + np.uint32(1), 0).astype(np.uint16)
        self.layer.data[self._placement.region(partial.region)] = self._placement.array(small)

    def refresh(self) -> None:
        """Draw what was written since the last call."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self.layer.refresh(extent=False, thumbnail=False)

    def hide(self) -> None:
        """Show it no more. Quick, while taking a layer away makes napari collect garbage first."""
        if self.layer is not None:
            # Not `visible = False`: a layer that is removed while it is invisible leaves vispy with a dangling buffer,
            # and the next layer's first drawing crashes Python (napari 0.9.2, vispy 0.17).
            self.layer.opacity = 0.0

    def hand_over(self) -> Labels | None:
        """Give the layer away, to become the final one; adding a second one would only cost time and flicker."""
        layer, self.layer = self.layer, None
        return layer if layer is not None and layer in self._viewer.layers else None

    def remove(self) -> None:
        """Take the layer away."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)


def publish(
    viewer: Any,
    values: NDArray[Any],
    *,
    kind: Kind,
    source: str,
    placement: Placement,
    rerun: Literal["replace", "version"],
    record: dict[str, Any],
    live: LiveLabels | None = None,
    into: Any | None = None,
) -> Any:
    """Add a result to the viewer, or put it in the place of an earlier one.

    Parameters
    ----------
    viewer
        The viewer model.
    values
        Labels, probability (both with the axes of the image without C) or colours of flows (and a last axis of 3).
    kind
        What they are; it names the layer.
    source
        Name of the image layer.
    placement
        Where they belong.
    rerun
        ``replace``: the result of an earlier run of the same kind and source gives way, unless the user has edited
        it; ``version``: every result gets a layer of its own.
    record
        Kept in the layer's metadata: configuration and readout.
    live
        Provisional labels whose layer becomes the final one, where there is none to replace.
    into
        The layer that shows it, whatever `rerun` says; of the same kind.

    Returns
    -------
    layer
        The layer that shows the result.
    """
    data = placement.array(values)
    metadata = {KEY: {**record, "source": source, "kind": kind, "edited": False}}
    old = into
    if old is None and (rerun == "replace" or kind == "preview"):
        old = _replaceable(viewer, source, kind)
    if old is not None and (old.ndim != len(placement.kwargs["scale"]) or isinstance(old, Labels) == _pictured(kind)):
        viewer.layers.remove(old)
        old = None
    if old is not None:
        # In place: what the user chose for this layer (opacity, contour, colours, order) stays.
        for name, value in placement.kwargs.items():
            setattr(old, name, value)
        old.data = data
        old.metadata = {**old.metadata, **metadata}
        layer = old
    elif live is not None and (layer := live.hand_over()) is not None:
        layer.data = data
        layer.name = _free_name(viewer, f"{source} {kind}")
        layer.metadata = metadata
        viewer.layers.selection.active = layer
    else:
        index = _index_above(viewer, source, topmost=kind in ("nuclei", "preview"))
        layer = _make(kind, data, name=_free_name(viewer, f"{source} {kind}"), metadata=metadata, **placement.kwargs)
        viewer.layers.insert(index, layer)
    _watch(layer)
    return layer


def publish_layer(
    viewer: Any,
    layer: Any,
    *,
    kind: Kind,
    source: str,
    rerun: Literal["replace", "version"],
    record: dict[str, Any],
) -> None:
    """Add a finished layer of the particles below the labels; with ``replace`` an earlier one of its kind goes.

    Unlike `publish` it takes the old layer away: a multiscale image cannot be given other levels.
    """
    old = _replaceable(viewer, source, kind) if rerun == "replace" else None
    if old is not None:
        layer.visible = old.visible
        layer.opacity = old.opacity
        viewer.layers.remove(old)
    layer.metadata = {KEY: {**record, "source": source, "kind": kind, "edited": False}}
    layer.name = _free_name(viewer, f"{source} {kind}")
    viewer.layers.insert(_index_above(viewer, source, topmost=kind == "slice particles"), layer)


def pyramid_layer(images: list[TreeArray], kind: Kind, placement: Placement) -> Image:
    """Make the layer of a multiscale image of particles."""
    tree = images[0].tree
    low, high = (1, tree.level_max) if kind == "particle levels" else _limits(tree.intensities)
    return Image(
        images if len(images) > 1 else images[0],
        multiscale=len(images) > 1,
        colormap="viridis" if kind == "particle levels" else "gray",
        contrast_limits=(low, max(high, low + 1)),
        interpolation2d="nearest",
        opacity=0.6 if kind == "particle levels" else 1.0,
        **placement.kwargs,
    )


def _limits(values: Any) -> tuple[float, float]:
    low, high = np.percentile(values, (0.5, 99.8))
    return float(low), float(high)


def remove_preview(viewer: Any, source: str) -> None:
    """Take the preview of a source away; a final result shows the same and more."""
    layer = _replaceable(viewer, source, "preview")
    if layer is not None:
        viewer.layers.remove(layer)


def _make(kind: Kind, data: NDArray[Any], **options: Any) -> Any:
    # Black where there is nothing, and added: so the pictures do not hide the image below them.
    if kind == "probability":
        return Image(data, colormap="inferno", contrast_limits=(0.0, 1.0), blending="additive", **options)
    if kind == "flows":
        return Image(data, rgb=True, blending="additive", **options)
    return Labels(data, opacity=OPACITY, **options)


def _pictured(kind: Kind) -> bool:
    return kind in ("probability", "flows")


def _record(layer: Any) -> dict[str, Any]:
    record = layer.metadata.get(KEY, {})
    return record if isinstance(record, dict) else {}


def _replaceable(viewer: Any, source: str, kind: str) -> Any | None:
    """Find the newest layer of ours for a source and kind that the user has not edited."""
    for layer in reversed(viewer.layers):
        record = _record(layer)
        if record.get("source") == source and record.get("kind") == kind and not record.get("edited"):
            return layer
    return None


def _index_above(viewer: Any, source: str, *, topmost: bool = True) -> int:
    """Return the place above the image and, for labels, above our other layers of it."""
    places = [
        index + 1
        for index, layer in enumerate(viewer.layers)
        if layer.name == source or (topmost and _record(layer).get("source") == source)
    ]
    return max(places, default=len(viewer.layers))


def _free_name(viewer: Any, name: str) -> str:
    taken = {layer.name for layer in viewer.layers}
    number, free = 2, name
    while free in taken:
        free, number = f"{name} [{number}]", number + 1
    return free


def _watch(layer: Any) -> None:
    """Notice when the user edits the labels: an edited layer is never replaced."""
    if isinstance(layer, Labels):
        layer.events.paint.connect(_mark_edited)
        layer.events.data.connect(_mark_edited)


def _mark_edited(event: Any) -> None:
    record = _record(event.source)
    if record:
        record["edited"] = True
