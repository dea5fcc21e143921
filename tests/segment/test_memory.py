"""Estimates of memory beside what runs take."""

from __future__ import annotations

import pytest

from napari_aprcnn.bench.pipeline import measured_apart
from napari_aprcnn.config import SegmentConfig, VolumeConfig
from napari_aprcnn.models.zoo import list_models

pytestmark = pytest.mark.skipif(not list_models(), reason="no weights in the package yet")


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((1024, 1024), {}),
        ((48, 224, 224), {"dimensionality": "planes"}),
        ((64, 128, 128), {"model": "apr-unet-nuclei-3d", "volume": VolumeConfig()}),
    ],
)
def test_estimates_are_near_what_runs_take(shape, config):
    """The bench holds them to 30 %; a loaded machine and other allocators get some more here."""
    settings = SegmentConfig(**{"diameter_px": 25.0, "threads": 2, "device": "cpu", **config})
    added, expected = measured_apart(shape, settings)
    assert 0.6 < expected / added < 1.6
