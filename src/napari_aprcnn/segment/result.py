"""What a segmentation gives back, and the file that replays it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.io.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.segment.readout import Readout
    from napari_aprcnn.segment.volume_masks import VolumeOutputs
    from napari_aprcnn.segment.volume_outputs import HeadOutputs

__all__ = ["SegmentationResult", "smallest_dtype", "write_run_file"]


@dataclass(frozen=True)
class SegmentationResult:
    """The nuclei of an image.

    Attributes
    ----------
    labels : uint16 or uint32
        0 is background, 1..n are nuclei; shape and axis order of the image without its channel axis. Time points,
        and the planes of a stack in mode ``2d``, are numbered each on their own.
    probability : float32 or None
        Logit of the probability that a voxel belongs to a nucleus, same shape. ``None`` where the configuration does
        not keep it or it did not fit the memory.
    flows : (D, ...) float32 or None
        Flows along y, x or z, y, x, in voxels times 5, then the axes of the labels. ``None`` as `probability`.
    readout
        Time, memory, device, model, diameter, versions.
    config
        The configuration of the run; it replays the run.
    particles
        Particles that a network for volumes saw, with intensities: of the enlarged image where the zoom is not 1.
        ``None`` for networks of planes, networks on voxels, time series, and runs in several blocks.
    outputs
        Outputs of a network for volumes at its own resolution, for `volume_masks.relabel`; ``None`` as `probability`
        and `particles`.
    """

    labels: NDArray[Any]
    probability: NDArray[np.float32] | None
    flows: NDArray[np.float32] | None
    readout: Readout
    config: SegmentConfig
    particles: ParticleTree | None = None
    outputs: VolumeOutputs | HeadOutputs | None = None

    @property
    def axes(self) -> str:
        """Axes of the labels, for example ``TZYX``."""
        return self.readout.axes

    def save_run(self, path: Path | str, *, overwrite: bool = True) -> None:
        """Write the configuration and the readout as JSON; `write_run_file`."""
        write_run_file(self, path, overwrite=overwrite)


def write_run_file(result: SegmentationResult, path: Path | str, *, overwrite: bool = True) -> None:
    """Write what replays a run: ``SegmentConfig.from_file(path)`` gives its configuration.

    Parameters
    ----------
    result
        The result of the run.
    path
        A ``.json`` file, written whole or not at all.
    overwrite
        Replace an older one.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    record = {
        "config": json.loads(result.config.to_json()),
        "readout": json.loads(result.readout.to_json()),
    }
    write_text(json.dumps(record, indent=2) + "\n", path, overwrite=overwrite)


def smallest_dtype(largest: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smallest label type that holds a number; viewers show 16 bits best and lose 64."""
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32
