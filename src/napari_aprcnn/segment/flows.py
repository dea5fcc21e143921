"""Flows to masks and masks to flows, the representation of the Cellpose family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn import _kernels
from napari_aprcnn.errors import CancelledError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.segment.flow_resize import enlarge, reduce
from napari_aprcnn.segment.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_aprcnn.config import FlowConfig

__all__ = ["flows_from_masks", "masks_from_flows"]

# Share of the time when each stage starts: what the bar shows.
STAGES = {"following": 0.0, "grouping": 0.75, "checking": 0.8, "cleaning": 0.95, "done": 1.0}


def masks_from_flows(
    flows: NDArray[Any],
    probability: NDArray[Any],
    *,
    config: FlowConfig,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.uint32]:
    """Objects from the network's output: voxels whose paths along the flows meet belong together.

    Gives the masks of Cellpose 3.1.1 with the same settings (see ``docs/decisions/0003-flow-following.md``). Steps:
    follow the flows from every voxel above the probability threshold; make objects of the places where many paths end;
    drop those whose own flows differ from the network's; drop small ones; fill holes.

    Parameters
    ----------
    flows : (2, Y, X) or (3, Z, Y, X) float32
        5 x unit vectors towards the centres; components y, x or z, y, x.
    probability : (*S) float32
        Logit of being inside a nucleus.
    config
        Thresholds, steps, sizes.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    progress
        Told every stage and, while following, about every 50 ms.
    should_cancel
        Asked as often.

    Returns
    -------
    (*S) uint32
        1..n in the order of their first voxel, 0 background.

    Raises
    ------
    ImageError
        If shapes do not fit, or the volume is too large for one piece (2**32 - 2 voxels).
    ImageDtypeError
        If an array does not hold real numbers.
    ImageValueError
        If a probability is NaN, or a flow above the threshold is not finite.
    CancelledError
        If ``should_cancel`` said yes.

    Notes
    -----
    Memory beyond the input: at most 2 D + 9 bytes a voxel (15 in a volume), 6 of which only where there are objects.

    Examples
    --------
    >>> from napari_aprcnn.config import FlowConfig
    >>> labels = np.zeros((20, 30), np.uint8)
    >>> labels[4:14, 3:13], labels[6:16, 14:26] = 1, 2
    >>> masks = masks_from_flows(5 * flows_from_masks(labels), labels * 12.0 - 6.0, config=FlowConfig())
    >>> bool((masks == labels).all())
    True
    """
    flows, probability = _checked(flows, probability)
    report = _reporter(progress, should_cancel)
    try:
        return _masks(flows, probability, config, threads, report, should_cancel)
    except _kernels.Stopped as stop:
        raise CancelledError("cancelled: no masks were made") from stop


def _masks(
    flows: NDArray[np.float32],
    probability: NDArray[np.float32],
    config: FlowConfig,
    threads: int | None,
    report: Callable[[str, float], None],
    should_cancel: Callable[[], bool] | None,
) -> NDArray[np.uint32]:
    report("following", 0.0)
    inside = probability > config.probability_threshold
    if not inside.any():
        report("done", 0.0)
        return np.zeros(probability.shape, np.uint32)
    coarse_flows, coarse_inside = flows, inside
    if config.resize_factor > 1:
        coarse_flows, coarse_inside = reduce(flows, inside, config.resize_factor)
    try:
        ends, counts = _kernels.follow_flows(
            coarse_flows,
            coarse_inside,
            n_steps=config.n_steps,
            threads=threads,
            should_cancel=should_cancel,
            on_share=lambda share: report("following", share),
        )
    except ValueError as error:
        raise ImageValueError(
            f"got flows that cannot be followed ({error}), expected finite numbers; check the network's input"
        ) from error
    report("grouping", 0.0)
    largest = config.max_size_fraction * ends.size
    labels, n = _kernels.group_ends(ends, counts, max_voxels=largest, threads=threads, should_cancel=should_cancel)
    del counts
    threshold = config.flow_threshold if labels.ndim == 2 else config.flow_threshold_3d
    if threshold > 0 and n > 0:
        report("checking", 0.0)
        errors = _kernels.flow_errors(labels, n, coarse_flows, threads=threads, should_cancel=should_cancel)
        keep = np.concatenate([[False], errors <= threshold])
        n = int(keep.sum())
        _kernels.relabel(labels, np.where(keep, np.cumsum(keep), 0), threads=threads)
    report("cleaning", 0.0)
    if config.resize_factor > 1:
        labels = enlarge(labels, inside, config.resize_factor)
    labels, _ = _kernels.clean_labels(
        labels,
        n,
        min_size=config.min_size_vox,
        fill_holes=config.fill_holes,
        threads=threads,
        should_cancel=should_cancel,
    )
    report("done", 0.0)
    return labels


def _reporter(
    progress: Callable[[Progress], None] | None, should_cancel: Callable[[], bool] | None
) -> Callable[[str, float], None]:
    """Translate a stage and the share of it that is done to the caller's progress; a stage's start may be its end."""
    names = list(STAGES)

    def report(stage: str, share: float) -> None:
        # Short stages are over before the kernels ask.
        if share == 0.0 and should_cancel is not None and should_cancel():
            raise _kernels.Stopped
        if progress is None:
            return
        place = names.index(stage)
        start, end = STAGES[stage], STAGES[names[min(place + 1, len(names) - 1)]]
        fraction = start + share * (end - start)
        words = "masks done" if stage == "done" else f"masks: {stage}"
        progress(Progress("masks", place, len(names) - 1, None, fraction, words))

    return report


def _checked(flows: NDArray[Any], probability: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    flows, probability = np.asarray(flows), np.asarray(probability)
    for name, array in (("flows", flows), ("probability", probability)):
        if array.dtype.kind not in "fiub":
            raise ImageDtypeError(f"got {name} of type {array.dtype}, expected real numbers; convert to float32")
    if probability.ndim not in {2, 3}:
        raise ImageError(f"got a probability with {probability.ndim} axes, expected Y, X or Z, Y, X; pass one volume")
    if flows.shape != (probability.ndim, *probability.shape):
        raise ImageError(
            f"got flows of shape {flows.shape} for a probability of shape {probability.shape}, "
            f"expected {(probability.ndim, *probability.shape)}; pass one component for each axis"
        )
    if probability.size > _kernels.MOST_VOXELS:
        most = _kernels.MOST_VOXELS
        raise ImageError(f"got {probability.size} voxels, expected at most {most}; cut the volume into blocks")
    flows, probability = flows.astype(np.float32, copy=False), probability.astype(np.float32, copy=False)
    # The smallest of numbers with a NaN among them is NaN.
    if probability.size and np.isnan(probability.min()):
        raise ImageValueError("got NaN in the probability, expected logits; check the network's input")
    return flows, probability


def flows_from_masks(
    labels: NDArray[Any],
    *,
    threads: int | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Unit vectors that lead every pixel of an object to its centre.

    Heat spreads from the pixel nearest to the object's mean position and stays inside the object; a pixel's vector is
    the direction in which the heat rises (Cellpose's targets, there times 5).

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) bool or any integer type
        0 is background; ids may be huge and have gaps. An object in several pieces gets a centre for each.
    threads
        Threads; ``None``: all cores of the process. The result does not depend on it.
    should_cancel
        Asked about every 50 ms.

    Returns
    -------
    (D, *S) float32
        Components y, x or z, y, x. Length 1 inside, 0 outside and where the heat is flat (single pixels, exact
        centres).

    Raises
    ------
    ImageError
        If the array has not 2 or 3 axes.
    ImageDtypeError
        If the labels are no integers.
    ImageValueError
        If a label is negative.
    CancelledError
        If ``should_cancel`` said yes.

    Examples
    --------
    >>> labels = np.zeros((5, 5), np.uint8)
    >>> labels[1:4, 1:4] = 7
    >>> y, x = flows_from_masks(labels)
    >>> float(y[1, 2]), float(x[2, 1]), float(y[0, 0])
    (1.0, 1.0, 0.0)
    """
    labels = np.asarray(labels)
    if labels.ndim not in {2, 3}:
        raise ImageError(f"got labels with {labels.ndim} axes, expected Y, X or Z, Y, X; pass one plane or volume")
    if labels.dtype.kind not in "biu":
        raise ImageDtypeError(f"got labels of type {labels.dtype}, expected integers; convert with astype(np.int32)")
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise ImageValueError(f"got the negative label {labels.min()}, expected 0 for background and ids above 0")
    try:
        if should_cancel is not None and should_cancel():
            raise _kernels.Stopped
        return _kernels.flows_from_labels(labels, threads=threads, should_cancel=should_cancel)
    except _kernels.Stopped as stop:
        raise CancelledError("cancelled while computing flows from masks") from stop
