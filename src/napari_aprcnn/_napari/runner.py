"""One run at a time: its thread's mailbox, its provisional labels, its result as layers. GUI thread, but no Qt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal

from napari_aprcnn._napari.geometry import view_region
from napari_aprcnn._napari.jobs import Outcome, SegmentJob, SegmentOutput
from napari_aprcnn._napari.outlines import LiveOutlines
from napari_aprcnn._napari.result_layers import (
    Kind,
    LiveLabels,
    publish,
    publish_layer,
    pyramid_layer,
    remove_preview,
)
from napari_aprcnn._napari.run_records import note_run
from napari_aprcnn._napari.slice_particles import SliceParticles
from napari_aprcnn.errors import AprcnnError

if TYPE_CHECKING:
    from napari_aprcnn._napari.geometry import LayerImage, Placement
    from napari_aprcnn.config import AxisMapping, SegmentConfig

__all__ = ["Runner", "Show", "State"]

logger = logging.getLogger(__name__)

State = Literal["ready", "running", "cancelling"]
Rerun = Literal["replace", "version"]
_NO_PARTICLES = (
    "there are no layers of particles: only models for volumes have them, for a single time point in one block, and "
    "where not all stages run on voxels"
)
# One turn of `poll` may take about this long: the event loop must not wait for it.
POLL_BUDGET_S = 0.03
# Provisional labels are drawn at most this often: drawing competes with the run for the processor.
SHOW_EVERY_S = 0.15


@dataclass(frozen=True, kw_only=True)
class Show:
    """Layers that a run adds beside the labels.

    Attributes
    ----------
    probability, flows
        Pictures of what the network said.
    has_flows
        Whether the model has flows at all.
    levels, reconstruction, particles
        Of a model for volumes: levels of the particles, the image that they are, those that the shown plane cuts.
    rerun
        Replace the layers of an earlier run, or add others.
    """

    probability: bool = False
    flows: bool = False
    has_flows: bool = True
    levels: bool = False
    reconstruction: bool = False
    particles: bool = False
    rerun: Rerun = "replace"


class Runner:
    """Starts runs, shows what they find, and stops them.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    launch
        Runs a callable in another thread.
    segment
        ``segment(image, config=, progress=, should_cancel=, on_partial=) -> SegmentationResult``.
    relabel
        ``relabel(result, config, threads=, should_cancel=) -> SegmentationResult``.

    Attributes
    ----------
    outlines
        Moves the labels of the last run of a model for volumes.
    changed : Signal(str)
        ``state``, ``progress``, ``result``, ``pending``.
    notified : Signal(str, str, object)
        Severity, sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(
        self,
        viewer: Any,
        *,
        launch: Callable[[Callable[[], None]], Any],
        segment: Callable[..., Any],
        relabel: Callable[..., Any],
    ) -> None:
        self._viewer = viewer
        self._launch = launch
        self._segment = segment
        self.state: State = "ready"
        self.activity: Literal["segment", "preview"] = "segment"
        self.progress: Any | None = None
        self.result: Any | None = None
        self._job: SegmentJob | None = None
        self._live: LiveLabels | None = None
        self._finish: Callable[[SegmentOutput], None] = _ignore
        self._show_next = 0.0
        self._diameters: dict[str, float] = {}
        self._slices: SliceParticles | None = None
        self.outlines = LiveOutlines(viewer, launch=launch, relabel=relabel)
        self.outlines.changed.connect(self._relabelled)
        self.outlines.failed.connect(self._tell_error)

    def found_diameter(self, source: str) -> float | None:
        """Return the diameter that an earlier run found in an image, in pixels."""
        return self._diameters.get(source) or None

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self._job is not None

    def segment(
        self, image: LayerImage, mapping: AxisMapping, config: SegmentConfig, *, show: Show, live: bool = True
    ) -> None:
        """Start a run on a whole image.

        Parameters
        ----------
        image, mapping, config
            What to segment and how.
        show
            Layers to add beside the labels, and whether they replace those of an earlier run.
        live
            Show labels while tiles finish.
        """
        placement = image.place(mapping)
        shape = tuple(n for n, letter in zip(image.shape, mapping.order, strict=True) if letter != "C")

        def finish(output: SegmentOutput) -> None:
            remove_preview(self._viewer, image.layer)
            run = note_run(output.result.readout, image.name)
            for kind, values in (("probability", output.probability), ("flows", output.flows_rgb)):
                if values is not None:
                    self._publish(values, kind, image.name, placement, show.rerun, output)  # type: ignore[arg-type]
            self._publish_particles(output, image, mapping, show)
            live = self._live
            layer = self._publish(
                output.result.labels, "nuclei", image.name, placement, show.rerun, output, live=live, run=run
            )
            self._diameters[image.name] = output.result.readout.diameter_px
            self.outlines.keep(output.result, layer, placement, image.name)
            for sentence in _missing(output, show):
                self.notified.emit("info", sentence, None)

        self.outlines.pause()  # it stays: a run that is cancelled must not cost the last one
        self._live = LiveLabels(self._viewer, source=image.name, shape=shape, placement=placement) if live else None
        data = image.data
        job = SegmentJob(
            self._segment,
            lambda: data,
            config,
            probability=show.probability,
            flows=show.flows,
            levels=show.levels,
            reconstruction=show.reconstruction,
            axes=placement.axes,
            live=live,
        )
        self._start(job, "segment", finish)

    def _publish_particles(self, output: SegmentOutput, image: LayerImage, mapping: AxisMapping, show: Show) -> None:
        tree = output.result.particles
        if not (show.levels or show.reconstruction or show.particles):
            return
        if tree is None:
            self.notified.emit("info", _NO_PARTICLES, None)
            return
        size = dict(zip(mapping.order, image.shape, strict=True))
        z, y, x = (size[letter] / n for letter, n in zip("ZYX", tree.shape, strict=True))
        placement = image.place(mapping, voxel=(z, y, x)).now()
        record = {"config": output.result.config.to_json(), "readout": output.result.readout.to_json()}
        kept: dict[str, Any] = {"source": image.name, "placement": placement, "rerun": show.rerun, "record": record}
        for kind, images in output.pyramids.items():
            publish_layer(self._viewer, pyramid_layer(images, kind, placement), kind=kind, **kept)
        if show.particles:
            if self._slices is not None:
                self._slices.close()
            self._slices = SliceParticles(
                self._viewer, tree, placement, tell=lambda sentence: self.notified.emit("info", sentence, None)
            )
            publish_layer(self._viewer, self._slices.layer, kind="slice particles", **kept)
            self._slices.follow()

    def _relabelled(self, result: Any) -> None:
        self.result = result
        self.changed.emit("result")
        self.changed.emit("state")

    def preview(self, layer: Any, image: LayerImage, mapping: AxisMapping, config: SegmentConfig) -> None:
        """Start a run on what the camera shows: one plane, in 2D.

        Parameters
        ----------
        layer
            The image layer.
        image, mapping, config
            Its snapshot, and how to segment it.
        """
        region = view_region(layer, self._viewer, mapping)
        placement = image.place(mapping, start=[part.start for part in region])
        if image.rgb:
            region = (*region, slice(None))
        index = tuple(
            part.start if letter in "TZ" else part for part, letter in zip(region, mapping.order, strict=True)
        )
        data, order = image.data, "".join(letter for letter in mapping.order if letter not in "TZ")
        config = config.replace(axes=mapping.replace(order=order), dimensionality="2d", keep_flows=False)
        gaps = [axis for axis, letter in enumerate(mapping.order.replace("C", "")) if letter in "TZ"]

        def finish(output: SegmentOutput) -> None:
            labels = np.expand_dims(output.result.labels, gaps)
            self._publish(labels, "preview", image.name, placement, "replace", output)

        self._live = None
        # The part is cut out in the worker thread: a zarr array reads it there and then.
        self._start(SegmentJob(self._segment, lambda: data[index], config, live=False), "preview", finish)

    def cancel(self) -> None:
        """Ask the run to stop. Provisional labels are gone at once; `state` is ready when the run has stopped."""
        if self._job is None or self.state != "running":
            return
        self._job.cancel()
        if self._live is not None:
            self._live.hide()
        self.state = "cancelling"
        self.changed.emit("state")

    def close(self) -> None:
        """Ask the run to stop and forget it; its provisional labels go, and its result will not be shown."""
        if self._job is not None:
            self._job.cancel()
        try:
            self._drop_live()
        except Exception:  # whatever a window raises that Qt has half deleted
            logger.debug("the viewer was gone before its provisional labels", exc_info=True)
        self._job, self._live, self._finish = None, None, _ignore
        self.outlines.forget()
        if self._slices is not None:
            self._slices.close()
            self._slices = None

    def poll(self) -> None:
        """Take what the run has ready."""
        self.outlines.poll()
        job = self._job
        if job is None:
            return
        outcome = job.outcome  # before the mailbox is read, or the last message might be missed
        progress = job.take_progress()
        if progress is not None:
            self.progress = progress
            self.changed.emit("progress")
        if outcome is not None:
            self._end(outcome)
        elif self.state == "cancelling":
            self._drop_live()
        elif self._live is not None:
            self._take_partials(job, self._live)

    def _start(
        self, job: SegmentJob, activity: Literal["segment", "preview"], finish: Callable[[SegmentOutput], None]
    ) -> None:
        self._job, self._finish, self.activity = job, finish, activity
        self.state, self.progress = "running", None
        self.changed.emit("state")
        self._launch(job.run)
        self.changed.emit("pending")

    def _take_partials(self, job: SegmentJob, live: LiveLabels) -> None:
        now = time.perf_counter()
        if now < self._show_next:
            return
        try:
            self._show_partials(job, live, until=now + POLL_BUDGET_S)
        except Exception:
            # Provisional labels are a comfort: the run and its result do not depend on them.
            logger.exception("labels cannot be shown while the run goes on")
            self._drop_live()
        self._show_next = time.perf_counter() + SHOW_EVERY_S

    def _show_partials(self, job: SegmentJob, live: LiveLabels, *, until: float) -> None:
        shown = False
        while time.perf_counter() < until and (partial := job.take_partial()) is not None:
            live.show(partial)
            shown = True
        if shown:
            live.refresh()

    def _end(self, outcome: Outcome) -> None:
        finish = self._finish
        self._job, self._finish = None, _ignore
        # Ready whatever happens while the layers are made.
        self.state, self.progress = "ready", None
        try:
            if outcome.error is not None:
                self._tell_error(outcome.error)
            elif not outcome.cancelled:
                finish(outcome.value)
                self.result = outcome.value.result
                self.changed.emit("result")
        except Exception as error:  # noqa: BLE001 - shown to the user with its traceback; the dock stays usable
            self._tell_error(error)
        finally:
            self._drop_live()
            self.changed.emit("state")

    def _tell_error(self, error: Exception) -> None:
        if isinstance(error, AprcnnError):
            self.notified.emit("error", _sentence(error), None)
        elif isinstance(error, MemoryError):
            advice = "set a smaller memory limit under Advanced, close other programs, or segment a part of the image"
            self.notified.emit("error", f"The memory was not enough ({error}); {advice}.", None)
        else:
            logger.error("the run failed unexpectedly", exc_info=error)
            self.notified.emit("error", f"{type(error).__name__}: {error}", error)

    def _drop_live(self) -> None:
        if self._live is not None:
            self._live.remove()
        self._live = None

    def _publish(
        self,
        values: Any,
        kind: Kind,
        source: str,
        placement: Placement,
        rerun: Rerun,
        output: SegmentOutput,
        *,
        live: LiveLabels | None = None,
        run: str = "",
    ) -> Any:
        result = output.result
        return publish(
            self._viewer,
            values,
            kind=kind,
            source=source,
            placement=placement,
            rerun=rerun,
            record={"config": result.config.to_json(), "readout": result.readout.to_json(), "run": run},
            live=live,
        )


def _missing(output: SegmentOutput, show: Show) -> list[str]:
    """Say why there is no layer of flows or probability that was asked for."""
    no_flows = show.flows and output.flows_rgb is None
    sentences = []
    if no_flows and not show.has_flows:
        sentences.append(f"there is no layer of flows: {output.result.readout.model} has none")
        no_flows = False
    if no_flows or (show.probability and output.probability is None):
        sentences.append("there is no layer of probability or flows: they did not fit the memory of this run")
    return sentences


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _ignore(_output: SegmentOutput) -> None:
    return None
