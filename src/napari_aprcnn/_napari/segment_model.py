"""The Segment dock without its widgets: what is chosen, what it would take, what runs, what was found.

Works on a `napari.components.ViewerModel`, so it is tested without Qt. Views listen to `changed` and `notified` and
call `poll` from the GUI thread while `pending` is true.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_aprcnn._napari.backend import Backend, Machine
from napari_aprcnn._napari.fields import get_value, with_value
from napari_aprcnn._napari.image_model import ImageModel
from napari_aprcnn._napari.jobs import Job, Outcome
from napari_aprcnn._napari.model_choice import listen, stop_listening
from napari_aprcnn._napari.run_records import events
from napari_aprcnn._napari.runner import Runner, Show, State
from napari_aprcnn._napari.settings import Preferences, Settings, load_settings, save_settings
from napari_aprcnn._napari.volume_model import VolumeModel, default_model
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import ConfigError, OutputError
from napari_aprcnn.io.atomic import write_text
from napari_aprcnn.models.cards import ModelCard

__all__ = ["SegmentModel"]

# What makes labels of the network's outputs: a change can be shown on the last run's labels at once.
_DECODING = {("volume", "outline"), ("volume", "grow_vox"), ("smallest_share_3d",)}


class SegmentModel:
    """State and actions of the Segment dock.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    launch
        Runs a callable in another thread; tests call it in place.
    backend
        The functions that do the work.
    settings
        ``None``: those of the last session.
    preferences
        Those of napari's settings dialog.

    Attributes
    ----------
    images
        The chosen layer, its axes and voxel size.
    runner
        The run that goes on, and the result of the last one.
    volumes
        Cards of models for volumes, and the live particle reduction.
    changed : Signal(str)
        ``layers``, ``image``, ``parameters``, ``machine``, ``reduction``, ``estimate``, ``state``, ``progress``,
        ``result``, ``pending``.
    notified : Signal(str, str, object)
        Severity (``error``, ``info``), sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(
        self,
        viewer: Any,
        *,
        launch: Callable[[Callable[[], None]], Any],
        backend: Backend | None = None,
        settings: Settings | None = None,
        preferences: Preferences | None = None,
    ) -> None:
        self.backend = backend or Backend()
        self.preferences = preferences or Preferences()
        self.settings = settings or (load_settings() if self.preferences.remember else Settings())
        self.machine: Machine | None = None
        self.machine_problem = ""
        self.estimate_words = ""
        self._closed = False
        self._launch = launch
        self._tasks: dict[str, tuple[Job, Callable[[Outcome], None]]] = {}
        self.images = ImageModel(viewer)
        self.runner = Runner(viewer, launch=launch, segment=self.backend.segment, relabel=self.backend.relabel)
        self.volumes = VolumeModel(self.backend, launch)
        self.images.changed.connect(self._image_changed)
        self.images.refused.connect(self._refused)
        self.runner.changed.connect(self._runner_changed)
        self.runner.notified.connect(self._runner_notified)
        self.volumes.changed.connect(self._reduction_changed)
        self._viewer = viewer
        listen(viewer, self, "take_model")
        events.calibrated.connect(self.update_estimate)
        self.look_at_machine()
        self.update_estimate()

    def _image_changed(self, what: str) -> None:
        self.changed.emit(what)
        if what == "image":
            self._follow_image()
            self.update_estimate()

    def take_model(self, path: str) -> None:
        """Use a model that another dock of this viewer has made."""
        self.set("model", value=path)

    def _refused(self, sentence: str) -> None:
        self.notified.emit("error", sentence, None)

    def _runner_changed(self, what: str) -> None:
        self.changed.emit(what)
        if what == "result":
            self.update_estimate()  # from now on with the speed and the diameter of a real run
        if what == "state":
            self._move_outlines()  # the inputs may have been changed while a run went on

    def _runner_notified(self, severity: str, sentence: str, error: Exception | None) -> None:
        self.notified.emit(severity, sentence, error)

    def _reduction_changed(self) -> None:
        self.changed.emit("reduction")
        if self.volumes.reduction is not None:
            self.update_estimate()
        self.changed.emit("pending")

    # --- the model ---------------------------------------------------------------------------------------------------

    @property
    def card(self) -> ModelCard | None:
        """Card of the chosen model; ``None`` for a file without one."""
        return self.volumes.card(self.get("model"), self.machine.models if self.machine else ())

    @property
    def for_volumes(self) -> bool:
        """Whether the chosen model is one for volumes."""
        return self.card is not None and self.card.volume is not None

    @property
    def has_flows(self) -> bool:
        """Whether the chosen model has flows: all do but those for volumes with another head."""
        return self.card is None or self.card.volume is None or self.card.volume.head == "flows"

    @property
    def has_depth(self) -> bool:
        """Whether the chosen image has more than one plane along Z."""
        image, mapping = self.images.snapshot, self.images.mapping
        if image is None or mapping is None or "Z" not in mapping.order:
            return False
        return image.shape[mapping.order.index("Z")] > 1

    def _follow_image(self) -> None:
        """Take the default model of the image's kind, unless the user has chosen one."""
        if self.settings.model_chosen or self.machine is None or self.images.mapping is None:
            return
        name = default_model(self.machine.models, has_depth=self.has_depth)
        if name is not None and name != self.get("model"):
            self.settings = self.settings.replace(config=self.settings.config.replace(model=name))
            self.changed.emit("parameters")

    # --- parameters --------------------------------------------------------------------------------------------------

    def get(self, *path: str) -> Any:
        """Return a parameter, for example ``get("flows", "n_steps")``."""
        return get_value(self.settings.config, path)

    def set(self, *path: str, value: Any) -> bool:
        """Change a parameter; one out of range is told and not taken.

        Returns
        -------
        bool
            Whether the value was taken.
        """
        try:
            config = with_value(self.settings.config, path, value)
        except ConfigError as error:
            self.notified.emit("error", str(error), None)
            self.changed.emit("parameters")
            return False
        chosen = self.settings.model_chosen or path == ("model",)
        if config != self.settings.config or chosen != self.settings.model_chosen:
            self.settings = self.settings.replace(config=config, model_chosen=chosen)
            self.changed.emit("parameters")
            if path[0] in ("device", "threads"):
                self.look_at_machine()
            self.update_estimate()
            if path in _DECODING or path[0] == "flows":
                self._move_outlines()
        return True

    @property
    def outlines_follow(self) -> bool:
        """Whether outlines that are moved now are shown on the labels of the last run."""
        image = self.images.snapshot
        return self.for_volumes and image is not None and self.runner.outlines.fits(image)

    def _move_outlines(self) -> None:
        if self.state == "ready" and self.outlines_follow:
            self.runner.outlines.ask(self.run_config())
            self.changed.emit("pending")

    def set_option(self, **values: Any) -> None:
        """Change what is kept beside the parameters: layers to show, rerun, folding."""
        self.settings = self.settings.replace(**values)
        self.changed.emit("parameters")

    def reset_parameters(self) -> None:
        """Return to the defaults of every parameter."""
        self.settings = self.settings.replace(config=SegmentConfig(), model_chosen=False)
        self._follow_image()
        self.changed.emit("parameters")
        self.look_at_machine()
        self.update_estimate()
        self._move_outlines()

    def run_config(self) -> SegmentConfig:
        """Return the complete configuration of a run on the chosen layer."""
        config, volumes = self.settings.config, self.for_volumes
        keep = self.settings.show_probability or self.settings.show_flows or volumes
        # A way to segment stacks that was chosen for models of planes means nothing to one for volumes.
        mode = "auto" if volumes or config.dimensionality == "volume" else config.dimensionality
        return config.replace(
            axes=self.images.mapping, spacing_um=self.images.spacing.um, keep_flows=keep, dimensionality=mode
        )

    def export_config(self, path: Path | str) -> bool:
        """Write the configuration of the run as JSON, for ``aprcnn segment --config`` or another session."""
        try:
            write_text(self.run_config().to_json() + "\n", path, overwrite=True)
        except OutputError as error:
            self.notified.emit("error", str(error), None)
            return False
        self.notified.emit("info", f"the run's configuration is in {path}", None)
        return True

    def load_config(self, path: Path | str) -> bool:
        """Take the parameters of a configuration or run file; axes and voxel size only where they fit the layer."""
        try:
            config = SegmentConfig.from_file(path)
        except ConfigError as error:
            self.notified.emit("error", str(error), None)
            return False
        self.settings = self.settings.replace(config=config.replace(axes=None, spacing_um=None), model_chosen=True)
        image = self.images.snapshot
        if image is not None and config.axes is not None and len(config.axes.order) == len(image.shape):
            self.images.set_axes(config.axes.order, config.axes.channel)
        if config.spacing_um is not None:
            self.images.set_spacing(config.spacing_um)
        self.changed.emit("parameters")
        self.look_at_machine()
        self.update_estimate()
        self._move_outlines()
        return True

    def remember(self) -> None:
        """Write the settings for the next session."""
        if self.preferences.remember:
            save_settings(self.settings)

    # --- what the backend says ---------------------------------------------------------------------------------------

    def look_at_machine(self) -> None:
        """Find the models and the device in use, in the background."""
        device, threads, machine = self.get("device"), self.get("threads"), self.backend.machine
        self._ask("machine", lambda: machine(device, threads), self._machine_found)

    def _machine_found(self, outcome: Outcome) -> None:
        self.machine_problem = "" if outcome.error is None else str(outcome.error)
        if outcome.error is None:
            self.machine = outcome.value
            self._follow_image()
            self.update_estimate()
        self.changed.emit("machine")
        self.changed.emit("state")

    def update_estimate(self) -> None:
        """Estimate time and memory of a run, in the background."""
        image = self.images.snapshot
        if image is None or self.problem:
            self._tasks.pop("estimate", None)
            self.volumes.forget()
            self.estimate_words = ""
            self.changed.emit("estimate")
            self.changed.emit("state")
            return
        config, estimate = self.run_config(), self.backend.estimate
        shape, dtype, diameter = image.shape, image.data.dtype, self.runner.found_diameter(image.name)
        self.volumes.watch(image, config.axes, config, self.card)
        prr = self.volumes.reduction.prr if self.volumes.reduction is not None else None
        self._ask("estimate", lambda: estimate(shape, dtype, config, diameter, prr), self._estimated)
        self.changed.emit("state")

    def _estimated(self, outcome: Outcome) -> None:
        self.estimate_words = str(outcome.value) if outcome.error is None else str(outcome.error)
        self.changed.emit("estimate")

    def _ask(self, name: str, question: Callable[[], Any], answer: Callable[[Outcome], None]) -> None:
        job = Job(question)
        self._tasks[name] = (job, answer)  # an older question of that name is forgotten
        self._launch(job.run)
        self.changed.emit("pending")

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """``ready``, ``running`` or ``cancelling``."""
        return self.runner.state

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self.runner.busy or self.runner.outlines.pending or self.volumes.pending or bool(self._tasks)

    @property
    def problem(self) -> str:
        """Why a run cannot start, or an empty string."""
        if self.images.problem or not self.for_volumes or self.has_depth:
            return self.images.problem
        return (
            f"The model {self.get('model')} is for volumes and this image is a plane. "
            "Choose a FasterCellpose model, or say under Axes which axis is Z."
        )

    def segment(self) -> None:
        """Start a run on the whole image."""
        self._start(preview=False)

    def preview(self) -> None:
        """Start a run on what the camera shows: one plane, in 2D."""
        self._start(preview=True)

    def _start(self, *, preview: bool) -> None:
        image, mapping, layer = self.images.snapshot, self.images.mapping, self.images.layer
        if self.state != "ready":
            return
        if image is None or mapping is None or layer is None or (self.problem and not preview):
            self.notified.emit("error", self.problem, None)
            return
        config = self.run_config()
        if preview and self.for_volumes:
            self.notified.emit("error", "a model for volumes has no preview of a plane; crop the image to try it", None)
            return
        if preview:
            self.runner.preview(layer, image, mapping, config)
            return
        self.remember()
        settings, volumes = self.settings, self.for_volumes
        show = Show(
            probability=settings.show_probability,
            flows=settings.show_flows,
            has_flows=self.has_flows,
            levels=volumes and settings.show_levels,
            reconstruction=volumes and settings.show_reconstruction,
            particles=volumes and settings.show_particles,
            rerun=settings.rerun,
        )
        self.runner.segment(image, mapping, config, show=show, live=self.preferences.live_labels)

    def cancel(self) -> None:
        """Ask the run to stop. Provisional labels go at once; the dock is ready when the run has stopped."""
        self.runner.cancel()

    def poll(self) -> None:
        """Take what the threads have ready; call it on the GUI thread, about 30 times a second."""
        for name, (task, answer) in list(self._tasks.items()):
            if task.outcome is not None and self._tasks.get(name, (None,))[0] is task:
                del self._tasks[name]
                answer(task.outcome)
        self.volumes.poll()
        self.runner.poll()

    def close(self) -> None:
        """Forget the viewer: the run is asked to stop and its result will not be shown."""
        if self._closed:
            return
        self._closed = True
        stop_listening(self._viewer, self)
        events.calibrated.disconnect(self.update_estimate, missing_ok=True)
        self.remember()
        self._tasks.clear()
        self.volumes.forget()
        self.runner.close()
        self.images.close()
