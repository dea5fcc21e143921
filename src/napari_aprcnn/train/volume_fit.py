"""Fitting a network for volumes with lightning: checkpoints, resume, averaged weights, logs."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import Dataset

from napari_aprcnn.errors import CancelledError, TrainingError
from napari_aprcnn.io.atomic import make_folder
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.models.volumes import VolumeNet, share_weights
from napari_aprcnn.nn import ParticleTensor, Reconstruct
from napari_aprcnn.train.reports import EpochReport, StepReport
from napari_aprcnn.train.simulation import SimulationConfig
from napari_aprcnn.train.volume_checkpoint import BEST, NOTE, lengths_of, mark_of_weights, note_of, read_resumed
from napari_aprcnn.train.volume_checks import check_training
from napari_aprcnn.train.volume_crops import Crop, VolumeCrops
from napari_aprcnn.train.volume_heads import head_loss, voxel_targets
from napari_aprcnn.train.volume_identity import Identity, mark_of_images, mark_of_simulations
from napari_aprcnn.train.volume_metrics import add_metrics, begin_metrics
from napari_aprcnn.train.volume_request import LAST, note_checkpoint
from napari_aprcnn.train.volume_settings import VolumeTrainConfig
from napari_aprcnn.train.volume_sources import LabelledVolume, SimulatedVolumes
from napari_aprcnn.train.volume_workers import KILLED, CropLoader, EpochNumbers, killed

__all__ = ["EpochReport", "StepReport", "VolumeTask", "fit_volumes"]

_TELL_EVERY = 10
_PACE_OVER = 50


class VolumeTask(lightning.LightningModule):
    """Network, its running average, loss and optimiser.

    Parameters
    ----------
    config
        The training.
    simulated, labelled
        Where crops come from.
    validation
        Labelled images that are not trained on; two crops of each are looked at after every epoch.
    crops
        Crops by number, instead of those of the sources.
    """

    def __init__(
        self,
        config: VolumeTrainConfig,
        simulated: SimulatedVolumes | None,
        labelled: Sequence[LabelledVolume] = (),
        validation: Sequence[LabelledVolume] = (),
        crops: Dataset[Crop] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.crops, self.identity = config, crops, Identity(config, {})
        self.sources = (simulated, list(labelled))
        self.validation = list(validation)
        torch.manual_seed(config.seed)
        self.net = VolumeNet(config.network)
        self.average = VolumeNet(config.network).requires_grad_(False)
        self.average.load_state_dict(self.net.state_dict())
        self.last_losses = (torch.tensor(math.nan), torch.tensor(math.nan))
        self.lengths: tuple[tuple[int, int], ...] = ((0, config.epochs),)
        self.best: dict[str, Tensor] | None = None

    # --- data -----------------------------------------------------------------------------------------------
    def train_dataloader(self) -> CropLoader:
        """Crops of an epoch."""
        config = self.config
        number = config.steps_per_epoch * config.batch_size
        numbers = EpochNumbers(number, config.batch_size, lambda: self.global_step)
        crops = VolumeCrops(config, *self.sources) if self.crops is None else self.crops
        return CropLoader(crops, config.batch_size, numbers=numbers, workers=config.workers)

    def val_dataloader(self) -> CropLoader | list[Any]:
        """Crops of the validation images, the same after every epoch."""
        if not self.validation:
            return []
        config = self.config.replace(rescale=1.0, elastic=0.0, gamma=1.0, noise=0.0, seed=self.config.seed + 1)
        crops = VolumeCrops(config, None, self.validation)
        return CropLoader(crops, self.config.batch_size, numbers=range(2 * len(self.validation)))

    def transfer_batch_to_device(self, batch: list[Crop], device: torch.device, dataloader_idx: int) -> list[Crop]:
        """Leave crops where they are: `losses` moves what it needs."""
        return batch

    # --- steps ----------------------------------------------------------------------------------------------
    def losses(self, net: VolumeNet, crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
        """Two parts of the loss of a batch (see `head_loss`), means over its crops."""
        alike: dict[Any, list[Crop]] = {}
        for crop in crops:
            # Particles of any images make a batch, grids only those of one shape: that of images below the crop's.
            on_grids = net.config.form != "apr" or self.config.loss_on == "voxels"
            alike.setdefault(crop.labels.shape if on_grids else None, []).append(crop)
        found = [pair for part in alike.values() for pair in self._losses(net, part)]
        return torch.stack([f for f, _ in found]).mean(), torch.stack([p for _, p in found]).mean()

    def _losses(self, net: VolumeNet, crops: Sequence[Crop]) -> list[tuple[Tensor, Tensor]]:
        values = [crop.features.to(self.device) for crop in crops]
        x = ParticleTensor.from_trees([crop.tree for crop in crops], values, device=self.device)
        if net.config.hybrid == 0:
            return self._of_voxels(net(Reconstruct()(x)), crops)
        out = net(x)
        if isinstance(out, Tensor):  # the head of a hybrid network on its voxel stages
            return self._of_voxels(out, crops)
        if self.config.loss_on == "voxels":
            return self._of_voxels(Reconstruct()(out), crops)
        return [
            head_loss(net.config, out.item(i), crop.targets.to(self.device), crop.weights.to(self.device))
            for i, crop in enumerate(crops)
        ]

    def _of_voxels(self, out: Tensor, crops: Sequence[Crop]) -> list[tuple[Tensor, Tensor]]:
        found = []
        for image, crop in zip(out, crops, strict=True):
            rows = image.permute(1, 2, 3, 0).reshape(-1, image.shape[0])
            target, weight = voxel_targets(self.config.network, crop.labels)
            found.append(head_loss(self.config.network, rows, target.to(self.device), weight.to(self.device)))
        return found

    def training_step(self, batch: list[Crop], _index: int) -> Tensor:
        """Loss of one step."""
        flow, probability = self.losses(self.net, batch)
        loss = flow + probability
        self.last_losses = (flow.detach(), probability.detach())
        parts = {"loss": loss.detach(), "flow_loss": flow.detach(), "probability_loss": probability.detach()}
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: list[Crop], _index: int) -> None:
        """Loss of the averaged weights."""
        flow, probability = self.losses(self.average, batch)
        self.log("validation_loss", flow + probability, on_epoch=True, batch_size=len(batch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the training is, how far it has come, and its best weights."""
        patience = self.trainer.early_stopping_callback
        waited = 0 if patience is None else patience.wait_count
        checkpoint[NOTE] = note_of(self.identity, self.current_epoch + 1, waited)
        if patience is not None and self.best is not None:
            checkpoint[BEST] = self.best

    def kept(self) -> VolumeNet:
        """The averaged weights that the training is for, in evaluation mode."""
        if self.best is not None:
            self.average.load_state_dict(self.best)
        return self.average.eval()

    def configure_optimizers(self) -> Any:
        """AdamW; a linear rise, then a cosine."""
        config = self.config
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

        def rate(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def on_train_batch_end(self, *_args: Any) -> None:
        """Move the average."""
        # Young averages forget faster, or the random initialisation would linger.
        keep = min(self.config.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        kept, values = self.average.state_dict(), self.net.state_dict()
        moving = [name for name, value in values.items() if value.is_floating_point()]
        torch._foreach_lerp_([kept[name] for name in moving], [values[name] for name in moving], 1 - keep)
        for name in values.keys() - set(moving):
            kept[name].copy_(values[name])


class _Patience(EarlyStopping):
    """Keeps the averaged weights with the best validation, and stops without a better one.

    How long it waits may change when a training goes on.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__("validation_loss", patience=epochs, check_finite=False)  # what is no number is no better

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        before = float(self.best_score)
        super().on_train_epoch_end(trainer, task)
        if isinstance(task, VolumeTask) and float(self.best_score) != before:
            task.best = {name: value.detach().cpu().clone() for name, value in task.average.state_dict().items()}


class _Watch(Checkpoint):
    """Tells of steps and epochs, writes a checkpoint after every epoch, and stops when asked to.

    Lightning calls a `Checkpoint` after all others: what is saved holds what they have counted.
    """

    def __init__(
        self,
        run_dir: Path,
        progress: Callable[[EpochReport], None],
        on_step: Callable[[StepReport], None],
        should_cancel: Callable[[], bool],
    ) -> None:
        self.run_dir, self.progress, self.on_step, self.should_cancel = run_dir, progress, on_step, should_cancel
        self.cancelled, self.started = False, 0.0
        self.times: deque[float] = deque(maxlen=_PACE_OVER + 1)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_args: Any) -> None:
        self.started = time.monotonic()
        self.times.clear()  # the validation is no step
        self.times.append(self.started)

    def on_train_batch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule, *_args: Any) -> None:
        self.times.append(time.monotonic())
        if self.should_cancel():
            self.cancelled = trainer.should_stop = True
        elif isinstance(task, VolumeTask) and (trainer.global_step % _TELL_EVERY == 0 or trainer.global_step == 1):
            self.on_step(self._step_report(trainer, task))

    def _step_report(self, trainer: lightning.Trainer, task: VolumeTask) -> StepReport:
        pace = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        flow, probability = task.last_losses
        return StepReport(
            step=trainer.global_step,
            steps=task.config.steps,
            epoch=trainer.current_epoch + 1,
            epochs=task.config.epochs,
            flow_loss=float(flow),
            probability_loss=float(probability),
            seconds_per_step=pace,
            seconds_left=pace * max(0, task.config.steps - trainer.global_step),
        )

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        # Of a part of an epoch nothing is kept: a resumed training repeats it and ends as if it had never stopped.
        if self.cancelled or not isinstance(task, VolumeTask):
            return
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not math.isfinite(seen["loss"]):
            raise TrainingError(
                f"the loss of epoch {trainer.current_epoch + 1} is no number any more; lower the learning rate and "
                "start afresh (the checkpoint of the epoch before is still there)"
            )
        beside = (self.run_dir / LAST).with_suffix(".part")
        trainer.save_checkpoint(beside)
        beside.replace(self.run_dir / LAST)
        note_checkpoint(self.run_dir, trainer.current_epoch + 1, task.config, task.lengths)
        pace = (time.monotonic() - self.started) / task.config.steps_per_epoch
        report = EpochReport(
            epoch=trainer.current_epoch + 1,
            epochs=task.config.epochs,
            loss=seen["loss"],
            flow_loss=seen["flow_loss"],
            probability_loss=seen["probability_loss"],
            validation_loss=seen.get("validation_loss"),
            seconds_per_step=pace,
            seconds_left=pace * task.config.steps_per_epoch * (task.config.epochs - trainer.current_epoch - 1),
        )
        add_metrics(self.run_dir, report)
        self.progress(report)


def fit_volumes(
    config: VolumeTrainConfig,
    *,
    run_dir: Path | str,
    labelled: Sequence[LabelledVolume] = (),
    validation: Sequence[LabelledVolume] = (),
    simulation: SimulationConfig | Sequence[SimulationConfig] | None = None,
    initial: VolumeNet | None = None,
    crops: Dataset[Crop] | None = None,
    accelerator: str = "cpu",
    progress: Callable[[EpochReport], None] = lambda _: None,
    on_step: Callable[[StepReport], None] = lambda _: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> VolumeNet:
    """Train a network, or go on with a training that was interrupted.

    Parameters
    ----------
    config
        The training.
    run_dir
        Folder of the checkpoint, of the simulated volumes and of the logs (``metrics.csv`` and ``tensorboard``); if it
        holds a checkpoint of the same configuration, data, simulation and start, the training goes on from there and
        ends as if it had never stopped; one that has ended does nothing more. With more `epochs` or `patience` it goes
        on, too; the rate then follows the new length. A training with `patience` keeps what it saw best.
    labelled, validation
        Labelled images to train on, and others to look at after every epoch.
    simulation
        Of the simulated volumes, which take turns where there are several; ``None``: the defaults.
    initial
        Network whose weights to start from; with another head, or other inputs, its body (`share_weights`).
    crops
        Crops by number to train on instead of those that `VolumeCrops` makes, for trainings that share them.
    accelerator
        ``cpu``, ``cuda``, ``cuda:1`` ..., or ``auto``.
    progress, on_step, should_cancel
        Told after every epoch; told after the first and every tenth step; asked after every step.

    Returns
    -------
    VolumeNet
        The averaged weights, in evaluation mode: the last ones, or with `patience` those of the best validation.

    Raises
    ------
    ConfigError
        If there is `patience` and no validation, or more epochs are done than asked for.
    DeviceError
        If the device cannot be used.
    OutputError
        If the folder cannot be written to.
    TrainingDataError
        If there is nothing to train on, an image is too small for the network, or the folder holds a checkpoint that
        is damaged or of another training.
    TrainingError
        If the loss is no number any more, or a process that makes crops was killed.
    CancelledError
        If `should_cancel` said yes; the checkpoint of the last whole epoch is there.
    """
    run_dir = Path(run_dir)
    simulations = (simulation,) if isinstance(simulation, SimulationConfig) else tuple(simulation or ())
    simulations = (simulations or (SimulationConfig(),)) if config.simulated > 0 and crops is None else ()
    check_training(config, labelled if crops is None else (), validation, simulations)
    device = resolve_device(accelerator).torch_device
    make_folder(run_dir)
    simulated = None
    if simulations:
        simulated = SimulatedVolumes(
            run_dir / "simulated", number=config.simulated_volumes, seed=config.seed, config=simulations
        )
    task = VolumeTask(config, simulated, labelled, validation, crops)
    marks = {
        "training images": mark_of_images(labelled if crops is None else ()),
        "validation images": mark_of_images(validation),
        "simulation": mark_of_simulations(simulations),
        "initial weights": mark_of_weights(initial),
    }
    task.identity = Identity(config, marks)
    if initial is not None:
        start = share_weights(initial.state_dict(), initial.config, task.net.state_dict(), config.network)
        task.net.load_state_dict(start)
        task.average.load_state_dict(task.net.state_dict())
    resumed = read_resumed(run_dir / LAST, task.identity) if (run_dir / LAST).exists() else None
    if resumed is not None:
        task.lengths = lengths_of(resumed, run_dir, config.epochs)
        resumed.hand_over(task, run_dir / LAST)
        task.best = resumed.best if config.patience else None
        if resumed.ended(config):
            return task.kept()
    done = 0 if resumed is None else resumed.epoch
    begin_metrics(run_dir, done)
    watch = _Watch(run_dir, progress, on_step, should_cancel)
    callbacks: list[Callback] = [*([_Patience(config.patience)] if config.patience else []), watch]
    # One folder for all parts of a training; of an epoch that is repeated the first part is not shown.
    board = TensorBoardLogger(run_dir, name="tensorboard", version="", purge_step=done * config.steps_per_epoch)
    trainer = lightning.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        max_epochs=config.epochs,
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        gradient_clip_val=config.clip_norm,
        callbacks=callbacks,
        logger=board,
        default_root_dir=run_dir,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    try:
        trainer.fit(task, ckpt_path=None if resumed is None else run_dir / LAST, weights_only=True)
    except SystemExit:  # lightning's answer to SIGTERM and Ctrl-C, with exit codes of its own
        watch.cancelled = True
    except RuntimeError as error:
        if not killed(error):
            raise
        watch.cancelled = should_cancel()  # a Ctrl-C may reach workers first
        if not watch.cancelled:
            raise TrainingError(KILLED) from error
    if watch.cancelled:
        raise CancelledError(f"the training was cancelled; run it again to go on from {run_dir}")
    return task.kept()
