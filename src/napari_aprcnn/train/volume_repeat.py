"""The command that repeats a training on volumes, as its card holds it. No torch here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_aprcnn.train.simulation import SimulationConfig
    from napari_aprcnn.train.volume_request import Checkpoint
    from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = ["MIXED", "length_words", "repeat_words"]

MIXED = "mixed"


def repeat_words(
    paths: Sequence[Path],
    validation: Sequence[Path],
    name: str,
    config: VolumeTrainConfig,
    form: str,
    plain: SimulationConfig,
    simulations: Sequence[str],
    start: str | None,
) -> str:
    """The command that repeats a training, every parameter that decides weights and thresholds spelled out."""
    options: dict[str, Any] = {
        "name": name,
        "output": ".",
        "form": form,
        "head": config.network.head,
        "channels": config.network.channels,
        "depth": config.network.depth,
        "banks": config.network.filter_banks,
        "block": config.network.block,
        "norm": config.network.norm,
        "epochs": config.epochs,
        "steps": config.steps_per_epoch,
        "batch-size": config.batch_size,
        "simulated": config.simulated,
        "simulated-volumes": config.simulated_volumes,
        "outline": plain.outline_level,
        "outline-common": plain.outline_common,
        "learning-rate": config.learning_rate,
        "rescale": config.rescale,
        "elastic": config.elastic,
        "gamma": config.gamma,
        "noise": config.noise,
        "loss-on": config.loss_on,
        "precision": config.precision,
        "patience": config.patience,
        "seed": config.seed,
    }
    if start is not None:
        options["from"] = start
    words = [str(o) for key, value in options.items() for o in (f"--{key}", value)]
    words += [o for word in simulations for o in ("--simulation", word if word == MIXED else Path(word).name)]
    words += [o for path in validation for o in ("--validation", path.name)]
    words += ["--crop", *(str(n) for n in config.crop), "--apr-error", *(str(n) for n in config.relative_error)]
    words += ["--decreasing-banks"] * config.network.decreasing_banks
    if config.network.head == "stardist":
        words += ["--ray-spacing", *(f"{n:g}" for n in config.network.ray_spacing)]
    return shlex.join(["aprcnn", "train-volumes", *(path.name for path in paths), *words])


def length_words(found: Checkpoint | None, epochs: int) -> str:
    """Note behind the command of a training that went on with another length: the rate follows the length.

    Parameters
    ----------
    found
        The training's checkpoint.
    epochs
        What the command says.

    Returns
    -------
    str
        A comment for the shell; empty where the command alone makes the weights.
    """
    if found is None or not found.lengths or found.lengths == ((0, epochs),):
        return ""
    ends = [start for start, _ in found.lengths[1:]] + [found.epoch]
    parts = []
    for (start, planned), end in zip(found.lengths, ends, strict=True):
        done = f"epochs {start + 1} to {end}" if end > start + 1 else f"epoch {end}"
        parts.append(f"{done} with --epochs {planned}")
    return "  # " + ", ".join(parts)
