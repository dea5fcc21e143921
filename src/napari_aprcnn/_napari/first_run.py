"""Three steps from an empty viewer to nuclei that were checked: what is done, what comes next. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal

if TYPE_CHECKING:
    from napari_aprcnn._napari.segment_model import SegmentModel

__all__ = ["EVALUATE_DOCK", "FirstRun", "Step"]

EVALUATE_DOCK = "Evaluate labels"
_SAMPLES = {"2D sample": "u2os", "3D sample": "ovule-3d"}


@dataclass(frozen=True)
class Step:
    """One step of the guide.

    Attributes
    ----------
    title
        What to do.
    words
        How; shown while it is the next one.
    state
        ``done``, ``next`` or ``later``.
    actions
        Words of the buttons that do it, for `FirstRun.act`.
    """

    title: str
    words: str
    state: Literal["done", "next", "later"]
    actions: tuple[str, ...] = ()


class FirstRun:
    """The guide of the Segment dock: shown until it was gone through once, or skipped.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    model
        The dock's model.
    open_dock
        ``open_dock(name)``: open another dock of the plugin.

    Attributes
    ----------
    changed : Signal()
        Steps or visibility.
    """

    changed = Signal()

    def __init__(self, viewer: Any, model: SegmentModel, *, open_dock: Callable[[str], Any]) -> None:
        self._viewer, self._model, self._open_dock = viewer, model, open_dock
        self._checked = False
        model.changed.connect(self._follow)

    def _follow(self, what: str) -> None:
        if what in ("layers", "image", "state", "result", "parameters"):
            self.changed.emit()

    @property
    def visible(self) -> bool:
        """Whether the guide is shown."""
        return self._model.settings.guide

    def steps(self) -> tuple[Step, Step, Step]:
        """Return the three steps as they stand."""
        done = (self._model.images.snapshot is not None, self._model.runner.result is not None, self._checked)
        following = next((number for number, is_done in enumerate(done) if not is_done), len(done))

        def step(number: int, title: str, words: str, *actions: str) -> Step:
            state = "done" if done[number] else "next" if number == following else "later"
            return Step(title, words, state, actions)  # type: ignore[arg-type]

        return (
            step(0, "Open an image", "Drop a file on the canvas, or try one of ours:", *_SAMPLES),
            step(1, "Click Segment", "Everything else is already set from the image.", "Segment"),
            step(2, "See how good it is", "Compare with true labels or points, click through the errors.", "Evaluate"),
        )

    def act(self, action: str) -> None:
        """Do what a button says."""
        if action in _SAMPLES:
            self._open(_SAMPLES[action])
        elif action == "Segment":
            self._model.segment()
        elif action == "Evaluate":
            self._checked = True
            self._open_dock(EVALUATE_DOCK)
            self.skip()

    def skip(self) -> None:
        """Do not show the guide again."""
        self._model.set_option(guide=False)
        self._model.remember()
        self.changed.emit()

    def _open(self, name: str) -> None:
        import tifffile
        from napari.layers import Layer

        from napari_aprcnn._napari.sample_data import open_sample
        from napari_aprcnn.io.samples import sample_labels_path

        data, options, kind = open_sample(name)[0]
        image = self._viewer.add_layer(Layer.create(data, options, kind))
        # There to compare with; it would hide the image at first sight.
        truth = tifffile.imread(sample_labels_path(name))
        self._viewer.add_labels(
            truth, name=f"{image.name}: true nuclei", scale=image.scale, units=image.units, visible=False
        )
        self._viewer.layers.selection.active = image
