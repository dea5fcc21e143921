"""What is going to be annotated: the image, who annotates, and which slices would be chosen. No Qt here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_aprcnn._napari.annotate_layers import Frame
from napari_aprcnn._napari.annotate_plan import METHODS, guides, new_folder, ranking, room, session_folder, words_of
from napari_aprcnn._napari.annotate_settings import AnnotateSettings, load_annotate_settings, save_annotate_settings
from napari_aprcnn._napari.image_model import ImageModel
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.evaluate.annotations import is_session
from napari_aprcnn.evaluate.slice_choice import slice_shape

__all__ = ["AnnotateChoice"]


class AnnotateChoice:
    """The inputs of the Annotate dock.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    settings
        ``None``: those of the last session.

    Attributes
    ----------
    images
        The image layer that is annotated, with its axes and voxel size.
    guide
        A prediction or probability layer of the same size, to correct or to rank slices by; or ``None``.
    changed : Signal(str)
        ``layers``, ``settings``.
    notified : Signal(str, str, object)
        Severity (``error``, ``info``), sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(self, viewer: Any, settings: AnnotateSettings | None) -> None:
        self.settings = settings or load_annotate_settings()
        self.guide: Any | None = None
        self._viewer = viewer
        self.images = ImageModel(viewer)
        self.images.changed.connect(self._image_changed)
        self.images.refused.connect(self._refused)

    @property
    def frame(self) -> Frame | None:
        """The chosen image with its axes, or nothing."""
        layer, image, mapping = self.images.layer, self.images.snapshot, self.images.mapping
        if layer is None or image is None or mapping is None:
            return None
        return Frame(layer, image, mapping, self.images.spacing.um)

    @property
    def guides(self) -> list[Any]:
        """Layers of the image's size: predictions and probabilities."""
        return guides(self._viewer, self.frame)

    def choose_guide(self, layer: Any | None) -> None:
        """Choose a prediction to correct or rank by."""
        self.guide = layer if layer is None or layer in self.guides else None
        self.changed.emit("settings")

    def set(self, **values: Any) -> bool:
        """Change settings; one out of range is told and not taken."""
        try:
            settings = self.settings.replace(**values)
        except ConfigError as error:
            self._refused(str(error))
            self.changed.emit("settings")
            return False
        if settings != self.settings:
            self.settings = settings
            save_annotate_settings(settings)
            self.changed.emit("settings")
        return True

    @property
    def problem(self) -> str:
        """Why slices cannot be chosen, or an empty string."""
        frame = self.frame
        if frame is None:
            return self.images.problem
        if not self.settings.annotator.strip():
            return "Type your name or initials: your annotations are kept under it."
        try:
            ranking(self.settings, frame, self.guide)
        except AprcnnError as error:
            return words_of(error)
        return ""

    @property
    def plan_words(self) -> str:
        """What choosing slices would do."""
        frame, settings = self.frame, self.settings
        if frame is None:
            return ""
        sizes = slice_shape(frame.shape, frame.axes)
        total = int(np.prod(sizes, dtype=np.int64))
        if total == 1:
            return f"The image is one slice. Annotations go to {self._next_folder()}"
        apart = f", at least {settings.min_distance} apart" if settings.min_distance > 1 else ""
        n = min(settings.n_slices, room(sizes, settings.min_distance))
        fewer = f"; {settings.n_slices} do not fit" if n < settings.n_slices else ""
        return (
            f"{n} of {total} slices {METHODS[settings.method]}{apart}{fewer}. Annotations go to {self._next_folder()}"
        )

    def _next_folder(self) -> str:
        try:
            return str(new_folder(self.settings, self.images.snapshot.name if self.images.snapshot else ""))
        except AprcnnError as error:
            return str(error)

    @property
    def left_behind(self) -> Path | None:
        """Annotations that can be gone on with: those of this image, else those that were open last."""
        if self.images.snapshot is not None:
            own = session_folder(self.settings, self.images.snapshot.name)
            last = Path(self.settings.last) if self.settings.last else None
            if last is not None and last.name.startswith(own.name) and is_session(last):
                return last
            if is_session(own):
                return own
        return Path(self.settings.last) if self.settings.last and is_session(self.settings.last) else None

    def _image_changed(self, what: str) -> None:
        if self.guide is not None and self.guide not in self.guides:
            self.guide = None
        self.changed.emit("layers" if what == "layers" else "settings")

    def _refused(self, sentence: str) -> None:
        self.notified.emit("error", sentence[:1].upper() + sentence[1:], None)
