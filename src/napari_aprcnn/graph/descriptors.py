"""What an organoid is like, in numbers that do not depend on where it lies or how it is turned."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import AxesError, ImageError
from napari_aprcnn.graph.envelope import envelope_of, hull_volume
from napari_aprcnn.graph.neighbours import pairs_in_radius

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = ["OrganoidDescriptors", "clustering", "describe"]

_MOST_DEGREES = 20
WIDE_CLOSING = 2.5
# Up to so many nuclei all eigenvalues are quicker than two of them.
_DENSE = 400


@dataclass(frozen=True)
class OrganoidDescriptors:
    """Descriptors of one organoid; NaN where something is not defined, as the clustering of a graph without neighbours.

    Lengths are in micrometres, or in voxels where the voxel size is unknown; volumes are areas in 2D. "Diameter" is the
    median of the nuclei's equivalent diameters.

    Attributes
    ----------
    n_nuclei, n_edges
        Nodes and edges of the graph.
    n_components
        Parts of the graph that no edge joins.
    largest_component
        Share of the nuclei in the largest part.
    nucleus_diameter
        The diameter.
    nucleus_volume_cv
        Standard deviation over mean of the nuclei's volumes.
    nucleus_sphericity
        Mean sphericity of the nuclei (2D: circularity).
    degree_mean, degree_sd
        Of the number of neighbours.
    degree_histogram
        Share of the nuclei with 0, 1, ... 20 or more neighbours.
    clustering
        Mean over the nuclei with at least two neighbours: share of the pairs of neighbours that are neighbours, too.
    neighbour_distance, neighbour_distance_cv
        Mean length of the edges, in diameters, and standard deviation over mean.
    connectivity
        How hard it is to cut the organoid in two: the second eigenvalue of the normalised Laplacian of the nuclei at
        most one and a half diameters apart, times the number of nuclei to the power 2/D, so that balls of all sizes
        have about the same. 0 where parts are not joined, small where lobes are by a neck.
    contact_share
        Surface that nuclei share with others over all their surface.
    hull_volume
        Of the convex hull of the centroids.
    hull_emptiness
        Share of places in the hull of the centroids that are more than a diameter from any centroid.
    shape_anisotropy
        Of the centroids' covariance: 0 for a ball, 1 for a line (relative shape anisotropy).
    organoid_volume
        Of the envelope: nuclei, gaps between them up to a diameter, and what they enclose.
    lumen_fraction
        Enclosed room without nuclei, over the volume of the organoid.
    n_lumens
        Enclosed rooms as large as a nucleus or larger.
    sphericity
        Of the envelope: 1 for a ball, less for an elongated or lobed one.
    asphericity
        1 - `sphericity`.
    solidity
        Volume of the envelope over that of the hull of the nuclei's ends: 1 where it is convex.
    openness
        Logarithm of what closing gaps of up to two and a half diameters, rather than one, adds to the volume of the
        envelope: clefts between lobes.
    nuclear_fraction
        Volume of the nuclei over that of the organoid.
    nuclei_per_volume
        Nuclei in the volume of a thousand cubic micrometres of the organoid (2D: a thousand square micrometres).
    depth_mean
        Mean distance of the centroids from the outside of the organoid, in diameters: about 0.5 for a monolayer.
    depth_relative
        The same over the deepest place of the organoid: 0.25 for a ball that is evenly filled.
    radial_mean, radial_cv
        Mean distance of the centroids from their common centre over the largest (95 %), and standard deviation over
        mean: 0.75 and 0.26 for a ball, 1 and 0 for a shell.
    radial_histogram
        Share of the nuclei in five shells of equal thickness about the centre, from the inside.
    polarity
        How far the nuclei's long axes point to the centre: 1 all of them, 0 at random, -0.5 (2D: -1) all across.
        Round nuclei count little.
    orientation_order
        How far the long axes point in one direction: 0 at random, 1 all of them.
    """

    n_nuclei: int
    n_edges: int
    n_components: int
    largest_component: float
    nucleus_diameter: float
    nucleus_volume_cv: float
    nucleus_sphericity: float
    degree_mean: float
    degree_sd: float
    degree_histogram: tuple[float, ...]
    clustering: float
    neighbour_distance: float
    neighbour_distance_cv: float
    connectivity: float
    contact_share: float
    hull_volume: float
    hull_emptiness: float
    shape_anisotropy: float
    organoid_volume: float
    lumen_fraction: float
    n_lumens: int
    sphericity: float
    asphericity: float
    solidity: float
    openness: float
    nuclear_fraction: float
    nuclei_per_volume: float
    depth_mean: float
    depth_relative: float
    radial_mean: float
    radial_cv: float
    radial_histogram: tuple[float, ...]
    polarity: float
    orientation_order: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values; NaN, which JSON has not, becomes ``None``."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    def number(self, name: str) -> float:
        """Return one descriptor that is a number.

        Raises
        ------
        KeyError
            If there is no number of that name.
        """
        value = getattr(self, name) if name in {item.name for item in fields(self)} else None
        if not isinstance(value, int | float):
            raise KeyError(name)
        return float(value)


def describe(graph: NucleiGraph, labels: Any) -> OrganoidDescriptors:
    """Describe the organoid that the nuclei of a graph make up.

    Parameters
    ----------
    graph
        With at least one nucleus. All of its nuclei are taken for one organoid.
    labels : (Z, Y, X) or (Y, X)
        The label image that it was made of.

    Returns
    -------
    OrganoidDescriptors

    Raises
    ------
    ImageError
        If the graph has no nucleus.
    AxesError
        If the labels have another shape than the graph's.

    Examples
    --------
    >>> from napari_aprcnn.graph.build import nuclei_graph
    >>> labels = np.zeros((12, 12, 24), np.uint8)
    >>> labels[3:9, 3:9, 3:9], labels[3:9, 3:9, 9:15], labels[3:9, 3:9, 15:21] = 1, 2, 3
    >>> found = describe(nuclei_graph(labels), labels)
    >>> found.n_nuclei, found.degree_histogram[:3], found.shape_anisotropy
    (3, (0.0, 0.6666666666666666, 0.3333333333333333), 1.0)
    """
    labels = np.asarray(labels)
    if tuple(labels.shape) != graph.shape:
        raise AxesError(f"the labels have shape {labels.shape}, those of the graph {graph.shape}; expected the same")
    if not len(graph):
        raise ImageError("got a graph without nuclei, which cannot be described; segment the image first")
    volumes = graph.column("volume")
    diameter = float(np.median(graph.column("equivalent_diameter")))
    envelope = envelope_of(graph, labels)
    ends = _ends(graph)
    outer = max(hull_volume(ends), 1e-300)
    return OrganoidDescriptors(
        n_nuclei=len(graph),
        n_edges=len(graph.edges),
        nucleus_diameter=diameter,
        nucleus_volume_cv=_cv(volumes),
        nucleus_sphericity=float(graph.column("sphericity").mean()),
        **_topology(graph, diameter),
        **_shape(graph.positions, diameter),
        organoid_volume=envelope.volume,
        lumen_fraction=envelope.lumen_volume / envelope.volume,
        n_lumens=envelope.lumen_count,
        sphericity=envelope.sphericity,
        asphericity=1 - envelope.sphericity,
        solidity=min(1.0, envelope.volume / outer) if outer > 1e-200 else math.nan,
        openness=math.log(envelope_of(graph, labels, closing=WIDE_CLOSING).volume / envelope.volume),
        nuclear_fraction=float(volumes.sum()) / envelope.volume,
        nuclei_per_volume=1000 * len(graph) / envelope.volume,
        depth_mean=float(envelope.depths.mean()) / diameter,
        depth_relative=float(envelope.depths.mean()) / max(envelope.deepest, 1e-300),
        **_radial(graph),
        orientation_order=_order(graph.major_directions),
    )


def _cv(values: NDArray[np.float64]) -> float:
    return float(values.std() / values.mean()) if len(values) and values.mean() > 0 else math.nan


def _topology(graph: NucleiGraph, diameter: float) -> dict[str, Any]:
    from scipy.sparse.csgraph import connected_components

    degrees = graph.degrees()
    count, part = connected_components(graph.adjacency(), directed=False)
    lengths = graph.column("distance")
    histogram = np.bincount(np.minimum(degrees, _MOST_DEGREES), minlength=_MOST_DEGREES + 1) / len(graph)
    return {
        "n_components": int(count),
        "largest_component": float(np.bincount(part).max() / len(graph)),
        "degree_mean": float(degrees.mean()),
        "degree_sd": float(degrees.std()),
        "degree_histogram": tuple(histogram.tolist()),
        "clustering": clustering(graph),
        "neighbour_distance": float(lengths.mean() / diameter) if len(lengths) else math.nan,
        "neighbour_distance_cv": _cv(lengths),
        "connectivity": _connectivity(graph.positions, 1.5 * diameter),
        "contact_share": float(2 * graph.column("contact").sum() / graph.column("surface").sum()),
    }


def clustering(graph: NucleiGraph) -> float:
    """Return the mean clustering coefficient of the nuclei with at least two neighbours; NaN without any.

    Examples
    --------
    >>> from napari_aprcnn.graph.build import nuclei_graph
    >>> clustering(nuclei_graph(np.array([[1, 1, 2], [3, 3, 2]])))
    1.0
    """
    adjacency = graph.adjacency()
    degrees = graph.degrees()
    triangles = np.asarray((adjacency @ adjacency).multiply(adjacency).sum(axis=1)).reshape(-1) / 2
    some = degrees >= 2
    if not some.any():
        return math.nan
    return float((triangles[some] / (degrees[some] * (degrees[some] - 1) / 2)).mean())


def _connectivity(points: NDArray[np.float64], radius: float) -> float:
    """Second eigenvalue of the normalised Laplacian of the points within a radius, times n^(2/D)."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import ArpackError, eigsh

    pairs = pairs_in_radius(points, radius)
    joined = np.unique(pairs)
    if len(joined) < 3:
        return math.nan
    ends = np.searchsorted(joined, np.concatenate([pairs, pairs[:, ::-1]]))
    weight = 1 / np.sqrt(np.bincount(ends[:, 0]))
    count = len(joined)
    matrix = coo_array((weight[ends[:, 0]] * weight[ends[:, 1]], (ends[:, 0], ends[:, 1])), shape=(count, count))
    if count <= _DENSE:
        second = float(np.linalg.eigvalsh(matrix.toarray())[-2])
    else:
        start = np.random.default_rng(0).normal(size=count)
        try:
            second = float(np.sort(eigsh(matrix.tocsr(), k=2, which="LA", v0=start, tol=1e-5)[0])[0])
        except ArpackError:
            return math.nan
    return float(max(0.0, 1 - second) * len(points) ** (2 / points.shape[1]))


def _shape(points: NDArray[np.float64], diameter: float) -> dict[str, Any]:
    moments = np.linalg.eigvalsh(np.atleast_2d(np.cov(points.T))) if len(points) > 1 else np.zeros(points.shape[1])
    total, rank = float(moments.sum()), points.shape[1]
    spread = float((moments**2).sum()) - total**2 / rank
    return {
        "hull_volume": hull_volume(points),
        "hull_emptiness": _emptiness(points, diameter),
        "shape_anisotropy": spread / total**2 * rank / (rank - 1) if total > 0 else math.nan,
    }


def _emptiness(points: NDArray[np.float64], diameter: float) -> float:
    """Share of a regular grid of places in the hull that are more than a diameter from any point."""
    from scipy.spatial import Delaunay, QhullError, cKDTree

    rank = points.shape[1]
    if len(points) <= rank:
        return 0.0
    try:
        hull = Delaunay(points)
    except QhullError:
        return 0.0
    low, high = points.min(axis=0), points.max(axis=0)
    step = max(diameter / 2, float(np.prod(high - low) / 50_000) ** (1 / rank))
    axes = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, rank)
    places = places[hull.find_simplex(places) >= 0]
    if not len(places):
        return 0.0
    distance, _ = cKDTree(points).query(places)
    return float((distance > diameter).mean())


def _ends(graph: NucleiGraph) -> NDArray[np.float64]:
    """Points at the surfaces of balls of the nuclei's volumes: their hull is that of the nuclei, about."""
    steps = np.concatenate([np.eye(graph.rank), -np.eye(graph.rank)])
    if graph.rank == 3:
        corners = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / math.sqrt(3)
        steps = np.concatenate([steps, corners])
    radii = graph.column("equivalent_diameter")[:, None, None] / 2
    return np.asarray((graph.positions[:, None, :] + radii * steps).reshape(-1, graph.rank))


def _radial(graph: NucleiGraph) -> dict[str, Any]:
    away = graph.positions - graph.positions.mean(axis=0)
    radii = np.linalg.norm(away, axis=1)
    reach = float(np.percentile(radii, 95))
    if reach <= 0:
        return {"radial_mean": 0.0, "radial_cv": math.nan, "radial_histogram": (1.0, 0, 0, 0, 0), "polarity": math.nan}
    shell = np.minimum((5 * radii / reach).astype(int), 4)
    outward = away / np.maximum(radii, 1e-300)[:, None]
    along = (graph.major_directions * outward).sum(axis=1) ** 2
    # A round nucleus has no long axis to speak of.
    weight = np.maximum(graph.column("major_axis") / np.maximum(graph.column("minor_axis"), 1e-300) - 1, 0)
    weight = weight * (radii > 0)
    mean = float((weight * along).sum() / weight.sum()) if weight.sum() > 0 else math.nan
    return {
        "radial_mean": float((radii / reach).mean()),
        "radial_cv": _cv(radii),
        "radial_histogram": tuple((np.bincount(shell, minlength=5) / len(radii)).tolist()),
        "polarity": (graph.rank * mean - 1) / (graph.rank - 1),
    }


def _order(directions: NDArray[np.float64]) -> float:
    """Nematic order parameter."""
    rank = directions.shape[1]
    largest = float(np.linalg.eigvalsh(directions.T @ directions / len(directions))[-1])
    return float((rank * largest - 1) / (rank - 1))
