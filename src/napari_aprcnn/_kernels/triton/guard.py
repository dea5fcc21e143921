"""Whether the Triton kernels can run on a device, and if not, why: then the torch reference does the job there."""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any

import torch

__all__ = ["OLDEST_CAPABILITY", "Reason", "Unavailable", "why_not"]

logger = logging.getLogger(__name__)

#: Below it there is no bfloat16, TF32 or asynchronous copy.
OLDEST_CAPABILITY = (8, 0)
#: AMD architectures that the kernels compile for.
AMD_ARCHITECTURES = ("gfx90a", "gfx942", "gfx950")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# What importing triton, finding a driver, building its launcher (it calls a C compiler) or a first launch may raise.
_FAILURES = (ImportError, OSError, RuntimeError, AssertionError, AttributeError, ValueError, subprocess.SubprocessError)


class Reason(Enum):
    """Why the kernels do not run."""

    NOT_A_GPU = "the tensors are not on a GPU"
    DTYPE = "features of this type"
    NO_TRITON = "triton is not installed or does not load"
    TOO_OLD = "the GPU is too old"
    NO_DRIVER = "triton finds no driver"
    NO_LAUNCH = "a first kernel does not run"


@dataclass(frozen=True)
class Unavailable:
    """A reason, and a sentence for the log that says what to do."""

    reason: Reason
    message: str


def why_not(device: torch.device | str, dtype: torch.dtype = torch.float32) -> Unavailable | None:
    """Why the kernels cannot take features of this type on this device; ``None`` if they can.

    The answer for a device is found once per process: it starts the driver and runs one small kernel. With
    ``TRITON_INTERPRET=1`` in the environment (before triton is imported) kernels are interpreted on the CPU.
    """
    device = torch.device(device)
    if dtype not in DTYPES:
        return Unavailable(Reason.DTYPE, f"got features of {dtype}; the GPU kernels take float32, float16, bfloat16")
    interpreted = os.environ.get("TRITON_INTERPRET", "0") == "1"
    if device.type == "cpu" and interpreted:
        return _import()
    if device.type != "cuda":
        return Unavailable(Reason.NOT_A_GPU, f"got device {device}; the GPU kernels need a CUDA or ROCm device")
    index = torch.cuda.current_device() if device.index is None else device.index
    return _why_not_gpu(index)


@cache
def _why_not_gpu(index: int) -> Unavailable | None:
    found = _import() or _capability(index) or _driver() or _launch(index)
    if found is not None:
        logger.warning("GPU %d: %s; plain torch does the particle layers, slower", index, found.message)
    return found


def _import() -> Unavailable | None:
    try:
        import_module("triton")
    except _FAILURES as error:
        return Unavailable(
            Reason.NO_TRITON, f"triton does not load ({error}); pip install 'napari-aprcnn[gpu]' on Linux"
        )
    return None


def _capability(index: int) -> Unavailable | None:
    try:
        properties: Any = torch.cuda.get_device_properties(index)
    except _FAILURES as error:
        return Unavailable(Reason.NO_DRIVER, f"the GPU does not start ({error})")
    if torch.version.hip is not None:
        architecture = str(properties.gcnArchName).split(":")[0]
        if architecture in AMD_ARCHITECTURES:
            return None
        return Unavailable(
            Reason.TOO_OLD, f"got {architecture}, the kernels are built for {', '.join(AMD_ARCHITECTURES)}"
        )
    capability = (int(properties.major), int(properties.minor))
    if capability < OLDEST_CAPABILITY:
        return Unavailable(
            Reason.TOO_OLD,
            f"{properties.name} has compute capability {capability[0]}.{capability[1]}, the kernels need 8.0 or newer",
        )
    return None


def _driver() -> Unavailable | None:
    try:
        driver: Any = import_module("triton.runtime.driver").driver
        driver.active.get_current_target()
    except _FAILURES as error:
        return Unavailable(
            Reason.NO_DRIVER,
            f"triton finds no driver ({error}); it needs the GPU's driver and a C compiler (gcc or clang)",
        )
    return None


def _launch(index: int) -> Unavailable | None:
    try:
        operators: Any = import_module("napari_aprcnn._kernels.triton.operators")
        ones = torch.ones(33, 5, device=torch.device("cuda", index))
        total = operators.column_sums(ones).tolist()
    except _FAILURES as error:
        return Unavailable(Reason.NO_LAUNCH, f"a first kernel failed ({error}); update the driver, or triton")
    if total != [33.0] * 5:
        return Unavailable(Reason.NO_LAUNCH, f"a first kernel gave {total} instead of 33; update the driver, or triton")
    return None
