from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tifffile

from napari_aprcnn import _kernels


@pytest.fixture
def every_kernel():
    """Context manager that yields an iterator over all kernels of this machine, each in use while it is current."""

    @contextmanager
    def use_each() -> Iterator[Iterator[str]]:
        def names() -> Iterator[str]:
            for name in _kernels.instruction_sets():
                _kernels.use_kernels(name)
                yield name

        before = _kernels.instruction_set()
        try:
            yield names()
        finally:
            _kernels.use_kernels(before)

    return use_each


@pytest.fixture
def read_labels():
    """Labels of one image in a zip of the evaluation data."""

    def read(path, index):
        with zipfile.ZipFile(path) as archive:
            name = json.loads(archive.read("index.json"))[index]["name"]
            return tifffile.imread(io.BytesIO(archive.read(f"labels/{name}.tif")))

    return read
