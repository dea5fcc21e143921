"""Simulated tissue: sections with nuclei as labelled sets of cultured cells do not show them.

Elongated nuclei along fibres (muscle, vessels, stroma), closely packed ones (epithelia, organoids), and scattered ones,
with chromatin texture, out-of-focus neighbours, autofluorescent fibres and haze. Every scene is a pure function of its
seed; nothing is taken from any image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_aprcnn.segment.flows import flows_from_masks
from napari_aprcnn.train.data import FLOW_UNIT, LabelledImage, median_diameter_px, normalise_percentiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]

__all__ = ["tissue_scene", "tissue_scenes"]

SOURCE = "tissue"
ARRANGEMENTS = ("fibres", "packed", "scattered")
CANDIDATES = 700  # places that a scene tries
N_HARMONICS = 4  # of a nucleus' outline


@dataclass(frozen=True)
class _Style:
    """What all nuclei of a scene have in common."""

    arrangement: str
    diameter_px: float
    size_spread: float
    elongation: float
    """Mean ratio of the long to the short axis."""
    gap: float
    """Distance of neighbours over the sum of their radii; below 1 they overlap."""
    coverage: float
    roughness: float
    brightness_spread: float
    texture: float
    grain_px: float
    spots: float
    flatness: float
    """0: a ball's profile; 1: uniform up to the rim."""


def tissue_scenes(*, count: int, seed: int = 0, edge_px: int = 384) -> list[LabelledImage]:
    """Make scenes, to be sampled like any other image.

    Parameters
    ----------
    count
        Number of scenes.
    seed
        Seed of every random choice.
    edge_px
        Edge of a scene, in pixels.

    Returns
    -------
    list of LabelledImage
        Of source ``tissue``; their kinds are the arrangements ``fibres``, ``packed`` and ``scattered``. The median
        nucleus has a diameter of about 16 to 38 pixels.
    """
    return [tissue_scene(number, seed=seed, edge_px=edge_px) for number in range(count)]


def tissue_scene(number: int, *, seed: int = 0, edge_px: int = 384) -> LabelledImage:
    """One scene of `tissue_scenes`, by its number."""
    rng = np.random.default_rng((seed, number, 7))
    kind = ARRANGEMENTS[number % len(ARRANGEMENTS)]
    image, labels = _compose(_style(kind, rng), rng, edge_px)
    return LabelledImage(
        name=f"tissue_{number:04d}",
        kind=kind,
        source=SOURCE,
        image=normalise_percentiles(image).astype(np.float16),
        labels=labels,
        flows=np.rint(flows_from_masks(labels) * FLOW_UNIT).astype(np.int8),
        diameter_px=median_diameter_px(labels),
    )


def _style(arrangement: str, rng: np.random.Generator) -> _Style:
    elongated = {"fibres": (1.6, 4.5), "packed": (1.05, 1.7), "scattered": (1.05, 2.5)}[arrangement]
    coverage = {"fibres": (0.05, 0.35), "packed": (0.35, 0.8), "scattered": (0.03, 0.25)}[arrangement]
    gap = {"fibres": (0.8, 1.6), "packed": (0.78, 1.05), "scattered": (0.7, 1.5)}[arrangement]
    return _Style(
        arrangement=arrangement,
        diameter_px=25.0 * 2 ** float(rng.uniform(-0.6, 0.6)),
        size_spread=float(rng.uniform(0.05, 0.3)),
        elongation=float(rng.uniform(*elongated)),
        gap=float(rng.uniform(*gap)),
        coverage=float(rng.uniform(*coverage)),
        roughness=float(rng.uniform(0.0, 0.09)),
        brightness_spread=float(rng.uniform(0.05, 0.5)),
        texture=float(rng.choice([0.0, 0.15, 0.3, 0.45])),
        grain_px=float(rng.uniform(0.8, 3.5)),
        spots=float(rng.choice([0.0, 0.0, 4.0, 9.0])),
        flatness=float(rng.uniform(0.2, 1.0)),
    )


def _smooth_noise(shape: tuple[int, ...], sigma: float | tuple[float, float], rng: np.random.Generator) -> Image:
    """Filtered noise of mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), np.float32)


def _compose(style: _Style, rng: np.random.Generator, edge: int) -> tuple[Image, NDArray[np.int32]]:
    light = np.zeros((edge, edge), np.float32)
    labels = np.zeros((edge, edge), np.int32)
    angles = rng.uniform(0, np.pi) + rng.uniform(0.0, 0.8) * _smooth_noise((edge, edge), edge / 5, rng)
    grain = _smooth_noise((edge, edge), style.grain_px, rng)
    placed: list[tuple[float, float, float]] = []
    covered = 0
    for _ in range(CANDIDATES):
        if covered >= style.coverage * edge * edge:
            break
        y, x = rng.uniform(0, edge, 2)
        size = style.diameter_px * float(np.exp(rng.normal(0, style.size_spread)))
        ratio = max(1.0, style.elongation * float(np.exp(rng.normal(0, 0.2))))
        if _crowded((y, x, size), placed, style.gap / np.sqrt(ratio) if style.arrangement == "fibres" else style.gap):
            continue
        turn = angles[int(y), int(x)] if style.arrangement == "fibres" else rng.uniform(0, np.pi)
        profile, ys, xs = _nucleus((y, x), size, ratio, float(turn), style, rng, edge)
        area = _add(light, labels, profile, (ys, xs), len(placed) + 1, style, rng, grain)
        if area:
            placed.append((y, x, size))
            covered += area
    light += _out_of_focus(style, rng, edge)
    light += _background(angles, rng, edge)
    return np.asarray(ndimage.gaussian_filter(light, rng.uniform(0.5, 1.6)), np.float32), labels


def _crowded(one: tuple[float, float, float], placed: list[tuple[float, float, float]], gap: float) -> bool:
    if not placed:
        return False
    y, x, size = np.array(placed).T
    return bool((np.hypot(y - one[0], x - one[1]) < gap * (size + one[2]) / 2).any())


def _nucleus(
    centre: tuple[float, float],
    size: float,
    ratio: float,
    turn: float,
    style: _Style,
    rng: np.random.Generator,
    edge: int,
) -> tuple[Image, slice, slice]:
    """Depth of an irregular ellipse, 0 outside and up to 1 inside, and where it lies."""
    long, short = size / 2 * np.sqrt(ratio), size / 2 / np.sqrt(ratio)
    reach = int(np.ceil(1.35 * long)) + 2
    ys = slice(max(0, int(centre[0]) - reach), min(edge, int(centre[0]) + reach + 1))
    xs = slice(max(0, int(centre[1]) - reach), min(edge, int(centre[1]) + reach + 1))
    dy, dx = np.ogrid[ys.start - centre[0] : ys.stop - centre[0], xs.start - centre[1] : xs.stop - centre[1]]
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    across = across + rng.normal(0, 0.06) * along**2 / max(long, 1.0)  # slightly bent
    radius = np.hypot(along / long, across / short)
    phase = np.arctan2(across / short, along / long)
    outline = np.ones_like(radius)
    for order in range(2, 2 + N_HARMONICS):
        outline += style.roughness / order * 2 * rng.normal() * np.cos(order * phase + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.clip(1 - (radius / np.clip(outline, 0.5, 1.5)) ** 2, 0, 1), np.float32), ys, xs


def _add(
    light: Image,
    labels: NDArray[np.int32],
    depth: Image,
    place: tuple[slice, slice],
    number: int,
    style: _Style,
    rng: np.random.Generator,
    grain: Image,
) -> int:
    """Put a nucleus on top of what is there, unless it would hide half of another; return its area."""
    mask = depth > 0
    below, counts = np.unique(labels[place][mask], return_counts=True)
    totals = {int(b): int((labels[place] == b).sum()) for b in below if b}
    if any(c > 0.4 * totals[int(b)] for b, c in zip(below, counts, strict=True) if b) or mask.sum() < 20:
        return 0
    brightness = float(np.exp(rng.normal(0, style.brightness_spread)))
    body = np.where(mask, depth ** (0.5 * (1 - style.flatness) + 0.02), 0)
    body = body * np.clip(1 + style.texture * grain[place], 0.25, 2.5)
    inside = np.argwhere(mask)
    for _ in range(rng.poisson(style.spots)):  # chromocentres (bright) and nucleoli (dark)
        y, x = inside[rng.integers(len(inside))]
        yy, xx = np.ogrid[: mask.shape[0], : mask.shape[1]]
        radius = rng.uniform(0.03, 0.09) * style.diameter_px + 0.4
        body = body * (1 + rng.uniform(-0.6, 1.2) * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * radius**2)))
    light[place] = np.where(mask, 0.35 * light[place], light[place]) + (brightness * body).astype(np.float32)
    labels[place][mask] = number
    for hidden in totals:
        _keep_one_piece(labels, hidden, place)
    return int(mask.sum())


def _keep_one_piece(labels: NDArray[np.int32], number: int, place: tuple[slice, slice]) -> None:
    """A nucleus that another one cuts in two keeps its larger piece."""
    grown = tuple(slice(max(0, s.start - 80), s.stop + 80) for s in place)
    window = labels[grown]
    pieces, count = ndimage.label(window == number)
    if count > 1:
        largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        window[(pieces > 0) & (pieces != largest)] = 0


def _out_of_focus(style: _Style, rng: np.random.Generator, edge: int) -> Image:
    """Nuclei above and below the plane: blurred, dim, and not to be found."""
    if rng.random() < 0.35:
        return np.zeros((edge, edge), np.float32)
    spots = np.zeros((edge, edge), np.float32)
    n = rng.poisson(rng.uniform(0.1, 0.9) * style.coverage * edge * edge / style.diameter_px**2)
    spots[rng.integers(0, edge, n), rng.integers(0, edge, n)] = rng.uniform(0.3, 1.0, n)
    sigma = style.diameter_px * rng.uniform(0.35, 0.9)
    return np.asarray(
        ndimage.gaussian_filter(spots, sigma) * 2 * np.pi * sigma**2 * rng.uniform(0.08, 0.45), np.float32
    )


def _background(angles: Image, rng: np.random.Generator, edge: int) -> Image:
    """Autofluorescence: a level, slow changes and fibres along the tissue's direction."""
    level = rng.uniform(0.0, 0.4)
    slow = _smooth_noise((edge, edge), edge / 8, rng)
    result = level * (1 + 0.4 * slow)
    if rng.random() < 0.6:
        turn = float(np.rad2deg(angles.mean()))
        fibres = _smooth_noise((2 * edge, 2 * edge), (rng.uniform(0.8, 4.0), rng.uniform(10.0, 50.0)), rng)
        fibres = ndimage.rotate(fibres, -turn, reshape=False, order=1, mode="wrap")
        half = edge // 2
        result = result + rng.uniform(0.03, 0.2) * np.abs(fibres[half : half + edge, half : half + edge])
    return np.asarray(np.clip(result, 0, None), np.float32)
