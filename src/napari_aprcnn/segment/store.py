"""Where a run collects its labels and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.segment.result import smallest_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.segment.source import Region

__all__ = ["Store"]


class Store:
    """Labels (T, Z, Y, X) in the smallest type that holds them, and flows and probability where they are kept.

    Parameters
    ----------
    n_times, shape
        Time points and (Z, Y, X) of each.
    components
        Of the flows.
    keep_flows
        Keep flows and probability.
    """

    def __init__(self, n_times: int, shape: tuple[int, int, int], *, components: int, keep_flows: bool) -> None:
        self._shape = (n_times, *shape)
        self._components = components
        self.keep_flows = keep_flows
        self._labels: NDArray[Any] | None = None
        self._probability: NDArray[np.float32] | None = None
        self._flows: NDArray[np.float32] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """Labels (T, Z, Y, X) so far."""
        if self._labels is None:
            self._labels = np.zeros(self._shape, np.uint16)
        return self._labels

    def room_for(self, largest: int) -> NDArray[Any]:
        """Return the labels in a type that holds a number."""
        if self.labels.dtype != np.uint32 and smallest_dtype(largest) is np.uint32:
            self._labels = self.labels.astype(np.uint32)
        return self.labels

    def put_labels(self, time: int, region: Region, labels: NDArray[np.uint32]) -> None:
        """Write labels (z, y, x); those of a whole image are taken without another array of its size."""
        if labels.shape == self._shape[1:] and self._shape[0] == 1:
            self._labels = labels.astype(smallest_dtype(int(labels.max(initial=0))), copy=False)[None]
        elif labels.any():
            self.room_for(int(labels.max()))[(time, *region)] = labels

    def put_outputs(
        self, time: int, region: Region, flows: NDArray[np.float32], probability: NDArray[np.float32]
    ) -> None:
        """Keep flows (D, z, y, x) and probability (z, y, x), if they are kept."""
        if not self.keep_flows:
            return
        if probability.shape == self._shape[1:] and self._shape[0] == 1:
            self._flows, self._probability = flows[:, None], probability[None]
            return
        if self._flows is None or self._probability is None:
            self._flows = np.zeros((self._components, *self._shape), np.float32)
            self._probability = np.zeros(self._shape, np.float32)
        self._flows[(slice(None), time, *region)] = flows
        self._probability[(time, *region)] = probability

    @property
    def outputs(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Flows (D, T, Z, Y, X) and probability (T, Z, Y, X), where they are kept."""
        if self._flows is None or self._probability is None:
            return None
        return self._flows, self._probability
