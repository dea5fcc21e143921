"""Memory for outputs: what torch gives, on huge pages where the system has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from napari_aprcnn._kernels import operators
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import fresh

LARGE = (1 << 22) // 4


def _asked(monkeypatch) -> list[int]:
    """What is asked for, in bytes."""
    found: list[int] = []

    class Module:
        def ask_for_huge_pages(self, address: int, size: int) -> bool:
            found.append(size)
            return address > 0

    monkeypatch.setattr(operators, "extension", lambda: Module())
    return found


def test_large_outputs_ask_for_huge_pages(monkeypatch):
    asked = _asked(monkeypatch)
    like = torch.zeros(1)
    made = fresh(like, LARGE // 8, 8)
    assert made.shape == (LARGE // 8, 8)
    assert made.dtype == torch.float32
    assert fresh(like, 3, dtype=torch.uint8).dtype == torch.uint8
    fresh(like, LARGE - 1)
    fresh(torch.zeros(1, device="meta"), LARGE)
    assert asked == [4 * LARGE]


def test_without_the_extension_it_is_plain_memory(monkeypatch):
    monkeypatch.setattr(operators, "extension", lambda: None)
    made = fresh(torch.zeros(1), LARGE)
    made.fill_(2)
    assert float(made.sum()) == 2 * LARGE


@pytest.mark.skipif(extension() is None, reason="no compiled kernels")
def test_the_system_is_asked_for_whole_huge_pages():
    """Linux takes a range of whole ones; nothing is asked for what holds none."""
    module, values = extension(), torch.zeros(4 * LARGE)
    assert not module.ask_for_huge_pages(values.data_ptr(), 1 << 20)
    asked = module.ask_for_huge_pages(values.data_ptr(), values.nbytes)
    known = Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
    assert asked == (sys.platform == "linux" and known)
    assert float(values.sum()) == 0
