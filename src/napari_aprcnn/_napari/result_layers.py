"""Layers for the labels of a run: provisional ones while it goes on, final ones after it. GUI thread only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.geometry import LayerImage, Placement
    from napari_aprcnn.apr.pyramid import TreeArray
    from napari_aprcnn.segment.progress import PartialLabels

__all__ = [
    "KEY",
    "Kind",
    "LiveLabels",
    "follow_image",
    "is_ours",
    "publish",
    "publish_layer",
    "pyramid_layer",
    "remove_preview",
]

KEY = "aprcnn"
OPACITY = 0.6
_WRAP = np.uint32(np.iinfo(np.uint16).max - 1)

Kind = Literal["nuclei", "probability", "flows", "preview", "particle levels", "reconstruction", "slice particles"]


@dataclass(frozen=True)
class _Published:
    kind: str
    name: str
    placement: Placement


# The layers that runs of this session have made. Their metadata would not do: copies and files have them too.
_published: WeakKeyDictionary[Any, _Published] = WeakKeyDictionary()


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
        Where they belong; the layer follows the image when that is moved or scaled.
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
            placement = self._placement.now()
            blank = placement.array(np.zeros(self._shape, np.uint16))
            self.layer = Labels(
                blank,
                name=f"{self._source} nuclei (running)",
                opacity=OPACITY,
                metadata={KEY: {"source": self._source, "kind": "provisional"}},
                **placement.kwargs,
            )
            _published[self.layer] = _Published("provisional", self.layer.name, placement)
            selected = set(self._viewer.layers.selection)
            self._viewer.layers.insert(_index_above(self._viewer, placement.layer), self.layer)
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
            _place(self.layer, self._placement.now())
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
    """Add a result to the viewer, above its image, or put it in the place of an earlier one.

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
        Where they belong, and which image layer they are of; the image may have been moved since.
    rerun
        ``replace``: the result of an earlier run of the same kind and image layer gives way, unless the user has
        edited or renamed it; ``version``: every result gets a layer of its own.
    record
        Kept in the layer's metadata: configuration and readout.
    live
        Provisional labels whose layer becomes the final one, where there is none to replace.
    into
        The layer that shows it, whatever `rerun` says; of the same kind. It stays where it is.

    Returns
    -------
    layer
        The layer that shows the result.
    """
    placement = placement.now()
    data = placement.array(values)
    metadata = {KEY: {**record, "source": source, "kind": kind, "edited": False}}
    if into is not None:
        _show(into, data, metadata)
        return into
    old = None
    if rerun == "replace" or kind == "preview":
        old = _replaceable(viewer, placement.layer, kind)
    if old is not None and (old.ndim != len(placement.kwargs["scale"]) or isinstance(old, Labels) == _pictured(kind)):
        viewer.layers.remove(old)
        old = None
    if old is not None:
        # In place: what the user chose for this layer (opacity, contour, colours, order) stays.
        layer = old
        _place(layer, placement)
        if _record(layer).get("source") != source:  # the image has another name now
            layer.name = _free_name(viewer, f"{source} {kind}")
        _show(layer, data, metadata)
    elif live is not None and (layer := live.hand_over()) is not None:
        _place(layer, placement)
        layer.name = _free_name(viewer, f"{source} {kind}")
        _show(layer, data, metadata)
        viewer.layers.selection.active = layer
    else:
        index = _index_above(viewer, placement.layer, topmost=kind in ("nuclei", "preview"))
        layer = _make(kind, data, name=_free_name(viewer, f"{source} {kind}"), metadata=metadata, **placement.kwargs)
        viewer.layers.insert(index, layer)
    _published[layer] = _Published(kind, layer.name, placement)
    _watch(layer)
    return layer


def publish_layer(
    viewer: Any,
    layer: Any,
    *,
    kind: Kind,
    source: str,
    placement: Placement,
    rerun: Literal["replace", "version"],
    record: dict[str, Any],
) -> None:
    """Add a finished layer of the particles below the labels; with ``replace`` an earlier one of its kind goes.

    Unlike `publish` it takes the old layer away: a multiscale image cannot be given other levels.
    """
    old = _replaceable(viewer, placement.layer, kind) if rerun == "replace" else None
    if old is not None:
        layer.visible = old.visible
        layer.opacity = old.opacity
        viewer.layers.remove(old)
    layer.metadata = {KEY: {**record, "source": source, "kind": kind, "edited": False}}
    layer.name = _free_name(viewer, f"{source} {kind}")
    viewer.layers.insert(_index_above(viewer, placement.layer, topmost=kind == "slice particles"), layer)
    _published[layer] = _Published(kind, layer.name, placement)


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


def remove_preview(viewer: Any, image: Any | None) -> None:
    """Take the preview of an image layer away; a final result shows the same and more."""
    layer = _replaceable(viewer, image, "preview")
    if layer is not None:
        viewer.layers.remove(layer)


def is_ours(layer: Any) -> bool:
    """Whether a run of this session has made a layer, and the user has neither edited nor renamed it since."""
    made = _published.get(layer)
    return made is not None and made.name == layer.name and not _record(layer).get("edited", True)


def follow_image(viewer: Any, before: LayerImage) -> None:
    """Take the results of an image layer along that was moved or scaled; those that the user has placed stay.

    Parameters
    ----------
    viewer
        The viewer model.
    before
        The image layer as it was.
    """
    for layer in viewer.layers:
        made = _published.get(layer)
        if made is None or before.layer is None or made.placement.layer is not before.layer:
            continue
        on_image = made.placement.again is not None and _lies(layer, made.placement.again(before))
        if on_image or _lies(layer, made.placement):
            placement = made.placement.now()
            _place(layer, placement)
            _published[layer] = _Published(made.kind, made.name, placement)


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


def _replaceable(viewer: Any, image: Any | None, kind: str) -> Any | None:
    """Find the topmost layer that a run has made of an image layer, of a kind, and that is still as it was made."""
    for layer in reversed(viewer.layers):
        if image is not None and _image(layer) is image and _published[layer].kind == kind and is_ours(layer):
            return layer
    return None


def _image(layer: Any) -> Any | None:
    """Return the image layer that a layer of ours was made of, as long as there is one."""
    made = _published.get(layer)
    return None if made is None else made.placement.layer


def _index_above(viewer: Any, image: Any | None, *, topmost: bool = True) -> int:
    """Return the place above the image and, for labels, above our other layers of it."""
    places = [
        index + 1
        for index, layer in enumerate(viewer.layers)
        if image is not None and (layer is image or (topmost and _image(layer) is image))
    ]
    return max(places, default=len(viewer.layers))


def _show(layer: Any, data: NDArray[Any], metadata: dict[str, Any]) -> None:
    layer.data = data
    layer.metadata = {**layer.metadata, **metadata}


def _place(layer: Any, placement: Placement) -> None:
    for name, value in placement.kwargs.items():
        if not _equal(_setting(layer, name), value):
            setattr(layer, name, value)


def _lies(layer: Any, placement: Placement) -> bool:
    """Whether a layer lies where it belongs; units and names of axes move nothing."""
    names = ("scale", "translate", "rotate", "shear", "affine")
    return all(_equal(_setting(layer, name), placement.kwargs[name]) for name in names)


def _setting(layer: Any, name: str) -> Any:
    return layer.affine.affine_matrix if name == "affine" else getattr(layer, name)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return one == tuple(other)
    return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=1e-9, atol=1e-12))


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
