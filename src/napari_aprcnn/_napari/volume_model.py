"""What the dock knows of models for volumes: which they are, and how many particles an image will have. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_aprcnn._napari.latest import Latest

if TYPE_CHECKING:
    from napari_aprcnn._napari.backend import Backend
    from napari_aprcnn._napari.geometry import LayerImage
    from napari_aprcnn._napari.jobs import Outcome
    from napari_aprcnn.config import AxisMapping, SegmentConfig
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.segment.reduction import Reduction

__all__ = ["ERROR_RANGE", "VolumeModel", "default_model", "kind_words"]

PAUSE_S = 0.25
ERROR_RANGE = (0.02, 0.5)


class VolumeModel:
    """Cards of models, and the live particle reduction of the chosen image.

    Parameters
    ----------
    backend
        The functions that do the work.
    launch
        Runs a callable in another thread.

    Attributes
    ----------
    reduction
        As measured last, ``None`` while it is not known for what is chosen now.
    words
        The same in words, or what goes on, or why there is none.
    changed : Signal()
        `reduction` or `words` are others.
    """

    changed = Signal()

    def __init__(self, backend: Backend, launch: Callable[[Callable[[], None]], Any]) -> None:
        self._backend = backend
        self._cards: dict[str, ModelCard | None] = {}
        self._key: tuple[Any, ...] | None = None
        self._latest = Latest(launch, self._measured, delay_s=PAUSE_S)
        self.reduction: Reduction | None = None
        self.words = ""

    def card(self, name: str, listed: tuple[ModelCard, ...] = ()) -> ModelCard | None:
        """Return the card of a listed model, or of a weights file; ``None`` where it has none."""
        for card in listed:
            if card.name == name:
                return card
        if name not in self._cards:
            self._cards[name] = self._backend.card(name)
        return self._cards[name]

    def watch(
        self, image: LayerImage | None, mapping: AxisMapping | None, config: SegmentConfig, card: ModelCard | None
    ) -> None:
        """Measure the particle reduction, unless it is known for this image and these parameters.

        Parameters
        ----------
        image, mapping
            The chosen image; ``None``: there is none that could be segmented.
        config
            Relative error, zoom, particle stages and threads are looked at.
        card
            Of the model; nothing is measured for those of planes.
        """
        if image is None or mapping is None or card is None or card.volume is None:
            self.forget()
            return
        options = config.volume
        stages = card.volume.hybrid if options.particle_stages is None else options.particle_stages
        if stages == 0:
            self.forget("no particles: all stages run on voxels")
            return
        error = options.relative_error or card.relative_error
        # The array itself is in the key, so that no other can get its identity while this one is known.
        key = (image.name, image.data, image.shape, mapping, error, options.zoom)
        if self._key is not None and _same(key, self._key):
            return
        self._key, self.reduction, self.words = key, None, "measuring the particle reduction…"
        data, measure = image.data, self._backend.reduction
        self._latest.ask(
            lambda stop: measure(
                data, mapping, relative_error=error, zoom=options.zoom, threads=config.threads, should_cancel=stop
            )
        )
        self.changed.emit()

    def forget(self, words: str = "") -> None:
        """Stop measuring."""
        self._latest.forget()
        known = self._key is not None or self.words != words
        self._key, self.reduction, self.words = None, None, words
        if known:
            self.changed.emit()

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._latest.pending

    def poll(self) -> None:
        """Take what is measured."""
        self._latest.poll()

    def _measured(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.words = f"the particle reduction cannot be measured: {outcome.error}"
        else:
            self.reduction = outcome.value
            self.words = outcome.value.words
        self.changed.emit()


def default_model(cards: tuple[ModelCard, ...], *, has_depth: bool) -> str | None:
    """Return the model for an image unless the user chooses: one for volumes where it has a Z axis."""
    for volumes in (True, False) if has_depth else (False,):
        for card in cards:
            if (card.volume is not None) == volumes:
                return card.name
    return None


def kind_words(device: str | None, *, volumes: bool) -> str:
    """Name a kind of model with the device that it will truly run on.

    Examples
    --------
    >>> kind_words("CPU, 2 threads", volumes=True), kind_words("NVIDIA H200, 139 GB", volumes=False)
    ('CPU APR-CNN', 'GPU FasterCellpose')
    """
    where = "CPU" if device is None or device.startswith("CPU") else "GPU"
    return f"{where} {'APR-CNN' if volumes else 'FasterCellpose'}"


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    # Comparing arrays by value would read them.
    return all(a is b if i == 1 else a == b for i, (a, b) in enumerate(zip(one, other, strict=True)))
