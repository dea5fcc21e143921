"""Nuclei as bodies: irregular surfaces, room shared with neighbours that press against them, mitoses, chromatin.

The depth of a point in a nucleus is its distance from the centre over that of the surface in the same direction: 0 at
the centre, 1 at the surface. Where nuclei would overlap, a voxel belongs to the one in which it is deepest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_aprcnn.train.simulation.config import SimulationConfig
from napari_aprcnn.train.simulation.fields import draw, rotations, texture_tile
from napari_aprcnn.train.simulation.scenes import Layout, Style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Volume = NDArray[np.float32]
    Box = tuple[slice, slice, slice]

__all__ = ["Body", "Canvas", "Chromatin", "bodies_of", "boxes_overlap"]

FAR = 9.0  # depth of what lies outside every nucleus
TILE = (40, 56, 56)  # the texture repeats after so many voxels
LARGEST_SURFACE = 1.3  # farthest point of a surface over its ellipsoid


@dataclass(frozen=True)
class Body:
    """One object with a label of its own.

    Attributes
    ----------
    centre, axes : [3]
        In-plane pixels.
    frame : [3, 3]
        Columns are the directions of the axes.
    modes : [6, 3]
        Of the surface's irregularity: directions, scaled.
    bend
        Curvature of the first axis.
    brightness
        Relative to the median nucleus.
    condensed
        Whether it is in mitosis: dense chromatin without nucleoli.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    frame: NDArray[np.float64]
    modes: NDArray[np.float64]
    bend: float
    brightness: float
    condensed: bool

    @property
    def radius(self) -> float:
        """Radius of the ball of equal volume, px."""
        return float(self.axes.prod() ** (1 / 3))

    def box(self, scale: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First voxel and the one behind the last, along z, y, x; they may lie outside the volume."""
        half = np.sqrt(((self.frame * self.axes) ** 2).sum(1)) * LARGEST_SURFACE * scale + 1
        middle = self.centre * scale
        return np.floor(middle - half).astype(np.int64), np.ceil(middle + half).astype(np.int64) + 1

    def depth(self, low: NDArray[np.int64], high: NDArray[np.int64], scale: NDArray[np.float64]) -> Volume:
        """Depth at the voxels of a box."""
        steps = [
            ((np.arange(a, b) + 0.5) / s - c).astype(np.float32)
            for a, b, s, c in zip(low, high, scale, self.centre, strict=True)
        ]
        dz, dy, dx = np.ix_(*steps)
        turn = (self.frame / self.axes).T.astype(np.float32)
        u, v, w = (row[0] * dz + row[1] * dy + row[2] * dx for row in turn)
        if self.bend:
            u += np.float32(self.bend) * (v * v - np.float32(0.3))
        distance = np.sqrt(u * u + v * v + w * w)
        inverse = 1 / np.maximum(distance, np.float32(1e-3))
        u *= inverse
        v *= inverse
        w *= inverse
        a, b, c, d, e, f = ((m[0] * u + m[1] * v) + m[2] * w for m in self.modes.astype(np.float32))
        surface = 1 + a * b + c * d * e + f * f * (f - np.float32(0.3))
        np.clip(surface, 0.6, LARGEST_SURFACE, out=surface)
        distance /= surface
        return np.asarray(distance, np.float32)


def bodies_of(rng: np.random.Generator, layout: Layout, style: Style, config: SimulationConfig) -> list[Body]:
    """Give every place of a layout a nucleus, some of them in mitosis (a pair of plates for one place)."""
    irregular = draw(rng, config.irregularity)
    spread = draw(rng, config.intensity_cv)
    mitotic = draw(rng, config.mitotic)
    pyknotic = draw(rng, config.pyknotic) if rng.random() < 0.4 else config.pyknotic[0]
    count = len(layout)
    brightness = np.exp(rng.normal(0, spread, count))
    modes = rng.standard_normal((count, 6, 3)) * np.sqrt([irregular, irregular, *[irregular ** (2 / 3)] * 4])[:, None]
    modes[:, 2:5] *= 0.75
    bends = rng.normal(0, irregular, count) * (rng.random(count) < 0.4)
    stage = rng.random(count)
    bodies = []
    for i in range(count):
        axes = layout.radii[i] * layout.axes[i]
        body = Body(layout.centres[i], axes, layout.frames[i], modes[i], float(bends[i]), float(brightness[i]), False)
        if stage[i] < mitotic:
            bodies += _mitosis(rng, body)
        elif stage[i] < mitotic + pyknotic:
            bodies.append(_pyknosis(rng, body))
        else:
            bodies.append(body)
    return bodies


def _pyknosis(rng: np.random.Generator, body: Body) -> Body:
    """A nucleus that has shrunk to a dense, bright ball."""
    axes = (body.axes + body.radius) / 2 * rng.uniform(0.45, 0.8)
    bright = body.brightness * float(np.exp(rng.uniform(np.log(2), np.log(9))))
    return replace(body, axes=axes, brightness=bright, modes=0.5 * body.modes, bend=0.0, condensed=True)


def _mitosis(rng: np.random.Generator, body: Body) -> list[Body]:
    """Prometaphase, metaphase plate, or the two plates of ana- and telophase."""
    frame = rotations(rng, 1)[0] if rng.random() < 0.5 else body.frame
    radius = body.radius
    bright = body.brightness * rng.uniform(1.2, 2.6)
    kind = rng.random()
    if kind < 0.25:
        axes = radius * rng.uniform(0.6, 0.8) * np.exp(rng.normal(0, 0.15, 3))
        return [Body(body.centre, axes, frame, 1.3 * body.modes, body.bend, bright, True)]
    if kind < 0.65:
        axes = radius * np.array([rng.uniform(0.28, 0.42), rng.uniform(0.75, 1.0), rng.uniform(0.7, 0.95)])
        return [Body(body.centre, axes, frame, body.modes, float(rng.normal(0, 0.15)), bright, True)]
    apart = frame[:, 0] * radius * rng.uniform(0.5, 1.3)
    late = rng.uniform(0, 1)
    pair = []
    for side in (-1, 1):
        axes = radius * np.array([0.27 + 0.2 * late, 0.7, 0.66]) * np.exp(rng.normal(0, 0.08, 3))
        bend = -side * rng.uniform(0.0, 0.35)
        pair.append(Body(body.centre + side * apart, axes, frame, body.modes, bend, bright * (1 - 0.3 * late), True))
    return pair


class Canvas:
    """Which nucleus has which voxel, on the volume and what nuclei at its border need around it.

    Parameters
    ----------
    low, high : [3]
        First voxel, and the one behind the last; in coordinates of the volume.
    """

    def __init__(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
        self._low = low
        shape = tuple(high - low)
        self._best = np.full(shape, FAR, np.float32)
        self._second = np.full(shape, FAR, np.float32)
        self._owner = np.full(shape, -1, np.int32)

    def _at(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Box:
        z, y, x = (slice(int(a - o), int(b - o)) for a, b, o in zip(low, high, self._low, strict=True))
        return z, y, x

    def claim(self, number: int, low: NDArray[np.int64], high: NDArray[np.int64], depth: Volume) -> None:
        """Enter the depths of a nucleus in a box."""
        at = self._at(low, high)
        best, second = self._best[at], self._second[at]
        deeper = depth < best
        np.minimum(second, np.maximum(best, depth), out=second)
        np.minimum(best, depth, out=best)
        self._owner[at][deeper] = number

    def share(
        self, number: int, low: NDArray[np.int64], high: NDArray[np.int64], depth: Volume, radius: float, gap: float
    ) -> Volume:
        """Share of each voxel of a box that a nucleus fills, 0..1.

        Parameters
        ----------
        number, low, high, depth
            As given to `claim`.
        radius
            Pixels for a depth of 1.
        gap
            Half of the distance that pressed neighbours keep, px.
        """
        at = self._at(low, high)
        best = self._best[at]
        other = np.where(self._owner[at] == number, self._second[at], best)
        inside = np.minimum((1 - depth) * np.float32(radius), (other - depth) * np.float32(radius / 2) - gap)
        return np.asarray(np.clip(inside + np.float32(0.5), 0, 1), np.float32)


def boxes_overlap(low: NDArray[np.int64], high: NDArray[np.int64], shape: tuple[int, ...], margin: float) -> bool:
    """Whether a box comes within `margin` voxels of the volume."""
    return bool((high > -margin).all() and (low < np.array(shape) + margin).all())


class Chromatin:
    """Intensity inside nuclei: texture at two scales, nucleoli, and a profile from centre to rim.

    Parameters
    ----------
    rng
        Source of all that is random.
    style, config
        Of the volume.
    """

    def __init__(self, rng: np.random.Generator, style: Style, config: SimulationConfig) -> None:
        size = style.diameter_px
        along = np.array([style.z_scale, 1.0, 1.0])
        depth, grain, nucleoli = (draw(rng, limits) for limits in (config.texture, config.grain, config.nucleoli))
        fine = texture_tile(rng, along * rng.uniform(0.025, 0.06) * size, TILE)
        coarse = texture_tile(rng, along * rng.uniform(0.09, 0.16) * size, TILE)
        mixed = (grain * fine + (1 - grain) * coarse) / np.float32(np.hypot(grain, 1 - grain))
        holes = texture_tile(rng, along * rng.uniform(0.06, 0.14) * size, TILE)
        dark = 1 / (1 + np.exp(np.clip((1.3 - holes) * 6, -30, 30)))
        self._tile = np.asarray(np.exp(depth * mixed - depth**2 / 2) * (1 - nucleoli * dark), np.float32)
        self._condensed = np.asarray(np.exp(0.15 * coarse), np.float32)
        self._profile = draw(rng, config.profile)
        self._spread = rng.uniform(0.0, 0.15)

    def fill(self, rng: np.random.Generator, body: Body, depth: Volume) -> Volume:
        """Intensity at the voxels of a nucleus, about 1 for the median one."""
        tile = self._condensed if body.condensed else self._tile
        places = [
            (np.arange(size) * rng.choice((-1, 1)) + rng.integers(edge)) % edge
            for size, edge in zip(depth.shape, tile.shape, strict=True)
        ]
        filled = tile[np.ix_(*places)]
        fall = float(np.clip(self._profile + self._spread * rng.standard_normal(), -0.5, 0.8))
        filled *= np.clip(1 - np.float32(0.4 * fall if body.condensed else fall) * depth * depth, 0.15, 2.0)
        filled *= np.float32(body.brightness)
        return filled
