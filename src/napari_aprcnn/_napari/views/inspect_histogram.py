"""The histogram of a column, in the colours of the labels; a drag across it chooses a range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_aprcnn._napari.inspect_colours import Colouring, colour_scale, unit_of

__all__ = ["HistogramPlot"]

_BAR_DARK, _BAR_LIGHT = "#56B4E9", "#0072B2"  # sky blue and blue of the Okabe-Ito palette
_LEGEND_STOPS = 12
_STILL_PX = 3


class HistogramPlot(QWidget):
    """Bars over the range of a column; below them its ends, and the scale of the colours where labels have them.

    Attributes
    ----------
    range_chosen : Signal(float, float)
        A range was dragged over; both ends equal: a click, which means none.
    """

    range_chosen = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._edges: NDArray[np.float64] = np.zeros(0)
        self._column = ""
        self._colouring: Colouring | None = None
        self.range: tuple[float, float] | None = None
        self._drag: float | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.IBeamCursor)
        self.setAccessibleName("histogram")
        self.setToolTip(
            "The shown objects by the chosen column. Drag from one value to another to select the objects between,\n"
            "click to select none. The bar below is the scale of the colours, where labels are coloured by the column."
        )

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of a small picture."""
        return QSize(300, 96)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the least height that can be read."""
        return QSize(120, 96)

    def show_counts(
        self, found: tuple[NDArray[np.int64], NDArray[np.float64]] | None, column: str, colouring: Colouring | None
    ) -> None:
        """Draw counts; ``None``: nothing to count."""
        if column != self._column or found is None:
            self.range = None
        self._counts, self._edges = found if found is not None else (np.zeros(0, np.int64), np.zeros(0))
        self._column, self._colouring = column, colouring
        self.update()

    # --- places ------------------------------------------------------------------------------------------------------

    def _box(self) -> QRectF:
        line = self.fontMetrics().height()
        below = 1.3 * line + (10 if self._colouring is not None else 0)
        return QRectF(self.rect()).adjusted(4, 4, -4, -below)

    def value_at(self, x: float) -> float:
        """Return the value below a pixel."""
        box = self._box()
        share = min(max((x - box.left()) / max(1.0, box.width()), 0.0), 1.0)
        return float(self._edges[0] + share * (self._edges[-1] - self._edges[0]))

    def x_of(self, value: float) -> float:
        """Return the pixel of a value."""
        box, low, high = self._box(), self._edges[0], self._edges[-1]
        return float(box.left() + box.width() * min(max((value - low) / (high - low), 0.0), 1.0))

    # --- dragging ----------------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Begin a range."""
        if event.button() == Qt.MouseButton.LeftButton and len(self._edges):
            self._drag = event.position().x()
            self.range = None
            self.update()

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Widen the range."""
        if self._drag is not None:
            ends = sorted((self.value_at(self._drag), self.value_at(event.position().x())))
            self.range = (ends[0], ends[1])
            self.update()

    def mouseReleaseEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Choose the range."""
        if self._drag is None:
            return
        start, self._drag = self._drag, None
        if abs(event.position().x() - start) < _STILL_PX:
            self.range = None
        if self.range is None:
            self.range_chosen.emit(0.0, 0.0)
        else:
            self.range_chosen.emit(*self.range)
        self.update()

    # --- drawing -----------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw bars, the chosen range, ends and scale."""
        painter = QPainter(self)
        text = self.palette().color(self.foregroundRole())
        if not len(self._counts):
            painter.setPen(text)
            painter.drawText(QRectF(self.rect()), Qt.AlignmentFlag.AlignCenter, "no values to count")
            painter.end()
            return
        box = self._box()
        if self.range is not None:
            left, right = (self.x_of(value) for value in self.range)
            mark = QColor(text)
            mark.setAlpha(45)
            painter.fillRect(QRectF(left, box.top(), max(1.0, right - left), box.height()), mark)
        self._draw_bars(painter, box, text)
        self._draw_below(painter, box, text)
        painter.end()

    def _draw_bars(self, painter: QPainter, box: QRectF, text: QColor) -> None:
        plain = QColor(_BAR_DARK if text.lightness() > 127 else _BAR_LIGHT)
        top, n = max(1, int(self._counts.max())), len(self._counts)
        width = box.width() / n
        middles = (self._edges[1:] + self._edges[:-1]) / 2
        for i, count in enumerate(self._counts.tolist()):
            if not count:
                continue
            height = max(1.5, box.height() * count / top)
            bar = QRectF(box.left() + i * width, box.bottom() - height, max(1.0, width - 1), height)
            painter.fillRect(bar, plain if self._colouring is None else self._colour(float(middles[i])))
        faint = QColor(text)
        faint.setAlpha(90)
        painter.setPen(QPen(faint, 1))
        painter.drawLine(box.bottomLeft(), box.bottomRight())
        painter.setPen(text)
        where = QRectF(box.left(), box.top() - 3, box.width(), 2.0 * self.fontMetrics().height())
        painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignTop, f"most {top:,}")

    def _colour(self, value: float) -> QColor:
        colouring = self._colouring
        if colouring is None:
            return QColor(_BAR_DARK)
        scale = colour_scale()
        share = (value - colouring.low) / ((colouring.high - colouring.low) or 1.0)
        red, green, blue, _ = scale[round(min(max(share, 0.0), 1.0) * (len(scale) - 1))].tolist()
        return QColor.fromRgbF(red, green, blue)

    def _draw_below(self, painter: QPainter, box: QRectF, text: QColor) -> None:
        line, unit = self.fontMetrics().height(), unit_of(self._column)
        low, high = f"{self._edges[0]:.4g}", f"{self._edges[-1]:.4g} {unit}".strip()
        top = box.bottom() + 2
        if self._colouring is not None:
            low, high = self._colouring.ends
            left, right = self.x_of(self._colouring.low), self.x_of(self._colouring.high)
            gradient = QLinearGradient(QPointF(left, 0), QPointF(max(right, left + 1), 0))
            colours = colour_scale(_LEGEND_STOPS + 1).tolist()
            for i, (red, green, blue, _) in enumerate(colours):
                gradient.setColorAt(i / _LEGEND_STOPS, QColor.fromRgbF(red, green, blue))
            painter.fillRect(QRectF(box.left(), top + 1, box.width(), 7), gradient)
            top += 10
        painter.setPen(text)
        where = QRectF(box.left(), top, box.width(), line)
        middle = "" if self.range is None else "{:.4g} to {:.4g}".format(*self.range)
        for flag, words in ((Qt.AlignmentFlag.AlignLeft, low), (Qt.AlignmentFlag.AlignRight, high)):
            painter.drawText(where, flag | Qt.AlignmentFlag.AlignVCenter, words)
        painter.drawText(where, Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter, middle)
