"""Gives a labels layer the colours of a column, prepared in another thread, and takes them away again. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn._napari.inspect_colours import Colouring, make_colouring
from napari_aprcnn._napari.jobs import Outcome
from napari_aprcnn._napari.latest import Latest
from napari_aprcnn.io.object_table import ObjectTable

__all__ = ["Painter"]


class Painter:
    """Colours of labels layers.

    Parameters
    ----------
    launch
        Runs a callable in another thread.
    told
        Called when a layer has other colours, with the error if there was one.

    Attributes
    ----------
    on
        Whether labels shall be coloured by a column.
    colouring
        How they are.
    """

    def __init__(self, launch: Callable[[Callable[[], None]], Any], told: Callable[[Exception | None], None]) -> None:
        self.on = False
        self.colouring: Colouring | None = None
        self._told = told
        self._before: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._latest = Latest(launch, self._made, delay_s=0.05)

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._latest.pending

    def ask(
        self, layer: Any, table: ObjectTable, column: str, dtype: np.dtype[Any], shown: NDArray[np.integer] | None
    ) -> None:
        """Colour a layer by a column, as soon as the colours are ready."""
        self._latest.ask(lambda _: (layer, make_colouring(table, column, dtype, shown=shown)))

    def poll(self) -> None:
        """Put colours that are ready on their layer."""
        self._latest.poll()

    def _made(self, outcome: Outcome) -> None:
        if outcome.error is None and self.on:
            layer, self.colouring = outcome.value
            self._before.setdefault(layer, layer.colormap)
            layer.colormap = self.colouring.colormap
        self._told(outcome.error)

    def reset(self) -> None:
        """Give every layer the colours back that it had."""
        self._latest.forget()
        for layer, colormap in list(self._before.items()):
            layer.colormap = colormap
        self._before.clear()
        self.colouring = None
