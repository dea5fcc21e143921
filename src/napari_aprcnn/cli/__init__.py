"""The ``aprcnn`` command."""

from __future__ import annotations

from napari_aprcnn.cli.app import app, main

__all__ = ["app", "main"]
