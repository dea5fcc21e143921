"""Work off the GUI thread, with a mailbox in between: a job never touches a layer or a widget.

The worker thread fills the mailbox; the GUI thread empties it when it has time (`SegmentModel.poll`). So a fast run
cannot flood the event loop, and a job that outlives its viewer talks to nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_aprcnn._napari.colours import flows_to_rgb
from napari_aprcnn.errors import CancelledError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.result_layers import Kind
    from napari_aprcnn.apr.pyramid import TreeArray
    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.segment.progress import PartialLabels, Progress
    from napari_aprcnn.segment.result import SegmentationResult

__all__ = ["Job", "Outcome", "SegmentJob", "SegmentOutput"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a value, with an error, or cancelled."""

    value: Any = None
    error: Exception | None = None
    cancelled: bool = False


class Job:
    """One call of a function in another thread.

    Parameters
    ----------
    function
        Called without arguments in the worker thread.

    Examples
    --------
    >>> job = Job(lambda: 6 * 7)
    >>> job.run()
    >>> job.outcome.value
    42
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._cancel = threading.Event()
        self.outcome: Outcome | None = None

    def run(self) -> None:
        """Do the work; never raises."""
        try:
            value = self._function()
        except CancelledError:
            self.outcome = Outcome(cancelled=True)
        except Exception as error:  # noqa: BLE001 - it crosses threads: whatever it is, the GUI thread shows it
            self.outcome = Outcome(error=error, cancelled=False)
        else:
            self.outcome = Outcome(value=value, cancelled=self._cancel.is_set())
        finally:
            self._function = _nothing  # what the function holds (an image, a layer) is free from here on

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancel.is_set()


@dataclass(frozen=True)
class SegmentOutput:
    """What a segmentation gives the viewer.

    Attributes
    ----------
    result
        The result; its probability and flows are dropped when no layer of them is asked for.
    probability : float32 or None
        Probability of being nucleus, 0..1.
    flows_rgb : (*S, 3) uint8 or None
        Flows as colours.
    pyramids
        Multiscale images of the particles, by kind of layer.
    """

    result: SegmentationResult
    probability: NDArray[Any] | None
    flows_rgb: NDArray[Any] | None
    pyramids: dict[Kind, list[TreeArray]] = field(default_factory=dict)


class SegmentJob(Job):
    """A segmentation with its progress and the labels found so far.

    Parameters
    ----------
    segment
        ``napari_aprcnn.segment.pipeline.segment`` or a stand-in.
    read
        Gives the array, or a part of it; called in the worker thread.
    config
        Parameters of the run.
    probability, flows
        Make the pictures of them.
    live
        Ask for labels while tiles finish.
    levels, reconstruction
        Make images of the particles' levels, and of their intensities.
    axes
        Of the layers for the particles.
    """

    def __init__(
        self,
        segment: Callable[..., SegmentationResult],
        read: Callable[[], Any],
        config: SegmentConfig,
        *,
        probability: bool = False,
        flows: bool = False,
        live: bool = True,
        levels: bool = False,
        reconstruction: bool = False,
        axes: str = "ZYX",
    ) -> None:
        super().__init__(lambda: self._segment(segment, read(), config))
        self.config = config
        self._wants_probability = probability
        self._wants_flows = flows
        self._wants_levels = levels
        self._wants_reconstruction = reconstruction
        self._axes = axes
        self._live = live
        self._partials: deque[PartialLabels] = deque()
        self._progress: Progress | None = None

    def _segment(self, segment: Callable[..., SegmentationResult], image: Any, config: SegmentConfig) -> SegmentOutput:
        result = segment(
            image,
            config=config,
            progress=self._tell,
            should_cancel=self._cancel.is_set,
            on_partial=self._partials.append if self._live else None,
        )
        probability = flows = None
        if self._wants_probability and result.probability is not None and not self.cancelled:
            from scipy.special import expit

            probability = expit(result.probability)
        if self._wants_flows and result.flows is not None and not self.cancelled:
            flows = flows_to_rgb(result.flows)
        return SegmentOutput(result, probability, flows, {} if self.cancelled else self._pyramids(result.particles))

    def _pyramids(self, tree: ParticleTree | None) -> dict[Kind, list[TreeArray]]:
        pyramids: dict[Kind, list[TreeArray]] = {}
        if tree is None or not (self._wants_levels or self._wants_reconstruction):
            return pyramids
        from napari_aprcnn.apr.pyramid import tree_pyramid

        if self._wants_levels:
            pyramids["particle levels"] = tree_pyramid(tree, tree.levels, axes=self._axes)
        if self._wants_reconstruction:
            pyramids["reconstruction"] = tree_pyramid(tree, axes=self._axes)
        return pyramids

    def _tell(self, progress: Progress) -> None:
        self._progress = progress

    def take_progress(self) -> Progress | None:
        """Return the newest progress since the last call."""
        progress, self._progress = self._progress, None
        return progress

    def take_partial(self) -> PartialLabels | None:
        """Return the oldest labels that were not taken yet."""
        try:
            return self._partials.popleft()
        except IndexError:
            return None


def _nothing() -> None:
    return None
