"""Files made with pyapr 1.0.7, and the trees that they hold."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from apr_helpers import DATA

if find_spec("h5py") is None or find_spec("hdf5plugin") is None:
    collect_ignore_glob = ["test_*apr*.py"]


@pytest.fixture(scope="session")
def expected():
    """What pyapr makes of the files in data/: levels and values of every voxel."""
    with np.load(DATA / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def rows_tree():
    from napari_aprcnn.apr.files import read_apr

    return read_apr(DATA / "rows.apr")


@pytest.fixture(scope="session")
def oracle() -> Path:
    """Folder of the oracle files, which are not part of the package."""
    folder = Path(os.environ.get("APRCNN_ORACLE", Path(__file__).resolve().parents[3] / "shared" / "oracle"))
    if not (folder / "apr").is_dir():
        pytest.skip("the oracle files are not here; set APRCNN_ORACLE to their folder")
    return folder
