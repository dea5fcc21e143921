"""Devices in words, and those that are not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_aprcnn._kernels import use_kernels
from napari_aprcnn.errors import DeviceError
from napari_aprcnn.models import device_trial, devices
from napari_aprcnn.models.devices import gpu_words, resolve_device, usable_threads

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_cpu_in_words():
    assert resolve_device("cpu", threads=2).words == "CPU, 2 threads"
    assert resolve_device("cpu", threads=1).words == "CPU, 1 thread"
    assert resolve_device("cpu").threads == usable_threads() >= 1


def test_that_kernels_are_not_compiled_is_said():
    before = use_kernels("reference")
    try:
        assert resolve_device("cpu", threads=2).words == "CPU, 2 threads, slow: the kernels are not compiled"
    finally:
        use_kernels(before)
    assert "slow" not in resolve_device("cpu").words


@no_cuda
def test_auto_without_a_gpu_is_the_cpu_and_says_why():
    device = resolve_device("auto", threads=2)
    if torch.backends.mps.is_available():
        pytest.skip("there is an Apple GPU")
    assert device.torch_device == torch.device("cpu")
    assert device.words == "CPU, 2 threads"
    assert device.gpu.startswith("no GPU found: ")
    assert "CUDA" in gpu_words()


@no_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(DeviceError, match=r"cannot be used: .*CUDA.*choose auto or cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "CUDA:x", "cuda:-1", "tpu", "cuda:99999999999"])
def test_names_that_are_no_device(name):
    with pytest.raises(DeviceError, match="expected auto, cpu"):
        resolve_device(name)


def test_threads_must_be_positive():
    with pytest.raises(DeviceError, match="0 threads"):
        resolve_device("cpu", threads=0)


def test_a_gpu_that_fails_its_first_operation_is_not_taken(monkeypatch):
    monkeypatch.setattr(devices.torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def broken(*_, **__):
        raise RuntimeError("no kernel image is available\nand more")

    monkeypatch.setattr(devices.torch, "ones", broken)
    device = resolve_device("auto", threads=1)
    assert device.torch_device.type == "cpu"
    assert "no kernel image is available" in device.gpu
    with pytest.raises(DeviceError, match="there are 1 CUDA devices"):
        resolve_device("cuda:1")


def test_a_container_quota_limits_the_threads(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(devices, "_CGROUP_QUOTA", quota)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_threads() == 8
    quota.write_text("150000 100000\n")
    assert usable_threads() == 2
    quota.write_text("max 100000\n")
    assert usable_threads() == 8


def test_an_apple_gpu_has_to_run_both_kinds_of_networks(monkeypatch):
    """The CPU stands for the Apple GPU, which no machine of ours has."""
    asked = []

    def trial(device):
        asked.append(device.type)
        return "a network on particles fails there: not implemented"

    monkeypatch.setattr(devices, "why_networks_fail", trial)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    ones = torch.ones
    monkeypatch.setattr(devices.torch, "ones", lambda *shape, device: ones(*shape))
    device = resolve_device("auto", threads=1)
    assert asked[-1] == "mps"
    assert device.words == "CPU, 1 thread"
    assert "not implemented" in device.gpu
    with pytest.raises(DeviceError, match="cannot be used: a network on particles fails there"):
        resolve_device("mps")
    monkeypatch.setattr(devices, "why_networks_fail", lambda _: None)
    assert resolve_device("auto").words == "Apple GPU"


def test_the_trial_finds_what_fails_and_what_is_wrong(monkeypatch):
    here = torch.device("cpu")
    trial = device_trial.why_networks_fail.__wrapped__
    state = torch.random.get_rng_state()
    assert trial(here) is None
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody's random numbers are touched
    calls = []

    def wrong(device):
        calls.append(device)
        return np.arange(3.0) * len(calls)

    monkeypatch.setattr(device_trial, "_planes", wrong)
    assert "planes computes something else" in trial(here)

    def fails(device):
        raise NotImplementedError("The operator 'aten::x' is not implemented for MPS\nmore")

    monkeypatch.setattr(device_trial, "_planes", fails)
    assert trial(here) == "a network on planes fails there: The operator 'aten::x' is not implemented for MPS"
