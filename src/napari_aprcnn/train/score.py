"""Scores of a model on labelled images, through the same pipeline that a user runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_aprcnn.evaluate.matching import THRESHOLDS, Matching, evaluate_pooled
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.data import median_diameter_px, read_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.network import Network

__all__ = ["Score", "score_archive"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Pooled matching of one set of images, and of each kind within it.

    Attributes
    ----------
    name
        Name of the set.
    pooled
        One `Matching` for each IoU threshold, objects of all images together.
    by_kind
        The same for each kind of image.
    """

    name: str
    pooled: tuple[Matching, ...]
    by_kind: dict[str, tuple[Matching, ...]]

    def f1(self, threshold: float) -> float:
        """Pooled F1 at one of the thresholds."""
        return next(m.f1 for m in self.pooled if m.threshold == threshold)

    def summary(self) -> dict[str, float]:
        """F1 by threshold, for a model card."""
        return {f"f1@{m.threshold:.1f}": round(m.f1, 4) for m in self.pooled}


def score_archive(
    network: Network | str,
    path: Path | str,
    *,
    diameter: str = "estimated",
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    **overrides: Any,
) -> Score:
    """Segment every image of an archive or folder and match the result.

    Parameters
    ----------
    network
        A loaded model, or the name of one.
    path
        As `read_training_data` takes it.
    diameter
        ``estimated``: nothing is told; ``known``: the median diameter of the true labels is given.
    limit
        Only every k-th image, so that about this many are left.
    progress
        Called with the number of images done and in all.
    **overrides
        Fields of `SegmentConfig`.

    Returns
    -------
    Score

    Raises
    ------
    TrainingDataError
        If the data cannot be read.
    """
    path = Path(path)
    pairs = list(read_pairs(path))
    if limit is not None:
        pairs = pairs[:: max(1, len(pairs) // limit)]
    found: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = defaultdict(list)
    for done, (_name, kind, load) in enumerate(pairs):
        image, truth = load()
        known = median_diameter_px(truth) if diameter == "known" else 0.0
        result = segment(image, model=network, diameter_px=known or None, **overrides)
        found[kind].append((result.labels, truth))
        progress(done + 1, len(pairs))
    everything: Sequence[tuple[Any, Any]] = [pair for group in found.values() for pair in group]
    return Score(
        name=path.stem,
        pooled=evaluate_pooled(everything, thresholds=THRESHOLDS),
        by_kind={kind: evaluate_pooled(group, thresholds=THRESHOLDS) for kind, group in sorted(found.items())},
    )
