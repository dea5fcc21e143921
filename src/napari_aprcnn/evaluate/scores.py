"""Evaluate one prediction: every image, every slice, all together, and what went wrong where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.evaluate.assign import matched_pairs
from napari_aprcnn.evaluate.bootstrap import Interval, bootstrap_intervals
from napari_aprcnn.evaluate.config import EvaluateConfig
from napari_aprcnn.evaluate.detections import PointVoxels, match_points, values_at, voxels_of
from napari_aprcnn.evaluate.matching import Matching, match_table, pooled
from napari_aprcnn.evaluate.mistakes import ERRORS, Found, Kind, Mistake, find_mistakes
from napari_aprcnn.evaluate.overlap import check_labels, overlap_table, planes
from napari_aprcnn.io.points import Points

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Evaluation", "ImagePair", "UnitScore", "evaluate_images"]

Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagePair:
    """A prediction of one image and what is true.

    Attributes
    ----------
    name
        Of the image.
    labels : (*S) integer
        Predicted instance labels, 0 is background; numpy, dask, zarr.
    truth : (*S) integer, or Points
        True instance labels, or points in voxels of `labels`.
    ignore : (*S) bool or integer, optional
        Region (not 0) that counts for nobody.
    spacing_um
        Voxel size, one number for each axis; needed for a minimum size in micrometres.
    """

    name: str
    labels: Any
    truth: Any
    ignore: Any = None
    spacing_um: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitScore:
    """What was counted in one image, or in one slice of it.

    Attributes
    ----------
    image
        Name of the image.
    slice_index
        The slice, or ``None`` for the whole image.
    matchings
        One for each threshold; of points a single one.
    mistakes
        Splits, merges, misses and false positives.
    label_ids, label_kinds : (n,)
        Predicted objects and what became of them.
    truth_ids, truth_kinds : (m,)
        The same of the true objects; of points their row numbers.
    n_excluded_labels, n_excluded_truths
        Objects that were left out: too small, or in the ignored region.
    """

    image: str
    slice_index: int | None
    matchings: tuple[Matching, ...]
    mistakes: tuple[Mistake, ...]
    label_ids: NDArray[np.int64]
    label_kinds: NDArray[np.uint8]
    truth_ids: NDArray[np.int64]
    truth_kinds: NDArray[np.uint8]
    n_excluded_labels: int = 0
    n_excluded_truths: int = 0

    @property
    def name(self) -> str:
        """Image and slice in words."""
        return self.image if self.slice_index is None else f"{self.image}, slice {self.slice_index}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """Scores of one prediction.

    Attributes
    ----------
    name
        Of the prediction.
    against
        ``labels`` or ``points``.
    config
        How it was evaluated.
    units
        Every image, or every slice.
    notes
        What a reader should know, in sentences.
    """

    name: str
    against: str
    config: EvaluateConfig
    units: tuple[UnitScore, ...]
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def pooled(self) -> tuple[Matching, ...]:
        """Counts of all units together, one for each threshold; of points a single one."""
        return pooled([unit.matchings for unit in self.units])

    @property
    def headline(self) -> Matching:
        """The counts at ``config.iou``; of points the only ones."""
        return self.pooled[self._index]

    @property
    def _index(self) -> int:
        return 0 if self.against == "points" else self.config.all_thresholds.index(self.config.iou)

    @property
    def curve(self) -> tuple[Matching, ...]:
        """The counts at the thresholds of the curve; nothing for points."""
        wanted = set(self.config.thresholds)
        return () if self.against == "points" else tuple(m for m in self.pooled if m.threshold in wanted)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of the headline's precision, recall, F1 and accuracy."""
        matchings = [unit.matchings[self._index] for unit in self.units]
        return bootstrap_intervals(matchings, n_resamples=self.config.bootstrap, seed=self.config.seed)

    def headline_of(self, unit: UnitScore) -> Matching:
        """Counts of one image or slice at ``config.iou``."""
        return unit.matchings[self._index]

    @cached_property
    def images(self) -> dict[str, Matching]:
        """Counts at ``config.iou`` of each image, its slices together."""
        names = dict.fromkeys(unit.image for unit in self.units)
        return {
            name: pooled([[self.headline_of(unit)] for unit in self.units if unit.image == name])[0] for name in names
        }

    @property
    def parts(self) -> dict[str, Matching]:
        """Counts at ``config.iou`` of each slice by its name, or of each image where no slices were taken."""
        if self.config.slices is None:
            return self.images
        return {unit.name: self.headline_of(unit) for unit in self.units}

    @cached_property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Errors of all units."""
        return tuple(mistake for unit in self.units for mistake in unit.mistakes)

    @cached_property
    def counts(self) -> dict[Kind, int]:
        """Number of splits, merges, misses and false positives."""
        found = Counter(mistake.kind for mistake in self.mistakes)
        return {kind: found[kind] for kind in ERRORS}


def evaluate_images(
    images: Sequence[ImagePair],
    *,
    config: EvaluateConfig | None = None,
    name: str = "prediction",
    progress: Progress = lambda _fraction: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Evaluate a prediction against labels or against points.

    Parameters
    ----------
    images
        Predictions with what is true; all of them labels, or all of them points.
    config
        ``None``: the defaults.
    name
        Of the prediction.
    progress
        Called with the share that is done, 0..1.
    should_cancel
        Asked between slabs.

    Returns
    -------
    Evaluation
        An empty prediction has precision 0 and recall 0, an empty truth recall 0 and precision 0; where both are empty
        F1 and accuracy are 1.

    Raises
    ------
    ConfigError
        If there is no image, labels and points are mixed, a slice does not exist, or a value to ignore was given with
        points.
    ImageError, ImageDtypeError
        If shapes differ, there are no integers, ids are negative, or points lie outside.
    CancelledError
        If `should_cancel` said yes.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> found = evaluate_images([ImagePair(name="a", labels=np.array([[3, 3, 0, 0, 0]]), truth=truth)])
    >>> found.headline.precision, found.headline.recall, found.counts[Kind.MISS]
    (1.0, 0.5, 1)
    """
    config = config or EvaluateConfig()
    if not images:
        raise ConfigError("got no image to evaluate; expected at least one prediction with its truth")
    kinds = {"points" if isinstance(pair.truth, Points) else "labels" for pair in images}
    if len(kinds) > 1:
        raise ConfigError("got labels as truth of some images and points of others; evaluate them one after the other")
    against = kinds.pop()
    if against == "points" and config.ignore_label is not None:
        raise ConfigError(
            f"points have no label {config.ignore_label} to ignore; give the region as a mask, or no ignore_label"
        )
    units: list[UnitScore] = []
    notes: list[str] = []
    for done, pair in enumerate(images):

        def tell(share: float, done: int = done) -> None:
            progress((done + share) / len(images))

        units.extend(_units(pair, config, notes, tell, should_cancel))
    left_out = [sum(getattr(u, f"n_excluded_{side}s") for u in units) for side in ("label", "truth")]
    if any(left_out):
        notes.append(
            f"left out as too small or in the ignored region: {left_out[0]} predicted and {left_out[1]} true objects"
        )
    return Evaluation(name=name, against=against, config=config, units=tuple(units), notes=tuple(notes))


def _units(
    pair: ImagePair, config: EvaluateConfig, notes: list[str], progress: Progress, should_cancel: Callable[[], bool]
) -> Iterator[UnitScore]:
    """Evaluate an image: as a whole, or slice by slice."""
    points = pair.truth if isinstance(pair.truth, Points) else None
    truth = None if points is not None else pair.truth
    shape = check_labels(pair.labels, truth, pair.ignore)
    voxels = None
    if points is not None:
        voxels = voxels_of(points.coordinates, shape, name=pair.name)
        if voxels.n_duplicates:
            notes.append(f"{pair.name}: {voxels.n_duplicates} points lie in the voxel of another and count once")
    if config.slices is None:
        rank = min(len(shape), 3)
        yield _unit(
            pair.name, None, pair.labels, truth, pair.ignore, voxels, config,
            min_size=config.min_size_voxels(pair.spacing_um, rank=rank), progress=progress, should_cancel=should_cancel,
        )  # fmt: skip
        return
    if len(shape) < 3:
        raise ConfigError(f"slices were asked for, but {pair.name} has shape {shape}; expected a volume, or no slices")
    indices = range(shape[0]) if config.slices == "all" else sorted(set(config.slices))
    if indices[-1] >= shape[0]:
        raise ConfigError(
            f"slice {indices[-1]} was asked for, but {pair.name} has {shape[0]} (0 to {shape[0] - 1}); leave it out"
        )
    min_size = config.min_size_voxels(pair.spacing_um, rank=len(shape) - 1)
    read = planes(pair.labels, truth, pair.ignore, indices=indices, should_cancel=should_cancel)
    for done, (index, labels, true, ignore) in enumerate(read):
        here = None
        if voxels is not None:
            here = voxels.only(voxels.indices[:, 0] == index)
            here = PointVoxels(here.indices[:, 1:], here.rows)
        yield _unit(pair.name, index, labels, true, ignore, here, config, min_size=min_size)
        progress((done + 1) / len(indices))


def _unit(
    image: str,
    slice_index: int | None,
    labels: Any,
    truth: Any,
    ignore: Any,
    points: PointVoxels | None,
    config: EvaluateConfig,
    *,
    min_size: float,
    progress: Progress = lambda _fraction: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> UnitScore:
    """Count in one array."""
    table = overlap_table(
        labels, truth, ignore=ignore, ignore_label=config.ignore_label, min_size=min_size, progress=progress,
        should_cancel=should_cancel,
    )  # fmt: skip
    truth_ids: NDArray[Any] = table.truth_ids
    n_excluded = table.n_excluded_truths
    if points is None:
        matchings = match_table(table, config.all_thresholds)
        found = find_mistakes(table, matched_pairs(table, config.iou))
    else:
        if ignore is not None:
            open_ = values_at(ignore, points.indices, should_cancel=should_cancel) == 0
            n_excluded += int(np.count_nonzero(~open_))
            points = points.only(open_)
        match, found = match_points(table, points, values_at(labels, points.indices, should_cancel=should_cancel))
        matchings, truth_ids = (match,), points.rows.astype(np.int64)
    return UnitScore(
        image=image,
        slice_index=slice_index,
        matchings=matchings,
        mistakes=_placed(found, image, slice_index),
        label_ids=table.label_ids,
        label_kinds=found.label_kinds,
        truth_ids=truth_ids,
        truth_kinds=found.truth_kinds,
        n_excluded_labels=table.n_excluded_labels,
        n_excluded_truths=n_excluded,
    )


def _placed(found: Found, image: str, slice_index: int | None) -> tuple[Mistake, ...]:
    """Say of errors in which image and slice they are."""
    first = () if slice_index is None else (float(slice_index),)
    return tuple(
        replace(mistake, image=image, slice_index=slice_index, centroid=(*first, *mistake.centroid))
        for mistake in found.mistakes
    )
