"""How sure a score is: confidence intervals by resampling what was counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.matching import Matching

__all__ = ["SCORES", "Interval", "bootstrap_intervals"]

SCORES = ("precision", "recall", "f1", "accuracy")


@dataclass(frozen=True)
class Interval:
    """An interval that holds the score with the given confidence.

    Attributes
    ----------
    low, high
        Ends, 0..1.
    """

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width, for "0.92 ± 0.02"."""
        return (self.high - self.low) / 2


def bootstrap_intervals(
    matchings: Sequence[Matching], *, n_resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Interval]:
    """Bootstrap precision, recall, F1 and accuracy.

    Several images (or slices) are drawn with replacement, whole, because nuclei of one image are alike. Within a single
    image the hits, false positives and false negatives are drawn, which takes them as independent.

    Parameters
    ----------
    matchings
        Counts of every image at one threshold.
    n_resamples
        Draws; 0 gives no interval.
    seed
        Of the draws.
    confidence
        Share of the draws within the interval (percentiles), 0..1.

    Returns
    -------
    dict of Interval
        By name of the score; empty without draws or without any object.

    Raises
    ------
    ConfigError
        If the number of draws is negative, or the confidence is not between 0 and 1.

    Examples
    --------
    >>> from napari_aprcnn.evaluate.matching import Matching
    >>> match = Matching(threshold=0.5, true_positives=90, false_positives=5, false_negatives=10)
    >>> interval = bootstrap_intervals([match])["recall"]
    >>> interval.low < match.recall < interval.high
    True
    """
    if n_resamples < 0 or not 0 < confidence < 1:
        raise ConfigError(
            f"got {n_resamples} resamples at confidence {confidence}; expected 0 or more, and a number between 0 and 1"
        )
    counts = np.array([(m.true_positives, m.false_positives, m.false_negatives) for m in matchings], np.int64)
    if not n_resamples or not counts.size or not counts.sum():
        return {}
    rng = np.random.default_rng(seed)
    if len(counts) > 1:
        # How often each image is drawn says all: the draw itself would be a table of images by draws.
        times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n_resamples)
        drawn = times @ counts
    else:
        total = int(counts[0].sum())
        drawn = rng.multinomial(total, counts[0] / total, size=n_resamples)
    ends = (50 * (1 - confidence), 50 * (1 + confidence))
    return {
        name: Interval(*(float(value) for value in np.percentile(values, ends)))
        for name, values in _scores(drawn.astype(np.float64)).items()
    }


def _scores(counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The scores of many draws, with the values that `Matching` gives where nothing was counted."""
    tp, fp, fn = counts.T
    empty = (tp + fp + fn) == 0
    return {
        "precision": tp / np.maximum(1, tp + fp),
        "recall": tp / np.maximum(1, tp + fn),
        "f1": np.where(empty, 1.0, 2 * tp / np.maximum(1, 2 * tp + fp + fn)),
        "accuracy": np.where(empty, 1.0, tp / np.maximum(1, tp + fp + fn)),
    }
