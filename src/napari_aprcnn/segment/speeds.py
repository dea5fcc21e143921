"""How fast this machine is: measured once, kept in a file, used by every estimate from then on.

A run's time is modelled as ``pixels of the network x seconds a pixel + passes x seconds a pass + voxels x seconds a
voxel for the masks``, plus the first pass that finds the diameter; a pass is a plane, or a block of a stack that is
seen along three axes. Without a calibration the seconds are those of
two threads of the machine that the package is developed on; with one they are this machine's. What runs in this
process really took goes before both.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import platformdirs
from pydantic import Field

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text

__all__ = ["MachineSpeeds", "forget_speeds", "load_speeds", "machine_key", "save_speeds", "speeds", "speeds_path"]

logger = logging.getLogger(__name__)


class MachineSpeeds(Frozen):
    """Speeds of a machine.

    Attributes
    ----------
    machine
        What they hold for (`machine_key`): processor, threads, kernels, version of the package.
    created
        When they were measured (ISO 8601, UTC); empty for the built-in ones.
    threads
        Threads that were used.
    network_s_per_px
        Seconds a pixel of the network, by architecture.
    pass_s
        Seconds a pass beside its pixels, network and masks.
    stitch_s, stitch_s_per_px
        Seconds a plane, and a pixel of it, more where planes are stitched.
    stack_s_per_px
        Seconds a pixel of the network more where stacks are seen along three axes: resizing, averaging.
    masks_s_per_px, masks_s_per_voxel
        From flows to masks, in 2D and in 3D.
    diameter_s
        The first pass, beside its network.
    volume_pace
        Seconds that networks for volumes take over those of the built-in table, by the model's name.
    seconds
        Time that measuring took.
    busy
        Other programs were using the processors then: measure again when they are done.
    """

    machine: str = ""
    created: str = ""
    threads: int = 0
    network_s_per_px: dict[str, float] = Field(default_factory=dict)
    pass_s: float = 4e-3
    stitch_s: float = 2e-3
    stitch_s_per_px: float = 1.5e-7
    stack_s_per_px: float = 5e-8
    masks_s_per_px: float = 5e-8
    masks_s_per_voxel: float = 1.0e-7
    diameter_s: float = 0.06
    volume_pace: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
    busy: bool = False


def machine_key(threads: int) -> str:
    """Name what speeds depend on; a calibration holds for as long as this stays the same."""
    from napari_aprcnn._kernels import instruction_set

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = platform.processor() or platform.machine()
    parts = (platform.node(), processor, f"{cores} cores", f"{threads} threads", instruction_set())
    return ", ".join([*parts, version("napari-aprcnn")])


def speeds_path() -> Path:
    """Return the file of the calibration; the environment variable ``APRCNN_CONFIG_DIR`` moves its folder."""
    folder = os.environ.get("APRCNN_CONFIG_DIR") or platformdirs.user_config_dir("napari-aprcnn", appauthor=False)
    return Path(folder) / "speeds.json"


def save_speeds(measured: MachineSpeeds, path: Path | None = None) -> Path:
    """Write a calibration; estimates of this process use it from now on.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = path or speeds_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(measured.model_dump_json(indent=2) + "\n", path, overwrite=True)
    forget_speeds()
    return path


def load_speeds(path: Path | None = None) -> MachineSpeeds | None:
    """Read a calibration; ``None`` where there is none or it cannot be used (which is logged)."""
    path = path or speeds_path()
    try:
        return MachineSpeeds(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, ConfigError) as error:
        logger.warning("the calibration in %s cannot be used: %s", path, error)
        return None


def speeds(threads: int | None = None) -> MachineSpeeds:
    """Return this machine's speeds for so many threads (``None``: all): the calibration, if it holds; else built in.

    Examples
    --------
    >>> speeds().masks_s_per_voxel > 0
    True
    """
    from napari_aprcnn.models.devices import usable_threads

    return _speeds(str(speeds_path()), machine_key(threads or usable_threads()))


@lru_cache(maxsize=8)
def _speeds(path: str, key: str) -> MachineSpeeds:
    found = load_speeds(Path(path))
    return found if found is not None and found.machine == key else MachineSpeeds()


def forget_speeds() -> None:
    """Read the file again at the next estimate."""
    _speeds.cache_clear()
