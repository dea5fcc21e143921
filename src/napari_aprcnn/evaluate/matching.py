"""Instance matching at IoU thresholds, with the definitions of the stardist package.

A predicted object is a true positive at threshold t if it is assigned, one to one, to a true object with IoU >= t;
the assignment maximises the number of such pairs, then the IoU of what is assigned. One difference: where there is
nothing to find and nothing was found, F1 and accuracy are 1 here and 0 there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError, ImageDtypeError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.overlap import OverlapTable

__all__ = [
    "CURVE_THRESHOLDS",
    "THRESHOLDS",
    "Matching",
    "check_thresholds",
    "evaluate",
    "evaluate_pooled",
    "iou_matrix",
    "match_table",
    "pooled",
]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
CURVE_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, *THRESHOLDS)


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Counts at one IoU threshold, of one image or pooled over several.

    Attributes
    ----------
    threshold
        IoU from which on a pair counts, 0..1; 0 for points, which have no IoU.
    true_positives, false_positives, false_negatives
        Number of objects.
    mean_matched_iou
        Mean IoU of the matched pairs; 0 where there is none.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    mean_matched_iou: float = 0.0

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 without predictions."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 without true objects."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        total = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / total if total else 1.0

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN), which some call average precision; 1 where there is nothing to find or found."""
        total = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / total if total else 1.0

    @property
    def mean_matched_score(self) -> float:
        """Mean IoU of the matched pairs, by the name that the stardist package gives it."""
        return self.mean_matched_iou

    @property
    def mean_true_score(self) -> float:
        """Summed IoU of the matched pairs over the number of true objects; 0 without true objects."""
        return self.mean_matched_iou * self.recall

    @property
    def panoptic_quality(self) -> float:
        """F1 times the mean IoU of the matched pairs."""
        return self.f1 * self.mean_matched_iou


def iou_matrix(labels: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of every predicted with every true object.

    Parameters
    ----------
    labels, truth : (*S) integer
        Instance labels, 0 is background; ids need not be consecutive.

    Returns
    -------
    (n_labels, n_truth) float64
        Rows and columns in the order of ascending id.

    Raises
    ------
    ImageError
        If the shapes differ.
    ImageDtypeError
        If one of them does not hold integers.

    Notes
    -----
    Dense: meant for thousands of objects, not for millions.
    """
    labels, truth = np.asarray(labels), np.asarray(truth)
    if labels.shape != truth.shape:
        raise ImageError(f"labels have shape {labels.shape}, truth {truth.shape}; expected equal shapes: resample one")
    for name, array in (("labels", labels), ("truth", truth)):
        if array.dtype.kind not in "iub":
            raise ImageDtypeError(f"{name} have dtype {array.dtype}; expected integers, 0 being background")
    ids_a, inverse_a = np.unique(labels, return_inverse=True)
    ids_b, inverse_b = np.unique(truth, return_inverse=True)
    pairs = np.bincount(inverse_a.ravel() * len(ids_b) + inverse_b.ravel(), minlength=len(ids_a) * len(ids_b))
    overlap = pairs.reshape(len(ids_a), len(ids_b)).astype(np.float64)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    iou: NDArray[np.float64] = (overlap / np.maximum(union, 1))[np.ix_(ids_a != 0, ids_b != 0)]
    return iou


def evaluate(
    labels: NDArray[Any], truth: NDArray[Any], *, thresholds: float | Sequence[float] = THRESHOLDS
) -> tuple[Matching, ...]:
    """Match predicted to true objects at several IoU thresholds.

    Parameters
    ----------
    labels, truth : (*S) integer
        Predicted and true instance labels of one image, 0 is background; lazy arrays are read slab by slab.
    thresholds
        IoU thresholds, each in (0, 1], or a single one.

    Returns
    -------
    tuple of Matching
        One for each threshold, in the order given.

    Raises
    ------
    ImageError
        If the shapes differ, or an id is negative.
    ImageDtypeError
        If one of them does not hold integers.
    ConfigError
        If a threshold is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[1, 1, 0, 2]])
    >>> [m.f1 for m in evaluate(truth, truth, thresholds=[0.5, 0.9])]
    [1.0, 1.0]
    """
    return evaluate_pooled([(labels, truth)], thresholds=thresholds)


def evaluate_pooled(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], *, thresholds: float | Sequence[float] = THRESHOLDS
) -> tuple[Matching, ...]:
    """Match image by image and add up the counts (pooled over objects, not averaged over images).

    Parameters
    ----------
    pairs
        Predicted and true labels of each image.
    thresholds
        IoU thresholds, each in (0, 1].

    Returns
    -------
    tuple of Matching
        One for each threshold.

    Raises
    ------
    ImageError, ImageDtypeError, ConfigError
        As `evaluate` does.
    """
    from napari_aprcnn.evaluate.overlap import overlap_table

    thresholds = check_thresholds(thresholds)
    images = []
    for labels, truth in pairs:
        images.append(match_table(overlap_table(_one_image(labels), _one_image(truth)), thresholds))
    return pooled(images) if images else tuple(_matching(threshold, 0, 0, 0, 0.0) for threshold in thresholds)


def _one_image(labels: Any) -> Any:
    if hasattr(labels, "shape"):
        return labels
    if isinstance(labels, (list, tuple)) and any(hasattr(part, "shape") for part in labels):
        raise ImageDtypeError(
            f"got a {type(labels).__name__} of {len(labels)} arrays, expected the labels of one image; for several, "
            "evaluate_pooled(zip(labels, truths))"
        )
    return np.asarray(labels)


def check_thresholds(thresholds: float | Sequence[float]) -> tuple[float, ...]:
    """Return thresholds, or a single one, as a tuple.

    Raises
    ------
    ConfigError
        If there is none, or one outside of (0, 1].
    """
    values = tuple(float(threshold) for threshold in np.atleast_1d(np.asarray(thresholds, np.float64)))
    if not values or not all(0 < value <= 1 for value in values):
        raise ConfigError(f"got IoU thresholds {values}; expected at least one, each above 0 and at most 1")
    return values


def match_table(table: OverlapTable, thresholds: Sequence[float]) -> tuple[Matching, ...]:
    """Match the objects of an overlap table at several IoU thresholds.

    Parameters
    ----------
    table
        Of `napari_aprcnn.evaluate.overlap.overlap_table`.
    thresholds
        IoU thresholds, each in (0, 1].

    Returns
    -------
    tuple of Matching
        One for each threshold.
    """
    from napari_aprcnn.evaluate.assign import matched_pairs

    found, ious = [], table.pair_ious
    for threshold in thresholds:
        pairs = matched_pairs(table, threshold)
        n_labels, n_truths = len(table.label_ids), len(table.truth_ids)
        found.append(
            _matching(threshold, len(pairs), n_labels - len(pairs), n_truths - len(pairs), float(ious[pairs].sum()))
        )
    return tuple(found)


def pooled(images: Sequence[Sequence[Matching]]) -> tuple[Matching, ...]:
    """Add up the counts of several images, threshold by threshold.

    Parameters
    ----------
    images
        Of each image one `Matching` for each threshold, in the same order.

    Returns
    -------
    tuple of Matching

    Examples
    --------
    >>> one = Matching(threshold=0.5, true_positives=2, false_positives=0, false_negatives=0, mean_matched_iou=0.9)
    >>> two = Matching(threshold=0.5, true_positives=1, false_positives=1, false_negatives=0, mean_matched_iou=0.6)
    >>> (match,) = pooled([[one], [two]])
    >>> match.true_positives, round(match.mean_matched_iou, 6)
    (3, 0.8)
    """
    return tuple(
        _matching(
            matches[0].threshold,
            sum(m.true_positives for m in matches),
            sum(m.false_positives for m in matches),
            sum(m.false_negatives for m in matches),
            sum(m.mean_matched_iou * m.true_positives for m in matches),
        )
        for matches in zip(*images, strict=True)
    )


def _matching(threshold: float, tp: int, fp: int, fn: int, iou_sum: float) -> Matching:
    return Matching(
        threshold=float(threshold),
        true_positives=int(tp),
        false_positives=int(fp),
        false_negatives=int(fn),
        mean_matched_iou=iou_sum / max(1, tp),
    )
