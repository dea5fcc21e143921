"""Simulated crowding: real nuclei, cut out and laid close together, as dense tissue has them.

Sets of cultured cells hold few touching nuclei. A collage composes cut-outs of all sets at random places, turns and
sizes, some touching and some partly hidden, over a background of haze and gradients; its flows are computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_aprcnn.segment.flows import flows_from_masks
from napari_aprcnn.train.data import FLOW_UNIT, LabelledImage, median_diameter_px

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NucleiBank", "collage", "collages"]


@dataclass(frozen=True)
class Cutout:
    """A nucleus: intensities above its background (float32, peak about 1) and its mask, both (h, w)."""

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    diameter_px: float


class NucleiBank:
    """Whole nuclei (not cut by the border) of a set of images, at most `per_image` of each."""

    def __init__(self, images: Sequence[LabelledImage], *, seed: int = 0, per_image: int = 12) -> None:
        rng = np.random.default_rng(seed)
        self.cutouts: list[Cutout] = []
        for item in images:
            boxes = ndimage.find_objects(item.labels)
            found = [(number + 1, box) for number, box in enumerate(boxes) if box is not None]
            for index in rng.permutation(len(found))[:per_image]:
                cutout = _cut(item, *found[index])
                if cutout is not None:
                    self.cutouts.append(cutout)

    def __len__(self) -> int:
        return len(self.cutouts)


def _cut(item: LabelledImage, number: int, box: tuple[slice, ...]) -> Cutout | None:
    height, width = item.labels.shape
    (y0, y1), (x0, x1) = ((s.start - 3, s.stop + 3) for s in box)
    if y0 < 0 or x0 < 0 or y1 > height or x1 > width:
        return None
    mask = item.labels[y0:y1, x0:x1] == number
    area = int(mask.sum())
    if area < 60 or area > 20_000:
        return None
    image = item.image[y0:y1, x0:x1].astype(np.float32)
    outside = item.labels[y0:y1, x0:x1] == 0
    floor = float(np.median(image[outside])) if outside.any() else float(image.min())
    peak = float(np.percentile(image[mask], 90)) - floor
    if peak < 0.08:
        return None
    # A soft rim, so that the paste keeps the blur of the original edge.
    rim = np.clip(1.5 - ndimage.distance_transform_edt(~mask) * 0.5, 0, 1) * (mask | outside)
    return Cutout(
        ((image - floor) / peak * np.clip(rim, 0, 1)).astype(np.float32), mask, float(2 * np.sqrt(area / np.pi))
    )


def _turned(
    cutout: Cutout, diameter_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    angle = rng.uniform(0, 2 * np.pi)
    stretch = np.exp(rng.uniform(-0.15, 0.15, 2)) * cutout.diameter_px / diameter_px
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * stretch
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    edge = int(np.ceil(1.5 * max(cutout.mask.shape) / stretch.min())) | 1
    edge = min(edge, 141)
    centre = (np.array(cutout.mask.shape) - 1) / 2
    offset = centre - matrix @ np.full(2, (edge - 1) / 2)
    values, mask = cutout.values, cutout.mask.astype(np.float32)
    shrink = float(stretch.max())
    if shrink > 1.25:
        values = ndimage.gaussian_filter(values, 0.4 * shrink)
    warp = {"offset": offset, "output_shape": (edge, edge), "order": 1}
    return (
        ndimage.affine_transform(values, matrix, **warp).astype(np.float32),
        ndimage.affine_transform(mask, matrix, **warp) > 0.5,
    )


def collages(bank: NucleiBank, *, count: int, seed: int = 0, edge_px: int = 384) -> list[LabelledImage]:
    """Compose crowded scenes, to be sampled like any other image.

    Parameters
    ----------
    bank
        Where the nuclei come from.
    count
        Number of scenes.
    seed
        Seed of every random choice.
    edge_px
        Edge of a scene, in pixels.

    Returns
    -------
    list of LabelledImage
        Of source ``collage``. Nuclei of about 16 to 38 pixels; between 8 and 65 % of a scene is covered.
    """
    return [collage(bank, number, seed=seed, edge_px=edge_px) for number in range(count)]


def collage(bank: NucleiBank, number: int, *, seed: int = 0, edge_px: int = 384) -> LabelledImage:
    """One scene of `collages`, by its number."""
    image, labels = _compose(bank, np.random.default_rng((seed, number)), edge_px)
    return LabelledImage(
        name=f"collage_{number:04d}",
        kind="",
        source="collage",
        image=image.astype(np.float16),
        labels=labels,
        flows=np.rint(flows_from_masks(labels) * FLOW_UNIT).astype(np.int8),
        diameter_px=median_diameter_px(labels),
    )


def _compose(bank: NucleiBank, rng: np.random.Generator, edge: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    image = np.zeros((edge, edge), np.float32)
    labels = np.zeros((edge, edge), np.int32)
    diameter_px = 25.0 * 2 ** float(rng.uniform(-0.6, 0.6))
    # Clusters: the next nucleus lies at the side of an earlier one.
    target = rng.uniform(0.08, 0.65) * edge * edge
    clustered, hide = rng.uniform(0.2, 0.95), rng.uniform(0.0, 0.35)
    spread, tone = rng.uniform(0.05, 0.35), rng.uniform(0.1, 0.7)
    family = rng.integers(len(bank), size=int(rng.integers(3, 60)))
    placed: list[tuple[float, float, float]] = []
    covered = 0
    for number in range(1, 320):
        if covered >= target:
            break
        cutout = bank.cutouts[int(rng.choice(family))]
        size = diameter_px * float(np.exp(rng.normal(0, spread)))
        values, mask = _turned(cutout, max(6.0, size), rng)
        if placed and rng.random() < clustered:
            y, x, other = placed[int(rng.integers(len(placed)))]
            angle, reach = rng.uniform(0, 2 * np.pi), (size + other) / 2 * rng.uniform(0.85, 1.25)
            y, x = y + reach * np.sin(angle), x + reach * np.cos(angle)
        else:
            y, x = rng.uniform(0, edge, 2)
        covered += _paste(image, labels, values * np.float32(np.exp(rng.normal(0, tone))), mask, (y, x), number, hide)
        placed.append((y, x, size))
    return image * np.float32(0.8), labels


def _paste(
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    centre: tuple[float, float],
    number: int,
    hide: float,
) -> int:
    """Add a nucleus below those already there, unless more than `hide` of it would be hidden; return its area."""
    edge = labels.shape[0]
    y0, x0 = (int(c) - mask.shape[0] // 2 for c in centre)
    ys, xs = slice(max(0, y0), min(edge, y0 + mask.shape[0])), slice(max(0, x0), min(edge, x0 + mask.shape[1]))
    if ys.stop <= ys.start or xs.stop <= xs.start:
        return 0
    part = (slice(ys.start - y0, ys.stop - y0), slice(xs.start - x0, xs.stop - x0))
    mask, values = mask[part], values[part]
    free = mask & (labels[ys, xs] == 0)
    area, visible = int(mask.sum()), int(free.sum())
    if area == 0 or visible < (1 - hide) * area or visible < 20:
        return 0
    pieces, count = ndimage.label(free)
    if count > 1:  # keep one piece: a nucleus cut in two by another cannot be followed to one centre
        free = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    labels[ys, xs][free] = number
    # Light adds up, but a nucleus in front dims what is behind it.
    behind = np.where(labels[ys, xs] == number, 1.0, 0.25).astype(np.float32)
    image[ys, xs] += values * np.where(mask, behind, np.minimum(behind, 0.6))
    return visible
