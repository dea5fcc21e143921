"""What the operator modules share: registration, and the choice between the extension and plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_aprcnn._kernels.dispatch import extension

__all__ = ["NAMESPACE", "array", "compiled_for", "half_products_for", "operator", "raw_half", "threads", "wide"]

NAMESPACE = "napari_aprcnn"
_HALF = (torch.float16, torch.bfloat16)


def operator(name: str) -> Any:
    """Decorator that registers a function as the operator ``napari_aprcnn::name``."""
    return torch.library.custom_op(f"{NAMESPACE}::{name}", mutates_args=())


def compiled_for(*tensors: Tensor) -> Any:
    """The extension where it can take these tensors, else ``None``: it knows float32 on the CPU."""
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        return None
    return extension()


def half_products_for(x: Tensor, tree: Tensor, weight: Tensor) -> Any:
    """The extension where it, and the processor, multiply bfloat16; it takes pairs of input channels."""
    tensors = (x, tree, weight)
    if any(t.dtype != torch.bfloat16 or t.device.type != "cpu" for t in tensors) or x.shape[1] % 2:
        return None
    module = extension()
    return (
        module if module is not None and module.has_bf16_products() and module.instruction_set() == "avx512" else None
    )


def raw_half(tensor: Tensor) -> Any:
    """Memory of a bfloat16 tensor as uint16, which numpy has."""
    return tensor.detach().contiguous().view(torch.int16).numpy().view(np.uint16)


def array(tensor: Tensor) -> Any:
    """The tensor's memory as a numpy array, made contiguous."""
    return tensor.detach().contiguous().numpy()


def threads() -> int:
    """Number of threads that torch is set to."""
    return torch.get_num_threads()


def wide(tensor: Tensor) -> Tensor:
    """Half precision on the CPU is computed in float32."""
    return tensor.float() if tensor.dtype in _HALF and tensor.device.type == "cpu" else tensor
