"""The graph as layers: nuclei as points, edges as vectors, in the world of the labels. No Qt here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Vectors
from napari.utils.transforms import CompositeAffine

from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn._napari.units import viewer_place, voxel_at
from napari_aprcnn.errors import AxesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import AxisMapping
    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = ["LabelsPlace", "colour_nodes", "make_layers", "place_of", "publish_layers", "remove_graph"]

# Nodes are smaller than their nuclei, so that edges are seen between them.
NODE_SIZE = 0.5
EDGE_WIDTH = 0.05
EDGE_COLOUR = "#999999"
COLORMAP = "viridis"


@dataclass(frozen=True, eq=False)
class LabelsPlace:
    """Where the labels of one time point lie, and what their voxels measure.

    Attributes
    ----------
    name
        Of the layer.
    data
        The whole array, as lazy as the layer holds it.
    index
        Picks the plane or volume that is shown.
    scale
        Of the layer along the axes that are left.
    kwargs
        Transforms of a layer whose data are scaled already.
    spacing_um
        Voxel size; ``None`` where the layer tells none.
    spacing_words
        Where it is from.
    """

    name: str
    data: Any
    index: tuple[Any, ...]
    scale: NDArray[np.float64]
    kwargs: dict[str, Any]
    spacing_um: tuple[float, ...] | None
    spacing_words: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the plane or volume."""
        return tuple(int(n) for n, at in zip(self.data.shape, self.index, strict=True) if isinstance(at, slice))


def place_of(layer: Any, viewer: Any) -> LabelsPlace:
    """Say where the labels of a layer lie; of several time points or channels, those that are shown.

    Raises
    ------
    AxesError
        If the layer has more axes than are known.
    """
    image = image_of(layer)
    mapping: AxisMapping = image.guess()
    letters = mapping.order
    if layer.ndim == 3 and "C" in letters:
        letters = "ZYX"  # labels have no channels
    point = voxel_at(layer, viewer, viewer.dims.point)
    index: list[Any] = []
    for letter, n, at in zip(letters, image.shape, point, strict=True):
        index.append(slice(None) if letter in "ZYX" else int(np.clip(np.round(at), 0, n - 1)))
    kept = [axis for axis, letter in enumerate(letters) if letter in "ZYX"]
    if [letters[axis] for axis in kept] != list("ZYX"[-len(kept) :]):
        raise AxesError(f"the axes of {image.name} are {letters}; expected Z, Y, X in this order")
    transform = image.transform.set_slice(kept)
    moved = CompositeAffine(
        scale=np.ones(len(kept)), translate=transform.translate, rotate=transform.rotate, shear=transform.shear
    )
    spacing = image.spacing(mapping.replace(order=letters) if letters != mapping.order else mapping)
    return LabelsPlace(
        name=image.name,
        data=image.data,
        index=tuple(index),
        scale=np.asarray(transform.scale, float),
        kwargs={
            "translate": moved.translate,
            "rotate": moved.rotate,
            "shear": moved.shear,
            "affine": image.affine.set_slice(kept).affine_matrix,
            "units": tuple(image.units[axis] for axis in kept),
            "axis_labels": tuple(image.axis_labels[axis] for axis in kept),
        },
        spacing_um=None if spacing.um is None else spacing.um[-len(kept) :],
        spacing_words=spacing.words,
    )


def make_layers(graph: NucleiGraph, place: LabelsPlace, *, colour: str) -> tuple[Points, Vectors]:
    """Make the layers of a graph; with a hundred thousand edges this takes a while, and any thread may do it.

    Parameters
    ----------
    graph
        The graph.
    place
        Where its labels lie.
    colour
        Full name of the column that nodes are coloured by.

    Returns
    -------
    nodes, edges
        A points layer with all columns as features, and a vectors layer.
    """
    at = graph.positions_px * place.scale
    # Sizes are in the unit of the layer, which need not be micrometres.
    stretch = float(np.prod(place.scale / graph.steps)) ** (1 / graph.rank)
    diameters = graph.column("equivalent_diameter") * stretch
    vectors = np.stack([at[graph.edges[:, 0]], at[graph.edges[:, 1]] - at[graph.edges[:, 0]]], axis=1)
    middle = float(np.median(diameters)) if len(diameters) else 1.0
    edges = Vectors(
        vectors,
        ndim=graph.rank,
        edge_width=EDGE_WIDTH * middle,
        edge_color=EDGE_COLOUR,
        vector_style="line",
        features={name: np.asarray(column) for name, column in graph.edge_columns.items()},
        name=f"{place.name} graph edges",
        metadata={KEY: {"source": place.name, "kind": "graph edges"}},
        **place.kwargs,
    )
    nodes = Points(
        at,
        ndim=graph.rank,
        size=NODE_SIZE * diameters if len(graph) else 1.0,
        features={name: np.asarray(column) for name, column in graph.nodes.items()},
        border_width=0.0,
        shading="spherical",
        name=f"{place.name} graph nodes",
        metadata={KEY: {"source": place.name, "kind": "graph nodes"}},
        **place.kwargs,
    )
    colour_nodes(nodes, colour)
    return nodes, edges


def publish_layers(viewer: Any, nodes: Points, edges: Vectors, *, source: str) -> None:
    """Add the layers of a graph, in the place of those of an earlier one of the same labels. GUI thread only."""
    remove_graph(viewer, source)
    _show_through_planes(viewer, nodes, edges, edges.edge_width / EDGE_WIDTH / 2)
    viewer.layers.append(edges)
    viewer.layers.append(nodes)


def _show_through_planes(viewer: Any, nodes: Points, edges: Vectors, reach: float) -> None:
    """Show a node in the planes that its nucleus reaches into, not only in that of its centroid."""
    try:
        nodes.projection_mode, edges.projection_mode = "rescale_linear", "fade"
    except ValueError:
        # napari before 0.9 has another name for it.
        nodes.out_of_slice_display = edges.out_of_slice_display = True
        return
    dims = viewer.dims
    if nodes.ndim == 3 and not any(dims.margin_left) and not any(dims.margin_right):
        # Only layers with a projection mode see the margins: images and labels stay as they are.
        own = viewer_place(nodes, viewer, [reach] * nodes.ndim)
        margins = (0.0,) * max(dims.ndim - 3, 0) + tuple(float(length) for length in own[-dims.ndim :])
        dims.margin_left = dims.margin_right = margins


def colour_nodes(nodes: Points, colour: str) -> None:
    """Colour the nodes by one of their features."""
    if not len(nodes.data) or colour not in nodes.features:
        return
    values = np.asarray(nodes.features[colour], float)
    low, high = np.percentile(values, [2, 98])
    if low == high:
        high = low + 1
    share = np.clip((values - low) / (high - low), 0, 1)
    from napari.utils.colormaps import ensure_colormap

    nodes.face_color = ensure_colormap(COLORMAP).map(share)


def remove_graph(viewer: Any, source: str) -> None:
    """Take the layers of an earlier graph of the same labels away."""
    for layer in list(viewer.layers):
        record = layer.metadata.get(KEY, {})
        if record.get("source") == source and record.get("kind") in ("graph nodes", "graph edges"):
            viewer.layers.remove(layer)
