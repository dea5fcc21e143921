"""The rows of the Training dock: what is trained on, and what is looked at after every epoch. No Qt here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from psygnal import Signal

from napari_aprcnn._napari.train_sources import (
    LayerPair,
    PathSource,
    Snapshot,
    Source,
    check_pair,
    check_path,
    take_pair,
)
from napari_aprcnn.errors import AprcnnError, TrainingDataError

__all__ = ["TrainData"]


class TrainData:
    """Pairs of layers, folders and archives.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.

    Attributes
    ----------
    rows
        What was added, in order.
    changed : Signal(str)
        ``layers``: there are others, or other names; ``rows``.
    refused : Signal(str)
        Why an input was not taken.
    """

    changed = Signal(str)
    refused = Signal(str)

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.rows: list[Source] = []
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)

    @property
    def images(self) -> list[Any]:
        """Image layers."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    @property
    def labels(self) -> list[Any]:
        """Labels layers."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Labels)]

    def suggestion(self) -> tuple[Any | None, Any | None]:
        """Image and labels that are most likely to be the next pair: same shape, alike in name, not yet added."""
        used = {id(row.labels) for row in self.rows if isinstance(row, LayerPair)}
        pairs = [
            (image, labels)
            for labels in reversed(self.labels)
            for image in reversed(self.images)
            if id(labels) not in used and _shape(image) == _shape(labels)
        ]
        pairs.sort(key=lambda pair: not str(pair[1].name).startswith(str(pair[0].name)))  # stable: the topmost first
        if pairs:
            return pairs[0]
        return (self.images or [None])[-1], (self.labels or [None])[-1]

    def add_pair(self, image: Any, labels: Any) -> bool:
        """Add a pair of layers; one that cannot be trained on is told and not taken."""
        try:
            check_pair(image, labels)
            if any(isinstance(row, LayerPair) and row.labels is labels for row in self.rows):
                raise TrainingDataError(f"{labels.name} is in the list already; choose other labels")
        except AprcnnError as error:
            self.refused.emit(str(error))
            return False
        self._change([*self.rows, LayerPair(image, labels)])
        return True

    def add_path(self, path: Path | str) -> bool:
        """Add a folder or zip of labelled images; one without pairs is told and not taken."""
        try:
            source = check_path(Path(path))
            if any(isinstance(row, PathSource) and row.path == source.path for row in self.rows):
                raise TrainingDataError(f"{source.path} is in the list already")
        except AprcnnError as error:
            self.refused.emit(str(error))
            return False
        self._change([*self.rows, source])
        return True

    def remove(self, index: int) -> None:
        """Take a row out of the list; the layers stay."""
        self._change([row for i, row in enumerate(self.rows) if i != index])

    def hold_back(self, index: int, held_back: bool) -> None:
        """Say whether a row is only looked at after every epoch, not trained on."""
        self._change([replace(row, held_back=held_back) if i == index else row for i, row in enumerate(self.rows)])

    def paths(self, *, held_back: bool) -> tuple[Path, ...]:
        """Folders and archives of one kind."""
        return tuple(row.path for row in self.rows if isinstance(row, PathSource) and row.held_back == held_back)

    def snapshots(self, *, held_back: bool) -> list[Snapshot]:
        """Snapshots of the pairs of one kind.

        Raises
        ------
        TrainingDataError
            If a pair cannot be trained on any more: its shape was changed, its labels were erased.
        """
        return [take_pair(row) for row in self.rows if isinstance(row, LayerPair) and row.held_back == held_back]

    @property
    def names(self) -> list[str]:
        """Names of what is trained on."""
        return [row.name for row in self.rows if not row.held_back]

    @property
    def spacing_um(self) -> tuple[float, float, float] | None:
        """Voxel size (z, y, x) of the first pair of layers that tells one."""
        pairs = [row for row in self.rows if isinstance(row, LayerPair)]
        return next((found for row in pairs if (found := row.spacing_um) is not None), None)

    @property
    def problem(self) -> str:
        """Why the rows cannot be trained on, or an empty string."""
        if self.rows and all(row.held_back for row in self.rows):
            return "Every row is held back for checking; train on at least one of them."
        return ""

    def close(self) -> None:
        """Let go of the viewer and its layers."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.disconnect(self._layers_changed)
        self.rows = []

    def _layers_changed(self, _event: Any = None) -> None:
        there = {id(layer) for layer in self._viewer.layers}
        kept = [row for row in self.rows if not isinstance(row, LayerPair) or {id(row.image), id(row.labels)} <= there]
        self.rows = kept
        self.changed.emit("layers")
        self.changed.emit("rows")  # names may be others, too

    def _change(self, rows: list[Source]) -> None:
        self.rows = rows
        self.changed.emit("rows")


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple((layer.data[0] if layer.multiscale else layer.data).shape)
