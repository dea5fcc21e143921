"""The functions of the package that the dock calls, in one place: imported at first use, replaced in tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_aprcnn.config import AxisMapping, SegmentConfig
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.segment.reduction import Reduction
    from napari_aprcnn.segment.result import SegmentationResult

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


def _estimate(
    shape: Sequence[int], dtype: Any, config: SegmentConfig, diameter_px: float | None, prr: float | None
) -> str:
    from napari_aprcnn.segment.estimate import estimate

    return estimate(shape, dtype, config, diameter_px=diameter_px, prr=prr).words


def _reduction(image: Any, mapping: AxisMapping, **options: Any) -> Reduction:
    from napari_aprcnn.segment.reduction import measure_reduction

    return measure_reduction(image, mapping, **options)


def _relabel(result: SegmentationResult, config: SegmentConfig, **options: Any) -> SegmentationResult:
    from napari_aprcnn.segment.volume_masks import relabel

    return relabel(result, config, **options)


def _card(model: str) -> ModelCard | None:
    from napari_aprcnn.errors import ModelNotFoundError, WeightsError
    from napari_aprcnn.models.zoo import card_of

    try:
        return card_of(model)
    except (ModelNotFoundError, WeightsError):
        return None  # a run says what is wrong with it


def _machine(device: str, threads: int | None) -> Machine:
    # The first labels layer of a session makes napari import pandas, for a second or two: here it stops nobody.
    import_module("pandas")
    from napari_aprcnn.models.devices import resolve_device
    from napari_aprcnn.models.zoo import list_models

    found = resolve_device(device, threads=threads)
    return Machine(tuple(list_models()), found.words, found.gpu)


@dataclass(frozen=True)
class Backend:
    """Entry points of the package; but for `card`, none of them is called on the GUI thread.

    Attributes
    ----------
    segment
        ``segment(image, config=, progress=, should_cancel=, on_partial=) -> SegmentationResult``.
    estimate
        ``estimate(shape, dtype, config, diameter_px, prr) -> str``: time and memory in words.
    reduction
        ``reduction(image, mapping, relative_error=, zoom=, threads=, should_cancel=) -> Reduction``.
    relabel
        ``relabel(result, config, threads=, should_cancel=) -> SegmentationResult``.
    card
        ``card(name or path) -> ModelCard | None``; reads a small file.
    machine
        ``machine(device, threads) -> Machine``.
    """

    segment: Callable[..., Any] = _segment
    estimate: Callable[..., str] = _estimate
    reduction: Callable[..., Reduction] = _reduction
    relabel: Callable[..., SegmentationResult] = _relabel
    card: Callable[[str], ModelCard | None] = _card
    machine: Callable[..., Machine] = _machine
