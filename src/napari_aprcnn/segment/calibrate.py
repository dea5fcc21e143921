"""Measure this machine, so that estimates are its own: a few short runs of the real pipeline on made-up nuclei."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_aprcnn.config import SegmentConfig, VolumeConfig
from napari_aprcnn.errors import CancelledError
from napari_aprcnn.segment.plan import Task, make_plan
from napari_aprcnn.segment.scale import scale_for
from napari_aprcnn.segment.speeds import MachineSpeeds, machine_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.segment.result import SegmentationResult

__all__ = ["calibrate", "made_up_nuclei"]

EDGES = (128, 1024)
DEFAULT_EDGES = (128, 1536)  # of the default model: larger images take less a pixel
LOOK_EDGE = 384
STACK, SMALL_STACK = (24, 160, 160), (24, 72, 72)
VOLUME = (48, 96, 96)
DIAMETER_PX = 25.0
REPEATS = 3
LOOK_S = 0.2

Segment = Callable[..., "SegmentationResult"]


def made_up_nuclei(shape: Sequence[int], *, diameter_px: float = DIAMETER_PX, seed: int = 0) -> NDArray[np.uint16]:
    """Round, blurred spots of one size on a grid that is shaken, with noise: work for a run, nothing to learn from.

    Parameters
    ----------
    shape
        (Y, X) or (Z, Y, X).
    diameter_px
        Of the spots.
    seed
        Of places and noise.

    Returns
    -------
    (*S) uint16

    Examples
    --------
    >>> made_up_nuclei((64, 64)).shape
    (64, 64)
    """
    rng = np.random.default_rng(seed)
    image = np.full(tuple(shape), 100.0, np.float32)
    radius, step = diameter_px / 2, 1.4 * diameter_px
    centres = np.stack(np.meshgrid(*(np.arange(min(step, n) / 2, n, step) for n in shape), indexing="ij"), -1)
    centres = centres.reshape(-1, len(shape)) + rng.uniform(-0.15, 0.15, (centres[..., 0].size, len(shape))) * step
    for centre in centres:
        low = [max(0, int(c - 1.3 * radius)) for c in centre]
        box = tuple(slice(a, a + int(2.6 * radius) + 1) for a in low)
        part = image[box]
        axes = [np.arange(a, a + n) - c for a, n, c in zip(low, part.shape, centre, strict=True)]
        distance = np.sqrt(sum(d**2 for d in np.meshgrid(*axes, indexing="ij", sparse=True)))
        part += rng.uniform(600, 1400) / (1 + np.exp(1.5 * (distance - radius)))
    return rng.poisson(image).astype(np.uint16)


@dataclass
class _Runs:
    """Real runs, their stages, and how far the calibration has got."""

    segment: Segment
    threads: int | None
    n_runs: int
    progress: Callable[[float, str], None] | None
    should_cancel: Callable[[], bool] | None
    done: int = 0
    images: dict[tuple[int, ...], NDArray[np.uint16]] = field(default_factory=dict)

    def best(self, shape: tuple[int, ...], what: str, **config: Any) -> tuple[dict[str, float], SegmentationResult]:
        """Shortest stages of a few runs."""
        image = self.images.setdefault(shape, made_up_nuclei(shape))
        best: dict[str, float] = {}
        for _ in range(REPEATS + 1):  # the first warms up
            if self.should_cancel is not None and self.should_cancel():
                raise CancelledError("the calibration was cancelled; the last one is still in use")
            if self.progress is not None:
                self.progress(self.done / self.n_runs, what)
            result = self.segment(
                image,
                config=SegmentConfig(threads=self.threads, device="cpu", keep_flows=False, **config),
                should_cancel=self.should_cancel,
            )
            self.done += 1
            stages = result.readout.stages
            best = stages if not best else {name: min(t, stages.get(name, t)) for name, t in best.items()}
        return best, result


def calibrate(
    models: Sequence[ModelCard] | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    segment: Segment | None = None,
) -> MachineSpeeds:
    """Measure this machine's speeds on the CPU: some ten seconds.

    Parameters
    ----------
    models
        Cards of the models to measure; ``None``: those of the zoo.
    threads
        Threads of the runs; ``None``: all.
    progress
        Told the share done, 0..1, and in words what is measured.
    should_cancel
        Asked between and within runs.
    segment
        A stand-in for `segment.pipeline.segment`.

    Returns
    -------
    MachineSpeeds
        `segment.speeds.save_speeds` makes estimates use them.

    Raises
    ------
    CancelledError
        On request.
    """
    from napari_aprcnn.models.devices import usable_threads
    from napari_aprcnn.models.zoo import list_models
    from napari_aprcnn.segment import pipeline

    started, busy = time.perf_counter(), _others_busy()
    cards = list(list_models() if models is None else models)
    planar = [card for card in cards if card.volume is None]
    deep = [card for card in cards if card.volume is not None]
    n_runs = (REPEATS + 1) * (len(planar) * len(EDGES) + len(deep) + (4 if planar else 0))
    runs = _Runs(segment or pipeline.segment, threads, n_runs, progress, should_cancel)
    measured = MachineSpeeds()
    network: dict[str, float] = {}
    # The default model last: the first runs of a process also pay for memory that it never had before.
    for card in reversed(planar):
        per_px, pass_s, per_voxel = _planar(runs, card, DEFAULT_EDGES if card is planar[0] else EDGES)
        network[card.architecture] = per_px
        if card is planar[0]:
            measured = measured.replace(pass_s=pass_s, network_s_per_px=network, masks_s_per_px=per_voxel)
            measured = measured.replace(**_first(runs, card, measured))
    pace = {card.name: _pace(runs, card) for card in deep}
    used = threads or usable_threads()
    return measured.replace(
        machine=machine_key(used),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        threads=used,
        network_s_per_px=network,
        volume_pace=pace,
        seconds=time.perf_counter() - started,
        busy=busy,
    )


def _others_busy() -> bool:
    """Whether other programs take more than a tenth of the processors."""
    import psutil

    me = psutil.Process()
    psutil.cpu_percent()
    me.cpu_percent()
    time.sleep(LOOK_S)
    return bool(psutil.cpu_percent() - me.cpu_percent() / (psutil.cpu_count() or 1) > 10.0)


def _work(shape: tuple[int, ...], card: ModelCard, *, stitched: bool = False) -> tuple[int, int]:
    """Pixels of the network and voxels of a run on made-up nuclei."""
    trained = float(card.diameter_px)
    depth, height, width = (1, *shape) if len(shape) == 2 else shape
    scale = scale_for(DIAMETER_PX, trained, None)
    mode: Literal["2d", "planes", "stitch"] = "stitch" if stitched else "2d" if len(shape) == 2 else "planes"
    task = Task(mode, 1, (depth, height, width), scale, DIAMETER_PX, card.architecture)
    plan = make_plan(task, SegmentConfig().tiles, budget=1 << 40, keep_flows=False)
    return plan.network_px, depth * height * width


def _planar(runs: _Runs, card: ModelCard, edges: tuple[int, int] = EDGES) -> tuple[float, float, float]:
    """Seconds a pixel, a pass, and a pixel of the masks, from a small and a large plane."""
    words = f"{card.name}, planes"
    (small, large), (few, many) = zip(
        *((runs.best((e, e), words, model=card.name, diameter_px=DIAMETER_PX)[0], _work((e, e), card)) for e in edges),
        strict=True,
    )
    per_px = max((large["network"] - small["network"]) / max(many[0] - few[0], 1), 1e-10)
    masks = (large.get("masks", 0.0) - small.get("masks", 0.0)) / (many[1] - few[1])
    per_voxel = masks if masks > 0 else max(large.get("masks", 0.0), 1e-6) / many[1]
    pass_s = small["network"] + small.get("masks", 0.0) - per_px * few[0] - per_voxel * few[1]
    return per_px, max(0.0, pass_s), per_voxel


def _first(runs: _Runs, card: ModelCard, so_far: MachineSpeeds) -> dict[str, float]:
    """The first pass that looks for the diameter, and what stacks take more."""
    per_px, pass_s = so_far.network_s_per_px[card.architecture], so_far.pass_s
    found, _ = runs.best((LOOK_EDGE, LOOK_EDGE), "the diameter", model=card.name)
    px, _ = _work((LOOK_EDGE, LOOK_EDGE), card)
    words = f"{card.name}, a stack"
    stack, _ = runs.best(STACK, words, model=card.name, diameter_px=DIAMETER_PX, dimensionality="planes")
    stack_px, voxels = _work(STACK, card)
    small, large = (_stitched(runs, card, shape, so_far) for shape in (SMALL_STACK, STACK))
    per_voxel = max(0.0, (large - small) / (math.prod(STACK[1:]) - math.prod(SMALL_STACK[1:])))
    return {
        "diameter_s": max(0.0, found.get("diameter", 0.0) - per_px * px),
        "masks_s_per_voxel": max(stack.get("masks", 0.0), 1e-6) / voxels,
        "stack_s_per_px": max(0.0, (stack["network"] - pass_s) / stack_px - per_px),
        "stitch_s": max(0.0, small - per_voxel * math.prod(SMALL_STACK[1:])),
        "stitch_s_per_px": per_voxel,
    }


def _stitched(runs: _Runs, card: ModelCard, shape: tuple[int, int, int], so_far: MachineSpeeds) -> float:
    """Seconds a plane beside what any plane takes, where planes are stitched."""
    words = f"{card.name}, planes that are stitched"
    took, _ = runs.best(shape, words, model=card.name, diameter_px=DIAMETER_PX, dimensionality="stitch")
    px, voxels = _work(shape, card, stitched=True)
    usual = so_far.network_s_per_px[card.architecture] * px + so_far.masks_s_per_px * voxels
    seconds = sum(took.get(name, 0.0) for name in ("network", "masks", "stitch"))
    return (seconds - usual) / shape[0] - so_far.pass_s


def _pace(runs: _Runs, card: ModelCard) -> float:
    """How a network for volumes compares with the built-in table."""
    from napari_aprcnn.segment.volume_plan import SECONDS_PER_ROW, SECONDS_PER_VOXEL

    took, result = runs.best(VOLUME, f"{card.name}, a volume", model=card.name, volume=VolumeConfig())
    voxels = int(np.prod(VOLUME)) * result.config.volume.zoom**3
    expected = voxels * (SECONDS_PER_VOXEL + SECONDS_PER_ROW / (result.readout.prr or 1.0))
    return (took.get("network", 0.0) + took.get("masks", 0.0)) / expected
