"""Fitting a network of the Cellpose family: checkpoints, resume, averaged weights, a log."""

from __future__ import annotations

import csv
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.errors import CancelledError
from napari_aprcnn.io.atomic import beside
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.train.checkpoint import START, RunState, facts_of, weights_digest
from napari_aprcnn.train.losses import flow_loss

__all__ = ["LabelObjective", "Sampler", "TrainStep", "Watch", "fit", "learning_rate"]

LOG = "log.csv"
_COLUMNS = ["step", "flow_loss", "probability_loss", "learning_rate", "seconds_per_step"]


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """What is told of a training as it goes: means over the steps since the last report.

    Attributes
    ----------
    step, n_steps
        Steps done and in all.
    flow_loss, probability_loss
        The two parts of the loss.
    learning_rate
        Of the last step.
    seconds_per_step, seconds_left
        Wall time.
    """

    step: int
    n_steps: int
    flow_loss: float
    probability_loss: float
    learning_rate: float
    seconds_per_step: float
    seconds_left: float


class Sampler(Protocol):
    """Source of batches: a pure function of step and size."""

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, Any]:
        """Return (size, H, W) float32 images and what the objective wants of them."""
        ...


class LabelObjective(torch.nn.Module):
    """What is minimised: the loss of flows and probability. Others may have parameters, which are trained beside."""

    def forward(self, module: CellposeFamily, inputs: torch.Tensor, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of the flows (and whatever else) and that of the probability; their sum is trained."""
        return flow_loss(module(inputs)[0], target)


@dataclass(frozen=True)
class Watch:
    """A look at the averaged network in the course of a training.

    Attributes
    ----------
    every
        Steps between two looks.
    look
        Told the steps done and the network in evaluation mode; ends the training by returning ``True``.
    """

    every: int
    look: Callable[[int, CellposeFamily], bool]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to 1 % of the rate."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.n_steps))
    return config.learning_rate * rise * fall


class _Average:
    """Exponential running average of parameters; buffers (BatchNorm statistics) likewise, counters as they are."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        # The values of a state are views: they change with the module.
        self.followed = dict(module.state_dict())
        self.state = {name: value.detach().clone() for name, value in self.followed.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        # Young averages forget faster, or the random initialisation would linger.
        keep = min(self.decay, (1 + step) / (10 + step))
        moving = [name for name, value in self.followed.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[n] for n in moving], [self.followed[n] for n in moving], 1 - keep)
        for name in self.followed.keys() - set(moving):
            self.state[name].copy_(self.followed[name])


class _Numbered(Dataset[Any]):
    """The batches of a sampler by their number."""

    def __init__(self, sampler: Sampler, size: int) -> None:
        self.sampler, self.size = sampler, size

    def __getitem__(self, step: int) -> tuple[torch.Tensor, Any]:
        return self.sampler.batch(step, self.size)


def _batches_of(sampler: Sampler, config: TrainConfig, start: int, workers: int) -> Iterator[tuple[torch.Tensor, Any]]:
    """Batches from `start` on: by a thread, or by processes."""
    if workers == 0:
        return _batches(sampler, config, start)
    # A fork shares the images; the workers leave the GPU alone.
    how = "fork" if sys.platform == "linux" else None
    numbers = range(start, config.n_steps)
    return iter(
        DataLoader(
            _Numbered(sampler, config.batch_size), batch_size=None, sampler=numbers, num_workers=workers,
            prefetch_factor=4, multiprocessing_context=how, in_order=True,
        )
    )  # fmt: skip


def _batches(sampler: Sampler, config: TrainConfig, start: int) -> Iterator[tuple[torch.Tensor, Any]]:
    """Batches from `start` on, prepared one ahead in a thread."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=3)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for step in range(start, config.n_steps):
                put(sampler.batch(step, config.batch_size))
                if stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - carried over to the training's thread
            put(error)

    thread = threading.Thread(target=work, name="crops", daemon=True)
    thread.start()
    try:
        for _ in range(start, config.n_steps):
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=10)


def fit(
    sampler: Sampler,
    *,
    config: TrainConfig,
    run_dir: Path | str,
    initial: dict[str, torch.Tensor] | None = None,
    objective: torch.nn.Module | None = None,
    watch: Watch | None = None,
    key: Mapping[str, str] | None = None,
    device: str = "cpu",
    workers: int = 0,
    checkpoint_seconds: float = 120.0,
    report_every: int = 50,
    progress: Callable[[TrainStep], None] = lambda _: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> CellposeFamily:
    """Train a network, or go on with a training that was interrupted.

    Parameters
    ----------
    sampler
        Source of the batches.
    config
        The training.
    run_dir
        Folder of the checkpoint and the log; if it holds a checkpoint of the same configuration, start and `key`, the
        training goes on from there and ends as if it had never stopped; the log, too.
    initial
        State to start from instead of random weights.
    objective
        What is minimised; ``None``: `LabelObjective`.
    watch
        A look at the network now and then, which may end the training.
    key
        Whatever else must be the same for a checkpoint to be gone on from, as text by name.
    device
        As `resolve_device` takes it. A training may go on on another device, without the same bits.
    workers
        Processes that prepare batches; 0: a thread, which is enough for a CPU.
    checkpoint_seconds
        Wall time between checkpoints.
    report_every
        Steps between calls of `progress` and lines of the log.
    progress, should_cancel
        Told every `report_every` steps; asked at every step.

    Returns
    -------
    CellposeFamily
        The averaged weights, in evaluation mode, on the CPU.

    Raises
    ------
    TrainingDataError
        If the folder holds a checkpoint of another configuration, start or `key`, or a damaged one.
    DeviceError
        If the device cannot be used.
    CancelledError
        If `should_cancel` said yes; a checkpoint was written first.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    on = resolve_device(device).torch_device
    module = CellposeFamily(config.architecture)
    module.to(device=on, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if initial is not None:
        module.load_state_dict(initial)
    objective = (LabelObjective() if objective is None else objective).to(on)
    parameters = [p for part in (module, objective) for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    average = _Average(module, config.ema_decay)
    facts = {**facts_of(config), START: weights_digest(initial), **(key or {})}
    run = RunState(run_dir, config, module, objective, optimiser, average.state, facts)
    start = run.resume()
    _cut_log(run_dir / LOG, start)
    module.train()
    window: list[torch.Tensor] = []
    saved = told = time.monotonic()
    for step, (images, target) in enumerate(_batches_of(sampler, config, start, workers), start):
        rate = learning_rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        window.append(_step(module, objective, images.to(on), _moved(target, on), optimiser, parameters, config))
        average.update(step)
        now, done = time.monotonic(), step + 1
        if done % report_every == 0 or done == config.n_steps:
            flow, probability = torch.stack(window).double().mean(0).tolist()
            pace = (now - told) / len(window)
            report = TrainStep(
                step=done,
                n_steps=config.n_steps,
                flow_loss=flow,
                probability_loss=probability,
                learning_rate=rate,
                seconds_per_step=pace,
                seconds_left=pace * (config.n_steps - done),
            )
            _log(run_dir / LOG, report)
            progress(report)
            window, told = [], now
        ended = (
            watch is not None
            and (done % watch.every == 0 or done == config.n_steps)
            and watch.look(done, run.averaged())
        )
        cancelled = should_cancel()
        if ended or cancelled or now - saved > checkpoint_seconds or done == config.n_steps:
            run.save(done, ended=ended)
            saved = now
        if ended:
            break
        if cancelled:
            raise CancelledError(f"the training was cancelled at step {done}; run it again to go on from {run_dir}")
    return run.averaged()


def _step(
    module: CellposeFamily,
    objective: torch.nn.Module,
    images: torch.Tensor,
    target: Any,
    optimiser: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    config: TrainConfig,
) -> torch.Tensor:
    """One step; the two losses, left where they are: asking for them would wait for the device."""
    inputs = network_input(images, second_channel=config.second_channel).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        flow, probability = objective(module, inputs, target)
    optimiser.zero_grad(set_to_none=True)
    (flow + probability).backward()
    torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    optimiser.step()
    return torch.stack([flow.detach().float(), probability.detach().float()])


def _moved(target: Any, device: torch.device) -> Any:
    """Tensors, and tuples of tensors and other things, on a device."""
    if isinstance(target, torch.Tensor):
        return target.to(device)
    return type(target)(_moved(part, device) for part in target) if isinstance(target, tuple | list) else target


def _cut_log(path: Path, start: int) -> None:
    """Drop the lines of steps that were made after the checkpoint, and are made again; and a line that was cut off."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as handle:
        rows = list(csv.reader(handle))
    kept = [row for row in rows if len(row) == len(_COLUMNS) and row[0].isdecimal() and int(row[0]) <= start]
    if [_COLUMNS, *kept] == rows:
        return
    with beside(path, overwrite=True) as part, part.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([_COLUMNS, *kept])


def _log(path: Path, report: TrainStep) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if fresh:
            writer.writerow(_COLUMNS)
        writer.writerow(
            [
                report.step,
                f"{report.flow_loss:.5f}",
                f"{report.probability_loss:.5f}",
                f"{report.learning_rate:.3e}",
                f"{report.seconds_per_step:.4f}",
            ]
        )
