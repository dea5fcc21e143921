"""Thresholds of the decoders, chosen on validation images.

APR-CNN paper, section StarDist segmentation: the thresholds are those that maximise the mean accuracy over the IoU
thresholds 0.3, 0.5 and 0.7. Accuracy is TP / (TP + FP + FN), objects of all images together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from napari_aprcnn.errors import CancelledError, TrainingDataError
from napari_aprcnn.evaluate.matching import evaluate_pooled
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.segment.stardist import (
    StarCandidates,
    StarDistSettings,
    prune_candidates,
    recentre_objects,
    render_objects,
    star_candidates,
    suppress_overlaps,
)
from napari_aprcnn.segment.three_class import ThreeClassSettings, three_class_instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.segment.star_rays import StarRays

__all__ = ["TUNING_THRESHOLDS", "StarPrediction", "Tuned", "mean_accuracy", "tune_stardist", "tune_three_class"]

TUNING_THRESHOLDS = (0.3, 0.5, 0.7)

Settings = TypeVar("Settings", bound=Frozen)
Pair = tuple["NDArray[Any]", "NDArray[Any]"]


class StarPrediction(NamedTuple):
    """What a StarDist network says of one image; as `napari_aprcnn.segment.stardist.stardist_instances` takes it."""

    probability: NDArray[Any]
    distances: NDArray[Any]
    points: NDArray[Any]
    shape: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Tuned(Generic[Settings]):
    """Outcome of a search.

    Attributes
    ----------
    settings
        The best.
    accuracy
        Their mean accuracy, 0..1.
    tried
        Everything that was tried, with its mean accuracy, in the order of the search.
    """

    settings: Settings
    accuracy: float
    tried: tuple[tuple[Settings, float], ...]


def mean_accuracy(pairs: Iterable[Pair], *, thresholds: Sequence[float] = TUNING_THRESHOLDS) -> float:
    """Mean over IoU thresholds of the accuracy TP / (TP + FP + FN), objects of all images pooled.

    Parameters
    ----------
    pairs
        Predicted and true labels of each image.
    thresholds
        IoU thresholds.
    """
    return float(np.mean([matching.accuracy for matching in evaluate_pooled(pairs, thresholds=thresholds)]))


def tune_three_class(
    predictions: Sequence[NDArray[Any]],
    truths: Sequence[NDArray[Any]],
    *,
    base: ThreeClassSettings | None = None,
    interior_thresholds: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    min_interior_vox: Sequence[int] = (1, 5, 10, 20, 40, 80),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> Tuned[ThreeClassSettings]:
    """Choose the interior threshold and the smallest interior.

    Parameters
    ----------
    predictions
        Class probabilities (3, Z, Y, X) of every image.
    truths
        True labels (Z, Y, X) of every image.
    base
        Everything else; by default `ThreeClassSettings()`.
    interior_thresholds, min_interior_vox
        What is tried.
    progress
        Called with the number of settings tried and in all.
    should_cancel
        Asked before each of them.

    Returns
    -------
    Tuned
        Of equally good settings the first.

    Raises
    ------
    TrainingDataError
        Without images, or with another number of truths.
    CancelledError
        If ``should_cancel`` said yes.
    """
    _same_number(predictions, truths)
    base = base or ThreeClassSettings()
    wanted = [
        base.replace(interior_threshold=threshold, min_interior_vox=smallest)
        for threshold, smallest in product(interior_thresholds, min_interior_vox)
    ]

    def decode(settings: ThreeClassSettings) -> Iterable[NDArray[np.uint32]]:
        return (three_class_instances(prediction, settings) for prediction in predictions)

    return _search(wanted, decode, truths, progress, should_cancel)


def tune_stardist(
    predictions: Sequence[StarPrediction],
    truths: Sequence[NDArray[Any]],
    rays: StarRays,
    *,
    base: StarDistSettings | None = None,
    probability_thresholds: Sequence[float] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    overlap_thresholds: Sequence[float] = (0.2, 0.3, 0.4, 0.5),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> Tuned[StarDistSettings]:
    """Choose the probability threshold and the overlap threshold.

    Candidates are pruned once, and suppressed once for each overlap threshold: what beats a candidate has a higher
    probability, so a higher probability threshold takes objects away and changes nothing else.

    Parameters
    ----------
    predictions
        One for each image.
    truths
        True labels (Z, Y, X) of every image.
    rays
        Directions that the network was trained for.
    base
        Everything else; by default `StarDistSettings()`.
    probability_thresholds, overlap_thresholds
        What is tried.
    progress, should_cancel
        As for `tune_three_class`.

    Returns
    -------
    Tuned
        Of equally good settings the first.

    Raises
    ------
    TrainingDataError, CancelledError
        As `tune_three_class` does.
    MissingDependencyError, ImageError, ImageValueError
        As `stardist_instances` does.
    """
    _same_number(predictions, truths)
    base = base or StarDistSettings()
    wanted = [
        base.replace(probability_threshold=probability, overlap_threshold=overlap)
        for overlap, probability in product(overlap_thresholds, probability_thresholds)
    ]
    every = [star_candidates(*prediction, rays, threshold=min(probability_thresholds)) for prediction in predictions]
    pruned = [prune_candidates(candidates, rays, base.prune_share) for candidates in every]
    kept: dict[float, list[StarCandidates]] = {}

    def decode(settings: StarDistSettings) -> Iterable[NDArray[np.uint32]]:
        overlap, threshold = settings.overlap_threshold, settings.probability_threshold
        if overlap not in kept:
            kept.clear()
            kept[overlap] = [suppress_overlaps(candidates, rays, overlap) for candidates in pruned]
        for prediction, candidates, found in zip(predictions, every, kept[overlap], strict=True):
            objects = found.take(found.probability >= np.float32(threshold))
            if settings.recentre:
                objects = recentre_objects(
                    objects, candidates.take(candidates.probability >= np.float32(threshold)), rays
                )
            yield render_objects(objects, prediction.shape, rays, rounding=settings.rounding)[0]

    return _search(wanted, decode, truths, progress, should_cancel)


def _same_number(predictions: Sequence[Any], truths: Sequence[Any]) -> None:
    if not len(predictions) or len(predictions) != len(truths):
        raise TrainingDataError(
            f"got {len(predictions)} predictions and {len(truths)} truths, expected as many of both and at least one; "
            "tune on validation images with labels"
        )


def _search(
    wanted: Sequence[Settings],
    decode: Callable[[Settings], Iterable[NDArray[np.uint32]]],
    truths: Sequence[NDArray[Any]],
    progress: Callable[[int, int], None],
    should_cancel: Callable[[], bool],
) -> Tuned[Settings]:
    if not wanted:
        raise TrainingDataError("got no settings to try, expected at least one value of every threshold")
    tried: list[tuple[Settings, float]] = []
    for settings in wanted:
        if should_cancel():
            raise CancelledError("cancelled: no thresholds were chosen")
        tried.append((settings, mean_accuracy(zip(decode(settings), truths, strict=True))))
        progress(len(tried), len(wanted))
    best, accuracy = max(tried, key=lambda pair: pair[1])
    return Tuned(settings=best, accuracy=accuracy, tried=tuple(tried))
