"""The losses of a training as curves, drawn by hand: a few lines need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QAction, QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QFileDialog, QSizePolicy, QWidget

from napari_aprcnn._napari.train_runner import StepPoint
from napari_aprcnn._napari.views.readout_box import copy_text
from napari_aprcnn.train.reports import EpochReport

__all__ = ["Curve", "LossPlot", "curves_of", "ticks"]

Points = list[tuple[float, float]]
# Of the Okabe-Ito palette: its light colours on dark, its dark ones on light.
_ON_DARK = {"flow": "#56B4E9", "probability": "#E69F00", "validation": "#009E73"}
_ON_LIGHT = {"flow": "#0072B2", "probability": "#D55E00", "validation": "#007A5A"}


@dataclass(frozen=True)
class Curve:
    """One loss over the training.

    Attributes
    ----------
    name
        ``flow``, ``probability`` or ``validation``.
    epochs
        (epochs done, mean loss).
    steps
        (epochs done as a fraction, loss of a step).
    """

    name: str
    epochs: Points
    steps: Points


def curves_of(epochs: Sequence[EpochReport], steps: Iterable[StepPoint]) -> list[Curve]:
    """Take reports apart into curves; what is no number is left out."""
    points = list(steps)
    curves = [
        Curve("flow", [(e.epoch, e.flow_loss) for e in epochs], [(point.epochs, point.flow_loss) for point in points]),
        Curve(
            "probability",
            [(e.epoch, e.probability_loss) for e in epochs],
            [(point.epochs, point.probability_loss) for point in points],
        ),
        Curve("validation", [(e.epoch, e.validation_loss) for e in epochs if e.validation_loss is not None], []),
    ]
    return [Curve(c.name, _finite(c.epochs), _finite(c.steps)) for c in curves if c.epochs or c.steps]


def _finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y)]


def ticks(largest: float, count: int = 4) -> list[float]:
    """Return round numbers from 0 to `largest`.

    Examples
    --------
    >>> ticks(0.93), ticks(40)
    ([0.0, 0.2, 0.4, 0.6, 0.8], [0.0, 10.0, 20.0, 30.0, 40.0])
    """
    if not (math.isfinite(largest) and largest > 0):
        return [0.0]
    rough = largest / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * m for m in (1, 2, 5) if power * m >= rough * 0.75), power * 10)
    return [round(step * i, 12) for i in range(int(largest / step + 1e-9) + 1)]


class LossPlot(QWidget):
    """Losses over epochs; thin: single steps, thick: means of epochs. Its context menu saves and copies."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.curves: list[Curve] = []
        self._epochs = 1
        self.setMinimumHeight(130)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Losses over epochs: thick lines are means of epochs, thin ones single steps. flow: of the directions to "
            "the nuclei's centres;\nprobability: of being nucleus; validation: the sum of both on what was held back. "
            "Right click: save the picture, copy the numbers."
        )
        self.setAccessibleName("losses")
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        for text, slot in (("Save picture…", self._save), ("Copy numbers", self._copy)):
            action = QAction(text, self)
            action.triggered.connect(slot)
            self.addAction(action)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of a small picture."""
        return QSize(300, 160)

    def show_curves(self, curves: list[Curve], epochs: int) -> None:
        """Draw curves over a training of so many epochs."""
        self.curves, self._epochs = curves, max(1, epochs)
        self.update()

    def table(self) -> str:
        """Return the epochs' losses as tab-separated text."""
        columns = {c.name: dict(c.epochs) for c in self.curves}
        epochs = sorted({x for column in columns.values() for x in column})
        rows = [[f"{x:g}", *(f"{c[x]:.6g}" if x in c else "" for c in columns.values())] for x in epochs]
        return "\n".join("\t".join(row) for row in [["epoch", *columns], *rows])

    def _copy(self, _checked: bool = False) -> None:
        copy_text(self.table())

    def _save(self, _checked: bool = False) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the picture", "losses.png", "Picture (*.png)")
        if path:
            self.grab().save(path if path.lower().endswith(".png") else f"{path}.png")

    # --- drawing -----------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw axes, curves and their last values."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        line = painter.fontMetrics().height()
        box = QRectF(self.rect()).adjusted(4 + 3.2 * line, 1.5 * line, -8, -1.5 * line)
        # Single steps may leap out of the picture: the means decide its height, until there are some.
        values = [y for c in self.curves for _, y in c.epochs] or [y for c in self.curves for _, y in c.steps]
        top = 1.15 * max(values) if values and max(values) > 0 else 1.0
        self._draw_axes(painter, box, top, text)
        painter.save()
        painter.setClipRect(box.adjusted(-3, -3, 3, 3))
        for curve in self.curves:
            self._draw_curve(painter, box, top, curve)
        painter.restore()
        self._draw_legend(painter, text, line)
        painter.end()

    def _colour(self, curve: Curve) -> QColor:
        dark = self.palette().color(self.foregroundRole()).lightness() > 127
        return QColor((_ON_DARK if dark else _ON_LIGHT)[curve.name])

    def _place(self, box: QRectF, top: float, x: float, y: float) -> QPointF:
        return QPointF(box.left() + box.width() * x / self._epochs, box.bottom() - box.height() * y / top)

    def _draw_axes(self, painter: QPainter, box: QRectF, top: float, text: QColor) -> None:
        faint = QColor(text)
        faint.setAlpha(50)
        line = painter.fontMetrics().height()
        for y in ticks(top, 3):
            at = self._place(box, top, 0, y).y()
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(box.left(), at), QPointF(box.right(), at))
            painter.setPen(text)
            if y == 0:  # the corner belongs to the epochs
                continue
            where = QRectF(0, at - line / 2, box.left() - 5, line)
            painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{y:.3g}")
        for x in ticks(self._epochs, 4):
            if x != int(x):
                continue
            at = self._place(box, top, x, 0).x()
            words = f"{x:g}" if x else "epoch 0"
            where = QRectF(at - 40, box.bottom() + 3, 80, line)
            painter.drawText(where, Qt.AlignmentFlag.AlignHCenter, words)

    def _draw_curve(self, painter: QPainter, box: QRectF, top: float, curve: Curve) -> None:
        thin = self._colour(curve)
        thin.setAlpha(110)
        for points, pen in ((curve.steps, QPen(thin, 1)), (curve.epochs, QPen(self._colour(curve), 2))):
            places = [self._place(box, top, x, y) for x, y in points]
            painter.setPen(pen)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawPolyline(QPolygonF(places))
            if points is curve.epochs:
                painter.setBrush(self._colour(curve))
                for place in places:
                    painter.drawEllipse(place, 2, 2)

    def _draw_legend(self, painter: QPainter, text: QColor, line: int) -> None:
        x = 4.0
        for curve in self.curves:
            points = curve.epochs or curve.steps
            words = f"{curve.name} {points[-1][1]:.3g}" if points else curve.name
            painter.setPen(QPen(self._colour(curve), 3))
            painter.drawLine(QPointF(x, line * 0.6), QPointF(x + line, line * 0.6))
            painter.setPen(text)
            width = painter.fontMetrics().horizontalAdvance(words)
            painter.drawText(QRectF(x + line + 4, 0, width + 4, line * 1.2), Qt.AlignmentFlag.AlignVCenter, words)
            x += line + width + 18
        if not self.curves:
            painter.setPen(text)
            painter.drawText(QRectF(4, 0, self.width(), line * 1.2), Qt.AlignmentFlag.AlignVCenter, "losses")
