"""The room that an organoid takes: its tissue, what the tissue encloses, and how deep each nucleus lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.graph.scan import scan_labels
from napari_aprcnn.graph.structure import NucleiGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Envelope", "envelope_of", "hull_volume"]

# Steps of the grid in a median diameter, and its largest number of voxels.
_FINENESS = 5.0
_MOST_VOXELS = 1_500_000
# Gaps between nuclei up to this many diameters are tissue.
CLOSING = 1.0


@dataclass(frozen=True, eq=False)
class Envelope:
    """An organoid as a solid, on a coarse grid with equal steps.

    Attributes
    ----------
    volume, tissue_volume, lumen_volume
        Of the whole organoid, of its tissue, of what the tissue encloses; in the unit of the graph to the power of D.
    lumen_count
        Enclosed rooms as large as a nucleus, or larger.
    sphericity
        Surface of the ball of equal volume over the surface; in 2D the perimeters.
    depths : [N]
        Distance of each centroid to the outside, in the unit of the graph.
    deepest
        Largest distance to the outside of any place in the organoid.
    """

    volume: float
    tissue_volume: float
    lumen_volume: float
    lumen_count: int
    sphericity: float
    depths: NDArray[np.float64]
    deepest: float


def envelope_of(graph: NucleiGraph, labels: NDArray[Any], *, closing: float = CLOSING) -> Envelope:
    """Return the envelope of the nuclei.

    Nuclei are put on a grid of a fifth of their median diameter, gaps of up to `closing` diameters are closed, and
    what is then enclosed is filled. The border of the image encloses nothing.

    Parameters
    ----------
    graph
        With at least one nucleus.
    labels
        The label image that it was made of.
    closing
        In median diameters of the nuclei.
    """
    from scipy import ndimage

    diameter = float(np.median(graph.column("equivalent_diameter")))
    step, solid, origin = _coarse(graph, labels, diameter)
    # Distances on a grid are often exactly the reach: rounding must not decide.
    reach = closing * diameter / 2 * (1 + 1e-6)
    pad = int(np.ceil(reach / step)) + 2
    solid = np.pad(solid, pad)
    origin = origin - pad * step
    near = ndimage.distance_transform_edt(~solid, sampling=step) <= reach
    tissue = (ndimage.distance_transform_edt(near, sampling=step) > reach) | solid
    filled = ndimage.binary_fill_holes(tissue)
    lumen = filled & ~tissue
    cell = step**graph.rank
    ball = np.pi / 6 * diameter**3 if graph.rank == 3 else np.pi / 4 * diameter**2
    pieces, _ = ndimage.label(lumen)
    sizes = np.bincount(pieces.ravel())[1:] * cell
    inside = ndimage.distance_transform_edt(filled, sampling=step)
    at = np.round((graph.positions - origin) / step).astype(int)
    at = np.clip(at, 0, np.array(filled.shape) - 1)
    volume = float(filled.sum()) * cell
    return Envelope(
        volume=volume,
        tissue_volume=float(tissue.sum()) * cell,
        lumen_volume=float(lumen.sum()) * cell,
        lumen_count=int(np.count_nonzero(sizes >= ball)),
        sphericity=_sphericity(filled, step, volume),
        depths=inside[tuple(at.T)],
        deepest=float(inside.max()),
    )


def _coarse(
    graph: NucleiGraph, labels: NDArray[Any], diameter: float
) -> tuple[float, NDArray[np.bool_], NDArray[np.float64]]:
    """The nuclei on a grid of equal steps; the step, the grid, and where its first voxel lies."""
    spacing = graph.steps
    size = np.array(labels.shape) * spacing
    step = max(diameter / _FINENESS, float(np.prod(size) / _MOST_VOXELS) ** (1 / graph.rank))
    shape = np.maximum(np.ceil(size / step).astype(int), 1)
    indices = []
    for n, edge, length in zip(shape, spacing, labels.shape, strict=True):
        middle = ((np.arange(n) + 0.5) * step / edge - 0.5).round().astype(int)
        indices.append(np.clip(middle, 0, length - 1))
    return step, labels[np.ix_(*indices)] > 0, np.full(graph.rank, 0.5 * step) - 0.5 * spacing


def _sphericity(filled: NDArray[np.bool_], step: float, volume: float) -> float:
    surface = float(scan_labels(filled.view(np.uint8), spacing=(step,) * filled.ndim).surface.sum())
    if filled.ndim == 3:
        return min(1.0, float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3)) / surface)
    return min(1.0, float(2 * np.sqrt(np.pi * volume)) / surface)


def hull_volume(points: NDArray[np.float64]) -> float:
    """Return the volume (2D: area) of the convex hull of points; 0 for those that lie in a plane (on a line).

    Examples
    --------
    >>> hull_volume(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 6]])), hull_volume(np.eye(3))
    (1.0, 0.0)
    """
    from scipy.spatial import ConvexHull, QhullError

    if len(points) <= points.shape[1]:
        return 0.0
    try:
        return float(ConvexHull(points).volume)
    except QhullError:
        return 0.0
