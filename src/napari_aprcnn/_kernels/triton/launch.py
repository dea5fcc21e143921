"""What all launches share: the device of the tensors, and host copies of small tables that are made once."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from contextlib import AbstractContextManager


__all__ = ["on_device", "once", "require"]

T = TypeVar("T")

_kept: Any = WeakTensorKeyDictionary()


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Launches go to the device of ``x``, whichever the current one is."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def once(table: Tensor, key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, kept as long as ``table`` lives and is not written to.

    Tables belong to a tree and serve every layer and step; what is derived from them (host copies, lists of tiles)
    costs a wait for the device, so it is derived once.
    """
    version = 0 if table.is_inference() else table._version
    kept = _kept.get(table)
    if kept is None or kept[0] != version:
        kept = (version, {})
        _kept[table] = kept
    if key not in kept[1]:
        kept[1][key] = make()
    value: T = kept[1][key]
    return value


def require(
    name: str, tensor: Tensor, shape: tuple[int | None, ...], dtype: torch.dtype | None, like: Tensor
) -> Tensor:
    """The tensor, contiguous, if it has the shape (``None``: any), the dtype and the device of ``like``.

    Raises
    ------
    ValueError
        If it does not: a kernel would read other memory.
    """
    fits = tensor.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits or (dtype is not None and tensor.dtype != dtype) or tensor.device != like.device:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(
            f"got {name} {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}, "
            f"expected [{wanted}] {dtype or 'of any type'} on {like.device}"
        )
    return tensor.contiguous()
