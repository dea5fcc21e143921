"""The functions of the package that the dock calls, in one place: imported at first use, replaced in tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.models.cards import ModelCard

__all__ = ["Backend", "Machine"]


@dataclass(frozen=True)
class Machine:
    """What runs here.

    Attributes
    ----------
    models
        Cards of the zoo, the default first.
    device
        The device that ``auto`` gives, in words: "CPU, 2 threads".
    gpu
        The graphics device in words, or why there is none.
    """

    models: tuple[ModelCard, ...]
    device: str
    gpu: str


def _segment(image: Any, **options: Any) -> Any:
    from napari_aprcnn.segment.pipeline import segment

    return segment(image, **options)


def _estimate(shape: Sequence[int], dtype: Any, config: SegmentConfig, diameter_px: float | None) -> str:
    from napari_aprcnn.segment.estimate import estimate

    return estimate(shape, dtype, config, diameter_px=diameter_px).words


def _machine(device: str, threads: int | None) -> Machine:
    # The first labels layer of a session makes napari import pandas, for a second or two: here it stops nobody.
    import_module("pandas")
    from napari_aprcnn.models.devices import resolve_device
    from napari_aprcnn.models.zoo import list_models

    found = resolve_device(device, threads=threads)
    return Machine(tuple(list_models()), found.words, found.gpu)


@dataclass(frozen=True)
class Backend:
    """Entry points of the package; none of them is called on the GUI thread.

    Attributes
    ----------
    segment
        ``segment(image, config=, progress=, should_cancel=, on_partial=) -> SegmentationResult``.
    estimate
        ``estimate(shape, dtype, config, diameter_px) -> str``: time and memory in words.
    machine
        ``machine(device, threads) -> Machine``.
    """

    segment: Callable[..., Any] = _segment
    estimate: Callable[..., str] = _estimate
    machine: Callable[..., Machine] = _machine
