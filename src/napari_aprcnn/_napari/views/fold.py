"""A heading that unfolds what is below it.

superqt's QCollapsible fixes the height of its content from size hints, which cuts off text that wraps.
"""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget

__all__ = ["Fold"]


class Fold(QWidget):
    """A foldable part of the dock.

    Parameters
    ----------
    title
        Text of the heading.
    content
        What is unfolded.
    is_open
        Unfolded at the start.

    Attributes
    ----------
    toggled : Signal(bool)
        The user has unfolded or folded it.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, content: QWidget, *, is_open: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.content = content
        self.heading = QToolButton()
        self.heading.setText(title)
        self.heading.setCheckable(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.heading.setStyleSheet("QToolButton { text-align: left; border: none; padding: 3px; font-weight: bold; }")
        self.heading.setToolTip(f"Show or hide: {title.lower()}.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.heading)
        layout.addWidget(content)
        self.heading.toggled.connect(self._show)
        self.heading.clicked.connect(self.toggled)
        self.heading.setChecked(is_open)
        self._show(is_open)

    def _show(self, is_open: bool) -> None:
        self.heading.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.content.setVisible(is_open)

    def unfold(self, is_open: bool = True) -> None:
        """Show or hide the content."""
        self.heading.setChecked(is_open)
