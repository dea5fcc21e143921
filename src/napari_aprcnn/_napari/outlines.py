"""Outlines that follow their sliders: labels made anew from what the network said, while the network rests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_aprcnn._napari.latest import Latest
from napari_aprcnn._napari.result_layers import is_ours, publish

if TYPE_CHECKING:
    from napari_aprcnn._napari.geometry import LayerImage, Placement
    from napari_aprcnn._napari.jobs import Outcome
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.segment.result import SegmentationResult

__all__ = ["LiveOutlines"]

PAUSE_S = 0.15


@dataclass
class _Kept:
    result: SegmentationResult
    layer: Any
    placement: Placement
    source: str


class LiveOutlines:
    """The last run of a network for volumes, whose labels can still be moved.

    Parameters
    ----------
    viewer
        The viewer model.
    launch
        Runs a callable in another thread.
    relabel
        ``relabel(result, config, threads=, should_cancel=) -> SegmentationResult``.

    Attributes
    ----------
    changed : Signal(object)
        The result with its new labels, which the layer shows.
    failed : Signal(object)
        The error.
    """

    changed = Signal(object)
    failed = Signal(object)

    def __init__(
        self, viewer: Any, *, launch: Callable[[Callable[[], None]], Any], relabel: Callable[..., SegmentationResult]
    ) -> None:
        self._viewer = viewer
        self._relabel = relabel
        self._kept: _Kept | None = None
        self._latest = Latest(launch, self._answered, delay_s=PAUSE_S)

    def keep(self, result: SegmentationResult, layer: Any, placement: Placement, source: str) -> None:
        """Keep a result and the layer that shows it; one without outputs is forgotten with the last one."""
        self._latest.forget()
        self._kept = None if result.outputs is None else _Kept(result, layer, placement, source)

    def pause(self) -> None:
        """Drop what was asked; the last result is kept."""
        self._latest.forget()

    def forget(self) -> None:
        """Let the last result go."""
        self._latest.forget()
        self._kept = None

    def fits(self, image: LayerImage) -> bool:
        """Whether labels of an image can be moved: they are shown, and the user has not edited or renamed them."""
        kept = self._kept
        return kept is not None and kept.placement.layer is image.layer and self._shown(kept)

    def _shown(self, kept: _Kept) -> bool:
        return kept.layer in self._viewer.layers and is_ours(kept.layer)

    def ask(self, config: SegmentConfig) -> None:
        """Make the labels of the kept run anew, unless they are those of the configuration already."""
        if self._kept is None:
            return
        from napari_aprcnn.segment.volume_masks import with_decoding  # with torch, which a run has loaded

        result, relabel = self._kept.result, self._relabel
        if with_decoding(result.config, config) == result.config:
            self._latest.forget()
            return
        self._latest.ask(lambda stop: relabel(result, config, threads=config.threads, should_cancel=stop))

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._latest.pending

    def poll(self) -> None:
        """Show labels that are ready."""
        self._latest.poll()

    def _answered(self, outcome: Outcome) -> None:
        kept = self._kept
        if outcome.error is not None:
            self.failed.emit(outcome.error)
        elif kept is not None and self._shown(kept):
            result = outcome.value
            kept.result = result
            kept.layer = publish(
                self._viewer,
                result.labels,
                kind="nuclei",
                source=kept.source,
                placement=kept.placement,
                rerun="replace",
                into=kept.layer,
                record={"config": result.config.to_json(), "readout": result.readout.to_json()},
            )
            self.changed.emit(result)
