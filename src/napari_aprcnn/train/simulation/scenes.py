"""Scenes: how many nuclei there are, where, how large, and which way they point.

Lengths are in-plane pixels along all three axes; the anisotropy of the voxels comes with the rendering.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np

from napari_aprcnn.train.simulation.config import Scene, SimulationConfig
from napari_aprcnn.train.simulation.fields import draw, draw_log, rotations
from napari_aprcnn.train.simulation.packing import Shell, directions, frames_of, in_ball, relax, thin_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

__all__ = ["Layout", "Style", "draw_style", "lay_out"]

BALL_PACKING = 0.5  # share of a volume that relaxed balls fill
SHELL_PACKING = 0.75  # share of a surface
MOST_CANDIDATES = 60_000
EMPTY_SHARE = 0.05


@dataclass(frozen=True)
class Style:
    """What the nuclei of a volume have in common; names as in `SimulationConfig`."""

    scene: str
    diameter_px: float
    z_scale: float
    size_cv: float
    density: float
    spacing: float
    elongation: float
    extent: float

    @property
    def radius(self) -> float:
        """Median radius, px."""
        return self.diameter_px / 2


@dataclass
class Layout:
    """Nuclei to be drawn.

    Attributes
    ----------
    centres : [n, 3]
        z, y, x.
    radii : [n]
        Of the balls of equal volume.
    normals : [n, 3] or None
        Direction that the first axis of a nucleus takes; random without.
    flat : float
        Extent along the normal over that across.
    shells
        Surfaces that enclose the scene, for polar bodies and debris.
    """

    centres: Points
    radii: Points
    normals: Points | None = None
    flat: float = 1.0
    shells: list[Shell] = field(default_factory=list)
    frames: Points = field(default_factory=lambda: np.zeros((0, 3, 3)))
    axes: Points = field(default_factory=lambda: np.zeros((0, 3)))

    def __len__(self) -> int:
        return len(self.centres)


def draw_style(rng: np.random.Generator, config: SimulationConfig) -> Style:
    """Draw what all nuclei of a volume have in common."""
    scene = str(config.scene)
    if scene == "mixed":
        others = [name for name in get_args(Scene) if name not in ("mixed", "empty")]
        weights = {
            "embryo": 0.28,
            "compact": 0.17,
            "scattered": 0.15,
            "tissue": 0.14,
            "cystic": 0.13,
            "cauliflower": 0.13,
        }
        shares = np.array([weights[name] for name in others])
        scene = "empty" if rng.random() < EMPTY_SHARE else str(rng.choice(others, p=shares / shares.sum()))
    return Style(
        scene=scene,
        diameter_px=draw_log(rng, config.diameter_px),
        z_scale=draw(rng, config.z_scale),
        size_cv=draw(rng, config.size_cv),
        density=draw(rng, config.density),
        spacing=draw(rng, config.spacing),
        elongation=draw(rng, config.elongation),
        extent=draw(rng, config.extent),
    )


def lay_out(rng: np.random.Generator, style: Style, config: SimulationConfig) -> Layout:
    """Place the nuclei of a scene in and around the volume."""
    room = np.array(config.shape) / np.array([style.z_scale, 1.0, 1.0])
    make = {
        "cystic": _cystic, "compact": _compact, "cauliflower": _cauliflower, "embryo": _embryo,
        "scattered": _scattered, "tissue": _tissue, "empty": _nothing,
    }[style.scene]  # fmt: skip
    layout = make(rng, style, room, config)
    keep = thin_out(layout.centres, layout.radii, style.spacing)
    keep &= _near(layout.centres, room, 2.2 * layout.radii[:, None])
    chosen = np.nonzero(keep)[0][: config.nuclei[1]]
    layout.centres, layout.radii = layout.centres[chosen], layout.radii[chosen]
    layout.normals = layout.normals[chosen] if layout.normals is not None else None
    return _orient(rng, layout, style)


def _orient(rng: np.random.Generator, layout: Layout, style: Style) -> Layout:
    count = len(layout)
    axes = np.exp(rng.normal(0, style.elongation, (count, 3)))
    if layout.normals is None:
        layout.frames = rotations(rng, count)
    else:
        tilted = layout.normals + 0.15 * directions(rng, count)
        layout.frames = frames_of(rng, tilted / np.linalg.norm(tilted, axis=1, keepdims=True))
        axes[:, 0] *= layout.flat**1.5  # of axes whose product is 1
    axes /= axes.prod(1, keepdims=True) ** (1 / 3)
    layout.axes = np.clip(axes, 0.5, 2.0)
    return layout


def _near(points: Points, room: Points, margin: Points | float) -> NDArray[np.bool_]:
    return np.asarray(((points > -margin) & (points < room + margin)).all(1))


def _radii(rng: np.random.Generator, style: Style, count: int) -> Points:
    return np.asarray(style.radius * np.exp(rng.normal(0, style.size_cv, count)))


def _count(expected: float, config: SimulationConfig) -> int:
    return int(np.clip(round(expected), config.nuclei[0], MOST_CANDIDATES))


def _place(rng: np.random.Generator, style: Style, room: Points, *, least: float) -> tuple[Points, float]:
    """Centre and radius of an organoid of which the volume shows the whole or a part; `least` in radii of a nucleus."""
    radius = max(style.extent * room.min() / 2, least * style.radius)
    slack = np.maximum(room / 2 - radius - style.radius, 0.06 * room)
    centre = room / 2 + rng.uniform(-1, 1, 3) * slack * 0.8
    if radius > 0.55 * room.min():
        away = directions(rng, 1)[0] * (radius - 0.45 * room.min()) * rng.uniform(0, 1)
        centre = centre + away
    return centre, radius


def _filled(
    rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig, shell: Shell, *, inner: float = 0.0
) -> Layout:
    """A solid ball, or a thick shell."""
    volume = (shell.radius / (style.radius * style.spacing)) ** 3 * (1 - inner**3)
    count = _count(BALL_PACKING * style.density * volume, config)
    unit = in_ball(rng, count, inner=inner)
    points = shell.project(shell.centre + unit, np.linalg.norm(unit, axis=1))
    points = points[_near(points, room, 3 * style.radius)]
    radii = _radii(rng, style, len(points))
    return Layout(relax(points, radii, style.spacing, shell.confine), radii, shells=[shell])


def _covered(
    rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig, shell: Shell, jitter: float
) -> Layout:
    """A monolayer on a surface."""
    area = 4 * (shell.radius / (style.radius * style.spacing)) ** 2
    count = _count(SHELL_PACKING * style.density * area, config)
    points = shell.project(shell.centre + directions(rng, count))
    points = points[_near(points, room, 3 * style.radius)]
    radii = _radii(rng, style, len(points))
    points = relax(points, radii, style.spacing, shell.project)
    normals = shell.toward(points)
    points = points + normals * rng.normal(0, jitter * style.radius, (len(points), 1))
    return Layout(points, radii, normals=normals, shells=[shell])


def _cystic(rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig) -> Layout:
    centre, radius = _place(rng, style, room, least=3.0)
    shell = Shell(rng, centre, radius, rng.uniform(0.0, 0.16))
    layout = _covered(rng, style, room, config, shell, jitter=rng.uniform(0.0, 0.3))
    layout.flat = rng.uniform(0.6, 1.35)  # squamous to columnar
    return layout


def _compact(rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig) -> Layout:
    centre, radius = _place(rng, style, room, least=1.5)
    return _filled(rng, style, room, config, Shell(rng, centre, radius, rng.uniform(0.0, 0.2)))


def _cauliflower(rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig) -> Layout:
    centre, radius = _place(rng, style, room, least=4.0)
    lobes = int(rng.integers(4, 10))
    toward = relax(directions(rng, lobes), np.full(lobes, 0.6), 1.0, lambda p: p / np.linalg.norm(p, axis=1)[:, None])
    shells = []
    for direction in toward:
        size = max(radius * rng.uniform(0.28, 0.44), 1.3 * style.radius)
        shells.append(Shell(rng, centre + direction * max(radius - size, 0.75 * size), size, rng.uniform(0.0, 0.12)))
    hollow = rng.random() < 0.6
    parts = [
        _covered(rng, style, room, config, shell, 0.2)
        if hollow
        else _filled(rng, style, room, config, shell, inner=0.35)
        for shell in shells
    ]
    core = Shell(rng, centre, 0.5 * radius, 0.1)
    if rng.random() < 0.5:
        parts.append(_filled(rng, style, room, config, core))
    kept = []
    for index, part in enumerate(parts):
        others = [shell for number, shell in enumerate(shells) if number != index]
        inside = np.min([shell.depth(part.centres) for shell in others], axis=0) < 0.85
        kept.append(~inside)
    points = np.concatenate([part.centres[k] for part, k in zip(parts, kept, strict=True)])
    radii = np.concatenate([part.radii[k] for part, k in zip(parts, kept, strict=True)])
    return Layout(relax(points, radii, style.spacing, steps=6), radii, shells=shells)


def _embryo(rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig) -> Layout:
    """A cleavage stage, a morula or a blastocyst; the embryo is as large as it needs to be for its nuclei."""
    count = int(np.clip(round(draw_log(rng, (1.6, 64.0))), config.nuclei[0], max(config.nuclei)))
    # Embryos keep their size while they cleave: a radius of two to six of a nucleus', whatever the number.
    packed = style.spacing * (count / BALL_PACKING) ** (1 / 3) * rng.uniform(1.0, 1.3)
    radius = style.radius * max(rng.uniform(2.0, 6.0), packed)
    slack = np.maximum(room / 2 - radius - style.radius, 0.04 * room)
    shell = Shell(rng, room / 2 + rng.uniform(-1, 1, 3) * slack * 0.7, radius, rng.uniform(0.0, 0.08))
    radii = _radii(rng, style, count)
    if count < 16 or rng.random() < 0.35:
        unit = in_ball(rng, count, inner=0.0 if count > 8 else 0.5)
        points = shell.project(shell.centre + unit, np.linalg.norm(unit, axis=1))
        return Layout(relax(points, radii, 1.15 * style.spacing, shell.confine, steps=20), radii, shells=[shell])
    inside = round(count * rng.uniform(0.2, 0.4))
    wide = max(radius, style.radius * np.sqrt((count - inside) / (4 * SHELL_PACKING)) * rng.uniform(1.0, 1.4))
    shell = Shell(rng, shell.centre, wide, rng.uniform(0.0, 0.08))
    outer = shell.project(shell.centre + directions(rng, count - inside))
    outer = relax(outer, radii[inside:], 1.3 * style.spacing, shell.project, steps=20)
    pole = directions(rng, 1)[0]
    size = min(0.62 * wide, style.radius * (inside / BALL_PACKING) ** (1 / 3) * 1.1)
    mass = Shell(rng, shell.centre + pole * max(wide - size - style.radius, 0.0), size, 0.1)
    inner = relax(mass.centre + size * in_ball(rng, inside), radii[:inside], style.spacing, mass.confine, steps=20)
    points = np.concatenate([inner, outer])
    normals = np.concatenate([directions(rng, inside), shell.toward(outer)])
    return Layout(points, radii, normals=normals, flat=rng.uniform(0.6, 1.0), shells=[shell])


def _scattered(rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig) -> Layout:
    """Single cells and small colonies in a gel."""
    most = 0.35 * style.density * room.prod() / (4.2 * style.radius**3)
    count = _count(draw_log(rng, (1.0, max(most, 2.0))) * 1.3, config)
    seeds = rng.uniform(-style.radius, room + style.radius, (count, 3))
    colony = rng.uniform(0, 0.6)
    for index in range(1, count):
        if rng.random() < colony:
            seeds[index] = seeds[rng.integers(index)] + 1.9 * style.radius * directions(rng, 1)[0]
    radii = _radii(rng, style, count)
    return Layout(relax(seeds, radii, style.spacing, steps=8), radii)


def _tissue(rng: np.random.Generator, style: Style, room: Points, config: SimulationConfig) -> Layout:
    """Nuclei everywhere, with a common direction in half of the volumes."""
    margin = 1.5 * style.radius
    # Cells with much cytoplasm, as those of plants, keep their nuclei apart.
    spacing = style.spacing * (rng.uniform(1.05, 1.5) if rng.random() < 0.45 else 1.0)
    volume = (room + 2 * margin).prod() / (4.19 * (style.radius * spacing) ** 3)
    points = rng.uniform(-margin, room + margin, (_count(BALL_PACKING * style.density * volume, config), 3))
    radii = _radii(rng, style, len(points))
    layout = Layout(relax(points, radii, spacing), radii)
    if rng.random() < 0.5:
        layout.normals = np.repeat(directions(rng, 1), len(points), axis=0) + 0.4 * directions(rng, len(points))
        layout.flat = rng.uniform(0.6, 1.6)
    return layout


def _nothing(_rng: np.random.Generator, _style: Style, _room: Points, _config: SimulationConfig) -> Layout:
    return Layout(np.zeros((0, 3)), np.zeros(0))
