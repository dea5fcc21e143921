"""Light that belongs to no label: cell bodies, ghosts, debris, polar bodies, slow changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_aprcnn.train.simulation.config import SimulationConfig
from napari_aprcnn.train.simulation.fields import blur, draw, resize_linear, smooth_noise
from napari_aprcnn.train.simulation.optics import Optics
from napari_aprcnn.train.simulation.packing import directions
from napari_aprcnn.train.simulation.scenes import Layout, Style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Volume = NDArray[np.float32]
    Points = NDArray[np.float64]

__all__ = ["Balls", "add_balls", "draw_debris", "haze_and_ghosts"]


class Balls(NamedTuple):
    """Small round objects: centres [n, 3] and radii [n] in in-plane pixels, brightness [n] over the median nucleus'."""

    centres: Points
    radii: Points
    brightness: Points


def draw_debris(
    rng: np.random.Generator, layout: Layout, style: Style, config: SimulationConfig
) -> tuple[Balls, dict[str, int]]:
    """Draw apoptotic fragments, bright dust and polar bodies.

    Returns
    -------
    Balls, and how many of each kind
    """
    room = np.array(config.shape) / np.array([style.z_scale, 1.0, 1.0])
    r = style.radius
    parts: list[tuple[Points, Points, Points]] = [(np.zeros((0, 3)), np.zeros(0), np.zeros(0))]
    clusters = int(rng.poisson(draw(rng, config.debris) * max(len(layout), 3)))
    for _ in range(min(clusters, 60)):
        if len(layout) and rng.random() < 0.6:
            middle = layout.centres[rng.integers(len(layout))] + directions(rng, 1)[0] * r * rng.uniform(1.0, 2.2)
        else:
            middle = rng.uniform(0, room)
        pieces = int(rng.integers(1, 8))
        where = middle + directions(rng, pieces) * r * rng.uniform(0.1, 0.9, (pieces, 1))
        parts.append((where, r * rng.uniform(0.06, 0.32, pieces), np.exp(rng.uniform(-0.7, 1.6, pieces))))
    polar = int(rng.integers(0, config.polar_bodies + 1)) if style.scene == "embryo" and config.polar_bodies else 0
    if polar and layout.shells:
        shell = layout.shells[0]
        where = shell.project(shell.centre + directions(rng, polar), rng.uniform(1.0, 1.25, polar))
        parts.append((where, r * rng.uniform(0.28, 0.55, polar), np.exp(rng.uniform(-0.9, 0.9, polar))))
    centres, radii, brightness = (np.concatenate(items) for items in zip(*parts, strict=True))
    return Balls(centres, radii, brightness), {"debris": len(radii) - polar, "polar_bodies": polar}


def add_balls(light: Volume, balls: Balls, scale: Points, optics: Optics) -> None:
    """Add blurred balls to the light, in place, each in its own box."""
    shape = np.array(light.shape)
    for centre, radius, bright in zip(balls.centres * scale, balls.radii, balls.brightness, strict=True):
        sigma = np.array(optics.sigma_at(float(centre[0])))
        half = radius * scale + 3 * sigma + 1
        low, high = np.floor(centre - half).astype(int), np.ceil(centre + half).astype(int) + 1
        start, stop = np.maximum(low, 0), np.minimum(high, shape)
        if (start >= stop).any():
            continue
        z, y, x = np.ix_(
            *[(np.arange(a, b) + 0.5 - c) / s for a, b, c, s in zip(low, high, centre, scale, strict=True)]
        )
        # A fragment smaller than a voxel keeps its share of it.
        ball = np.clip(radius + 0.5 - np.sqrt(z * z + y * y + x * x), 0, min(1.0, 2 * radius)).astype(np.float32)
        ball = blur(ball, sigma) * np.float32(bright)
        inner = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, low, strict=True))
        place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        light[place] += ball[inner] * optics.light_at(int(start[0]), int(stop[0]))


def haze_and_ghosts(
    rng: np.random.Generator, layout: Layout, style: Style, config: SimulationConfig, optics: Optics
) -> tuple[Volume, dict[str, Any]]:
    """Light of the cell bodies, of nuclei far out of focus, and slow changes of the background.

    Returns
    -------
    (Z, Y, X) float32, and what was drawn
        In units of the median nucleus' contrast.
    """
    scale = np.array([style.z_scale, 1.0, 1.0])
    step = np.array([max(1, round(3 * style.z_scale)), 3, 3])
    margin = np.ceil(2 * style.diameter_px * scale / step).astype(int)
    coarse = np.ceil(np.array(config.shape) / step).astype(int)
    cells = np.zeros(coarse + 2 * margin, np.float32)
    sigma = 0.42 * style.diameter_px * scale / step

    def splat(points: Points, heights: Points) -> Volume:
        grid = np.zeros_like(cells)
        at = np.floor(points * scale / step).astype(int) + margin
        inside = ((at >= 0) & (at < cells.shape)).all(1)
        np.add.at(grid, tuple(at[inside].T), heights[inside].astype(np.float32))
        return grid

    drawn: dict[str, Any] = {"haze": draw(rng, config.haze) if rng.random() < 0.6 else config.haze[0]}
    if len(layout) and drawn["haze"] > 0:
        size = sigma * rng.uniform(1.1, 1.8)
        filled = blur(splat(layout.centres, np.ones(len(layout))), size) * np.float32(15.7 * size.prod())
        cells += np.float32(drawn["haze"]) * (1 - np.exp(-1.5 * filled))
        grainy = smooth_noise(rng, cells.shape, np.maximum(0.5 * style.diameter_px * scale / step, 1.5))
        cells *= np.clip(1 + 0.35 * grainy, 0.1, 2.5)
    count = int(rng.poisson(draw(rng, config.ghosts) * max(len(layout), 4)))
    if count:
        room = np.array(config.shape) / scale
        spots = rng.uniform(-style.diameter_px, room + style.diameter_px, (count, 3))
        # Most are above or below what was imaged.
        outside = rng.random(count) < 0.7
        spots[outside, 0] = np.where(rng.random(outside.sum()) < 0.5, -style.radius, room[0] + style.radius)
        size = sigma * rng.uniform(1.0, 1.8)
        cells += blur(splat(spots, rng.uniform(0.08, 0.35, count)), size) * np.float32(15.7 * size.prod())
    drawn["ghosts"] = count
    cells = cells[tuple(slice(m, m + n) for m, n in zip(margin, coarse, strict=True))]
    level = draw(rng, config.background)
    slow = smooth_noise(rng, cells.shape, np.maximum(np.array(cells.shape) / 2, 2))
    cells += np.float32(level) * np.clip(0.6 + 0.4 * slow, 0, None)
    drawn["background"] = level
    return resize_linear(cells, config.shape), drawn
