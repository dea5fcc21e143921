"""Memory for outputs: large ones on pages of their own, which the system gets back."""

from __future__ import annotations

import gc
import os
import sys

import psutil
import pytest
import torch

from napari_aprcnn._kernels import operators
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import fresh, reusing_memory

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


def test_elsewhere_it_is_plain_memory_on_huge_pages(monkeypatch):
    """Where nothing is used again, or the C library is told to keep memory."""
    asked = []

    class Module:
        def maps_outputs(self) -> bool:
            return False

        def ask_for_huge_pages(self, address: int, size: int) -> bool:
            asked.append(size)
            return address > 0

    monkeypatch.setattr(operators, "extension", lambda: Module())
    made = fresh(torch.zeros(1), LARGE, 2)
    assert made.shape == (LARGE, 2)
    fresh(torch.zeros(1), LARGE - 1)
    assert asked == [8 * LARGE]


mapped = pytest.mark.skipif(
    extension() is None or sys.platform != "linux" or os.environ.get("MALLOC_MMAP_MAX_") == "0",
    reason="memory is mapped on Linux",
)


@mapped
def test_what_is_freed_goes_back_to_the_system():
    """Also where something smaller that was made later stays: the C library would keep it all."""
    process = psutil.Process()
    before = process.memory_info().rss
    with reusing_memory():
        made = [fresh(torch.zeros(1), 4 * LARGE).fill_(1.0) for _ in range(8)]
        kept = [torch.ones(1000) for _ in range(8)]
        held = process.memory_info().rss - before
        made.clear()
    left = process.memory_info().rss - before
    assert held > 7 * 16 * LARGE
    assert left < 16 * LARGE, f"{left} of {held} bytes stay"
    assert len(kept) == 8


def million(count: int) -> torch.Tensor:
    """As many times 4 MB."""
    return fresh(torch.zeros(1), count, LARGE)


@mapped
def test_freed_pages_are_written_again():
    module = extension()
    with reusing_memory():
        kept, freed = million(8), million(16)
        place = freed.data_ptr()
        del freed  # what three quarters of the most allow stays: 10 of 16
        assert module.spare_bytes() == 10 * 4 * LARGE
        again = million(2)
        other = million(2)
        assert {again.data_ptr(), other.data_ptr()} == {place, place + 8 * LARGE}
        again.fill_(1.0)
        other.fill_(2.0)
        assert float(again.max()) == 1.0
        with reusing_memory():
            pass
        del again, other
        assert module.spare_bytes() > 0
    assert module.spare_bytes() == 0
    assert kept.shape == (8, LARGE)
    del kept
    assert module.spare_bytes() == 0


@mapped
def test_spare_pages_do_not_add_to_a_peak():
    """Those that are too small go back before there are more; and with what is used they stay below the most so far."""
    module = extension()
    with reusing_memory():
        held = [million(1) for _ in range(8)]
        del held[::2]
        assert module.spare_bytes() == 2 * 4 * LARGE
        large = million(2)
        assert module.spare_bytes() == 0
        del large
        held.clear()
        assert module.spare_bytes() <= 6 * 4 * LARGE


@mapped
def test_neighbouring_pages_are_joined():
    module = extension()
    with reusing_memory():
        rest = million(40)
        whole = million(4)
        place = whole.data_ptr()
        del whole
        parts = [million(1) for _ in range(4)]
        assert module.spare_bytes() == 0
        for number in (1, 3, 0, 2):
            parts[number] = None
        assert million(4).data_ptr() == place
        assert rest.shape == (40, LARGE)


@mapped
def test_an_error_ends_the_reuse():
    def fail():
        with reusing_memory():
            million(3)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert extension().spare_bytes() == 0
