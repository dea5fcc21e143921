"""Object probabilities and distances along rays to instances: prune, suppress, render.

Weigert et al. (2020), Star-convex Polyhedra for 3D Object Detection and Segmentation in Microscopy. Suppression and
rendering are the functions of their package, which take lists of points (APR-CNN paper, section StarDist
segmentation). What is ours is the pruning before: on particles there may be tens of thousands of candidates.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from napari_aprcnn._kernels import compact_labels
from napari_aprcnn.errors import ImageError, ImageValueError, MissingDependencyError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.segment.progress import Progress, Reporter
from napari_aprcnn.segment.star_prune import local_best, recentred
from napari_aprcnn.segment.star_targets import require_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_aprcnn.segment.star_rays import StarRays

__all__ = [
    "StarCandidates",
    "StarDistSettings",
    "StarObjects",
    "prune_candidates",
    "recentre_objects",
    "render_objects",
    "require_stardist",
    "star_candidates",
    "stardist_instances",
    "suppress_overlaps",
]

SHORTEST = 1e-3  # voxels: the package refuses distances of 0


class StarDistSettings(Frozen):
    """From star-convex predictions to instances.

    Attributes
    ----------
    probability_threshold
        Candidates below are dropped, 0..1. Lower: more objects.
    overlap_threshold
        A candidate is dropped if a better one overlaps it by more than this share of the smaller of both, 0..1.
        Lower: fewer objects.
    prune_share
        Before that, a candidate is dropped if a better one lies within this share of its own body's radius (and of
        the better one's); 0 switches this off. The radius is that of a sphere of the body's volume; half of it stays
        inside one nucleus, also where that is three times as long as wide.
    recentre
        Draw every object from the candidate next to its middle, which sees more of its border than the one with the
        highest probability; its probability stays.
    rounding
        Lengthen the distances a little when objects are drawn: the flat faces between the ends of the rays cut a
        sphere's volume by 6 % (96 rays in all directions alike).
    """

    probability_threshold: float = Field(default=0.5, ge=0, le=1)
    overlap_threshold: float = Field(default=0.4, ge=0, le=1)
    prune_share: float = Field(default=0.5, ge=0, le=2)
    recentre: bool = True
    rounding: bool = True


class StarCandidates(NamedTuple):
    """Points that may be objects, best first.

    Attributes
    ----------
    probability : (N,) float32
        Descending.
    distances : (N, R) float32
        Voxels along the rays.
    points : (N, 3) float32
        z, y, x in voxels.
    rows : (N,) intp
        Rows of the prediction that they come from.
    """

    probability: NDArray[np.float32]
    distances: NDArray[np.float32]
    points: NDArray[np.float32]
    rows: NDArray[np.intp]

    def take(self, which: NDArray[Any] | slice) -> StarCandidates:
        """Some of them, in the order of the indices."""
        return StarCandidates(self.probability[which], self.distances[which], self.points[which], self.rows[which])


@dataclass(frozen=True, kw_only=True, eq=False)
class StarObjects:
    """What is known of the objects beside their labels; row i is label i + 1.

    Attributes
    ----------
    probability : (n,) float32
        Of the candidate that became the object.
    points : (n, 3) float32
        Its position z, y, x in voxels.
    distances : (n, R) float32
        Its distances along the rays, as predicted.
    rows : (n,) intp
        Its row of the prediction.
    candidates, pruned
        Number of candidates above the threshold, and of those that were left for the suppression of overlaps.
    """

    probability: NDArray[np.float32]
    points: NDArray[np.float32]
    distances: NDArray[np.float32]
    rows: NDArray[np.intp]
    candidates: int
    pruned: int


def stardist_instances(
    probability: NDArray[Any],
    distances: NDArray[Any],
    points: NDArray[Any],
    shape: tuple[int, int, int],
    rays: StarRays,
    settings: StarDistSettings | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> tuple[NDArray[np.uint32], StarObjects]:
    """Objects from the two heads of a StarDist network, on particles or on a grid.

    Parameters
    ----------
    probability : (N,) float
        Object probability of every row, 0..1.
    distances : (N, R) float
        Voxels to the border of the object along every ray.
    points : (N, 3) float
        Centre z, y, x of every row's cell in voxels: `napari_aprcnn.segment.star_targets.cell_centres`.
    shape
        Voxels of the image along z, y, x.
    rays
        Directions that the network was trained for.
    settings
        Thresholds; by default `StarDistSettings()`.
    progress
        Told each of the steps.
    should_cancel
        Asked between the steps and while pruning; not within the package's own functions.

    Returns
    -------
    labels : (Z, Y, X) uint32
        1..n in the order of their first voxel, 0 background.
    objects
        Probability, position and distances of each.

    Raises
    ------
    MissingDependencyError
        If the stardist package is not installed.
    ImageError
        If shapes do not fit, or the image is a plane.
    ImageValueError
        If a probability or a distance of a candidate is not finite.
    CancelledError
        If ``should_cancel`` said yes.

    Notes
    -----
    Pruning never removes the best candidate of its surroundings, so every object keeps one. It does not depend on the
    thresholds: what beats a candidate has a higher probability than it has.

    Examples
    --------
    >>> from napari_aprcnn.segment.star_rays import golden_spiral
    >>> rays = golden_spiral(96)
    >>> labels, objects = stardist_instances([0.9], np.full((1, 96), 5.0), [[8, 8, 8]], (16, 16, 16), rays)
    >>> int(labels.max()), abs(int(labels.sum()) - 4 / 3 * np.pi * 5**3) < 60
    (1, True)
    """
    settings = settings or StarDistSettings()
    reporter = Reporter(progress, should_cancel)
    _package()
    every = star_candidates(probability, distances, points, shape, rays, threshold=settings.probability_threshold)
    total = len(every.rows)
    reporter.advance("candidates", 0, done=1, total=4, what=f"{total} candidates")
    candidates = prune_candidates(every, rays, settings.prune_share, check=reporter.check)
    pruned = len(candidates.rows)
    reporter.advance("candidates", 0, done=2, total=4, what=f"{pruned} candidates after pruning")
    kept = suppress_overlaps(candidates, rays, settings.overlap_threshold)
    if settings.recentre:
        kept = recentre_objects(kept, every, rays)
    reporter.advance("suppression", 0, done=3, total=4, what=f"{len(kept.rows)} objects")
    labels, drawn = render_objects(kept, shape, rays, rounding=settings.rounding)
    reporter.finish()
    return labels, StarObjects(
        probability=drawn.probability,
        points=drawn.points,
        distances=drawn.distances,
        rows=drawn.rows,
        candidates=total,
        pruned=pruned,
    )


def star_candidates(
    probability: NDArray[Any],
    distances: NDArray[Any],
    points: NDArray[Any],
    shape: tuple[int, int, int],
    rays: StarRays,
    *,
    threshold: float,
) -> StarCandidates:
    """Check a prediction and choose the rows from a probability on, best first.

    Raises
    ------
    ImageError, ImageValueError
        As `stardist_instances` does.
    """
    require_volume(shape)
    probability, distances, points = (np.asarray(part) for part in (probability, distances, points))
    n = len(probability) if probability.ndim == 1 else -1
    if distances.shape != (n, len(rays)) or points.shape != (n, 3):
        raise ImageError(
            f"got probability {probability.shape}, distances {distances.shape} and points {points.shape}, expected "
            f"[n], [n, {len(rays)}] and [n, 3]; one row for each particle, or flatten the grid"
        )
    if np.isnan(probability).any():
        raise ImageValueError("got NaN in the probability, expected 0..1; check the network's input")
    probability = probability.astype(np.float32, copy=False)
    rows = np.flatnonzero(probability >= np.float32(threshold))
    # Of equal ones the first comes first.
    rows = rows[np.argsort(-probability[rows], kind="stable")]
    found = StarCandidates(
        probability[rows],
        np.maximum(distances[rows].astype(np.float32), SHORTEST),
        points[rows].astype(np.float32),
        rows,
    )
    if not (np.isfinite(found.distances).all() and np.isfinite(found.points).all()):
        raise ImageValueError("got distances or points that are not finite; check the network's input")
    return found


def prune_candidates(
    candidates: StarCandidates, rays: StarRays, share: float, *, check: Callable[[], None] | None = None
) -> StarCandidates:
    """Keep candidates that no better one exceeds within a share of their radius; see `StarDistSettings`."""
    if share == 0:
        return candidates
    radii = share * rays.radii(candidates.distances)
    return candidates.take(local_best(candidates.points, candidates.probability, radii, check=check))


def recentre_objects(objects: StarCandidates, every: StarCandidates, rays: StarRays) -> StarCandidates:
    """Give objects the points and distances of the candidates next to their middles; they keep their probability.

    Parameters
    ----------
    objects
        What is left after the suppression.
    every
        All candidates above the threshold, before pruning; ``objects`` are among them.
    rays
        Directions.
    """
    if len(objects.rows) == 0:
        return objects
    place = np.empty(int(every.rows.max()) + 1, np.intp)
    place[every.rows] = np.arange(len(every.rows))
    moved = recentred(place[objects.rows], every.points, every.distances, rays)
    return every.take(moved)._replace(probability=objects.probability)


def suppress_overlaps(candidates: StarCandidates, rays: StarRays, threshold: float) -> StarCandidates:
    """Keep candidates that no better one overlaps by more than a share of the smaller of both (the package's own).

    Raises
    ------
    MissingDependencyError
        If the stardist package is not installed.
    """
    suppress, _ = _package()
    if len(candidates.rows) == 0:
        return candidates
    *_, kept = suppress(
        candidates.distances, candidates.probability, candidates.points, rays, nms_thresh=threshold, verbose=False
    )
    return candidates.take(np.sort(kept))


def render_objects(
    candidates: StarCandidates, shape: tuple[int, int, int], rays: StarRays, *, rounding: bool = True
) -> tuple[NDArray[np.uint32], StarCandidates]:
    """Draw polyhedra, better ones in front (the package's own).

    Returns
    -------
    labels : (Z, Y, X) uint32
        1..n in the order of first voxels.
    candidates
        Those that can be seen, in the order of their labels.

    Raises
    ------
    MissingDependencyError
        If the stardist package is not installed.
    """
    _, render = _package()
    if len(candidates.rows) == 0:
        return np.zeros(shape, np.uint32), candidates
    distances = candidates.distances * np.float32(rays.rounding if rounding else 1.0)
    drawn = render(distances, candidates.points, rays, shape, prob=candidates.probability, verbose=False)
    labels, n = compact_labels(np.asarray(drawn, np.uint32))
    order = np.zeros(n + 1, np.intp)
    order[labels] = drawn
    return labels, candidates.take(order[1:] - 1)


def require_stardist() -> None:
    """Find out whether objects of a StarDist head can be made.

    Raises
    ------
    MissingDependencyError
        If the stardist package is not installed.
    """
    _package()


def _package() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The package's suppression and rendering; they need no TensorFlow."""
    # The package replaces the format of everybody's warnings.
    formatter = warnings.formatwarning
    try:
        from stardist.geometry import polyhedron_to_label
        from stardist.nms import non_maximum_suppression_3d_sparse
    except ImportError as error:
        raise MissingDependencyError(
            f"the stardist package cannot be used ({error}): pip install 'napari-aprcnn[stardist]', or segment with "
            "three classes or flows"
        ) from error
    finally:
        warnings.formatwarning = formatter
    return non_maximum_suppression_3d_sparse, polyhedron_to_label
