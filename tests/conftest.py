"""Fixtures of all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_aprcnn import _kernels


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the evaluation data, which is not part of the package; tests that need it skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("APRCNN_DATA", beside))
    if not (folder / "dsb2018_fluo_test.zip").exists():
        pytest.skip("the evaluation data is not here; set APRCNN_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def official_vectors() -> Path:
    """Folder of vectors of the official APR-CNN code; tests that need it skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "oracle"
    folder = Path(os.environ.get("APRCNN_ORACLE", beside))
    if not (folder / "restrict.npz").exists():
        pytest.skip("the official vectors are not here; set APRCNN_ORACLE to their folder")
    return folder


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test is over."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def restore_kernels() -> Iterator[None]:
    """The kernels that are in use now are in use again after the test."""
    before = _kernels.instruction_set()
    yield
    _kernels.use_kernels(before)


@pytest.fixture(params=[name for name in _kernels.instruction_sets() if name != "python"])
def compiled(request: pytest.FixtureRequest, restore_kernels: None) -> str:
    """Every instruction set of the compiled kernels in turn, in use."""
    _kernels.use_kernels(request.param)
    return str(request.param)
