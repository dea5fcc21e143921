"""From what a network for volumes said to labels: one function for the run, and for outlines moved after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from napari_aprcnn._kernels import Stopped, clean_labels, compact_labels
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import CancelledError, ConfigError
from napari_aprcnn.segment import flows as flow_masks
from napari_aprcnn.segment.result import smallest_dtype
from napari_aprcnn.segment.sizes import drop_small
from napari_aprcnn.segment.source import MappedImage
from napari_aprcnn.segment.volume_flows import move_outlines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.segment.result import SegmentationResult

__all__ = ["VolumeOutputs", "nearest", "relabel", "resized", "volume_labels", "with_decoding"]


@dataclass(frozen=True, eq=False)
class VolumeOutputs:
    """What a network for volumes said of a whole image, kept so that outlines can be moved without running it again.

    Attributes
    ----------
    flows : (3, z, y, x) float32
        Flows at the network's resolution (the image's where the zoom is 1).
    probability : (z, y, x) float32
        Logit of being inside a nucleus, on the same grid.
    shape
        (Z, Y, X) of the image.
    """

    flows: NDArray[np.float32]
    probability: NDArray[np.float32]
    shape: tuple[int, int, int]

    def labels(
        self, config: SegmentConfig, *, threads: int | None = None, should_cancel: Callable[[], bool] | None = None
    ) -> NDArray[np.uint32]:
        """As `volume_labels`."""
        return volume_labels(
            self.flows, self.probability, self.shape, config, threads=threads, should_cancel=should_cancel
        )


def volume_labels(
    flows: NDArray[np.float32],
    probability: NDArray[np.float32],
    shape: tuple[int, ...],
    config: SegmentConfig,
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.uint32]:
    """Objects of one volume or block: followed flows, brought to the image's grid, outlines moved.

    Parameters
    ----------
    flows, probability
        As in `VolumeOutputs`.
    shape
        Of the image, or of the block of it.
    config
        ``flows`` and ``volume`` are looked at.
    threads
        Threads of the kernels; ``None``: all cores.
    should_cancel
        Asked about every 50 ms.

    Returns
    -------
    (Z, Y, X) uint32

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    options = config.volume
    level = math.log(options.outline / (1.0 - options.outline))
    zoomed, least = probability.shape != tuple(shape), config.flows.min_size_vox
    flow_config = config.flows.replace(
        probability_threshold=config.flows.probability_threshold + level, min_size_vox=0 if zoomed else least
    )
    labels = flow_masks.masks_from_flows(
        flows, probability, config=flow_config, threads=threads, should_cancel=should_cancel
    )
    if zoomed:  # the smallest size is one of the image's voxels
        labels, n = nearest(labels, shape)
        try:
            clean_labels(labels, n, min_size=least, fill_holes=False, threads=threads, should_cancel=should_cancel)
        except Stopped as stop:
            raise CancelledError("cancelled: no masks were made") from stop
    return move_outlines(labels, options.grow_vox)


def relabel(
    result: SegmentationResult,
    config: SegmentConfig,
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> SegmentationResult:
    """Make the labels of a run anew from its kept outputs: other outlines, no network.

    Parameters
    ----------
    result
        Of a network for volumes, in one block; it must hold its outputs (``keep_flows``).
    config
        Outline, growth, mask thresholds and the smallest share are taken from it; what the network was run with stays.
    threads, should_cancel
        As in `volume_labels`.

    Returns
    -------
    SegmentationResult
        With other labels, number of nuclei and configuration; the rest is shared.

    Raises
    ------
    ConfigError
        If the result holds no outputs of a network for volumes, or asks for StarDist objects of a probability so low
        that they were not kept.
    CancelledError
        If `should_cancel` said yes.
    """
    outputs = result.outputs
    if outputs is None:
        raise ConfigError(
            "the result holds no outputs of a network for volumes; run it in one block with keep_flows=True"
        )
    merged = with_decoding(result.config, config)
    labels = outputs.labels(merged, threads=threads, should_cancel=should_cancel)
    n_objects = drop_small(labels, share=merged.smallest_share_3d)
    image = MappedImage(labels, AxisMapping(order=result.axes), 1, outputs.shape)
    shown = np.ascontiguousarray(image.to_output(labels[None].astype(smallest_dtype(n_objects))))
    return replace(result, labels=shown, readout=result.readout.replace(n_objects=n_objects), config=merged)


def with_decoding(run: SegmentConfig, config: SegmentConfig) -> SegmentConfig:
    """Return the configuration of a run with what makes labels of the network's outputs taken from another."""
    volume = run.volume.replace(outline=config.volume.outline, grow_vox=config.volume.grow_vox)
    return run.replace(volume=volume, flows=config.flows, smallest_share_3d=config.smallest_share_3d)


def resized(image: NDArray[Any], size: Any) -> NDArray[np.float32]:
    """Resample a volume linearly; (Z, Y, X) float32."""
    values = torch.from_numpy(np.asarray(image, np.float32))[None, None]
    out = F.interpolate(values, size=tuple(size), mode="trilinear", align_corners=False)
    return np.asarray(out[0, 0].numpy())


def nearest(labels: NDArray[np.uint32], size: tuple[int, ...]) -> tuple[NDArray[np.uint32], int]:
    """Resample labels by the nearest voxel, and number those that a voxel is left of: 1..n in their order, and n."""
    index = [((np.arange(n) + 0.5) * m / n).astype(np.intp) for n, m in zip(size, labels.shape, strict=True)]
    return compact_labels(labels[np.ix_(*index)])
