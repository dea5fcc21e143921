"""What is refused before a training on volumes begins. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_aprcnn.errors import ConfigError, OutputError, TrainingDataError
from napari_aprcnn.train.volume_request import find_checkpoint

if TYPE_CHECKING:
    from napari_aprcnn.train.simulation import SimulationConfig
    from napari_aprcnn.train.volume_settings import VolumeTrainConfig
    from napari_aprcnn.train.volume_sources import LabelledVolume

__all__ = ["check_place", "check_training"]


def check_place(weights: Path, run_dir: Path) -> None:
    """Refuse to replace a model that the training in `run_dir` has not made.

    Raises
    ------
    OutputError
        If ``NAME.safetensors`` or its card is there, and no checkpoint in the folder of the run.
    TrainingDataError
        If the folder cannot be looked into.
    """
    if find_checkpoint(run_dir) is not None:
        return
    for path in (weights, weights.with_suffix(".json")):
        if path.exists():
            raise OutputError(
                f"{path} is there already, and {run_dir} holds no training that it came from; give another name, or "
                "move the file away"
            )


def check_training(
    config: VolumeTrainConfig,
    labelled: Sequence[LabelledVolume],
    validation: Sequence[LabelledVolume],
    simulations: Sequence[SimulationConfig],
) -> None:
    """Refuse what would fail, or be ignored, in the middle of a training.

    Raises
    ------
    ConfigError
        If there is `patience` and nothing to look at.
    TrainingDataError
        If an image or a crop is too small for the network.
    """
    if config.patience and not validation:
        raise ConfigError(
            f"got a patience of {config.patience} epochs and no validation images, by which it would end; give some "
            "(--validation), or a patience of 0"
        )
    for item in (*labelled, *validation):
        _check_size(config, f"{item.name} of {item.source}", item.image.shape)
    for one in simulations:
        _check_size(config, "the simulation", one.shape)


def _check_size(config: VolumeTrainConfig, what: str, shape: tuple[int, ...]) -> None:
    net = config.network
    z, y, x = (min(pair) for pair in zip(shape, config.crop, strict=True))
    got = f"{what} has {' x '.join(map(str, shape))} voxels, crops of it {z} x {y} x {x}"
    if max(z, y, x) <= 2**net.depth:
        raise TrainingDataError(
            f"{got}; a network with {net.depth} poolings needs more than {2**net.depth} along one axis: take a larger "
            "image or crop, or fewer poolings"
        )
    if net.head == "stardist" and min(z, y, x) < 2:
        raise TrainingDataError(
            f"{got}; StarDist needs two or more along every axis: take volumes, or the head three_class or flows"
        )
