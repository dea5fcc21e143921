"""Runs `triton_cases.py`: every GPU kernel against plain torch, in Triton's interpreter and on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is for Linux", exc_type=ImportError)


def run_cases(**environment: str) -> int:
    """Number of cases that passed, in a process of their own."""
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(here / "triton_cases.py")],
        env={**{k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}, **environment},
        capture_output=True,
        text=True,
        cwd=here.parents[1],
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    return int(passed[1])


def test_every_kernel_agrees_with_plain_torch_in_the_interpreter() -> None:
    assert run_cases(TRITON_INTERPRET="1") >= 40


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_kernel_agrees_with_plain_torch_on_the_gpu() -> None:
    assert run_cases() >= 40
