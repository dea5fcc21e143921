"""The layer that shows what became of every object, and the way to an error. GUI thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points
from napari.utils.colormaps import DirectLabelColormap

from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn.evaluate.mistakes import Kind
from napari_aprcnn.evaluate.paint import COLOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.evaluate_sources import Source

__all__ = ["ERRORS_KIND", "is_choice", "likely_truth", "look_at", "show_errors_layer", "warm_up"]

ERRORS_KIND = "errors"
# How people name a layer of what is true.
_TRUE_NAMES = ("true", "truth", "ground", "gt", "annot", "manual", "points", "reference", "label")


def is_choice(layer: Any) -> bool:
    """Whether a labels layer can be evaluated: not the picture of errors, not the provisional labels of a run."""
    record = layer.metadata.get(KEY, {})
    kind = record.get("kind") if isinstance(record, dict) else None
    return isinstance(layer, Labels) and kind not in (ERRORS_KIND, "provisional")


def _colormap() -> DirectLabelColormap:
    colours: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    return DirectLabelColormap(color_dict=colours | {int(kind): colour for kind, colour in COLOURS.items()})


def warm_up() -> None:
    """Let napari compile what it needs to colour the picture (seconds, once); for a worker thread."""
    _colormap().map(np.zeros((2, 2), np.uint8))


def show_errors_layer(viewer: Any, picture: NDArray[np.uint8], source: Source) -> Any:
    """Show the kinds of the objects of a prediction; an earlier picture of it gives way.

    Parameters
    ----------
    viewer
        The viewer model.
    picture
        Of `napari_aprcnn.evaluate.paint.paint_errors`, of the compared part.
    source
        What was compared.

    Returns
    -------
    Labels
    """
    record = {"kind": ERRORS_KIND, "source": source.name}
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        if isinstance(known, dict) and (known.get("kind"), known.get("source")) == (ERRORS_KIND, source.name):
            if layer.ndim == picture.ndim:
                for name, value in source.placement().items():
                    setattr(layer, name, value)
                layer.data = picture
                return layer
            viewer.layers.remove(layer)
            break
    words = ["", *(kind.words for kind in Kind)]
    layer = Labels(
        picture,
        name=f"{source.name} errors",
        colormap=_colormap(),
        features={"index": list(range(len(words))), "object": words},
        opacity=0.7,
        metadata={KEY: record},
        **source.placement(),
    )
    chosen = set(viewer.layers.selection)
    viewer.layers.append(layer)
    viewer.layers.selection = chosen  # a picture to look at: the labels stay what is edited
    return layer


def look_at(viewer: Any, place: NDArray[Any], layer: Any, label: int | None) -> None:
    """Move sliders and camera to a place of the world, and select a label there.

    Parameters
    ----------
    viewer
        The viewer model.
    place
        World coordinates, the last axes of the viewer.
    layer
        Becomes the active layer; may be gone.
    label
        Becomes its selected label; of a points layer the row of the selected point.
    """
    offset = viewer.dims.ndim - len(place)
    for axis, value in enumerate(place):
        viewer.dims.set_point(axis + offset, float(value))
    centre = list(viewer.camera.center)
    for number, axis in enumerate(viewer.dims.displayed):
        if axis >= offset:
            centre[len(centre) - len(viewer.dims.displayed) + number] = float(place[axis - offset])
    viewer.camera.center = tuple(centre)
    if layer is not None and layer in viewer.layers:
        viewer.layers.selection.active = layer
        if label is not None and isinstance(layer, Labels):
            layer.selected_label = label
        elif label is not None and isinstance(layer, Points):
            layer.selected_data = {label}


def likely_truth(layers: list[Any]) -> Any | None:
    """The layer that is the truth where nobody said: points, else one with such a name, else the lowest; of several."""
    if len(layers) < 2:
        return None
    points = next((layer for layer in layers if isinstance(layer, Points)), None)
    named = [layer for layer in layers if any(word in str(layer.name).lower() for word in _TRUE_NAMES)]
    return points or (named or [layers[-1]])[0]
