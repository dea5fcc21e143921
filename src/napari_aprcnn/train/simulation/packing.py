"""Where nuclei may be: sampling of balls, shells and boxes, and neighbours that make room for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

__all__ = ["Shell", "directions", "frames_of", "in_ball", "relax", "thin_out"]

CROWDED = 0.72  # nearer than this share of the wanted distance, one of two nuclei goes


def directions(rng: np.random.Generator, count: int) -> Points:
    """Uniform unit vectors [count, 3]."""
    vectors = rng.standard_normal((count, 3))
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def in_ball(rng: np.random.Generator, count: int, *, inner: float = 0.0) -> Points:
    """Uniform points of the unit ball [count, 3], outside the radius `inner`."""
    radius = rng.uniform(inner**3, 1.0, (count, 1)) ** (1 / 3)
    return directions(rng, count) * radius


class Shell:
    """A closed surface: a sphere with smooth dents and bulges.

    Parameters
    ----------
    rng
        Source of its form.
    centre
        [3], any unit.
    radius
        Mean radius.
    roughness
        Deviation of the radius, as a share.
    """

    def __init__(self, rng: np.random.Generator, centre: Points, radius: float, roughness: float) -> None:
        self.centre = centre
        self.radius = radius
        self._waves = directions(rng, 4) * rng.uniform(1.0, 3.5, (4, 1))
        self._phases = rng.uniform(0, 2 * np.pi, 4)
        self._roughness = roughness

    def at(self, toward: Points) -> Points:
        """Radius [n] in the directions [n, 3]."""
        bulge = np.cos(toward @ self._waves.T + self._phases).sum(1)
        return np.asarray(self.radius * np.clip(1 + self._roughness * bulge / np.sqrt(2), 0.4, 1.8))

    def project(self, points: Points, share: Points | float = 1.0) -> Points:
        """Move points [n, 3] along their radius onto the surface, or to a share of its radius."""
        toward = self.toward(points)
        return np.asarray(self.centre + toward * (self.at(toward) * share)[:, None])

    def toward(self, points: Points) -> Points:
        """Unit vectors [n, 3] from the centre."""
        offset = points - self.centre
        return np.asarray(offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-9))

    def depth(self, points: Points) -> Points:
        """Distance from the centre over the radius there [n]: below 1 inside."""
        return np.asarray(np.linalg.norm(points - self.centre, axis=1) / self.at(self.toward(points)))

    def confine(self, points: Points) -> Points:
        """Bring points outside back onto the surface."""
        outside = self.depth(points) > 1
        if outside.any():
            points = points.copy()
            points[outside] = self.project(points[outside])
        return points


def relax(
    points: Points,
    radii: Points,
    spacing: float,
    project: Callable[[Points], Points] | None = None,
    *,
    steps: int = 12,
) -> Points:
    """Push apart pairs that are closer than `spacing` times the sum of their radii, and keep them on a surface.

    Parameters
    ----------
    points, radii
        [n, 3] and [n], one unit.
    spacing
        Wanted distance over the sum of the radii.
    project
        Brings the points back to where they may be, after each step.
    steps
        Number of steps.

    Returns
    -------
    [n, 3]
    """
    if len(points) < 2:
        return points
    reach = 2 * float(radii.max()) * spacing
    for _ in range(steps):
        pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
        first, second = pairs.T
        offset = points[first] - points[second]
        distance = np.linalg.norm(offset, axis=1)
        lack = spacing * (radii[first] + radii[second]) - distance
        close = lack > 0
        if not close.any():
            break
        shift = (offset * (0.3 * lack / np.maximum(distance, 1e-6))[:, None])[close]
        points = points.copy()
        np.add.at(points, first[close], shift)
        np.add.at(points, second[close], -shift)
        if project is not None:
            points = project(points)
    return points


def thin_out(points: Points, radii: Points, spacing: float) -> NDArray[np.bool_]:
    """Which points [n] stay when those that are still far too close to an earlier one go."""
    keep = np.ones(len(points), bool)
    if len(points) < 2:
        return keep
    pairs = cKDTree(points).query_pairs(2 * float(radii.max()) * spacing * CROWDED, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    close = distance < CROWDED * spacing * (radii[pairs[:, 0]] + radii[pairs[:, 1]])
    for first, second in pairs[close]:
        if keep[first]:
            keep[second] = False
    return keep


def frames_of(rng: np.random.Generator, normals: Points) -> Points:
    """Orthonormal frames [n, 3, 3] whose first column is the normal [n, 3]; the others point anywhere."""
    other = np.cross(normals, directions(rng, len(normals)))
    other /= np.maximum(np.linalg.norm(other, axis=1, keepdims=True), 1e-9)
    return np.stack([normals, other, np.cross(normals, other)], axis=2)
