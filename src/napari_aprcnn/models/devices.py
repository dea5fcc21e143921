"""Where a network runs, and how to say it: a device is used only when it works, and named in words.

Examples
--------
>>> resolve_device("cpu", threads=2).words
'CPU, 2 threads'
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_aprcnn._kernels.dispatch import compiled
from napari_aprcnn.errors import DeviceError
from napari_aprcnn.models.device_trial import why_networks_fail

__all__ = ["Device", "gpu_words", "resolve_device", "usable_threads"]

_NAMES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_NOT_COMPILED = ", slow: the kernels are not compiled"
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that was tried and works.

    Attributes
    ----------
    torch_device
        The device.
    words
        For people: "CPU, 2 threads" or "NVIDIA H200, 139 GB".
    gpu
        The graphics device that could be used, in words, or why there is none: "no GPU found: ...".
    threads
        Threads that the CPU part may use.
    """

    torch_device: torch.device
    words: str
    gpu: str
    threads: int


def usable_threads() -> int:
    """Count the CPU cores that this process may use: its affinity and its container's quota, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text(encoding="ascii").split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no such file, or "max": no quota
    return max(count, 1)


def _why_not(device: torch.device) -> str | None:
    """Return why a GPU cannot be used, or None if one operation, of Apple's small networks, came back right."""
    if device.type == "cuda":
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) was built without CUDA"
        if not torch.cuda.is_available():
            return "torch finds no CUDA device or driver"
        if (device.index or 0) >= torch.cuda.device_count():
            return f"there are {torch.cuda.device_count()} CUDA devices, numbered from 0"
    elif not torch.backends.mps.is_available():
        return "torch finds no Apple GPU"
    try:
        if float(torch.ones(4, device=device).sum()) != 4.0:
            return "it computes 1 + 1 + 1 + 1 wrongly"
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return why_networks_fail(device) if device.type == "mps" else None


def _gpu_name(device: torch.device) -> str:
    if device.type == "mps":
        return "Apple GPU"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"


def _best_gpu() -> tuple[torch.device | None, str]:
    reasons = []
    for name in ("cuda", "mps"):
        device = torch.device(name)
        reason = _why_not(device)
        if reason is None:
            return device, _gpu_name(device)
        # A torch without CUDA is the reason to tell; "no Apple GPU" as well would only confuse.
        if name == "cuda" or torch.backends.mps.is_built():
            reasons.append(reason)
    return None, f"no GPU found: {'; '.join(reasons)}"


def gpu_words() -> str:
    """Name the GPU that ``auto`` would take, or say why there is none: "no GPU found: ..."."""
    return _best_gpu()[1]


def resolve_device(name: str = "auto", *, threads: int | None = None) -> Device:
    """Find the device that a name means and make sure that it works.

    Parameters
    ----------
    name
        ``auto`` (the first GPU that works, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    threads
        Threads for the CPU; ``None``: all that the process may use.

    Raises
    ------
    DeviceError
        If the name is none of these, or the device asked for cannot be used.
    """
    if not _NAMES.fullmatch(name):
        raise DeviceError(f"got device {name!r}, expected auto, cpu, cuda, cuda:0, cuda:1, ... or mps")
    if threads is not None and threads < 1:
        raise DeviceError(f"got {threads} threads, expected at least 1; leave it out for all cores")
    threads = usable_threads() if threads is None else threads
    gpu, words = _best_gpu()
    if name not in {"auto", "cpu"}:
        gpu = torch.device(name)
        reason = _why_not(gpu)
        if reason is not None:
            raise DeviceError(f"device {name!r} was asked for but cannot be used: {reason}; choose auto or cpu")
        words = _gpu_name(gpu)
    if gpu is None or name == "cpu":
        cpu = f"CPU, {threads} thread{'s' if threads > 1 else ''}" + ("" if compiled() else _NOT_COMPILED)
        return Device(torch_device=torch.device("cpu"), words=cpu, gpu=words, threads=threads)
    return Device(torch_device=gpu, words=words, gpu=words, threads=threads)
