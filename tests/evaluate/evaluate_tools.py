"""Label images made of boxes, and random ones."""

from __future__ import annotations

import numpy as np


def squares(*boxes: tuple[int, int, int, int], edge: int = 40, dtype="uint16") -> np.ndarray:
    """Boxes (y0, y1, x0, x1), numbered from 1."""
    labels = np.zeros((edge, edge), dtype)
    for number, (y0, y1, x0, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return labels


def random_boxes(rng: np.random.Generator, shape: tuple[int, ...], n: int) -> np.ndarray:
    """Boxes of random place and size that hide one another."""
    labels = np.zeros(shape, np.int32)
    for number in range(1, n + 1):
        low = [int(rng.integers(0, edge - 1)) for edge in shape]
        labels[tuple(slice(start, start + int(rng.integers(1, 6))) for start in low)] = number
    return labels
