"""The guide: three steps, the next one with its buttons."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.first_run import FirstRun
from napari_aprcnn._napari.views.inputs import WordsLabel

__all__ = ["FirstRunBox"]

_TIPS = {
    "2D sample": "Open a real 2D image, U2OS cells in Hoechst, with its true labels (hidden).",
    "3D sample": "Open a real 3D image, an Arabidopsis ovule with its voxel size, and its true labels (hidden).",
    "Segment": "Find the nuclei in the whole image; the same as the big button.",
    "Evaluate": "Open the Evaluate dock: the labels against what is true.",
}
_MARKS = {"done": "✓", "next": "➤", "later": "○"}


class FirstRunBox(QFrame):
    """Show the steps of a first run.

    Parameters
    ----------
    guide
        What it shows and does.
    """

    def __init__(self, guide: FirstRun, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._guide = guide
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setAccessibleName("first run")
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(6, 4, 6, 6)
        self._layout.setSpacing(3)
        self.buttons: dict[str, QPushButton] = {}
        self.skip = QToolButton()
        self.skip.setText("skip")
        self.skip.setToolTip("Do not show these steps again.")
        self.skip.clicked.connect(lambda _: self._guide.skip())
        self._rows: list[tuple[QLabel, WordsLabel, QWidget]] = []
        for step in guide.steps():
            self._add(step.actions, first=not self._rows)
        guide.changed.connect(self.refresh)
        self.refresh()

    def _add(self, actions: tuple[str, ...], *, first: bool) -> None:
        title, words, holder = QLabel(), WordsLabel(), QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(0, 0, 0, 0)
        for action in actions:
            button = self.buttons[action] = QPushButton(action)
            button.setToolTip(_TIPS[action])
            button.clicked.connect(partial(self._act, action))
            row.addWidget(button)
        head = QHBoxLayout()
        head.addWidget(title, 1)
        if first:
            head.addWidget(self.skip, 0, Qt.AlignmentFlag.AlignRight)
        self._layout.addLayout(head)
        self._layout.addWidget(words)
        self._layout.addWidget(holder)
        self._rows.append((title, words, holder))

    def _act(self, action: str, _checked: bool = False) -> None:
        self._guide.act(action)

    def refresh(self) -> None:
        """Show the steps as they stand."""
        self.setVisible(self._guide.visible)
        for number, (step, (title, words, holder)) in enumerate(zip(self._guide.steps(), self._rows, strict=True), 1):
            is_next = step.state == "next"
            title.setText(f"{_MARKS[step.state]}  {number}. {step.title}")
            font = title.font()
            font.setBold(is_next)
            title.setFont(font)
            title.setEnabled(step.state != "later")
            words.setText(step.words)
            words.setVisible(is_next)
            holder.setVisible(is_next)
