"""Array-likes that are made where they are sliced: numpy's indexing on top of boxes."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BoxArray", "Span"]

Span = tuple[int, int]


class BoxArray(ABC):
    """A read-only array that is sliced like numpy's and computes only the box that an index needs.

    Parameters
    ----------
    shape, dtype
        As those of a numpy array.

    Attributes
    ----------
    shape, dtype, ndim, size, nbytes
        As those of numpy arrays; `nbytes` is what the whole would take.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.ndim = len(shape)
        self.size = math.prod(shape)
        self.nbytes = self.size * dtype.itemsize

    @abstractmethod
    def read_box(self, spans: Sequence[Span]) -> NDArray[Any]:
        """Return the values of a box: first and behind the last index along each axis; none is empty."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("this array is made anew each time it is read; copy=False cannot be kept")
        made: NDArray[Any] = self[...]
        return made if dtype is None else made.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        """Read a part; every index that numpy takes gives what numpy gives."""
        given = index if isinstance(index, tuple) else (index,)
        if any(part is None or isinstance(part, bool | np.bool_) or _is_mask(part) for part in given):
            return self[...][index]
        spans, rest = [], []
        for part, n in zip(_filled(given, self.ndim), self.shape, strict=True):
            span, inside = _span(part, n)
            spans.append(span)
            rest.append(inside)
        if any(high <= low for low, high in spans):
            block: NDArray[Any] = np.zeros([max(0, high - low) for low, high in spans], self.dtype)
        else:
            block = self.read_box(spans)
        return block[tuple(rest)]


def _is_mask(part: Any) -> bool:
    return getattr(part, "dtype", None) == np.bool_ and getattr(part, "ndim", 0) > 1


def _filled(given: tuple[Any, ...], ndim: int) -> Sequence[Any]:
    """One index for each axis."""
    dots = [i for i, part in enumerate(given) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("got more than one ellipsis in an index")
    if len(given) - len(dots) > ndim:
        raise IndexError(f"got {len(given) - len(dots)} indices for an array of {ndim} axes")
    missing = (slice(None),) * (ndim - len(given) + len(dots))
    return (*given[: dots[0]], *missing, *given[dots[0] + 1 :]) if dots else (*given, *missing)


def _span(part: Any, n: int) -> tuple[tuple[int, int], Any]:
    """Cut one axis: the part to paint, and what then picks from it."""
    if isinstance(part, slice):
        wanted = range(n)[part]
        if not wanted:
            return (0, 0), slice(None)
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1
        return (low, high), slice(None, None, wanted.step)
    if isinstance(part, list | np.ndarray) and np.ndim(part):
        picked = np.asarray(part)
        if picked.dtype == np.bool_:
            if len(picked) != n:
                raise IndexError(f"got a mask of {len(picked)} for an axis of {n}")
            picked = np.flatnonzero(picked)
        if picked.size == 0:
            return (0, 0), picked.astype(np.intp)
        if picked.min() < -n or picked.max() >= n:
            raise IndexError(f"got indices {picked.min()} to {picked.max()} for an axis of {n}")
        picked = np.where(picked < 0, picked + n, picked)
        return (int(picked.min()), int(picked.max()) + 1), picked - picked.min()
    at = operator.index(part)
    if not -n <= at < n:
        raise IndexError(f"got index {at} for an axis of {n}")
    at %= n
    return (at, at + 1), 0
