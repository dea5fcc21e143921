"""Looks of the big button of a dock."""

from __future__ import annotations

__all__ = ["BLUE", "RED"]

# Blue and vermillion of the Okabe-Ito palette, darkened until white text reads well on them.
_STYLE = """
QPushButton {{ background-color: {colour}; color: white; font-weight: bold; font-size: 14px; border-radius: 4px; }}
QPushButton:hover {{ background-color: {hover}; }}
QPushButton:focus {{ border: 2px solid white; }}
QPushButton:disabled {{ background-color: rgba(128, 128, 128, 90); color: rgba(140, 140, 140, 255); }}
"""
BLUE = _STYLE.format(colour="#0068A8", hover="#0079C4")
RED = _STYLE.format(colour="#B34E00", hover="#C95800")
