"""Implementations that the particle layers are tested with."""

from __future__ import annotations

import pytest

from napari_aprcnn._kernels import use_kernels
from napari_aprcnn._kernels.dispatch import instruction_sets


@pytest.fixture(params=instruction_sets())
def kernels(request: pytest.FixtureRequest):
    """Every instruction set of this machine, and the reference."""
    before = use_kernels(request.param)
    yield request.param
    use_kernels(before)
