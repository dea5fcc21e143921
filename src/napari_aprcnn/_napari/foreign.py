"""Images that other plugins made: the lazy APR images of napari-apr-viewer, read in a way that is safe.

Its layers hold a pyapr ``APRSlicer``: an object that paints every slice into one buffer of its own, drops axes of
length 1, and gives its particles (one axis) to ``numpy.asarray``. The viewer draws from it while a run would read it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr.lazy_array import BoxArray, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SlicerImage", "steady"]

# pyapr keeps the interpreter while it paints: a few planes at a time leave the window alive.
_VOXELS_A_READ = 4_000_000


def steady(data: Any) -> Any:
    """Return an array that a worker thread may slice like numpy's; what is one already is returned as it is."""
    if isinstance(data, np.ndarray | BoxArray):
        return data
    if all(hasattr(data, name) for name in ("apr", "parts", "patch", "reconstruct", "shape", "__getitem__")):
        return SlicerImage(data)
    return data


class SlicerImage(BoxArray):
    """A pyapr slicer as an array: exact shapes, a buffer of its own, one reader at a time.

    Parameters
    ----------
    slicer
        A pyapr ``APRSlicer``; its resolution and mode of this moment are kept.
    """

    def __init__(self, slicer: Any) -> None:
        super().__init__(tuple(int(n) for n in slicer.shape), np.dtype(slicer.dtype))
        self._slicer = slicer
        self._own: Any | None = None
        self._options = {"mode": slicer.mode, "level_delta": slicer.patch.level_delta}
        self._lock = threading.Lock()

    def read_box(self, spans: Sequence[Span]) -> NDArray[Any]:
        """Let the slicer paint a box, some planes at a time."""
        (z0, z1), (y0, y1), (x0, x1) = spans
        out = np.empty((z1 - z0, y1 - y0, x1 - x0), self.dtype)
        step = max(1, _VOXELS_A_READ // max(1, out[0].size))
        for start in range(z0, z1, step):
            stop = min(start + step, z1)
            with self._lock:
                if self._own is None:
                    # The viewer draws from the layer's slicer: ours has the same particles and a buffer of its own.
                    self._own = type(self._slicer)(self._slicer.apr, self._slicer.parts, **self._options)
                part = np.asarray(self._own[start:stop, y0:y1, x0:x1])
                out[start - z0 : stop - z0] = part.reshape(stop - start, y1 - y0, x1 - x0)
        return out
