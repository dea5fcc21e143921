"""What happens where the GPU kernels cannot run: a reason, never an exception, and no import of triton."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from napari_aprcnn._kernels.triton import guard
from napari_aprcnn._kernels.triton.choice import on_gpu
from napari_aprcnn._kernels.triton.guard import Reason, why_not


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    guard._why_not_gpu.cache_clear()
    yield
    guard._why_not_gpu.cache_clear()


def gpu(monkeypatch: pytest.MonkeyPatch, major: int, minor: int) -> None:
    properties = SimpleNamespace(name="A GPU", major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.version, "hip", None)


def test_importing_the_package_and_asking_imports_no_triton() -> None:
    code = (
        "import sys, torch, napari_aprcnn, napari_aprcnn._kernels.triton.choice as c;"
        "assert c.on_gpu('gather_conv', torch.ones(2, 2)) is None;"
        "print('triton' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_cpu_and_a_wide_type() -> None:
    on_cpu, wide = why_not("cpu"), why_not("cuda:0", torch.float64)
    assert on_cpu is not None
    assert on_cpu.reason is Reason.NOT_A_GPU
    assert wide is not None
    assert wide.reason is Reason.DTYPE
    assert on_gpu("fill_tree", torch.ones(3, 3)) is None


def test_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, 7, 5)
    monkeypatch.setattr(guard, "import_module", lambda name: SimpleNamespace())
    found = why_not("cuda:0")
    assert found is not None
    assert found.reason is Reason.TOO_OLD
    assert "7.5" in found.message


def test_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    gpu(monkeypatch, 9, 0)
    monkeypatch.setattr(guard, "import_module", missing)
    found = why_not("cuda:0")
    assert found is not None
    assert found.reason is Reason.NO_TRITON
    assert "pip install" in found.message


@pytest.mark.parametrize(
    "error", [RuntimeError("0 active drivers"), AssertionError("libcuda.so"), FileNotFoundError("gcc")]
)
def test_a_driver_that_does_not_start(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Driver:
        @property
        def active(self) -> Any:
            raise error

    gpu(monkeypatch, 8, 0)
    monkeypatch.setattr(guard, "import_module", lambda name: SimpleNamespace(driver=Driver()))
    found = why_not("cuda:0")
    assert found is not None
    assert found.reason is Reason.NO_DRIVER


@pytest.mark.parametrize("answer", [[33.0] * 4 + [32.0], None])
def test_a_first_kernel_that_fails_or_is_wrong(monkeypatch: pytest.MonkeyPatch, answer: list[float] | None) -> None:
    def sums(values: Any) -> torch.Tensor:
        if answer is None:
            raise RuntimeError("PTX was compiled with an unsupported toolchain")
        return torch.tensor(answer)

    active = SimpleNamespace(active=SimpleNamespace(get_current_target=lambda: "cuda"))
    gpu(monkeypatch, 8, 0)
    monkeypatch.setattr(guard, "import_module", lambda name: SimpleNamespace(driver=active, column_sums=sums))
    monkeypatch.setattr(torch, "ones", lambda *shape, **_: None)
    found = why_not("cuda:0")
    assert found is not None
    assert found.reason is Reason.NO_LAUNCH


def test_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    active = SimpleNamespace(active=SimpleNamespace(get_current_target=lambda: "cuda"))
    gpu(monkeypatch, 8, 0)
    module = SimpleNamespace(driver=active, column_sums=lambda values: torch.tensor([33.0] * 5))
    monkeypatch.setattr(guard, "import_module", lambda name: module)
    monkeypatch.setattr(torch, "ones", lambda *shape, **_: None)
    assert why_not("cuda:0") is None
