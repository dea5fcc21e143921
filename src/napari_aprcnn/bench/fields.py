"""Simulated outputs of a network: labels of ellipsoids, their flows and probability, both disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_aprcnn._kernels import flows_from_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["disturbed_field", "ellipsoids"]


def ellipsoids(shape: tuple[int, ...], n: int, *, diameter: float, seed: int = 0) -> NDArray[np.uint32]:
    """Labels of ellipsoids that may touch and be cut by the border but do not overlap.

    Parameters
    ----------
    shape
        Y, X or Z, Y, X.
    n
        Number of objects; fewer where there is no room for more.
    diameter
        Mean diameter in pixels; axes vary by a quarter.
    seed
        Same seed, same labels.

    Returns
    -------
    (*S) uint32
    """
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    made = 0
    for _ in range(200 * n):
        if made == n:
            break
        centre = random.uniform(0, shape)
        radii = diameter / 2 * random.uniform(0.75, 1.25, len(shape))
        low = np.maximum(np.floor(centre - radii), 0).astype(int)
        high = np.minimum(np.ceil(centre + radii) + 1, shape).astype(int)
        region = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[region]
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True))
        mask = np.asarray(distance) < 1
        if mask.any() and not labels[region][mask].any():
            made += 1
            labels[region][mask] = made
    return labels


def disturbed_field(
    labels: NDArray[Any], *, noise: float = 0.6, seed: int = 0, threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Flows and probability as a network might give them for these labels.

    Flows are 5 x unit vectors plus smooth noise, slightly blurred; the logit falls from 6 to -6 across the outline and
    is noisy too.

    Parameters
    ----------
    labels : (*S) integer
    noise
        Standard deviation of the noise, in units of the flows (5 = as strong as the flows).
    seed
        Same seed, same field.
    threads
        Threads of masks to flows.

    Returns
    -------
    flows : (D, *S) float32
    probability : (*S) float32
    """
    random = np.random.default_rng(seed)
    flows = flows_from_labels(labels, threads=threads) * np.float32(5)
    probability = ndimage.gaussian_filter(np.where(labels > 0, np.float32(6), np.float32(-6)), 1.0)

    def waves(sigma: float) -> NDArray[np.float32]:
        field = ndimage.gaussian_filter(random.standard_normal(labels.shape, dtype=np.float32), sigma)
        return np.asarray(field / field.std(), np.float32)

    for flow in flows:
        flow += noise * waves(2.0)
        flow[...] = ndimage.gaussian_filter(flow, 0.7)
    return flows, np.asarray(probability + noise * waves(1.0), np.float32)
