"""What a run will take, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.zoo import card_of
from napari_aprcnn.segment.memory import words_bytes
from napari_aprcnn.segment.pipeline import memory_budget, resolve_mode
from napari_aprcnn.segment.plan import Task, cost_of, make_plan
from napari_aprcnn.segment.scale import scale_for
from napari_aprcnn.segment.source import map_image
from napari_aprcnn.segment.speeds import speeds
from napari_aprcnn.segment.volume_plan import DENSE_PRR, TYPICAL_PRR, margin_of, on_voxels, plan_volume, row_bytes
from napari_aprcnn.segment.volume_run import pace_of

if TYPE_CHECKING:
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.segment.plan import Plan
    from napari_aprcnn.segment.source import MappedImage
    from napari_aprcnn.segment.volume_plan import VolumePlan

__all__ = ["Estimate", "estimate"]

FIRST_PASS_PX = 512 * 512


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    memory_bytes
        Peak memory that the run adds to the process.
    seconds
        Time: from the speed of earlier runs in this process, else a typical one of two threads.
    tile_px, n_tiles, n_blocks
        How it will be cut; more than one block where the whole does not fit the memory.
    words
        The same in words.
    """

    memory_bytes: int
    seconds: float | None
    tile_px: int
    n_tiles: int
    n_blocks: int
    words: str


@dataclass(frozen=True)
class _Shape:
    """An image of which only the shape is known."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, _index: object) -> object:
        raise TypeError("a shape has no voxels")


def estimate(
    shape: Sequence[int],
    dtype: Any,
    config: SegmentConfig,
    *,
    diameter_px: float | None = None,
    prr: float | None = None,
) -> Estimate:
    """Say what a run will take, without reading an image or loading a network.

    Parameters
    ----------
    shape, dtype
        Of the image.
    config
        Parameters of the run.
    diameter_px
        Diameter where it is known from an earlier run; else the configuration's, else the one that the network was
        trained at. Networks for volumes do not look at it.
    prr
        Voxels a particle as measured (`measure_reduction`), for networks for volumes; ``None``: a typical number.

    Raises
    ------
    ImageError, AxesError, ImageDtypeError
        If such an image cannot be segmented.
    ConfigError
        If the network cannot do what was asked for.
    NotEnoughMemoryError
        If the run would not fit the memory however it is cut.

    Examples
    --------
    >>> from napari_aprcnn.config import SegmentConfig
    >>> estimate((1024, 1024), "uint16", SegmentConfig()).n_blocks
    1
    """
    source = map_image(_Shape(tuple(int(n) for n in shape), np.dtype(dtype)), config.axes)
    mode = resolve_mode(config, source)
    if mode == "volume":
        return _estimate_volume(source, config, prr)
    architecture, trained_px = _model(config.model)
    known = diameter_px or config.diameter_px
    scale = scale_for(known, trained_px, config.spacing_um)
    task = Task(
        mode,
        source.n_times,
        source.shape,
        scale,
        known or trained_px,
        architecture,
        config.device != "cpu" and _gpu(config.device),
    )
    plan = make_plan(task, config.tiles, budget=memory_budget(config), keep_flows=config.keep_flows)
    seconds = plan.seconds
    if known is None:
        first_px = min(FIRST_PASS_PX, plan.network_px)
        seconds += speeds().diameter_s + first_px * cost_of(architecture).seconds_per_px
    return _worded(plan, seconds)


def _worded(plan: Plan | VolumePlan, seconds: float, more: str = "") -> Estimate:
    blocks = f", in {len(plan.blocks)} blocks" if len(plan.blocks) > 1 else ""
    words = f"about {_time(seconds)}, {words_bytes(plan.memory_bytes)} on this machine{blocks}{more}"
    return Estimate(plan.memory_bytes, seconds, plan.tile_px, plan.n_tiles, len(plan.blocks), words)


def _estimate_volume(source: MappedImage, config: SegmentConfig, prr: float | None) -> Estimate:
    net = card_of(config.model).volume
    if net is None:
        raise ConfigError(f"the card of the model {config.model!r} describes no network for volumes; choose another")
    options = config.volume
    pixels = on_voxels(net, options)
    plan = plan_volume(
        source.shape,
        n_times=source.n_times,
        margin=margin_of(net, options.zoom),
        budget=memory_budget(config),
        per_row=row_bytes(net, options, config.precision),
        prr=1.0 if pixels else DENSE_PRR,
        known_prr=None if pixels else prr or TYPICAL_PRR,
        zoom=options.zoom,
        head=net.head,
        keep=config.keep_flows,
        moved=options.grow_vox != 0,
    )
    guess = "" if pixels or prr is not None else f" (for a typical PRR of {TYPICAL_PRR:g})"
    return _worded(plan, plan.seconds * pace_of(config.model, config.device), guess)


def _model(name: str) -> tuple[str, float]:
    from napari_aprcnn.models.zoo import list_models

    for card in list_models():
        if card.name == name:
            return card.architecture, float(card.diameter_px)
    return "", 25.0


def _gpu(device: str) -> bool:
    import torch

    return device != "auto" or torch.cuda.is_available()


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
