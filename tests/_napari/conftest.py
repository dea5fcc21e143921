"""Fixtures of the napari tests: settings of their own, a fast stand-in for the networks, a display or a skip."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("napari", reason="napari is not installed: pip install 'napari-aprcnn[all]'")
sys.path.insert(0, str(Path(__file__).parent))
HERE = Path(__file__).parent


def why_no_window() -> str:
    """Say why no window can be opened here, or nothing."""
    if not any(find_spec(name) for name in ("PyQt6", "PySide6", "PyQt5")):
        return "there is no Qt binding: pip install 'napari-aprcnn[all]'"
    if os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "minimal"):
        return "napari draws nothing with QT_QPA_PLATFORM=offscreen; start the tests under xvfb-run"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display; start the tests under xvfb-run"
    return ""


def pytest_collection_modifyitems(items):
    """Skip tests with a window before any fixture starts Qt, which without a display aborts Python."""
    reason = why_no_window()
    for item in items:
        if reason and HERE in item.path.parents and item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch):
    """No test reads or writes the settings of whoever runs it."""
    monkeypatch.setenv("APRCNN_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture
def viewer():
    """Layers without a window."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def opened(viewer):
    """`opened(labels, image)` gives the model of a viewer with both, measured; its messages are in `told`."""
    from inspect_tools import open_model

    models = []
    yield partial(open_model, viewer, models)
    for model in models:
        model.close()


@pytest.fixture
def watched():
    """A model for volumes whose calls are noted."""
    from volume_model_tools import Watched

    return Watched()
