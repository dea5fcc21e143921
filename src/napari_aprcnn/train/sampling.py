"""Training crops as a pure function of (seed, step, index): reruns and resumed runs see the same samples."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.train.augment import degrade
from napari_aprcnn.train.collage import NucleiBank
from napari_aprcnn.train.collage import collage as one_collage
from napari_aprcnn.train.data import FLOW_UNIT, LabelledImage
from napari_aprcnn.train.sets import check_shares
from napari_aprcnn.train.tissue import tissue_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CropSampler", "warp"]

N_COLLAGES = N_TISSUES = 160


class CropSampler:
    """Draws batches of augmented crops and their targets.

    Parameters
    ----------
    images
        The training set.
    seed
        Seed of every random choice.
    crop_px
        Edge of a crop, in pixels.
    diameter_px
        Diameter that nuclei are brought to, in pixels, before the scale is jittered.
    collage
        Share of samples out of scenes composed of cut-out nuclei (simulated crowding), 0..1.
    tissue
        Share of samples out of simulated tissue, 0..1.
    shares
        Share of the samples of each source; sources that it does not name, or all of them, are weighted by the square
        root of their size. Within a source, kinds are weighted by the square root of their size.
    workers
        Processes that simulate scenes; 0: this one.
    progress
        Told what is made, how much of it is done, and all of it, after every scene; what it raises ends the making.

    Raises
    ------
    ConfigError
        If `collage` and `tissue` add up to more than 1, or the shares do not fit the sources.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        *,
        seed: int = 0,
        crop_px: int = 224,
        diameter_px: float = 25.0,
        collage: float = 0.15,
        tissue: float = 0.15,
        shares: Mapping[str, float] | None = None,
        workers: int = 0,
        progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
    ) -> None:
        self.seed = seed
        self.crop_px = crop_px
        self.diameter_px = diameter_px
        self.images = list(images)
        self.weights = _weights(self.images, shares or {})
        if collage + tissue > 1:
            raise ConfigError(
                f"the simulated shares add up to {collage + tissue:g}, expected at most 1; lower collage or tissue"
            )
        bank = NucleiBank(images, seed=seed) if collage > 0 else None
        made = []
        if bank:
            tell = partial(progress, "simulated crowds")
            made.append((_scenes(partial(one_collage, bank, seed=seed), N_COLLAGES, workers, tell), collage))
        if tissue > 0:
            tell = partial(progress, "simulated tissues")
            made.append((_scenes(partial(tissue_scene, seed=seed), N_TISSUES, workers, tell), tissue))
        self._add(made)

    def _add(self, made: Sequence[tuple[list[LabelledImage], float]]) -> None:
        total = sum(share for _, share in made)
        parts = [self.weights * (1 - total)]
        for scenes, share in made:
            self.images += scenes
            parts.append(np.full(len(scenes), share / len(scenes)))
        self.weights = np.concatenate(parts)

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step.

        Returns
        -------
        images : (size, crop, crop) float32
        targets : (size, 4, crop, crop) float32
            Flow y, flow x (unit vectors), inside (0 or 1), weight (0 outside the image, else 1).
        """
        samples = [self.sample(np.random.default_rng((self.seed, step, index))) for index in range(size)]
        images, targets = zip(*samples, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))

    def sample(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return one (crop, crop) image and its (4, crop, crop) target."""
        item = self.images[int(rng.choice(len(self.images), p=self.weights))]
        image, target, outside_is_zero = warp(item, rng, self._scale(item, rng), self.crop_px)
        image = degrade(image, rng)
        # The border that inference adds is exactly zero, whatever happened to the image inside.
        return image * target[3] if outside_is_zero else image, target

    def _scale(self, item: LabelledImage, rng: np.random.Generator) -> float:
        """Mostly about the nominal diameter; sometimes far off, for a first pass that does not know it yet."""
        jitter = rng.uniform(-0.4, 0.4) if rng.random() < 0.72 else rng.uniform(-1.25, 1.25)
        if item.diameter_px <= 0:
            return float(2 ** rng.uniform(-1, 1))
        return float(self.diameter_px / item.diameter_px * 2**jitter)


def _scenes(
    make: Callable[[int], LabelledImage], count: int, workers: int, tell: Callable[[int, int], None]
) -> list[LabelledImage]:
    if workers == 0:
        return _collected(map(make, range(count)), count, tell)
    how = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with how.Pool(workers, initializer=_leave_signals) as pool:
        return _collected(pool.imap(make, range(count), chunksize=4), count, tell)


def _leave_signals() -> None:
    """Ctrl-C is for the process that waits; the handlers that a fork inherits would keep it from ending this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _collected(scenes: Iterable[LabelledImage], count: int, tell: Callable[[int, int], None]) -> list[LabelledImage]:
    result: list[LabelledImage] = []
    for scene in scenes:
        result.append(scene)
        tell(len(result), count)
    return result


def _weights(images: Sequence[LabelledImage], shares: Mapping[str, float]) -> NDArray[np.float64]:
    check_shares(shares, {item.source for item in images})
    kinds = Counter((item.source, item.kind) for item in images)
    of_source: dict[str, float] = defaultdict(float)
    for (source, _), count in kinds.items():
        of_source[source] += count**0.5
    total = {source: shares.get(source, weight / sum(of_source.values())) for source, weight in of_source.items()}
    weights = np.array(
        [
            total[i.source] * kinds[i.source, i.kind] ** 0.5 / of_source[i.source] / kinds[i.source, i.kind]
            for i in images
        ]
    )
    return np.asarray(weights / weights.sum(), np.float64)


def _rotation(scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Matrix from output to input offsets (y, x): turn, mirror, scale and a slight stretch."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(np.exp(rng.uniform(-0.12, 0.12, 2))) if rng.random() < 0.4 else np.eye(2)
    mirror = np.diag([1.0, -1.0]) if rng.random() < 0.5 else np.eye(2)
    return np.asarray(stretch @ mirror @ turn / scale, np.float64)


def _place(labels: NDArray[np.generic], half: float, rng: np.random.Generator) -> tuple[float, float]:
    """Centre of a crop: preferably with nuclei in it, often reaching over the border of the image."""
    height, width = labels.shape
    y = x = 0.0
    for _ in range(3):
        y = rng.uniform(min(half * 0.8, height / 2), max(height - half * 0.8, height / 2))
        x = rng.uniform(min(half * 0.8, width / 2), max(width - half * 0.8, width / 2))
        if labels[max(0, int(y - half)) : int(y + half) + 1, max(0, int(x - half)) : int(x + half) + 1].any():
            break
    return y, x


def warp(
    item: LabelledImage, rng: np.random.Generator, scale: float, crop: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
    """Cut a turned, mirrored and scaled crop; the flows turn with it."""
    height, width = item.labels.shape
    matrix = _rotation(scale, rng)
    y, x = _place(item.labels, crop / (2 * scale), rng)
    reach = int(np.abs(matrix).sum(1).max() * crop / 2) + 5
    y0, y1 = max(0, int(y) - reach), min(height, int(y) + reach)
    x0, x1 = max(0, int(x) - reach), min(width, int(x) + reach)
    image = item.image[y0:y1, x0:x1].astype(np.float32)
    if scale < 0.8:
        image = ndimage.gaussian_filter(image, 0.4 / scale)
    flows = item.flows[:, y0:y1, x0:x1].astype(np.float32) / FLOW_UNIT
    inside = (item.labels[y0:y1, x0:x1] > 0).astype(np.float32)
    source = torch.from_numpy(np.stack([image, *flows, inside, np.ones_like(image)]))[None]
    grid = _grid(matrix, (y - y0, x - x0), (y1 - y0, x1 - x0), crop)
    warped = F.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0].numpy()
    outside_is_zero = bool(rng.random() < 0.5)
    image = warped[0]
    if not outside_is_zero:
        image = F.grid_sample(source[:, :1], grid, padding_mode="reflection", align_corners=False)[0, 0].numpy()
    # A vector v of the input becomes inverse(matrix) v in the output; only its direction counts.
    inverse = np.linalg.inv(matrix)
    turned = np.tensordot(inverse, warped[1:3], axes=1) * np.sqrt(abs(np.linalg.det(matrix)))
    target = np.concatenate([turned, warped[3:4] > 0.5, warped[4:5] > 0.99]).astype(np.float32)
    target[:2] *= target[2]
    return image, target, outside_is_zero


def _grid(matrix: NDArray[np.float64], centre: tuple[float, float], shape: tuple[int, int], crop: int) -> torch.Tensor:
    """Sampling positions for `grid_sample`: (1, crop, crop, 2) in x, y order, in its units (-1..1 over the pixels)."""
    offsets = np.arange(crop) - (crop - 1) / 2
    dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
    y = matrix[0, 0] * dy + matrix[0, 1] * dx + centre[0]
    x = matrix[1, 0] * dy + matrix[1, 1] * dx + centre[1]
    stacked = np.stack([(2 * x + 1) / shape[1] - 1, (2 * y + 1) / shape[0] - 1], axis=-1)
    return torch.from_numpy(stacked.astype(np.float32))[None]
