"""2D masks of neighbouring planes to 3D objects, by their overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Stitcher"]


INSIDE = 0.75


class Stitcher:
    """Renumbers the masks of one plane after the other so that a nucleus keeps its number.

    At the caps of a nucleus its masks grow and shrink faster than any useful IoU allows; masks that found no partner
    are therefore also joined where three quarters of the smaller lie on the larger.

    Parameters
    ----------
    iou
        Smallest intersection over union at which masks of neighbouring planes are one nucleus.

    Examples
    --------
    >>> stitcher = Stitcher(iou=0.25)
    >>> stitcher.add(np.array([[1, 1, 0, 2]], np.uint32)).tolist()
    [[1, 1, 0, 2]]
    >>> stitcher.add(np.array([[0, 0, 0, 1]], np.uint32)).tolist()
    [[0, 0, 0, 2]]
    """

    def __init__(self, *, iou: float) -> None:
        self.iou = iou
        self.n_objects = 0
        self._previous: NDArray[np.uint32] | None = None

    def add(self, plane: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Give the masks of the next plane (Y, X), numbered 1..n, their numbers in the volume."""
        names = np.zeros(int(plane.max(initial=0)) + 1, np.uint32)
        if self._previous is not None and len(names) > 1:
            names = self._match(self._previous, plane, names)
        new = np.flatnonzero(names[1:] == 0) + 1
        names[new] = self.n_objects + 1 + np.arange(len(new), dtype=np.uint32)
        self.n_objects += len(new)
        self._previous = names[plane]
        return self._previous

    def _match(
        self, previous: NDArray[np.uint32], plane: NDArray[np.uint32], names: NDArray[np.uint32]
    ) -> NDArray[np.uint32]:
        """Pair masks one to one, the best first; equal ones by number, so that the result is fixed."""
        both = (previous > 0) & (plane > 0)
        if not both.any():
            return names
        olds, compact = np.unique(previous, return_inverse=True)
        n = len(names)
        pairs, shared = np.unique(compact.reshape(previous.shape)[both] * n + plane[both], return_counts=True)
        old, new = pairs // n, pairs % n
        area_old, area_new = np.bincount(compact.ravel()), np.bincount(plane.ravel(), minlength=n)
        iou = shared / (area_old[old] + area_new[new] - shared)
        inside = shared / np.minimum(area_old[old], area_new[new])
        # Every pair by IoU comes before every pair by containment.
        rank = np.where(iou >= self.iou, 1.0 + iou, np.where(inside >= INSIDE, iou, 0.0))
        taken: set[int] = set()
        for k in np.lexsort((new, old, -rank)):
            if rank[k] == 0:
                break
            if names[new[k]] == 0 and int(old[k]) not in taken:
                names[new[k]] = olds[old[k]]
                taken.add(int(old[k]))
        return names
