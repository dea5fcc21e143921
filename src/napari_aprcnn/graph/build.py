"""`nuclei_graph`: from labels to a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_aprcnn.errors import CancelledError, ConfigError
from napari_aprcnn.graph.gaps import Surfaces, pairs_within, surface_distances
from napari_aprcnn.graph.neighbours import delaunay_pairs, nearest_pairs, ordered, pairs_in_radius
from napari_aprcnn.graph.nodes import node_columns
from napari_aprcnn.graph.scan import check_labels, scan_labels
from napari_aprcnn.graph.structure import NucleiGraph, column_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.graph.scan import Scan

__all__ = ["AUTO_RADIUS", "Edges", "nuclei_graph"]

Edges = Literal["touching", "distance", "delaunay", "knn"]
# Without a radius: so many median diameters of the nuclei.
AUTO_RADIUS = {"distance": 2.0, "delaunay": 3.0, "knn": np.inf}


def nuclei_graph(
    labels: Any,
    image: Any = None,
    *,
    spacing_um: Sequence[float] | None = None,
    edges: Edges = "touching",
    gap_um: float = 0.0,
    radius_um: float | None = None,
    k: int = 6,
    surface_distance: bool = True,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NucleiGraph:
    """Build the graph of nuclei of a label image.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integers
        0 is background.
    image : the same shape, or None
        Intensities, for ``intensity_mean`` and ``intensity_std``.
    spacing_um
        Voxel size z, y, x (or y, x) in micrometres. ``None``: unknown; all lengths are in voxels then, those of the
        parameters too, and columns are named ``_px``.
    edges
        ``touching``: nuclei whose surfaces are at most `gap_um` apart; without a gap, of which voxels touch by a side,
        an edge or a corner. ``distance``: centroids at most `radius_um` apart. ``delaunay``: neighbours in the
        Delaunay triangulation of the centroids, at most `radius_um` apart. ``knn``: one is among the `k` nearest of
        the other, at most `radius_um` apart.
    gap_um
        See ``touching``, in micrometres.
    radius_um
        Longest edge, in micrometres; ``None``: 2 median diameters of the nuclei for ``distance``, 3 for
        ``delaunay``, no limit for ``knn``.
    k
        Neighbours of each nucleus for ``knn``.
    surface_distance
        Measure the distance of the surfaces along every edge; what takes longest where few nuclei touch.
    progress
        Gets the share that is done, 0..1, and what is done now.
    should_cancel
        Asked several times a second.

    Returns
    -------
    NucleiGraph
        An image without objects gives a graph without nodes.

    Raises
    ------
    AxesError, ImageDtypeError, ImageError
        If the labels or the image cannot be used.
    ConfigError
        If a parameter is out of its range.
    CancelledError
        If `should_cancel` said yes.

    Examples
    --------
    >>> labels = np.zeros((6, 6, 12), np.uint8)
    >>> labels[:, :, :3], labels[:, :, 3:6], labels[:, :, 9:] = 5, 7, 9
    >>> nuclei_graph(labels).edges.tolist()
    [[0, 1]]
    >>> near = nuclei_graph(labels, spacing_um=(1, 0.5, 0.5), gap_um=1.5)
    >>> near.edges.tolist(), near.column("surface_distance").tolist(), near.labels.tolist()
    ([[0, 1], [1, 2]], [0.0, 1.5], [5, 7, 9])
    """
    labels, image = check_labels(labels, image)
    spacing = _spacing(spacing_um, labels.ndim)
    _check(edges, gap_um, radius_um, k)
    tell = progress or (lambda _share, _words: None)
    scan = scan_labels(
        labels,
        image,
        spacing=tuple(spacing.tolist()),
        progress=lambda share: tell(0.8 * share, "measuring the nuclei"),
        should_cancel=should_cancel,
    )
    unit = "px" if spacing_um is None else "um"
    nodes = node_columns(scan, spacing, unit=unit)
    points = scan.first * spacing
    surfaces = Surfaces(labels, scan, spacing)
    gaps: dict[str, Any] = {
        "progress": lambda share: tell(0.8 + 0.2 * share, "measuring distances"),
        "should_cancel": should_cancel,
    }
    distances = None
    if edges == "touching":
        pairs = scan.pairs
        if gap_um > 0:
            pairs = pairs_within(scan, spacing, gap_um)
            distances = surface_distances(pairs, surfaces, touching=_contacts(scan, pairs)[1], **gaps)
            near = distances <= gap_um * (1 + 1e-9)
            pairs, distances = pairs[near], distances[near]
    else:
        radius = _radius(edges, radius_um, nodes, labels.ndim, unit)
        pairs = _pairs(edges, points, radius, k)
    if should_cancel is not None and should_cancel():
        raise CancelledError("cancelled; no graph was made")
    contact, touching = _contacts(scan, pairs)
    if distances is None and surface_distance:
        distances = surface_distances(pairs, surfaces, touching=touching, **gaps)
    columns = {"distance": np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)}
    if distances is not None and surface_distance:
        columns["surface_distance"] = distances
    columns["contact"] = contact
    nodes["neighbours"] = np.bincount(pairs.ravel(), minlength=len(scan.labels)).astype(np.int64)
    asked: dict[str, Any] = {"k": int(k)} if edges == "knn" else {}
    if edges == "touching":
        asked[f"gap_{unit}"] = float(gap_um)
    else:
        asked[f"radius_{unit}"] = float(radius) if np.isfinite(radius) else None
    tell(1.0, "done")
    return NucleiGraph(
        nodes=nodes,
        edges=pairs,
        edge_columns={column_name(name, rank=labels.ndim, unit=unit): values for name, values in columns.items()},
        kind=edges,
        spacing_um=None if spacing_um is None else tuple(spacing.tolist()),
        shape=tuple(int(n) for n in labels.shape),
        parameters=asked,
    )


def _spacing(spacing_um: Sequence[float] | None, rank: int) -> NDArray[np.float64]:
    if spacing_um is None:
        return np.ones(rank)
    spacing = np.asarray(spacing_um, float).reshape(-1)
    if len(spacing) == 3 and rank == 2:
        spacing = spacing[1:]  # as files and layers give it for planes, too
    if len(spacing) != rank or not np.isfinite(spacing).all() or spacing.min() <= 0:
        letters = ", ".join("zyx"[-rank:])
        raise ConfigError(f"got a voxel size of {tuple(spacing_um)}; expected {rank} numbers above 0 ({letters})")
    return spacing


def _check(edges: str, gap_um: float, radius_um: float | None, k: int) -> None:
    if edges not in get_args(Edges):
        raise ConfigError(f"got edges={edges!r}; expected one of {', '.join(get_args(Edges))}")
    if not np.isfinite(gap_um) or gap_um < 0:
        raise ConfigError(f"got a gap of {gap_um}; expected a length of at least 0")
    if radius_um is not None and not radius_um > 0:
        raise ConfigError(f"got a radius of {radius_um}; expected a length above 0, or None")
    if k < 1:
        raise ConfigError(f"got k={k}; expected at least 1 neighbour")


def _radius(edges: str, radius: float | None, nodes: dict[str, Any], rank: int, unit: str) -> float:
    if radius is not None:
        return float(radius)
    diameters = nodes[column_name("equivalent_diameter", rank=rank, unit=unit)]
    return AUTO_RADIUS[edges] * float(np.median(diameters)) if len(diameters) else np.inf


def _pairs(edges: str, points: NDArray[np.float64], radius: float, k: int) -> NDArray[np.int64]:
    if edges == "distance":
        return pairs_in_radius(points, radius)
    if edges == "delaunay":
        return delaunay_pairs(points, radius)
    return ordered(nearest_pairs(points, k, radius))


def _contacts(scan: Scan, pairs: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Common surface of each pair, and whether they touch."""
    count = len(scan.labels) + 1
    keys, asked = scan.pairs @ [count, 1], pairs @ [count, 1]
    if not len(keys):
        return np.zeros(len(pairs)), np.zeros(len(pairs), bool)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    touching = keys[at] == asked
    return np.where(touching, scan.contact[at], 0.0), touching
