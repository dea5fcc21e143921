"""Instance matching at IoU thresholds, with the definitions of the stardist package.

A predicted object is a true positive at threshold t if it is assigned, one to one, to a true object with IoU >= t;
the assignment maximises the number of such pairs, then their IoU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ImageDtypeError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["THRESHOLDS", "Matching", "evaluate", "evaluate_pooled", "iou_matrix"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Counts at one IoU threshold, of one image or pooled over several.

    Attributes
    ----------
    threshold
        IoU from which on a pair counts, 0..1.
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


def _match(iou: NDArray[np.float64], threshold: float) -> tuple[int, float]:
    """Number of matched pairs and the sum of their IoU."""
    if not iou.size:
        return 0, 0.0
    if threshold >= 0.5:
        # Above one half an object overlaps at most one other: no assignment problem (at exactly .5 a tie is possible).
        good = iou > 0.5 if threshold == 0.5 else iou >= threshold
        if threshold > 0.5 or not (iou == 0.5).any():
            return int(good.sum()), float(iou[good].sum())
    from scipy.optimize import linear_sum_assignment

    n_pairs = min(iou.shape)
    rows, columns = linear_sum_assignment(-((iou >= threshold) + iou / (2 * n_pairs)))
    matched = iou[rows, columns]
    matched = matched[matched >= threshold]
    return len(matched), float(matched.sum())


def evaluate(
    labels: NDArray[Any], truth: NDArray[Any], *, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[Matching, ...]:
    """Match predicted to true objects at several IoU thresholds.

    Parameters
    ----------
    labels, truth : (*S) integer
        Predicted and true instance labels of one image, 0 is background.
    thresholds
        IoU thresholds, each in (0, 1].

    Returns
    -------
    tuple of Matching
        One for each threshold, in the order given.

    Raises
    ------
    ImageError
        If the shapes differ.
    ImageDtypeError
        If one of them does not hold integers.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[1, 1, 0, 2]])
    >>> [m.f1 for m in evaluate(truth, truth, thresholds=[0.5, 0.9])]
    [1.0, 1.0]
    """
    return evaluate_pooled([(labels, truth)], thresholds=thresholds)


def evaluate_pooled(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], *, thresholds: Sequence[float] = THRESHOLDS
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
    ImageError, ImageDtypeError
        As `evaluate` does.
    """
    counts = np.zeros((len(thresholds), 3), np.int64)
    iou_sums = np.zeros(len(thresholds))
    for labels, truth in pairs:
        iou = iou_matrix(labels, truth)
        for index, threshold in enumerate(thresholds):
            hits, iou_sum = _match(iou, threshold)
            counts[index] += (hits, iou.shape[0] - hits, iou.shape[1] - hits)
            iou_sums[index] += iou_sum
    return tuple(
        Matching(
            threshold=float(threshold),
            true_positives=int(tp),
            false_positives=int(fp),
            false_negatives=int(fn),
            mean_matched_iou=float(iou_sum / max(1, tp)),
        )
        for threshold, (tp, fp, fn), iou_sum in zip(thresholds, counts, iou_sums, strict=True)
    )
