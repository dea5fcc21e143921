"""Objects far smaller than the others of their volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["drop_small"]


def drop_small(labels: NDArray[Any], *, share: float) -> int:
    """Drop the objects of a volume below a share of the median size, in place, and number the others anew.

    Planes see slices of debris and of defocused light that are no larger than those of a cap, so that size in three
    dimensions is the first thing that tells them from nuclei.

    Parameters
    ----------
    labels : (Z, Y, X)
        Numbered 1..n.
    share
        Of the median number of voxels; 0 keeps all.

    Returns
    -------
    int
        Objects that are left.

    Examples
    --------
    >>> labels = np.array([[[1, 1, 1, 1, 0, 2, 0, 3, 3, 3, 3]]])
    >>> drop_small(labels, share=0.5), labels.tolist()
    (2, [[[1, 1, 1, 1, 0, 0, 0, 2, 2, 2, 2]]])
    """
    n = int(labels.max(initial=0))
    if n == 0 or share == 0:
        return n
    sizes = np.zeros(n + 1, np.int64)
    for plane in labels:
        sizes += np.bincount(plane.ravel(), minlength=n + 1)
    keep = sizes >= share * np.median(sizes[1:])
    keep[0] = False
    left = int(keep.sum())
    if left < n:
        names = np.zeros(n + 1, labels.dtype)
        names[keep] = np.arange(1, left + 1)
        for plane in labels:  # no second array of the volume's size
            plane[...] = names[plane]
    return left
