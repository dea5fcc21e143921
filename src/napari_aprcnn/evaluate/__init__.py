"""Matching of predicted objects to true ones.

The room and the public function share a name: ``napari_aprcnn.evaluate(labels, truth)`` works whether or not a module
of this room was imported first, because the room can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from napari_aprcnn.evaluate.matching import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableRoom
