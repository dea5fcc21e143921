"""Inputs that behave: plain numbers, "auto" where nothing is set, no change by scrolling past, text to copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QLocale, QSize, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QComboBox, QDoubleSpinBox, QLabel, QSizePolicy, QWidget

from napari_aprcnn._napari.fields import FieldSpec

__all__ = ["ChoiceBox", "NumberBox", "WordsLabel", "input_for", "show_value"]

_LARGEST = 1e9


class NumberBox(QDoubleSpinBox):
    """A number without needless zeros. Where `auto` is given, 0 means that and is shown as its text.

    Parameters
    ----------
    minimum, maximum
        Allowed range.
    integer
        Whole numbers only.
    auto
        Text for "decided by the program"; ``None``: a number is required.
    step
        What an arrow key changes.
    unit
        Shown behind the number.
    """

    def __init__(
        self,
        minimum: float | None = None,
        maximum: float | None = None,
        *,
        integer: bool = False,
        auto: str | None = None,
        step: float | None = None,
        unit: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._integer = integer
        self._room = 5 + len(unit)  # for the arrows and the unit, in digits
        self._auto = auto is not None
        self.setLocale(QLocale.c())
        self.setDecimals(0 if integer else 6)
        low = -_LARGEST if minimum is None else minimum
        self.setRange(0.0 if self._auto else low, _LARGEST if maximum is None else maximum)
        if auto is not None:
            self.setSpecialValueText(auto)
        self.setSingleStep(step if step is not None else 1.0 if integer else 0.1)
        if unit:
            self.setSuffix(f" {unit}")
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the room of six digits, not of the largest number of the range."""
        return QSize(self.fontMetrics().horizontalAdvance("0" * (8 + self._room)), super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Stay readable in a narrow dock."""
        return QSize(self.fontMetrics().horizontalAdvance("0" * (5 + self._room)), super().sizeHint().height())

    def textFromValue(self, value: float) -> str:  # noqa: N802 - Qt's name
        """Return the number with up to five digits."""
        return f"{value:.0f}" if self._integer else f"{value:.5g}"

    def number(self) -> float | int | None:
        """Return the value, ``None`` for auto."""
        value = float(self.value())
        if self._auto and value == self.minimum():
            return None
        return round(value) if self._integer else value

    def show_number(self, value: float | None) -> None:
        """Show a value without telling anybody."""
        blocked = self.blockSignals(True)
        self.setValue(self.minimum() if value is None else float(value))
        self.blockSignals(blocked)

    def plain(self) -> NumberBox:
        """Hide the arrows, for narrow places."""
        self.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
        self._room = 0
        # napari's style sheet asks for 70 px and more, which makes three of them wider than the dock should be.
        self.setStyleSheet("QAbstractSpinBox { min-width: 40px; padding: 1px 0px; }")
        return self

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Scroll the dock, not the number, unless the number is being edited."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class ChoiceBox(QComboBox):
    """A list to choose from that does not change when one scrolls past, and never widens the dock."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_items(self, items: list[tuple[str, Any]], current: Any) -> None:
        """Show texts with their data, the current one chosen, without telling anybody."""
        blocked = self.blockSignals(True)
        self.clear()
        for text, data in items:
            self.addItem(text, data)
        index = next((i for i, (_, data) in enumerate(items) if data is current or data == current), -1)
        self.setCurrentIndex(index)
        self.blockSignals(blocked)

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Scroll the dock, not the choice."""
        event.ignore()


class WordsLabel(QLabel):
    """Text that wraps and can be selected and copied."""

    def __init__(self, text: str = "", parent: QWidget | None = None, *, small: bool = False) -> None:
        super().__init__(text, parent)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        # Copying is for the mouse; Tab goes from input to input.
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        if small:
            self.setStyleSheet("QLabel { font-size: 11px; }")

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Wrap where the dock is narrow: text never widens it."""
        return QSize(40, self.fontMetrics().lineSpacing())


def input_for(spec: FieldSpec, changed: Callable[[Any], Any], *, unit: str = "") -> QWidget:
    """Make the input of a field; `changed` gets the new value."""
    widget: QWidget
    if spec.kind == "bool":
        widget = QCheckBox()
        widget.toggled.connect(changed)
    elif spec.kind == "choice":
        widget = ChoiceBox()
        widget.show_items([(choice, choice) for choice in spec.choices], spec.default)
        widget.currentTextChanged.connect(changed)
    else:
        integer = spec.kind == "int"
        low = spec.minimum
        widget = NumberBox(low, spec.maximum, integer=integer, auto="auto" if spec.optional else None, unit=unit)
        if not integer:
            widget.setSingleStep(0.05 if (spec.maximum or 10) <= 1 else 0.1)
        box = widget
        widget.valueChanged.connect(lambda _value: changed(box.number()))
    widget.setToolTip(spec.tooltip)
    widget.setAccessibleName(" ".join(spec.path))
    show_value(widget, spec.default)
    return widget


def show_value(widget: QWidget, value: Any) -> None:
    """Show a value in an input made by `input_for` without telling anybody."""
    blocked = widget.blockSignals(True)
    if isinstance(widget, QCheckBox):
        widget.setChecked(bool(value))
    elif isinstance(widget, NumberBox):
        widget.show_number(value)
    elif isinstance(widget, QComboBox):
        widget.setCurrentIndex(widget.findData(value))
    widget.blockSignals(blocked)
