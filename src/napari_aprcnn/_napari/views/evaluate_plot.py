"""Accuracy over the IoU threshold, one curve for each prediction."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QAction, QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QFileDialog, QSizePolicy, QWidget

from napari_aprcnn._napari.views.readout_box import copy_text
from napari_aprcnn.evaluate.comparison import Comparison

__all__ = ["AccuracyPlot", "curve_colour"]

# Of the Okabe-Ito palette: its light colours on dark, its dark ones on light.
_ON_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
_ON_LIGHT = ("#0072B2", "#D55E00", "#007A5A", "#A8558A", "#8C6D00", "#000000")
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def curve_colour(number: int, *, dark: bool) -> QColor:
    """Colour of the curve of a prediction on a dark or light background."""
    colours = _ON_DARK if dark else _ON_LIGHT
    return QColor(colours[number % len(colours)])


class AccuracyPlot(QWidget):
    """TP / (TP + FP + FN) at IoU thresholds from 0 to 1. Its context menu saves and copies."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.curves: list[tuple[str, list[tuple[float, float]]]] = []
        self.iou = 0.5
        self.setMinimumHeight(130)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Accuracy TP / (TP + FP + FN) at IoU thresholds: high and flat is good. A curve that falls early has\n"
            "outlines that do not fit; one that starts low has missed, merged or split nuclei.\n"
            "Right click: save the picture, copy the numbers."
        )
        self.setAccessibleName("accuracy over IoU")
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        for text, slot in (("Save picture…", self._save), ("Copy numbers", self._copy)):
            action = QAction(text, self)
            action.triggered.connect(slot)
            self.addAction(action)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of a small picture."""
        return QSize(300, 160)

    def show_comparison(self, comparison: Comparison | None) -> None:
        """Draw the curves of a comparison; points have none."""
        found = comparison.evaluations if comparison is not None else ()
        self.curves = [(e.name, [(m.threshold, m.accuracy) for m in e.curve]) for e in found if e.curve]
        self.iou = comparison.config.iou if comparison is not None else 0.5
        self.update()

    def table(self) -> str:
        """Return the curves as tab-separated text."""
        thresholds = [x for x, _ in self.curves[0][1]] if self.curves else []
        rows = [[f"{x:g}", *(f"{points[i][1]:.4f}" for _, points in self.curves)] for i, x in enumerate(thresholds)]
        return "\n".join("\t".join(row) for row in [["IoU", *(name for name, _ in self.curves)], *rows])

    def _copy(self, _checked: bool = False) -> None:
        copy_text(self.table())

    def _save(self, _checked: bool = False) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the picture", "accuracy.png", "Picture (*.png)")
        if path:
            self.grab().save(path if path.lower().endswith(".png") else f"{path}.png")

    # --- drawing -----------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw axes, the chosen IoU and the curves."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        line = painter.fontMetrics().height()
        box = QRectF(self.rect()).adjusted(4 + 2.6 * line, 1.6 * line, -12, -1.6 * line)
        self._draw_axes(painter, box, text, line)
        dark = text.lightness() > 127
        for number, (_, points) in enumerate(self.curves):
            colour = curve_colour(number, dark=dark)
            places = [QPointF(box.left() + box.width() * x, box.bottom() - box.height() * y) for x, y in points]
            painter.setPen(QPen(colour, 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawPolyline(QPolygonF(places))
            painter.setBrush(colour)
            for place in places:
                painter.drawEllipse(place, 2.5, 2.5)
        self._draw_legend(painter, text, line, dark=dark)
        painter.end()

    def _draw_axes(self, painter: QPainter, box: QRectF, text: QColor, line: int) -> None:
        faint = QColor(text)
        faint.setAlpha(50)
        for value in _GRID:
            x, y = box.left() + box.width() * value, box.bottom() - box.height() * value
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(text)
            if value:  # the corner belongs to the IoU
                where = QRectF(0, y - line / 2, box.left() - 5, line)
                painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{value:g}")
            words = f"{value:g}" if value else "IoU 0"
            painter.drawText(QRectF(x - 40, box.bottom() + 3, 80, line), Qt.AlignmentFlag.AlignHCenter, words)
        x = box.left() + box.width() * self.iou
        painter.setPen(QPen(faint, 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(x, box.top()), QPointF(x, box.bottom()))

    def _draw_legend(self, painter: QPainter, text: QColor, line: int, *, dark: bool) -> None:
        painter.setPen(text)
        title = "accuracy"
        painter.drawText(QRectF(4, 0, self.width(), line * 1.2), Qt.AlignmentFlag.AlignVCenter, title)
        x = 4.0 + painter.fontMetrics().horizontalAdvance(title) + 14
        room = (self.width() - x - 8) / max(1, len(self.curves)) - line - 14
        for number, (name, _) in enumerate(self.curves):
            words = painter.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, max(20, int(room)))
            painter.setPen(QPen(curve_colour(number, dark=dark), 3))
            painter.drawLine(QPointF(x, line * 0.6), QPointF(x + line, line * 0.6))
            painter.setPen(text)
            width = painter.fontMetrics().horizontalAdvance(words)
            painter.drawText(QRectF(x + line + 4, 0, width + 4, line * 1.2), Qt.AlignmentFlag.AlignVCenter, words)
            x += line + width + 14
