"""What models for volumes are asked: how fine the particles, where outlines lie, how large nuclei are seen."""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QSlider, QWidget

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.views.inputs import NumberBox, WordsLabel
from napari_aprcnn._napari.volume_model import ERROR_RANGE

__all__ = ["LevelSlider", "VolumeBox"]

_STEPS = 200


class LevelSlider(QSlider):
    """A slider of a range of numbers, by factors or by differences, that does not move when one scrolls past.

    Parameters
    ----------
    low, high
        The range.
    logarithmic
        Equal ways along the slider are equal factors.
    """

    def __init__(self, low: float, high: float, *, logarithmic: bool = False) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self._low, self._high, self._logarithmic = low, high, logarithmic
        self.setRange(0, _STEPS)
        self.setPageStep(_STEPS // 10)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumWidth(80)

    def level(self) -> float:
        """Return the number that the slider stands at, to three digits."""
        share = self.value() / _STEPS
        if self._logarithmic:
            number = self._low * (self._high / self._low) ** share
        else:
            number = self._low + (self._high - self._low) * share
        return float(f"{number:.3g}")

    def show_level(self, number: float) -> None:
        """Show a number without telling anybody."""
        if self._logarithmic:
            share = math.log(max(number, 1e-9) / self._low) / math.log(self._high / self._low)
        else:
            share = (number - self._low) / (self._high - self._low)
        blocked = self.blockSignals(True)
        self.setValue(round(_STEPS * min(max(share, 0.0), 1.0)))
        self.blockSignals(blocked)

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Scroll the dock, not the level."""
        event.ignore()


class VolumeBox(QWidget):
    """Inputs of models for volumes; shown while one is chosen.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: SegmentModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self._add_error(form)
        self._add_outline(form)
        self._add_sizes(form)
        self.refresh()

    def _add_error(self, form: QFormLayout) -> None:
        tip = (
            "How far particles may deviate from the image, as a share of the local contrast (0.02 to 0.5).\n"
            "Smaller: finer particles, slower. Larger: fewer particles, faster; too large loses dim nuclei.\n"
            "auto: what the network was trained with. Type 0 for auto."
        )
        self.error = LevelSlider(*ERROR_RANGE, logarithmic=True)
        self.error_number = NumberBox(0.0, 1.0, auto="auto", step=0.01)
        # Room for "auto: 0.123" between the arrows; napari's style sheet has the last word over setMinimumWidth.
        room = self.error_number.fontMetrics().horizontalAdvance("auto: 0.123") + 56
        self.error_number.setStyleSheet(f"QAbstractSpinBox {{ min-width: {room}px; }}")
        self.reduction = WordsLabel(small=True)
        self.reduction.setToolTip(
            "Particle reduction rate: voxels a particle, by a conversion of this image (a large one: of its middle).\n"
            "Time and memory of the run fall with it."
        )
        for widget in (self.error, self.error_number):
            widget.setToolTip(tip)
            widget.setAccessibleName("APR error")
        self.error.valueChanged.connect(lambda _: self._set("relative_error", self.error.level()))
        self.error_number.valueChanged.connect(lambda _: self._set("relative_error", self.error_number.number()))
        form.addRow("APR error", _row((self.error, 1), (self.error_number, 0)))
        form.addRow("", self.reduction)

    def _add_outline(self, form: QFormLayout) -> None:
        tip = (
            "Probability at which a nucleus ends (0.05 to 0.95, 0.5 as trained); of StarDist models, from which it\n"
            "counts. "
            "Lower: looser outlines and more nuclei; higher: tighter ones and fewer."
        )
        self.outline = LevelSlider(0.05, 0.95)
        self.outline_number = NumberBox(0.001, 0.999, step=0.05)
        for widget in (self.outline, self.outline_number):
            widget.setToolTip(tip)
            widget.setAccessibleName("outline")
        self.outline.valueChanged.connect(lambda _: self._set("outline", self.outline.level()))
        self.outline_number.valueChanged.connect(lambda _: self._set("outline", self.outline_number.number()))
        form.addRow("Outline", _row((self.outline, 1), (self.outline_number, 0)))

    def _add_sizes(self, form: QFormLayout) -> None:
        self.grow = NumberBox(-16, 16, integer=True, unit="vox")
        self.grow.setToolTip(
            "Voxels by which outlines are moved at the end: above 0 outwards (nuclei that meet stay apart),\n"
            "below 0 inwards. Range: -16 to 16."
        )
        self.grow.setAccessibleName("grow")
        self.zoom = NumberBox(0.125, 8.0, step=0.25)
        self.zoom.setToolTip(
            "Factor by which the image is enlarged for the network: above 1 for nuclei that are smaller than those it\n"
            "was trained on (8 to 32 voxels), below 1 for larger ones. Range: 0.125 to 8; 2 takes 8 times as long.\n"
            "The voxel size does not matter to these networks: they take voxels as they come."
        )
        self.zoom.setAccessibleName("zoom")
        self.grow.valueChanged.connect(lambda _: self._set("grow_vox", self.grow.number()))
        self.zoom.valueChanged.connect(lambda _: self._set("zoom", self.zoom.number()))
        form.addRow("Grow", _row((self.grow, 1), (QLabel("Zoom"), 0), (self.zoom, 1)))
        self.live = WordsLabel("outline and grow also move the last labels", small=True)
        self.live.setToolTip("The network does not run again. Labels that you have edited are left alone.")
        form.addRow("", self.live)

    def _set(self, name: str, value: float | None) -> None:
        self._model.set("volume", name, value=value)

    def refresh(self) -> None:
        """Show what the model says now."""
        options, card = self._model.get("volume"), self._model.card
        trained = card.relative_error if card is not None else 0.1
        self.error_number.setSpecialValueText(f"auto: {trained:g}")
        self.error_number.show_number(options.relative_error)
        self.error.show_level(options.relative_error or trained)
        self.outline.show_level(options.outline)
        self.outline_number.show_number(options.outline)
        self.grow.show_number(options.grow_vox)
        self.zoom.show_number(options.zoom)
        self.show_reduction()

    def show_reduction(self) -> None:
        """Show the particle reduction, and whether outlines can be moved now."""
        words = self._model.volumes.words
        self.reduction.setText(words)
        self.reduction.setVisible(bool(words))
        self.live.setVisible(self._model.outlines_follow)


def _row(*cells: tuple[QWidget, int]) -> QWidget:
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for widget, stretch in cells:
        layout.addWidget(widget, stretch)
    return holder
