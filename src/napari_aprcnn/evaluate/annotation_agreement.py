"""How well two annotators agree: points of one matched, one to one, to points of the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import AxesError, ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.evaluate.slice_choice import SliceIndex
    from napari_aprcnn.io.points import Points

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two lists of points agree.

    Attributes
    ----------
    n_matched
        Points of both that lie together.
    n_only_first, n_only_second
        Points of one alone.
    mean_distance
        Of the matched ones, in the unit of the radius; NaN where there are none.
    """

    n_matched: int
    n_only_first: int
    n_only_second: int
    mean_distance: float

    @property
    def f1(self) -> float:
        """2 M / (2 M + A + B): 1 where all points lie together, or there are none."""
        total = 2 * self.n_matched + self.n_only_first + self.n_only_second
        return 2 * self.n_matched / total if total else 1.0


def agreement(
    first: Points,
    second: Points,
    *,
    radius_px: float | None = None,
    radius_um: float | None = None,
    slices: Iterable[SliceIndex] | None = None,
) -> Agreement:
    """Match the points of two annotators within each slice.

    As many pairs as possible are made, one to one, none farther apart than the radius; among those of equal number,
    the ones with the least sum of distances.

    Parameters
    ----------
    first, second
        Points of the same image.
    radius_px, radius_um
        Largest distance within a slice, in pixels or micrometres: one of them. About the radius of a nucleus.
    slices
        Only these; by default all. Give those that both have done: a slice that one has not looked at is no
        disagreement.

    Returns
    -------
    Agreement

    Raises
    ------
    AxesError
        If the axes differ.
    ConfigError
        If not exactly one radius is given, or the voxel size that it needs is not known.

    Examples
    --------
    >>> from napari_aprcnn.io.points import Points
    >>> one, other = Points([[3, 10, 10], [3, 40, 40]]), Points([[3, 11, 10], [5, 40, 40]])
    >>> found = agreement(one, other, radius_px=4)
    >>> found.n_matched, found.n_only_first, found.n_only_second, found.f1
    (1, 1, 1, 0.5)
    """
    if first.axes != second.axes:
        raise AxesError(f"points with axes {first.axes} and {second.axes}; expected the same image")
    radius, steps = _radius(first, radius_px, radius_um)
    groups = [_by_slice(points, steps) for points in (first, second)]
    wanted = set(groups[0]) | set(groups[1])
    if slices is not None:
        wanted &= {tuple(int(i) for i in index) for index in slices}
    nothing = np.empty((0, 2))
    matched, alone, distances = 0, [0, 0], 0.0
    for index in sorted(wanted):
        one, other = (group.get(index, nothing) for group in groups)
        found = _matched(one, other, radius)
        matched += len(found)
        distances += float(found.sum())
        alone[0] += len(one) - len(found)
        alone[1] += len(other) - len(found)
    mean = distances / matched if matched else float("nan")
    return Agreement(n_matched=matched, n_only_first=alone[0], n_only_second=alone[1], mean_distance=mean)


def _radius(points: Points, radius_px: float | None, radius_um: float | None) -> tuple[float, NDArray[np.float64]]:
    radius = radius_px if radius_um is None else radius_um
    if radius is None or (radius_px is not None and radius_um is not None) or not 0 < radius < float("inf"):
        raise ConfigError(f"radius_px={radius_px}, radius_um={radius_um}; expected one of them, above 0")
    if radius_um is None:
        return radius, np.ones(2)
    if points.spacing_um is None:
        raise ConfigError(
            "a radius in micrometres needs the voxel size of the points; give radius_px, or set spacing_um"
        )
    return radius, np.array(points.spacing_um[-2:])


def _by_slice(points: Points, steps: NDArray[np.float64]) -> dict[tuple[int, ...], NDArray[np.float64]]:
    groups: dict[tuple[int, ...], list[Any]] = {}
    for row in points.coordinates:
        groups.setdefault(tuple(int(i) for i in np.round(row[:-2])), []).append(row[-2:] * steps)
    return {index: np.array(rows) for index, rows in groups.items()}


def _matched(one: NDArray[np.float64], other: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Distances of the matched pairs of one slice."""
    from scipy.optimize import linear_sum_assignment

    if not len(one) or not len(other):
        return np.empty(0)
    distance = np.hypot(*(one[:, None] - other[None]).transpose(2, 0, 1))
    # A pair that is too far apart costs more than all allowed ones together, so their number comes first.
    far = radius * (min(len(one), len(other)) + 1)
    rows, columns = linear_sum_assignment(np.where(distance <= radius, distance, far))
    found: NDArray[np.float64] = distance[rows, columns]
    return found[found <= radius]
