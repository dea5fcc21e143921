"""Labels while the run goes on: provisional ones of finished tiles and planes, final ones of finished time points."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.segment import flows as flow_masks
from napari_aprcnn.segment.progress import PartialLabels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import FlowConfig
    from napari_aprcnn.segment.source import MappedImage, Region

__all__ = ["Partials"]

SHARE = 0.08  # of the run's time that may go into provisional labels
QUICK_STEPS = 50


class Partials:
    """Hands labels to the caller as they are found; does nothing where nobody asks for them.

    Parameters
    ----------
    on_partial
        The caller's callable.
    source
        The image, for the axes of its labels.
    flows
        Thresholds.
    threads
        Threads of the kernels.
    """

    def __init__(
        self,
        on_partial: Callable[[PartialLabels], Any] | None,
        source: MappedImage,
        flows: FlowConfig,
        threads: int | None,
    ) -> None:
        self._on_partial = on_partial
        self._source = source
        self._threads = threads
        # Steps are those of network resolution; the filter by flow error is the dearest part and only removes.
        self._flows = flows.replace(n_steps=min(flows.n_steps, QUICK_STEPS), flow_threshold=0.0)
        self._start = time.perf_counter()
        self._spent = 0.0
        self._n_objects = 0

    @property
    def wanted(self) -> bool:
        """Somebody looks, and looking has not taken too much of the run's time yet."""
        if self._on_partial is None:
            return False
        return self._spent == 0 or self._spent <= SHARE * (time.perf_counter() - self._start)

    def provisional(self, time_point: int, region: Region, outputs: NDArray[np.float32]) -> None:
        """Find and hand out the masks of a plane, or of a tile of one.

        Parameters
        ----------
        time_point, region
            Where it lies in the image; one z.
        outputs : (3, h, w) float32
            Flows and logit, at any resolution.
        """
        if not self.wanted:
            return
        start = time.perf_counter()
        labels = flow_masks.masks_from_flows(
            np.ascontiguousarray(outputs[:2]),
            np.ascontiguousarray(outputs[2]),
            config=self._flows,
            threads=self._threads,
        )
        size = (region[1].stop - region[1].start, region[2].stop - region[2].start)
        if labels.shape != size:
            rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, labels.shape, strict=True))
            labels = labels[rows.astype(np.intp)[:, None], columns.astype(np.intp)]
        self._number(labels)
        self._hand_out(time_point, region, labels[None], final=False)
        self._spent += time.perf_counter() - start

    def found(self, time_point: int, region: Region, labels: NDArray[Any], *, final: bool) -> None:
        """Hand out labels (z, y, x) that the run has found anyway."""
        if self._on_partial is not None:
            self._hand_out(time_point, region, labels, final=final)

    def _number(self, labels: NDArray[np.uint32]) -> None:
        n = int(labels.max(initial=0))
        labels[labels > 0] += np.uint32(self._n_objects)
        self._n_objects += n

    def _hand_out(self, time_point: int, region: Region, labels: NDArray[Any], *, final: bool) -> None:
        if self._on_partial is None:
            return
        mapped = self._source.to_output(labels[None])
        # A copy: the caller may keep it, and the run goes on writing into its own.
        self._on_partial(
            PartialLabels(self._source.output_region(time_point, region), mapped.astype(np.uint32), final=final)
        )
