"""A network that needs no weights, images whose nuclei are known, and arrays that tell what was read of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage


class FakeNetwork:
    """Finds bright blobs of about 25 px: the flows climb the smoothed image, the logit is a threshold on it.

    Local (nothing farther than 16 px matters), so that tiles and blocks can be compared exactly.
    """

    def __init__(self, *, border_px: int = 24, fail_above: int | None = None) -> None:
        self.card = SimpleNamespace(
            name="fake", architecture="faster_v3", diameter_px=25.0, border_px=border_px, second_channel="zero"
        )
        self.device = torch.device("cpu")
        self.threads = 1
        self.device_words = "CPU, 1 thread"
        self.precision = "float32"
        self.name = "fake"
        self.sha256 = "f" * 64
        self.shapes: list[tuple[int, ...]] = []
        self._fail_above = fail_above

    def predict(self, planes: torch.Tensor, *, check=None) -> np.ndarray:
        planes = torch.as_tensor(planes)
        self.shapes.append(tuple(planes.shape))
        if self._fail_above is not None and planes.shape[-1] > self._fail_above:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        fine, smooth = (_blur(planes.clamp(0, 1.5)[:, None], sigma) for sigma in (1.0, 5.0))
        padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
        dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        length = (dy * dy + dx * dx).sqrt() + 1e-4
        logit = 20.0 * (fine - 0.35)
        inside = (logit > -2).float()
        return torch.cat([5 * dy / length * inside, 5 * dx / length * inside, logit], 1).numpy()


def _blur(planes: torch.Tensor, sigma: float) -> torch.Tensor:
    array = planes.numpy()
    for axis in (-1, -2):
        array = ndimage.gaussian_filter1d(array, sigma, axis=axis, mode="constant", truncate=3.0)
    return torch.from_numpy(array)


def blobs(
    shape: tuple[int, ...], *, diameter: float = 25.0, spacing: float | None = None, seed: int = 0, ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Soft balls on a jittered grid: uint16 image and labels. `ratio` is the voxel size in z over that in the plane."""
    rng = np.random.default_rng(seed)
    spacing = spacing or 1.6 * diameter
    ratios = np.array([ratio, 1.0, 1.0][-len(shape) :])
    image = rng.normal(100, 3, shape)
    labels = np.zeros(shape, np.uint16)
    axes = [np.arange(0.7 * diameter, n * r - 0.5 * diameter, spacing) for n, r in zip(shape, ratios, strict=True)]
    for number, centre in enumerate(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)), 1):
        centre = centre + rng.uniform(-0.12, 0.12, len(shape)) * diameter
        radius = 0.5 * diameter * rng.uniform(0.85, 1.15)
        box = tuple(
            slice(max(int((c - radius) / r) - 3, 0), int((c + radius) / r) + 4)
            for c, r in zip(centre, ratios, strict=True)
        )
        grid = np.meshgrid(
            *(np.arange(b.start, min(b.stop, n)) for b, n in zip(box, shape, strict=True)), indexing="ij"
        )
        distance = np.sqrt(sum((g * r - c) ** 2 for g, r, c in zip(grid, ratios, centre, strict=True)))
        image[box] += 900 / (1 + np.exp((distance - radius) / (0.04 * diameter)))
        labels[box][distance < radius] = number
    return np.clip(image, 0, 65535).astype(np.uint16), labels


class Recorded:
    """A lazy array that remembers every index it was asked for and how many voxels it gave."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.reads: list[tuple] = []
        self.sizes: list[int] = []

    def __getitem__(self, index: tuple) -> np.ndarray:
        block = self._array[index]
        self.reads.append(index)
        self.sizes.append(block.size)
        return block

    def __array__(self, *_args: object, **_kwargs: object) -> np.ndarray:
        raise AssertionError("the array was read whole")


def matched_f1(labels: np.ndarray, truth: np.ndarray, *, iou: float = 0.5) -> float:
    """F1 of the one-to-one matches with an IoU above a threshold of at least 0.5."""
    n, m = int(labels.max()), int(truth.max())
    pairs = np.bincount(labels.ravel().astype(np.int64) * (m + 1) + truth.ravel(), minlength=(n + 1) * (m + 1))
    shared = pairs.reshape(n + 1, m + 1)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    hits = int((shared[1:, 1:] / np.maximum(union[1:, 1:], 1) > iou).sum())
    present = np.count_nonzero(shared[1:].sum(1)) + np.count_nonzero(shared[:, 1:].sum(0))
    return 2 * hits / max(present, 1)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """The same objects, whatever their numbers."""
    if a.shape != b.shape or not np.array_equal(a > 0, b > 0):
        return False
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def cut_in_blocks(monkeypatch, parts):
    """Make the plan cut a volume in parts that a test can afford."""
    from napari_aprcnn.segment import run

    plan = run.make_plan

    def cut(task, config, **kwargs):
        from dataclasses import replace

        from napari_aprcnn.segment.blocks import cut_blocks

        shape = task.shape if task.mode == "planes" else (1, *task.shape[1:])
        blocks = cut_blocks(shape, parts=parts, halo=tuple(58 if n > 1 else 0 for n in parts))
        return replace(plan(task, config, **kwargs), blocks=blocks, keep_flows=False, reduced=True)

    monkeypatch.setattr(run, "make_plan", cut)
