"""Directions of star-convex shapes: points of a golden spiral on the sphere, and the triangles between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["StarRays", "anisotropy_of", "golden_spiral"]

FEWEST_RAYS = 4  # of a body


@dataclass(frozen=True, eq=False)
class StarRays:
    """Unit vectors, and the triangles that close the surface between their ends.

    The functions of the stardist package take it in place of their own rays.

    Attributes
    ----------
    vertices : (R, 3) float32
        Unit vectors z, y, x, in voxels.
    faces : (F, 3) int32
        Indices of the corners of every triangle; seen from outside they all turn the same way.
    anisotropy
        Voxel sizes z, y, x (only ratios matter) that the directions are spread for.

    Examples
    --------
    >>> rays = golden_spiral(96)
    >>> len(rays), rays.faces.shape
    (96, (188, 3))
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    anisotropy: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.vertices)

    def volumes(self, distances: NDArray[Any]) -> NDArray[np.float64]:
        """Volume in voxels of the bodies that distances (N, R) describe; float64 (N,)."""
        return np.asarray(self._wedges(distances)[0].sum(1))

    def centroids(self, distances: NDArray[Any]) -> NDArray[np.float64]:
        """Centre of mass of these bodies, seen from their points; float64 (N, 3), z, y, x in voxels."""
        volumes, middles = self._wedges(distances)
        whole = np.maximum(volumes.sum(1, keepdims=True), np.finfo(np.float64).tiny)
        return np.asarray((volumes[..., None] * middles).sum(1) / whole)

    def radii(self, distances: NDArray[Any]) -> NDArray[np.float64]:
        """Radius in voxels of a sphere of about the body's volume, the same wherever the point lies within the body.

        The cube of every distance counts by the solid angle around its ray; float64 (N,).
        """
        cubes = np.asarray(distances, np.float32) ** 3
        return np.asarray(np.cbrt(cubes @ self._angles), np.float64)

    @cached_property
    def _angles(self) -> NDArray[np.float32]:
        """Share of the sphere around every ray; float32 (R,), sum 1."""
        wedge = self._wedges(np.ones((1, len(self))))[0][0]
        share = np.bincount(self.faces.ravel(), weights=np.repeat(wedge, 3), minlength=len(self))
        return np.asarray(share / share.sum(), np.float32)

    def _wedges(self, distances: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Volume (N, F) and centre (N, F, 3) of the tetrahedra between the point and every triangle."""
        ends = np.asarray(distances, np.float64)[..., None] * self.vertices
        a, b, c = (ends[:, self.faces[:, corner]] for corner in range(3))
        return np.abs((a * np.cross(b, c)).sum(-1)) / 6, (a + b + c) / 4

    @cached_property
    def rounding(self) -> float:
        """Factor on the distances by which the body of a sphere gets the sphere's volume: flat faces cut it off."""
        body = self.volumes(np.ones((1, len(self))))[0]
        return float((4 / 3 * np.pi / body) ** (1 / 3))


def golden_spiral(n: int = 96, anisotropy: Sequence[float] = (1.0, 1.0, 1.0)) -> StarRays:
    """Spread directions evenly; those of ``Rays_GoldenSpiral`` of the stardist package (Weigert et al. 2020).

    Parameters
    ----------
    n
        Number of directions.
    anisotropy
        Voxel sizes z, y, x, or what `anisotropy_of` measures: fewer rays go along long voxels.

    Raises
    ------
    ConfigError
        With fewer than four directions, or sizes that are not positive.

    Examples
    --------
    >>> golden_spiral(4).vertices[0].tolist()
    [-1.0, 0.0, 0.0]
    """
    from scipy.spatial import ConvexHull

    size = np.asarray(anisotropy, np.float64)
    if n < FEWEST_RAYS:
        raise ConfigError(f"got {n} rays, expected at least {FEWEST_RAYS}; the paper has 96")
    if size.shape != (3,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise ConfigError(f"got anisotropy {anisotropy!r}, expected three positive numbers z, y, x")
    height = np.linspace(-1, 1, n)
    angle = (3 - np.sqrt(5)) * np.pi * np.arange(n)
    around = np.sqrt(1 - height**2)
    points = np.stack([height, around * np.sin(angle), around * np.cos(angle)], axis=1) / size
    faces = ConvexHull(points).simplices
    # The hull's triangles turn either way.
    corners = points[faces]
    turn = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(-1) > 0
    faces = np.where(turn[:, None], faces[:, ::-1], faces)
    vertices = points / np.linalg.norm(points, axis=1, keepdims=True)
    return StarRays(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        (float(size[0]), float(size[1]), float(size[2])),
    )


def anisotropy_of(*volumes: NDArray[Any]) -> tuple[float, float, float]:
    """Ratios of the objects' median extents, the largest over each: what `golden_spiral` takes as voxel sizes.

    Parameters
    ----------
    *volumes : (Z, Y, X) integers
        Labels, 0 is background.

    Raises
    ------
    ImageError
        If there is no object.
    """
    from scipy.ndimage import find_objects

    from napari_aprcnn._kernels import compact_labels

    extents = [
        [part.stop - part.start for part in box]
        for labels in volumes
        for box in find_objects(compact_labels(labels)[0].astype(np.int32))
    ]
    if not extents:
        raise ImageError("got labels without an object, expected at least one to measure; give the anisotropy instead")
    z, y, x = np.median(np.array(extents), axis=0)
    largest = max(z, y, x)
    return float(largest / z), float(largest / y), float(largest / x)
