"""Horizontal bars of runs, drawn by hand: names, stacked parts, values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QAction, QColor, QPainter
from qtpy.QtWidgets import QFileDialog, QSizePolicy, QWidget

__all__ = ["BarPlot", "part_colours"]

# Okabe-Ito, in an order whose neighbours differ in lightness too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_KNOWN = ("network", "masks", "diameter", "read", "normalise", "convert", "stitch", "other")

Parts = list[tuple[str, float]]


def part_colours(names: Sequence[str]) -> dict[str, str]:
    """Colour of every part: the same part has the same colour in every plot.

    Examples
    --------
    >>> part_colours(["masks", "network"])["network"]
    '#0072B2'
    """
    free = [colour for name, colour in zip(_KNOWN, _COLOURS, strict=True) if name not in names]
    colours = {}
    for name in names:
        if name in _KNOWN:
            colours[name] = _COLOURS[_KNOWN.index(name)]
        else:
            colours[name] = free.pop(0) if free else _COLOURS[-1]
    return colours


class BarPlot(QWidget):
    """Bars with a title and a legend of their parts. Its context menu saves the picture."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = ""
        self.bars: list[tuple[str, Parts]] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("comparison of runs")
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        action = QAction("Save picture…", self)
        action.triggered.connect(self._save)
        self.addAction(action)

    def show_bars(self, title: str, bars: list[tuple[str, Parts]]) -> None:
        """Draw bars; each is the sum of its parts."""
        self.title, self.bars = title, bars
        self.setVisible(bool(bars))
        self.updateGeometry()
        self.update()

    def _line(self) -> int:
        return int(self.fontMetrics().height())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Room for a name and a bar a run, the title and the legend."""
        return QSize(280, round(self._line() * (1.6 + 2.5 * len(self.bars) + self._legend_rows() * 1.3)))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Keep every run readable."""
        return QSize(160, self.sizeHint().height())

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for _, parts in self.bars for name, _ in parts if name))

    def _legend_rows(self) -> int:
        return -(-len(self._names()) // 3)

    def _save(self, _checked: bool = False) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the picture", "runs.png", "Picture (*.png)")
        if path:
            self.grab().save(path if path.lower().endswith(".png") else f"{path}.png")

    # --- drawing -----------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw title, bars and legend."""
        painter = QPainter(self)
        text = self.palette().color(self.foregroundRole())
        line = self._line()
        painter.setPen(text)
        width = self.width()
        painter.drawText(QRectF(2, 0, width - 4, 1.4 * line), Qt.AlignmentFlag.AlignVCenter, self.title)
        largest = max((sum(value for _, value in parts) for _, parts in self.bars), default=0.0) or 1.0
        colours = part_colours(self._names())
        room = width - 12 - painter.fontMetrics().horizontalAdvance("00000.0")
        y = 1.5 * line
        for words, parts in self.bars:
            painter.setPen(text)
            short = painter.fontMetrics().elidedText(words, Qt.TextElideMode.ElideMiddle, width - 6)
            painter.drawText(QRectF(2, y, width - 4, line), Qt.AlignmentFlag.AlignVCenter, short)
            self._draw_bar(painter, y + 1.05 * line, room, largest, parts, colours, text)
            y += 2.5 * line
        self._draw_legend(painter, y, colours, text)
        painter.end()

    def _draw_bar(
        self,
        painter: QPainter,
        y: float,
        room: float,
        largest: float,
        parts: Parts,
        colours: dict[str, str],
        text: QColor,
    ) -> None:
        line, x = self._line(), 4.0
        for name, value in parts:
            length = max(0.0, room * value / largest)
            painter.fillRect(QRectF(x, y, length, 0.9 * line), QColor(colours.get(name, _COLOURS[0])))
            x += length
        total = sum(value for _, value in parts)
        painter.setPen(text)
        where = QRectF(x + 4, y, self.width() - x - 4, 0.9 * line)
        painter.drawText(where, Qt.AlignmentFlag.AlignVCenter, _number(total))

    def _draw_legend(self, painter: QPainter, y: float, colours: dict[str, str], text: QColor) -> None:
        line, third = self._line(), (self.width() - 8) / 3
        for index, (name, colour) in enumerate(colours.items()):
            x, row = 4 + third * (index % 3), y + 1.3 * line * (index // 3)
            painter.fillRect(QRectF(x, row + 0.2 * line, 0.7 * line, 0.7 * line), QColor(colour))
            painter.setPen(text)
            painter.drawText(QRectF(x + line, row, third - line, 1.1 * line), Qt.AlignmentFlag.AlignVCenter, name)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
