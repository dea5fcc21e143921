"""What is refused before a training on volumes begins. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_aprcnn.errors import ConfigError, OutputError, TrainingDataError
from napari_aprcnn.train.names import check_name
from napari_aprcnn.train.volume_request import find_checkpoint

if TYPE_CHECKING:
    from napari_aprcnn.train.simulation import SimulationConfig
    from napari_aprcnn.train.volume_settings import VolumeTrainConfig
    from napari_aprcnn.train.volume_sources import LabelledVolume

__all__ = ["check_place", "check_training"]


def check_place(output: Path | str, name: str) -> tuple[Path, Path]:
    """Refuse a name or folder that nothing can be written to, and to replace a model that the run has not made.

    Parameters
    ----------
    output, name
        As `train_volumes` takes them.

    Returns
    -------
    weights, run_dir : Path
        ``NAME.safetensors``, and the folder ``NAME_run``.

    Raises
    ------
    ConfigError
        If the name is none for a file.
    OutputError
        If ``NAME.safetensors`` or its card is there, and no checkpoint in the folder of the run; or if a file is in the
        place of a folder.
    TrainingDataError
        If the folder cannot be looked into.
    """
    check_name(name)
    output = Path(output)
    weights, run_dir = output / f"{name}.safetensors", output / f"{name}_run"
    _check_folder(run_dir)
    if find_checkpoint(run_dir) is not None:
        return weights, run_dir
    for path in (weights, weights.with_suffix(".json")):
        if path.exists():
            raise OutputError(
                f"{path} is there already, and {run_dir} holds no training that it came from; give another name, or "
                "move the file away"
            )
    return weights, run_dir


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made, as a file is in its place or in that of one above it."""
    for path in (folder, *folder.parents):
        try:
            if not path.exists():
                continue
            is_folder = path.is_dir()
        except OSError as error:
            raise OutputError(f"cannot look into {path}: {error.strerror or error}; choose another folder") from error
        if not is_folder:
            raise OutputError(f"{path} is a file, expected a folder to write to; give another one (--output)")
        return


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
