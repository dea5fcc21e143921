"""The ellipsoid model of an organoid: one ellipsoid, and how the nuclei lie about its surface.

The simplest description there is, and the one that a graph has to beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_aprcnn.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = ["EllipsoidModel", "fit_ellipsoid"]

_OUTER, _INNER = 95.0, 5.0


@dataclass(frozen=True, eq=False)
class EllipsoidModel:
    """One ellipsoid (in 2D an ellipse) for all nuclei of an organoid.

    Attributes
    ----------
    centre : [D]
        Mean of the centroids, in the unit of the graph.
    semi_axes : [D]
        Half the axes, longest first: nineteen of twenty centroids lie within.
    directions : (D, D)
        Unit vectors along them, one each row.
    thickness
        Of the shell that holds nine of ten centroids, as a share of the way from the centre to the surface: 0 is a
        thin shell, a solid ball of evenly spread nuclei has 0.62.
    residual
        Standard deviation of the centroids' distances from the centre, as a share of their mean, distances being
        measured in semi-axes: 0 where all lie on one ellipsoid.
    nuclei_per_volume
        Nuclei over the volume of the ellipsoid, times the mean volume of a nucleus.
    """

    centre: NDArray[np.float64]
    semi_axes: NDArray[np.float64]
    directions: NDArray[np.float64]
    thickness: float
    residual: float
    nuclei_per_volume: float

    @property
    def volume(self) -> float:
        """Of the ellipsoid, in the unit of the graph to the power of D."""
        ball = 4 / 3 * np.pi if len(self.semi_axes) == 3 else np.pi
        return float(ball * np.prod(self.semi_axes))


def fit_ellipsoid(graph: NucleiGraph) -> EllipsoidModel:
    """Fit one ellipsoid to the centroids of the nuclei.

    Its shape is that of the centroids' covariance, which is the right one for evenly covered shells and for evenly
    filled bodies alike; its size is then chosen so that 95 % of the centroids are within.

    Parameters
    ----------
    graph
        With more nuclei than axes, not all in a plane (2D: on a line).

    Raises
    ------
    ImageError
        If there are fewer nuclei, or they lie in a plane.
    """
    points, rank = graph.positions, graph.rank
    if len(points) <= rank:
        raise ImageError(f"got {len(points)} nuclei; an ellipsoid needs at least {rank + 1}")
    centre = points.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    if values[0] <= 1e-9 * values[-1]:
        raise ImageError(
            "the nuclei lie in a plane or on a line, which is no ellipsoid; expected a volume with several"
        )
    spread = np.sqrt(values[::-1])
    axes = vectors[:, ::-1].T
    reach = np.linalg.norm((points - centre) @ axes.T / spread, axis=1)
    outer, inner = np.percentile(reach, [_OUTER, _INNER])
    semi_axes = spread * outer
    ball = 4 / 3 * np.pi if rank == 3 else np.pi
    volume = float(ball * np.prod(semi_axes))
    return EllipsoidModel(
        centre=centre,
        semi_axes=semi_axes,
        directions=axes,
        thickness=float(1 - inner / outer),
        residual=float(reach.std() / reach.mean()),
        nuclei_per_volume=float(graph.column("volume").sum() / volume),
    )
