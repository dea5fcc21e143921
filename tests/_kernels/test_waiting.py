"""Features without their zeros: every bit comes back, and the system has the memory meanwhile."""

from __future__ import annotations

import os
import sys

import psutil
import pytest
import torch

from napari_aprcnn._kernels import waiting
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import fresh, reusing_memory
from napari_aprcnn._kernels.waiting import leave_out_zeros, put_back_zeros

pytestmark = pytest.mark.skipif(
    extension() is None or sys.platform != "linux" or os.environ.get("MALLOC_MMAP_MAX_") == "0",
    reason="memory is mapped on Linux",
)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int16 if x.element_size() == 2 else torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.97, 1.0])
@pytest.mark.usefixtures("compiled")
def test_every_bit_comes_back(dtype, zeros):
    made = torch.randn(400_003, 32, generator=torch.Generator().manual_seed(1))
    made[torch.rand(made.shape, generator=torch.Generator().manual_seed(2)) < zeros] = 0
    made[5, 3:6] = torch.tensor([float("nan"), -0.0, float("-inf")])
    made[-1, -1] = 7.0
    made = made.to(dtype)
    with reusing_memory():
        x = fresh(made, *made.shape)
        x.copy_(made)
        marks = leave_out_zeros(x)
        assert marks is not None
        put_back_zeros(x, marks)
        assert torch.equal(bits(x), bits(made))


def test_the_system_has_what_zeros_took():
    process = psutil.Process()
    with reusing_memory():
        x = fresh(torch.zeros(1), 1 << 20, 64).fill_(1.0)  # 256 MB
        x[:, ::2] = 0
        before = process.memory_info().rss
        marks = leave_out_zeros(x)
        gone = before - process.memory_info().rss
        put_back_zeros(x, marks)
        back = process.memory_info().rss - before
    assert 100e6 < gone < 140e6
    assert back < 20e6
    assert float(x.sum()) == 32 << 20


def test_what_waits_may_be_dropped():
    """An error in between: what is counted as used and spare stays right."""
    module = extension()
    with reusing_memory():
        kept = fresh(torch.zeros(1), 8 << 20)
        x = fresh(torch.zeros(1), 8 << 20).zero_()
        leave_out_zeros(x)
        del x  # 32 MB, of which the system had all but parts of a huge page; three quarters of 64 MB may stay
        assert module.spare_bytes() == 16 << 20
        again = fresh(torch.zeros(1), 4 << 20).fill_(3.0)
        assert float(again.min()) == 3.0
        assert kept.numel() == 8 << 20
    assert module.spare_bytes() == 0


def test_spare_pages_go_before_what_waited_comes_back():
    module = extension()
    with reusing_memory():
        x = fresh(torch.zeros(1), 16 << 20).zero_()
        marks = leave_out_zeros(x)
        other = fresh(torch.zeros(1), 12 << 20)
        del other
        assert module.spare_bytes() > 0
        put_back_zeros(x, marks)
        assert module.spare_bytes() == 0
        assert not x.any()


def test_nothing_is_done_where_nothing_is_gained(monkeypatch):
    large = torch.zeros(5 << 20)
    assert leave_out_zeros(large) is None  # what is freed stays with the process
    with reusing_memory():
        assert leave_out_zeros(torch.zeros(1 << 20)) is None
        assert leave_out_zeros(fresh(large, 5 << 20, dtype=torch.float64)) is None
        assert leave_out_zeros(fresh(large, 10 << 20)[::2]) is None
        assert leave_out_zeros(fresh(large, (5 << 20) + 1)) is None
        assert leave_out_zeros(fresh(large, 6 << 20)[1 : 1 + (5 << 20)]) is None  # begins within a line
        assert leave_out_zeros(fresh(large, 5 << 20).requires_grad_()) is None
        assert leave_out_zeros(torch.empty(5 << 20, device="meta")) is None
        monkeypatch.setattr(waiting, "extension", lambda: None)
        assert leave_out_zeros(fresh(large, 5 << 20)) is None


def test_what_may_wait_is_known_before(monkeypatch):
    assert waiting.can_wait()
    monkeypatch.setattr(waiting, "extension", lambda: None)
    assert not waiting.can_wait()


def test_the_kernel_refuses_what_does_not_fit():
    module = extension()
    x = fresh(torch.zeros(1), 64)
    for values, marks in ((x, 3), (x[:40], 2), (x[4:36], 2)):
        with pytest.raises(ValueError, match=r"mark|cache line"):
            module.leave_out_zeros(values.numpy(), torch.zeros(marks, dtype=torch.uint16).numpy(), 1)
