"""The choice of an operator's kernel on a GPU. Imports triton at the first call on a GPU, never before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from napari_aprcnn._kernels.triton.guard import why_not

__all__ = ["on_gpu"]


def on_gpu(name: str, *features: Tensor) -> Any:
    """The Triton kernel of an operator for these features, or ``None`` where plain torch is to do the job.

    Parameters
    ----------
    name
        As registered: ``gather_conv``, ``gather_conv_input``, ``fill_tree``, ...
    features
        All have to be on one GPU that the kernels run on, and of a type that they take.

    Returns
    -------
    Callable or None
        Takes what the operator takes.
    """
    if any(x.device != features[0].device or why_not(x.device, x.dtype) is not None for x in features):
        return None
    return getattr(import_module("napari_aprcnn._kernels.triton.operators"), name)
