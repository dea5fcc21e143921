"""The phenotype of an organoid: cystic, compact or cauliflower, from its graph."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import FileFormatError, ImageError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.graph.build import AUTO_RADIUS, Edges, nuclei_graph
from napari_aprcnn.graph.descriptors import OrganoidDescriptors, describe
from napari_aprcnn.graph.ellipsoid import fit_ellipsoid
from napari_aprcnn.graph.logistic import LogisticModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = [
    "ELLIPSOID_FEATURES",
    "ENVELOPE_FEATURES",
    "FEWEST_NUCLEI",
    "GRAPH_FEATURES",
    "PHENOTYPES",
    "PhenotypeCard",
    "classify_phenotype",
    "ellipsoid_features",
    "phenotype_features",
    "phenotype_model",
]

PHENOTYPES = ("cystic", "compact", "cauliflower")
FEWEST_NUCLEI = 12
# None of them has a unit: organoids of any magnification can be compared. Sizes and shapes of single nuclei are left
# out, because in the simulation they do not depend on the phenotype; so is the lumen, which in half-covered simulated
# cysts is mostly open, while a real one is closed.
GRAPH_FEATURES = (
    "log_nuclei",
    "degree_mean",
    "degree_sd",
    "clustering",
    "neighbour_distance",
    "neighbour_distance_cv",
    "connectivity",
    "hull_emptiness",
    "shape_anisotropy",
    "radial_mean",
    "radial_cv",
    "polarity",
)
ENVELOPE_FEATURES = (
    "sphericity",
    "solidity",
    "openness",
    "nuclear_fraction",
    "depth_mean",
    "depth_relative",
)
ELLIPSOID_FEATURES = ("log_nuclei", "log_size", "log_long", "log_flat", "thickness", "residual", "log_packing")
_EDGES: Edges = "delaunay"
_FILE = Path(__file__).with_name("phenotypes.json")


class PhenotypeCard(Frozen):
    """The shipped classifier and how it was made.

    Attributes
    ----------
    model
        The classifier.
    baseline
        One that knows the ellipsoid of the organoid only, fitted to the same organoids; for comparison.
    data
        What it was fitted to.
    command
        Makes it again.
    seed
        Of the first volume.
    edges
        Edges of the graphs, as in `nuclei_graph`.
    accuracy
        Cross-validated, by kind of features.
    """

    model: LogisticModel
    baseline: LogisticModel
    data: str
    command: str
    seed: int
    edges: str
    accuracy: dict[str, float]


@lru_cache(maxsize=1)
def phenotype_model() -> PhenotypeCard:
    """Return the shipped classifier.

    Raises
    ------
    FileFormatError
        If it is not in this installation.

    Examples
    --------
    >>> phenotype_model().model.classes
    ('cystic', 'compact', 'cauliflower')
    """
    try:
        values = json.loads(_FILE.read_text(encoding="utf-8"))
        models = {name: LogisticModel(**values[name]) for name in ("model", "baseline")}
        card = PhenotypeCard(**{**values, **models})
        unknown = set(card.model.features) - {*GRAPH_FEATURES, *ENVELOPE_FEATURES}
        if unknown:
            raise ValueError(f"it asks for {', '.join(sorted(unknown))}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"cannot read {_FILE.name} ({error}); install the package again") from error
    return card


def phenotype_features(found: OrganoidDescriptors) -> dict[str, float]:
    """Return the features of graph and envelope by name; NaN where one is not defined."""
    values = {"log_nuclei": math.log(found.n_nuclei)}
    return values | {name: found.number(name) for name in (*GRAPH_FEATURES[1:], *ENVELOPE_FEATURES)}


def ellipsoid_features(graph: NucleiGraph) -> dict[str, float]:
    """Return the features of the ellipsoid model by name.

    Raises
    ------
    ImageError
        If no ellipsoid can be fitted.
    """
    model = fit_ellipsoid(graph)
    axes = model.semi_axes
    radius = float(np.median(graph.column("equivalent_diameter"))) / 2
    return {
        "log_nuclei": math.log(len(graph)),
        "log_size": float(np.log(axes).mean() - math.log(radius)),
        "log_long": math.log(axes[0] / axes[1]),
        "log_flat": math.log(axes[1] / axes[2]),
        "thickness": model.thickness,
        "residual": model.residual,
        "log_packing": math.log(model.nuclei_per_volume),
    }


def classify_phenotype(
    graph: NucleiGraph, labels: NDArray[Any], *, descriptors: OrganoidDescriptors | None = None
) -> dict[str, float]:
    """Say which phenotype an organoid has.

    The classifier was fitted to simulated organoids, whole and in 3D, and knows nothing but its three classes: an
    embryo gets probabilities, too.

    Parameters
    ----------
    graph
        Of one organoid. The classifier has seen Delaunay graphs without a radius; of nuclei with other edges, which
        have other numbers of neighbours, such a graph is made first.
    labels : (Z, Y, X)
        The label image that it was made of.
    descriptors
        Those of the graph, where they are known already; used where the edges are the right ones.

    Returns
    -------
    dict of str to float
        Probabilities of ``cystic``, ``compact`` and ``cauliflower``, which sum up to 1.

    Raises
    ------
    ImageError
        If the image is a plane, or has fewer than a dozen nuclei.
    """
    if graph.rank != 3:
        raise ImageError("got the graph of a plane; phenotypes are told from volumes (Z, Y, X)")
    if len(graph) < FEWEST_NUCLEI:
        raise ImageError(f"got {len(graph)} nuclei; a phenotype needs at least {FEWEST_NUCLEI}")
    card = phenotype_model()
    if not _is_default(graph):
        graph = nuclei_graph(labels, spacing_um=graph.spacing_um, edges=_EDGES, surface_distance=False)
        descriptors = None
    values = phenotype_features(descriptors or describe(graph, labels))
    row = np.array([[values[name] for name in card.model.features]])
    chances = card.model.probabilities(row)[0]
    return dict(zip(card.model.classes, chances.tolist(), strict=True))


def _is_default(graph: NucleiGraph) -> bool:
    """Whether a graph has the edges that the classifier was fitted to."""
    radius = graph.parameters.get(f"radius_{graph.unit}")
    usual = AUTO_RADIUS[_EDGES] * float(np.median(graph.column("equivalent_diameter")))
    return graph.kind == _EDGES and radius is not None and math.isclose(radius, usual)
