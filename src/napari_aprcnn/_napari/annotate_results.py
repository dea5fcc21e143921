"""Layers to evaluate against, made of the slices that are done. No Qt here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points

from napari_aprcnn._napari.result_layers import KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.annotate_layers import Frame
    from napari_aprcnn.evaluate.annotations import AnnotationSession

__all__ = ["centres", "done_points", "result_layers", "show_results"]

# Bluish green (Okabe-Ito): not the colour of the layer that is clicked in.
_FACE = "#009E73"


def centres(plane: NDArray[Any]) -> NDArray[np.float64]:
    """Return the centre of every object of a slice, (N, 2): y, x; one that lies outside its object moves into it.

    Examples
    --------
    >>> centres(np.array([[1, 1, 1, 0, 7]])).tolist()
    [[0.0, 1.0], [0.0, 4.0]]
    """
    y, x = np.nonzero(plane)
    ids, owner, counts = np.unique(plane[y, x], return_inverse=True, return_counts=True)
    found = np.empty((len(ids), 2))
    order = np.argsort(owner, kind="stable")
    for i, pixels in enumerate(np.split(order, np.cumsum(counts)[:-1]) if len(ids) else []):
        places = np.column_stack([y[pixels], x[pixels]]).astype(np.float64)
        middle = places.mean(axis=0)
        nearest = places[np.hypot(*(places - middle).T).argmin()]
        # The centre of a bent nucleus may lie outside it, where it would belong to nothing.
        found[i] = middle if plane[tuple(np.round(middle).astype(int))] == ids[i] else nearest
    return found


def done_points(session: AnnotationSession) -> NDArray[np.float64]:
    """Return the points of the slices that are done, (N, D); of painted ones the centres. Reads files."""
    if session.info.mode == "points":
        return session.points("done").coordinates
    done, stack = session.label_stack("done")
    rows = [
        np.hstack([np.tile(np.array(index, float), (len(found), 1)), found])
        for index, plane in zip(done, stack, strict=True)
        if len(found := centres(plane))
    ]
    return np.concatenate(rows) if rows else np.empty((0, len(session.info.axes)))


def result_layers(session: AnnotationSession, frame: Frame, coordinates: NDArray[np.float64]) -> list[Points | Labels]:
    """Make the layers: points, and in front of them labels where labels were painted.

    Parameters
    ----------
    session
        The annotations; everything must be written.
    frame
        Of the image.
    coordinates
        What `done_points` gave.

    Returns
    -------
    list of layer
        Their metadata say which slices were annotated: what lies in others must not be counted as missed.
    """
    slices, name, place = session.in_state("done"), frame.image.name, frame.place()
    record = {
        "kind": "annotation truth",
        "source": name,
        "axes": session.info.axes,
        "slices": [list(index) for index in slices],
        "annotator": session.annotator,
        "folder": str(session.folder),
    }
    layers: list[Points | Labels] = []
    if session.info.mode == "labels" and place.axes == session.info.axes:
        layers.append(
            Labels(
                session.sparse_labels("done"),
                name=f"{name} annotated labels",
                opacity=0.5,
                metadata={KEY: record},
                **place.kwargs,
            )
        )
        layers[-1].editable = False
    layers.append(
        Points(
            frame.to_layer(coordinates),
            ndim=len(place.axes),
            name=f"{name} annotated points",
            size=max(3.0, min(frame.plane_shape) / 40),
            face_color=_FACE,
            border_color="white",
            border_width=0.15,
            metadata={KEY: record},
            **place.kwargs,
        )
    )
    return layers


def show_results(viewer: Any, layers: list[Points | Labels]) -> None:
    """Add the layers, in the place of earlier ones of the same annotations; other layers of their names stay."""
    for layer in layers:
        name = re.compile(rf"{re.escape(layer.name)}( \[\d+\])?")  # napari numbers layers of the same name
        for old in [one for one in viewer.layers if type(one) is type(layer) and name.fullmatch(one.name)]:
            if _owner(old) == _owner(layer):
                viewer.layers.remove(old)
        viewer.layers.append(layer)


def _owner(layer: Any) -> tuple[Any, ...]:
    record = layer.metadata.get(KEY, {})
    return tuple(record.get(name) for name in ("kind", "folder", "annotator")) if isinstance(record, dict) else ()
