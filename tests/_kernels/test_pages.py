"""Memory for outputs: large ones on pages of their own, which the system gets back."""

from __future__ import annotations

import gc
import sys

import psutil
import pytest
import torch

from napari_aprcnn._kernels import operators
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import fresh

LARGE = (1 << 22) // 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64])
@pytest.mark.parametrize("rows", [0, 3, LARGE])
def test_outputs_are_what_was_asked_for(rows, dtype):
    made = fresh(torch.zeros(1), rows, 4, dtype=dtype)
    assert made.shape == (rows, 4)
    assert made.dtype == dtype
    assert made.is_contiguous()
    assert fresh(made, 2).dtype == dtype
    made.fill_(1)
    assert made.double().sum() == 4 * rows


def test_other_devices_have_memory_of_their_own():
    assert fresh(torch.zeros(1, device="meta"), LARGE).device.type == "meta"


def test_without_the_extension_it_is_plain_memory(monkeypatch):
    monkeypatch.setattr(operators, "extension", lambda: None)
    made = fresh(torch.zeros(1), LARGE)
    made.fill_(2)
    assert float(made.sum()) == 2 * LARGE


def test_views_and_gradients_keep_it():
    made = fresh(torch.zeros(1), LARGE).zero_()
    part = made[5:].requires_grad_()
    del made
    gc.collect()
    (part * part).sum().backward()
    assert part.grad.shape == (LARGE - 5,)
    assert not part.detach().any()


@pytest.mark.skipif(extension() is None, reason="no compiled kernels")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is mapped on Linux")
def test_what_is_freed_goes_back_to_the_system_at_once():
    """Also where something smaller that was made later stays: the C library would keep it all."""
    process = psutil.Process()
    before = process.memory_info().rss
    made = [fresh(torch.zeros(1), 4 * LARGE).fill_(1.0) for _ in range(8)]
    kept = [torch.ones(1000) for _ in range(8)]
    held = process.memory_info().rss - before
    made.clear()
    left = process.memory_info().rss - before
    assert held > 7 * 16 * LARGE
    assert left < 16 * LARGE, f"{left} of {held} bytes stay"
    assert len(kept) == 8
