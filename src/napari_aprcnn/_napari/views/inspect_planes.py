"""Three planes through one voxel with crosshairs: click or drag in one, and the others and the viewer follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QLineF, QPointF, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QImage, QPainter, QPen
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.inspect_model import InspectModel
from napari_aprcnn._napari.inspect_ortho import PANELS, OrthoModel, Panel
from napari_aprcnn._napari.views.inputs import WordsLabel

__all__ = ["OrthoCanvas", "OrthoViews"]

_POLL_MS = 20
_LINE, _HALO = QColor("#F0E442"), QColor(0, 0, 0, 130)  # yellow of the Okabe-Ito palette, readable on any picture
_ZOOM_STEP = 1.5


class OrthoCanvas(QWidget):
    """Draws the planes.

    Parameters
    ----------
    model
        What it shows and moves.
    """

    def __init__(self, model: OrthoModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._dragged: str = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(180, 140)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setAccessibleName("orthogonal views")
        self.setToolTip(
            "Planes xy, zy and xz through the cursor, in true proportions. Click or drag: move the cursor and select.\n"
            "Wheel: through the planes. Ctrl and wheel: zoom. Arrows, Page up, Page down: one voxel."
        )

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of three small pictures."""
        return QSize(560, 260)

    def panels(self) -> list[Panel]:
        """Return the places of the planes."""
        return self._model.panels(self.width(), self.height())

    # --- drawing -----------------------------------------------------------------------------------------------------

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw planes, crosshairs and names."""
        painter = QPainter(self)
        if self._model.problem or not self._model.pictures:
            painter.setPen(self.palette().color(self.foregroundRole()))
            words = self._model.problem or "reading ..."
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, words)
        else:
            for panel in self.panels():
                self._draw(painter, panel)
        painter.end()

    def _draw(self, painter: QPainter, panel: Panel) -> None:
        picture = self._model.pictures.get(panel.name)
        if picture is None:
            return
        picture = np.ascontiguousarray(picture)
        height, width = picture.shape[:2]
        image = QImage(picture.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        frame = QRectF(panel.left, panel.top, panel.width, panel.height)
        painter.save()
        painter.setClipRect(frame)
        corner = QPointF(panel.left - panel.shift[1], panel.top - panel.shift[0])
        painter.drawImage(QRectF(corner.x(), corner.y(), width * panel.step[1], height * panel.step[0]), image)
        x, y = panel.pixel(self._model.cursor)
        gap = 5.0  # what is pointed at stays visible
        lines = [
            QLineF(frame.left(), y, x - gap, y), QLineF(x + gap, y, frame.right(), y),
            QLineF(x, frame.top(), x, y - gap), QLineF(x, y + gap, x, frame.bottom()),
        ]  # fmt: skip
        for pen in (QPen(_HALO, 3), QPen(_LINE, 1)):
            painter.setPen(pen)
            painter.drawLines(lines)
        self._draw_name(painter, frame, panel.name)
        painter.restore()

    def _draw_name(self, painter: QPainter, frame: QRectF, name: str) -> None:
        where = frame.adjusted(4, 2, -4, -2)
        for move, colour in ((1, QColor("black")), (0, QColor("white"))):
            painter.setPen(colour)
            painter.drawText(where.translated(move, move), Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop, name)

    # --- mouse and keys ----------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Move the cursor here, and select what is here."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        place = event.position()
        panel = next((p for p in self.panels() if p.holds(place.x(), place.y())), None)
        if panel is not None:
            self._dragged = panel.name
            self._model.move(panel.voxel(place.x(), place.y()))
            self._model.pick()

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Drag the cursor."""
        panel = next((p for p in self.panels() if p.name == self._dragged), None)
        if panel is not None:
            self._model.move(panel.voxel(event.position().x(), event.position().y()))

    def mouseReleaseEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """End a drag."""
        self._dragged = ""

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Go through the planes of the picture under the mouse; with Ctrl: zoom."""
        steps = event.angleDelta().y() / 120
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._model.set_zoom(self._model.zoom * _ZOOM_STEP**steps)
        else:
            place = event.position()
            panel = next((p for p in self.panels() if p.holds(place.x(), place.y())), None)
            if panel is not None and steps:
                (axis,) = {0, 1, 2} - set(PANELS[panel.name])
                self._model.move({axis: self._model.cursor[axis] + (1 if steps > 0 else -1)})
        event.accept()

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Move the cursor by one voxel."""
        keys = {
            Qt.Key.Key_Left: (2, -1), Qt.Key.Key_Right: (2, 1), Qt.Key.Key_Up: (1, -1), Qt.Key.Key_Down: (1, 1),
            Qt.Key.Key_PageUp: (0, -1), Qt.Key.Key_PageDown: (0, 1),
        }  # fmt: skip
        if event.key() in keys:
            axis, step = keys[event.key()]
            self._model.move({axis: self._model.cursor[axis] + step})
        else:
            super().keyPressEvent(event)


class OrthoViews(QWidget):
    """The planes, with a line that says where the cursor is.

    Parameters
    ----------
    viewer
        Whose sliders are linked.
    inspect
        Whose labels and image are shown.
    launch
        Runs a callable in another thread.
    """

    def __init__(self, viewer: Any, inspect: InspectModel, launch: Callable[[Callable[[], None]], Any]) -> None:
        super().__init__()
        self.setObjectName("aprcnn_orthogonal_views")
        self.model = OrthoModel(viewer, inspect, launch)
        self.canvas = OrthoCanvas(self.model)
        self.words = WordsLabel("", small=True)
        self.closer, self.wider = QToolButton(), QToolButton()
        for button, text, factor, words in (
            (self.closer, "+", _ZOOM_STEP, "Zoom in on the cursor (Ctrl and wheel)."),
            (self.wider, "−", 1 / _ZOOM_STEP, "Zoom out."),
        ):
            button.setText(text)
            button.setToolTip(words)
            button.clicked.connect(lambda _=False, factor=factor: self.model.set_zoom(self.model.zoom * factor))
        line = QHBoxLayout()
        line.addWidget(self.words, 1)
        line.addWidget(self.closer)
        line.addWidget(self.wider)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(3)
        layout.addWidget(self.canvas, 1)
        layout.addLayout(line)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.model.changed.connect(self._refresh)
        self.destroyed.connect(self.model.close)
        self._refresh("planes")
        self._refresh("pending")

    def _refresh(self, what: str) -> None:
        if what == "pending" and self.model.pending:
            self._timer.start()
        self.words.setText(self.model.words)
        self.canvas.update()

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    def event(self, event: Any) -> bool:
        """Forget the viewer when napari takes the views out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self.model.close()
        return bool(super().event(event))
