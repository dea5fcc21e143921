"""How large the nuclei are: a first pass of the same network over a bounded part of the image.

The network is sure of itself where nuclei have about the size it was trained at. The first pass looks at the image as
it is; unless that answer is consistent, also enlarged and reduced, and believes the answer that fits itself best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_aprcnn.config import FlowConfig
from napari_aprcnn.segment import flows as flow_masks
from napari_aprcnn.segment.planes import predict_at
from napari_aprcnn.segment.scale import Scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.segment.tiles import Tiler

__all__ = ["DiameterEstimate", "Trial", "View", "estimate_diameter", "pick_windows", "typical_diameter_px"]

VIEW_PX = 512 * 512  # network pixels that a pass at one zoom may look at, all views together
SURE_OBJECTS, SURE_QUALITY = 5, 0.2
SURE_RANGE = (0.55, 2.0)  # times the trained diameter
NEAR = (0.7, 1.35)  # trained diameter over the one found: no second look in between
PERCENTILE = 40.0  # of the diameters found; chosen on an organ that the models of that trial had not seen
SMALLEST_VIEW = 12  # network pixels; smaller views show nothing

View = Callable[[int], "NDArray[np.float32]"]
"""Gives a normalised square crop (H, W) of at most the edge asked for, in image pixels."""


@dataclass(frozen=True)
class Trial:
    """What the network found at one zoom.

    Attributes
    ----------
    zoom
        Network pixels per image pixel.
    n_objects
        Nuclei found.
    diameter_px
        Their typical diameter in network pixels (40th percentile); 0 without any.
    quality
        How well the outputs fit themselves, 0..1: share of the likely pixels that end in masks with consistent
        flows, times how sure the network is of them.
    """

    zoom: float
    n_objects: int
    diameter_px: float
    quality: float


@dataclass(frozen=True)
class DiameterEstimate:
    """The diameter, and how it was found.

    Attributes
    ----------
    diameter_px
        In image pixels; ``None``: no nuclei were found at any zoom.
    trials
        What was looked at.
    """

    diameter_px: float | None
    trials: tuple[Trial, ...]


def typical_diameter_px(areas: NDArray[np.intp]) -> float:
    """Typical diameter of the disks of equal area; 0 without any.

    Small nuclei are the first that a network misses, so the median of what it finds lies above that of what is there.
    """
    return float(np.percentile(2.0 * np.sqrt(areas / math.pi), PERCENTILE)) if len(areas) else 0.0


def estimate_diameter(
    views: Sequence[View],
    tiler: Tiler,
    *,
    trained_px: float,
    ratio: tuple[float, float, float] = (1.0, 1.0, 1.0),
    flows: FlowConfig | None = None,
    threads: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> DiameterEstimate:
    """Find the typical diameter of the nuclei.

    Parameters
    ----------
    views
        Parts of one image that hold nuclei; for the same edge all of them have the same size.
    tiler
        The network.
    trained_px
        Diameter that the network was trained at.
    ratio
        Relative voxel size (z, y, x).
    flows
        Thresholds.
    threads
        Threads of the kernels.
    check
        Raises if the run is cancelled.

    Returns
    -------
    DiameterEstimate
    """
    flows = flows or FlowConfig()
    trials: list[Trial] = []

    def look(zoom: float) -> Trial:
        check()
        trial = _look(views, tiler, Scale(zoom, ratio), flows, threads)
        trials.append(trial)
        return trial

    best = look(1.0)
    steps = 1
    if not _convincing(best, trained_px):
        steps = 2
        for zoom in _further_zooms(best, trained_px):
            trial = look(zoom)
            if _score(trial, trained_px) > _score(best, trained_px):
                best = trial
    for _ in range(steps):
        # An answer far from the trained size is biased (small nuclei look larger): look again where it is met.
        step = trained_px / best.diameter_px if best.n_objects else 1.0
        zoom = min(max(best.zoom * step, 1 / 16), 8.0)
        if NEAR[0] < step < NEAR[1] or any(abs(math.log(zoom / trial.zoom)) < 0.2 for trial in trials):
            break
        trial = look(zoom)
        if _score(trial, trained_px) < 0.8 * _score(best, trained_px):
            break
        best = trial
    return DiameterEstimate(best.diameter_px / best.zoom if best.n_objects else None, tuple(trials))


def _convincing(trial: Trial, trained_px: float) -> bool:
    """Enough nuclei of a size that the network knows; the fewer, the surer it must be of them."""
    low, high = SURE_RANGE
    return (
        trial.n_objects >= SURE_OBJECTS
        and trial.quality >= SURE_QUALITY
        and low * trained_px <= trial.diameter_px <= high * trained_px
    )


def _further_zooms(first: Trial, trained_px: float) -> tuple[float, ...]:
    if first.n_objects >= SURE_OBJECTS and first.diameter_px < SURE_RANGE[0] * trained_px:
        return (2.0, 4.0, 0.5)
    if first.n_objects and first.diameter_px > SURE_RANGE[1] * trained_px:
        return (0.5, 0.25)
    return (0.5, 2.0, 0.25, 4.0)


def _score(trial: Trial, trained_px: float) -> float:
    """Quality, less for few objects, for sizes that the network was not trained at, and for unlikely zooms."""
    if not trial.n_objects:
        return 0.0
    off = math.log2(trial.diameter_px / trained_px)
    unlikely = abs(math.log2(trial.zoom))
    return trial.quality * math.exp(-0.5 * off * off - 0.1 * unlikely) * (1.0 - math.exp(-trial.n_objects / 3.0))


def _look(views: Sequence[View], tiler: Tiler, scale: Scale, flows: FlowConfig, threads: int | None) -> Trial:
    edge = max(16, round(math.sqrt(VIEW_PX / max(len(views), 1)) / scale.zoom))
    planes = np.stack([view(edge) for view in views]) if views else np.zeros((0, 1, 1), np.float32)
    size = scale.network_size((planes.shape[1], planes.shape[2]), (1, 2))
    if min(size) < SMALLEST_VIEW:
        return Trial(scale.zoom, 0, 0.0, 0.0)
    areas: list[NDArray[np.intp]] = []
    likely = kept = certain = 0.0
    config = flows.replace(resize_factor=1, min_size_vox=min(flows.min_size_vox, 15))
    for outputs in predict_at(planes, tiler, size):
        labels = flow_masks.masks_from_flows(outputs[:2], outputs[2], config=config, threads=threads)
        inside = outputs[2] > flows.probability_threshold
        likely += float(inside.sum())
        kept += float((inside & (labels > 0)).sum())
        certain += float(np.tanh(np.abs(outputs[2][inside]) / 4.0).sum())
        areas.append(_whole_areas(labels))
    found = np.concatenate(areas) if areas else np.zeros(0, np.intp)
    quality = kept / likely * (certain / likely) if likely else 0.0
    return Trial(scale.zoom, len(found), typical_diameter_px(found), quality)


def _whole_areas(labels: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Areas of the objects that the crop does not cut, or of all where it cuts nearly all."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    cut = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    whole = areas.copy()
    whole[cut] = 0
    few = np.count_nonzero(whole) < max(3, 0.3 * np.count_nonzero(areas))
    return np.asarray(areas[areas > 0] if few else whole[whole > 0])


def pick_windows(
    measure: Callable[[tuple[slice, slice]], float], size: tuple[int, int], *, edge: int, n: int
) -> list[tuple[int, int]]:
    """Find the centres of the windows that show most.

    Parameters
    ----------
    measure
        Gives the interest of a window.
    size
        (height, width) of the plane.
    edge
        Edge of a window.
    n
        Number of windows.

    Returns
    -------
    list of (y, x)
        The middle of the plane where a window holds all of it.
    """
    grids = []
    for length in size:
        count = min(4, max(1, length // edge))
        grids.append([round((i + 0.5) * length / count) for i in range(count)])
    centres = [(y, x) for y in grids[0] for x in grids[1]]
    if len(centres) <= n:
        return centres
    windows = {c: (window(c[0], edge, size[0]), window(c[1], edge, size[1])) for c in centres}
    return sorted(centres, key=lambda c: -measure(windows[c]))[:n]


def window(centre: int, edge: int, length: int) -> slice:
    """Return the part of an axis around a centre, moved inside the axis."""
    edge = min(edge, length)
    start = min(max(centre - edge // 2, 0), length - edge)
    return slice(start, start + edge)
