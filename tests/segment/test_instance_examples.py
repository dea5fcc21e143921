"""The examples in the docstrings of targets and decoders run."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["star_rays", "star_targets", "stardist", "three_class", "volume_flows"])
def test_examples(name):
    if name == "stardist":
        pytest.importorskip("stardist")
    result = doctest.testmod(import_module(f"napari_aprcnn.segment.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
