"""What the Graph dock does in another thread: the graph, its descriptors, the phenotype, and files. No Qt here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._napari.graph_layers import LabelsPlace, make_layers
from napari_aprcnn._napari.jobs import Job
from napari_aprcnn.errors import AprcnnError, CancelledError
from napari_aprcnn.graph.build import nuclei_graph
from napari_aprcnn.graph.descriptors import OrganoidDescriptors, describe
from napari_aprcnn.graph.export import write_csv, write_graphml, write_tensors
from napari_aprcnn.graph.phenotypes import classify_phenotype
from napari_aprcnn.graph.structure import column_name
from napari_aprcnn.io.atomic import write_text

if TYPE_CHECKING:
    from napari.layers import Points, Vectors

    from napari_aprcnn._napari.graph_settings import GraphSettings
    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = ["BuildJob", "BuiltGraph", "copied", "export_graph", "node_colour"]


@dataclass(frozen=True, eq=False)
class BuiltGraph:
    """A graph and what is known about it.

    Attributes
    ----------
    graph
        The graph.
    descriptors
        Of the organoid; ``None`` without nuclei.
    phenotype
        Probability of each phenotype; empty where it cannot be told.
    phenotype_problem
        Why not.
    seconds
        That it took.
    nodes, edges
        The layers, not yet in a viewer.
    """

    graph: NucleiGraph
    descriptors: OrganoidDescriptors | None
    phenotype: dict[str, float]
    phenotype_problem: str
    seconds: float
    nodes: Points
    edges: Vectors


class BuildJob(Job):
    """Builds a graph.

    Parameters
    ----------
    read
        Gives labels and image (or ``None``); called in the worker thread.
    place
        Where the labels lie.
    settings
        Kind of edges and their parameters, and the colour.
    """

    def __init__(self, read: Callable[[], tuple[Any, Any]], place: LabelsPlace, settings: GraphSettings) -> None:
        super().__init__(lambda: self._build(*read(), place, settings))
        self._progress: tuple[float, str] | None = None

    def _build(self, labels: Any, image: Any, place: LabelsPlace, settings: GraphSettings) -> BuiltGraph:
        start = time.perf_counter()
        graph = nuclei_graph(
            labels,
            image,
            spacing_um=place.spacing_um,
            edges=settings.edges,
            gap_um=settings.gap,
            radius_um=settings.radius,
            k=settings.k,
            surface_distance=settings.surface_distance,
            progress=lambda share, words: self._tell(0.85 * share, words),
            should_cancel=self._cancel.is_set,
        )
        descriptors, phenotype, problem = None, {}, "there is no nucleus"
        if len(graph):
            self._tell(0.85, "describing the organoid")
            descriptors = describe(graph, labels)
            if self.cancelled:
                raise CancelledError("cancelled; no graph was made")
            self._tell(0.95, "telling the phenotype")
            try:
                phenotype, problem = classify_phenotype(graph, labels, descriptors=descriptors), ""
            except AprcnnError as error:
                problem = str(error)
        nodes, edges = make_layers(graph, place, colour=node_colour(graph, settings.colour))
        return BuiltGraph(graph, descriptors, phenotype, problem, time.perf_counter() - start, nodes, edges)

    def _tell(self, share: float, words: str) -> None:
        self._progress = (share, words)

    def take_progress(self) -> tuple[float, str] | None:
        """Return the newest progress since the last call: the share that is done, and what is done now."""
        progress, self._progress = self._progress, None
        return progress


def node_colour(graph: NucleiGraph, stem: str) -> str:
    """Return the column that nodes are coloured by: the one asked for, or where there is none, the neighbours."""
    name = column_name(stem, rank=graph.rank, unit=graph.unit)
    return name if name in graph.nodes else "neighbours"


def export_graph(built: BuiltGraph, path: Path) -> str:
    """Write a graph; the suffix says as what, a folder gets the two tables.

    Parameters
    ----------
    built
        The graph.
    path
        ``.graphml``, ``.safetensors``, ``.json`` (descriptors and phenotype), or an existing folder.

    Returns
    -------
    str
        What was written, in words.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if path.is_dir():
        nodes, edges = write_csv(built.graph, path, overwrite=True)
        return f"{nodes.name} and {edges.name} were written to {path}"
    if path.suffix == ".graphml":
        write_graphml(built.graph, path, overwrite=True)
    elif path.suffix == ".safetensors":
        write_tensors(built.graph, path, overwrite=True)
    else:
        values = {} if built.descriptors is None else built.descriptors.to_json()
        text = json.dumps({"descriptors": values, "phenotype": built.phenotype or None}, indent=1)
        write_text(text + "\n", path, overwrite=True)
    return f"{path.name} was written to {path.parent}"


def copied(place: Any, image: Any) -> Callable[[], tuple[Any, Any]]:
    """Return a function that copies labels and image: what is painted meanwhile does not matter."""
    data, index = place.data, place.index

    def read() -> tuple[Any, Any]:
        labels = np.array(data[index])
        values = None
        if image is not None:
            # The image may have the shape of the whole array, or of the plane or volume.
            values = np.asarray(image[index] if tuple(image.shape) == tuple(data.shape) else image)
        return labels, values

    return read
