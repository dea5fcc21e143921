"""What every dock needs of napari and Qt: a thread, notifications, room to scroll."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from napari.qt.threading import FunctionWorker, create_worker
from napari.utils.notifications import Notification, notification_manager, show_error, show_info
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

__all__ = ["Dock", "Scroll", "in_worker", "notify"]

logger = logging.getLogger(__name__)


class Scroll(QScrollArea):
    """Scrolls up and down only; never so narrow that a part of the dock is cut."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return what the parts need in the style of the moment, and room for the scroll bar."""
        width = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(width, 200)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Follow the parts when the style or a longer text makes them wider."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the least width, and a height for a small screen."""
        return QSize(self.minimumSizeHint().width(), 600)


class Dock(QWidget):
    """A dock over a model: polls it while there is something to wait for, and lets go of it when it is closed.

    Parameters
    ----------
    model
        Has `changed`, `notified`, `pending`, `poll` and `close`.
    name
        Object name of the widget.
    poll_ms
        Time between two looks at what threads have ready.
    """

    def __init__(self, model: Any, name: str, *, poll_ms: int = 50) -> None:
        super().__init__()
        self.setObjectName(name)
        self.model = model
        self._timer = QTimer(self)
        self._timer.setInterval(poll_ms)
        self._timer.timeout.connect(self._poll)

    def _column(self) -> QVBoxLayout:
        """Make the column of the dock's parts, which scrolls."""
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Scroll(content))
        return layout

    def _follow(self) -> None:
        """Listen to the model; call it when the parts are there."""
        self.model.changed.connect(self._refresh)
        self.model.notified.connect(notify)
        # Qt deletes the widget with the window, whoever still holds the Python object.
        self.destroyed.connect(self.model.close)

    def _refresh(self, what: str) -> None:
        raise NotImplementedError

    def _watch(self) -> None:
        """Poll from now on, if there is something to wait for."""
        if self.model.pending and not self._timer.isActive():
            self._timer.start()

    def _poll(self) -> None:
        self.model.poll()
        if not self.model.pending:
            self._timer.stop()

    def _leave(self) -> None:
        self.model.close()

    def event(self, event: Any) -> bool:
        """Let go of the model when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._timer.stop()
            self._leave()
        return bool(super().event(event))


class _Named:
    """A callable that says in words what it does, for napari's list of tasks."""

    def __init__(self, function: Callable[[], None], words: str) -> None:
        self._function, self._words = function, words

    def __call__(self) -> None:
        self._function()

    def __repr__(self) -> str:
        return self._words


class _Outlived(FunctionWorker):
    """A worker that may end after the window and its application: then there is nobody left to tell."""

    def run(self) -> None:
        try:
            super().run()
        except RuntimeError as error:  # an exception here would end the process
            logger.debug("a thread ended after the application: %s", error)


def in_worker(function: Callable[[], None], words: str) -> None:
    """Run a function in a thread of napari's, which calls it by these words; the function tells its own errors."""
    worker = create_worker(_Named(function, words), _start_thread=False, _ignore_errors=True, _worker_class=_Outlived)
    worker.start()


def notify(severity: str, sentence: str, error: Exception | None) -> None:
    """Show a sentence, or an unexpected error with its traceback, as napari does."""
    if error is not None:
        notification_manager.dispatch(Notification.from_exception(error))
    elif severity == "error":
        show_error(sentence)
    else:
        show_info(sentence)
