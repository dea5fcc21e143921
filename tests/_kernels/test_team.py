"""Compiled loops on torch's own threads: without torch, in a forked child, on several threads at once."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.particles import column_sums

pytestmark = pytest.mark.skipif(extension() is None, reason="needs the compiled extension")


def test_sums_on_several_python_threads_at_once():
    values = torch.arange(400_000, dtype=torch.float32).reshape(100_000, 4) % 7
    expected = column_sums(values)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(column_sums, [values] * 16):
            assert torch.equal(found, expected)


def test_it_runs_without_torch():
    program = (
        "import numpy as np, sys; from napari_aprcnn._kernels.dispatch import extension;"
        "values = np.ones((100_000, 4), np.float32); out = np.zeros(4, np.float32);"
        "extension().column_sums(values, out, 2); assert 'torch' not in sys.modules; assert (out == 100_000).all()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_finishes():
    """torch's team is lost by a fork: the child works on threads of its own."""
    program = (
        "import os, torch; from napari_aprcnn._kernels.particles import column_sums; torch.set_num_threads(2);"
        "values = torch.ones(100_000, 4); expected = column_sums(values); child = os.fork();\n"
        "if child == 0: os._exit(0 if torch.equal(column_sums(values), expected) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
