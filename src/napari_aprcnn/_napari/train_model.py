"""The Training dock without its widgets: what is trained, on what, from where, and how far it is.

Works on a `napari.components.ViewerModel` and with a stand-in for the process, so it is tested without Qt. Views listen
to `changed` and `notified` and call `poll` from the GUI thread while `pending` is true.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_aprcnn._napari.fields import get_value, with_value
from napari_aprcnn._napari.model_choice import choose_model
from napari_aprcnn._napari.train_data_model import TrainData
from napari_aprcnn._napari.train_runner import Child, TrainRunner, TrainState
from napari_aprcnn._napari.train_settings import (
    FINE_TUNING,
    FROM_SCRATCH,
    TrainSettings,
    load_train_settings,
    save_train_settings,
)
from napari_aprcnn._napari.train_sources import PathSource
from napari_aprcnn._napari.train_words import conflict_words, plan_words, time_words
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.models.cards import ModelCard, read_card
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.zoo import list_models
from napari_aprcnn.train.extras import missing_extras, need_extras
from napari_aprcnn.train.process import TrainingProcess
from napari_aprcnn.train.run_lock import need_free
from napari_aprcnn.train.volume_request import Checkpoint, TrainRequest, find_checkpoint, read_request, set_aside
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = ["TrainModel"]


class TrainModel:
    """State and actions of the Training dock.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    launch
        Runs a callable in another thread; tests call it in place.
    start_child
        Starts the process that trains, given the folder of the run.
    models
        Lists the cards of the zoo.
    settings
        ``None``: those of the last session.

    Attributes
    ----------
    data
        What is trained on.
    runner
        The training that goes on, its curves and what it made.
    models
        Cards of the models for volumes that can be gone on from.
    checkpoint
        What an interrupted training of this name has left, or ``None``.
    changed : Signal(str)
        ``layers``, ``rows``, ``parameters``, ``run``, ``state``, ``progress``, ``epochs``, ``pending``.
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
        start_child: Callable[[Path], Child] = TrainingProcess,
        models: Callable[[], list[ModelCard]] = list_models,
        settings: TrainSettings | None = None,
    ) -> None:
        self.settings = settings or load_train_settings()
        self.models = [card for card in models() if card.volume is not None]
        self.checkpoint: Checkpoint | None = None
        self._run_problem = ""
        self._closed = False
        self._viewer = viewer
        self.data = TrainData(viewer)
        self.runner = TrainRunner(launch=launch, start_child=start_child)
        for path in self.settings.paths:
            if Path(path).exists():  # what has gone since the last session is no error of this one
                self.data.rows.append(PathSource(Path(path)))
        self.data.changed.connect(self._data_changed)
        self.data.refused.connect(self._refused)
        self.runner.changed.connect(self._runner_changed)
        self.runner.notified.connect(self._runner_notified)
        start = self.settings.start
        if start is None or (start and self._card(start) is None):
            self.choose_start(self.models[0].name if self.models else "")
        self.look_at_run()

    # --- parameters --------------------------------------------------------------------------------------------------

    def get(self, *path: str) -> Any:
        """Return a parameter of the training, for example ``get("network", "channels")``."""
        return get_value(self.settings.config, path)

    def set(self, *path: str, value: Any) -> bool:
        """Change a parameter; one out of range is told and not taken."""
        return self._try(lambda: self.settings.replace(config=with_value(self.settings.config, path, value)))

    def set_option(self, **values: Any) -> bool:
        """Change what is kept beside the parameters: name, folder, mixing, device, folding."""
        return self._try(lambda: self.settings.replace(**values))

    def _try(self, change: Callable[[], TrainSettings]) -> bool:
        try:
            settings = change()
        except ConfigError as error:
            self._refused(str(error))
            self.changed.emit("parameters")
            return False
        if settings != self.settings:
            self.settings = settings
            self.look_at_run()
            self.changed.emit("parameters")
        return True

    @property
    def form(self) -> str:
        """``auto``, ``apr``, ``pixel`` or ``hybrid1`` ..."""
        return "auto" if self.settings.auto_form else self.settings.config.network.form

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that the network can have."""
        return ("auto", "apr", "pixel", *(f"hybrid{k}" for k in range(1, self.settings.config.network.depth + 1)))

    def choose_form(self, form: str) -> bool:
        """Choose between particles, voxels, both, and what is expected to be fastest on the data (``auto``)."""
        if form == "auto":
            return self.set_option(auto_form=True)
        stages = None if form == "apr" else form.removeprefix("hybrid").replace("pixel", "0")
        path = ("network", "particle_stages")
        return self._try(
            lambda: self.settings.replace(config=with_value(self.settings.config, path, stages), auto_form=False)
        )

    def choose_head(self, head: str) -> bool:
        """Choose how nuclei are told apart: ``flows``, ``stardist`` or ``three_class``.

        A model to start from that has another head gives its body; the new head begins at random. StarDist's rays are
        spread for the voxel size of the first pair of layers that tells one.
        """
        return self._try(lambda: self.settings.replace(config=self._with_rays({"head": head})))

    def _with_rays(self, changes: dict[str, Any]) -> VolumeTrainConfig:
        network = self.settings.config.network.replace(**changes)
        spacing = self.data.spacing_um
        if network.head == "stardist" and network.ray_spacing == (1.0, 1.0, 1.0) and spacing:
            network = network.replace(ray_spacing=spacing)
        return self.settings.config.replace(network=network)

    def choose_start(self, start: str) -> bool:
        """Choose the model to start from, by name or file; empty: from scratch. Its network is taken over."""
        network = VolumeNetConfig(head="flows", in_channels=2)
        if start:
            card = self._card(start)
            if card is None or card.volume is None:
                self._refused(f"{start} is no model for volumes; choose one that this dock has trained")
                self.changed.emit("parameters")
                return False
            network = card.volume
        before = FINE_TUNING if self.settings.start else FROM_SCRATCH
        defaults = FINE_TUNING if start else FROM_SCRATCH
        # What the user has changed stays.
        changes = {name: value for name, value in defaults.items() if self.get(name) == before[name]}
        config = self.settings.config.replace(network=network, **changes)
        return self._try(lambda: self.settings.replace(config=config, start=start))

    def _card(self, start: str) -> ModelCard | None:
        known = next((card for card in self.models if card.name == start), None)
        if known is not None or not Path(start).is_file():
            return known
        try:
            return read_card(Path(start).with_suffix(".json"))
        except AprcnnError:
            return None

    # --- what would happen -------------------------------------------------------------------------------------------

    def request(self) -> TrainRequest:
        """Return the training as it is chosen, without the pairs of layers.

        Raises
        ------
        ConfigError
            If the name cannot be one of files.
        """
        settings = self.settings
        config = settings.config if settings.mix else settings.config.replace(simulated=0.0)
        return TrainRequest(
            output=settings.output,
            name=settings.name,
            config=config,
            auto_form=settings.auto_form,
            labelled=self.data.paths(held_back=False),
            validation=self.data.paths(held_back=True),
            initial=settings.start or None,
            accelerator=settings.accelerator,
            data_words=", ".join(["simulated volumes"] * (config.simulated > 0) + self.data.names),
        )

    def look_at_run(self) -> None:
        """Look for an interrupted training of this name."""
        self.checkpoint, self._run_problem = None, ""
        try:
            request = self.request()
            self.checkpoint = find_checkpoint(request.run_dir)
        except AprcnnError as error:
            self._run_problem = str(error)
        else:
            self._run_problem = conflict_words(request, self.checkpoint)
        self.changed.emit("run")

    @property
    def resumable(self) -> bool:
        """Whether Start goes on with an interrupted training."""
        return self.checkpoint is not None and not self._run_problem

    @property
    def blocked(self) -> bool:
        """Whether another training or its result is in the way: there `start_afresh` helps."""
        return bool(self._run_problem) and (self.checkpoint is not None or self.weights is not None)

    @property
    def weights(self) -> Path | None:
        """The model of this name, once it is trained."""
        try:
            path = self.request().weights
        except ConfigError:
            return None
        return path if path.is_file() else None

    @property
    def problem(self) -> str:
        """Why a training cannot start, or an empty string."""
        if missing_extras():
            try:
                need_extras()
            except AprcnnError as error:
                return str(error)[:1].upper() + str(error)[1:] + ", then restart napari."
        if self._run_problem or self.data.problem:
            return self._run_problem or self.data.problem
        if not self.data.rows and not self.settings.mix and not self._stored_data():
            return "Add an image with its labels, a folder or a zip; or mix in simulated volumes."
        return ""

    @property
    def plan_words(self) -> str:
        """What a training would do, in one line."""
        done = self.checkpoint.epoch if self.checkpoint and self.resumable else 0
        trained = any(not row.held_back for row in self.data.rows)
        stored = bool(done) and not trained and self._stored_data()
        pace = self.runner.epochs[-1].seconds_per_step if self.runner.epochs else None
        return plan_words(self.settings, done=done, labels=trained, stored=stored, pace=pace)

    def _stored_data(self) -> bool:
        """Whether an interrupted training has data of its own that can be gone on with."""
        if not self.resumable:
            return False
        try:
            return bool(read_request(self.request().run_dir).labelled)
        except ConfigError:
            return False

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> TrainState:
        """``ready``, ``writing``, ``running`` or ``stopping``."""
        return self.runner.state

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self.runner.busy

    def start(self) -> bool:
        """Start a training, or go on with the one that was interrupted."""
        if self.state != "ready":
            return False
        self.look_at_run()
        if self.problem:
            self._refused(self.problem)
            return False
        try:
            request = self.request()
            need_free(request.run_dir, request.name)
            trained, held_back = (self.data.snapshots(held_back=held) for held in (False, True))
            if not self.data.rows and self._stored_data():
                stored = read_request(request.run_dir)
                request = request.replace(labelled=stored.labelled, validation=stored.validation)
        except AprcnnError as error:
            self._refused(str(error))
            return False
        self.remember()
        self.runner.start(request, trained, held_back)
        return True

    def stop(self) -> None:
        """Stop the training; the last whole epoch is kept."""
        self.runner.stop()

    def start_afresh(self) -> bool:
        """Move the former training of this name out of the way; nothing is deleted."""
        if self.state != "ready":
            return False
        try:
            need_free(self.request().run_dir, self.settings.name)
            old = set_aside(self.request())
        except AprcnnError as error:
            self._refused(str(error))
            return False
        self.notified.emit("info", f"the former training is in {old}", None)
        self.look_at_run()
        return True

    def take_former(self) -> bool:
        """Take the parameters of the training that is there under this name, to go on with it."""
        try:
            request = read_request(self.request().run_dir)
        except AprcnnError as error:
            self._refused(str(error))
            return False
        mix = request.config.simulated > 0
        config = request.config if mix else request.config.replace(simulated=self.settings.config.simulated)
        start, auto = request.initial or "", request.auto_form
        return self._try(lambda: self.settings.replace(config=config, auto_form=auto, mix=mix, start=start))

    def use_model(self) -> bool:
        """Make the trained model that of the Segment dock; returns whether one is open."""
        return self.weights is not None and choose_model(self.weights, self._viewer)

    @property
    def progress_words(self) -> str:
        """How far the training is and how long it takes."""
        step = self.runner.step
        if self.state != "running":
            return {"stopping": "stopping after the step in work", "writing": "writing the layers"}.get(self.state, "")
        if step is None:
            return "starting: loading the network, making the first crops"
        left = time_words(step.seconds_left)
        return f"epoch {step.epoch} of {step.epochs}, step {step.step} of {step.steps}, {left} left"

    @property
    def fraction(self) -> float:
        """Share of the steps that is done, 0..1."""
        step = self.runner.step
        return 0.0 if step is None else min(1.0, step.step / step.steps)

    def poll(self) -> None:
        """Take what thread and process have ready; call it on the GUI thread, about ten times a second."""
        self.runner.poll()

    def remember(self) -> None:
        """Write the settings for the next session."""
        paths = tuple(str(row.path) for row in self.data.rows if isinstance(row, PathSource))
        save_train_settings(self.settings.replace(paths=paths))

    def close(self) -> None:
        """Forget the viewer: the training is asked to stop, its last whole epoch is kept."""
        if self._closed:
            return
        self._closed = True
        self.remember()
        self.runner.close()
        self.data.close()

    # --- passing on --------------------------------------------------------------------------------------------------

    def _data_changed(self, what: str) -> None:
        if what == "rows" and (config := self._with_rays({})) != self.settings.config:
            self._try(lambda: self.settings.replace(config=config))
        self.changed.emit(what)
        self.changed.emit("run")

    def _refused(self, sentence: str) -> None:
        self.notified.emit("error", sentence[:1].upper() + sentence[1:], None)

    def _runner_changed(self, what: str) -> None:
        if what == "state" and self.state == "ready":
            self.look_at_run()
        self.changed.emit(what)

    def _runner_notified(self, severity: str, sentence: str, error: Exception | None) -> None:
        self.notified.emit(severity, sentence, error)
