"""Features that wait for a later layer, without their zeros, in the memory that they had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import array, raw_half, threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Marks = NDArray[np.uint16]

__all__ = ["can_wait", "leave_out_zeros", "put_back_zeros"]

_MARKED, _LINE = 16, 64
_LEAST = 1 << 24  # bytes: what is given to the system are huge pages


def can_wait() -> bool:
    """Whether `leave_out_zeros` does something here: on Linux, with compiled kernels, unless memory is to be kept."""
    module = extension()
    return module is not None and bool(module.gives_pages())


def leave_out_zeros(x: Tensor) -> Marks | None:
    """Move what is not zero together and give the rest of the memory to the system.

    Of what a ReLU gave, half or more is zero. The tensor holds nothing of use until `put_back_zeros`, which brings all
    bits back.

    Parameters
    ----------
    x
        Contiguous features on the CPU; nobody may look at them meanwhile.

    Returns
    -------
    ndarray or None
        A bit for every value, what `put_back_zeros` needs. ``None``: nothing was done, as `x` is small, of another
        type, on another device, or memory that is free stays with the process anyway
        (`napari_aprcnn._kernels.operators.reusing_memory` is not entered, or the C library is told to keep it).
    """
    module = extension()
    if module is None or x.device.type != "cpu" or not module.maps_outputs():
        return None
    known = x.dtype in (torch.float32, torch.bfloat16) and x.is_contiguous() and not x.requires_grad
    if not known or x.numel() % _MARKED or x.data_ptr() % _LINE or x.numel() * x.element_size() < _LEAST:
        return None
    marks = np.empty(x.numel() // _MARKED, np.uint16)
    module.leave_out_zeros(_values(x), marks, threads())
    return marks


def put_back_zeros(x: Tensor, marks: Marks) -> None:
    """Bring back what `leave_out_zeros` moved."""
    extension().put_back_zeros(_values(x), marks, threads())


def _values(x: Tensor) -> Any:
    return raw_half(x) if x.dtype == torch.bfloat16 else array(x)
