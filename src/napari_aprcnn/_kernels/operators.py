"""What the operator modules share: registration, and the choice between the extension and plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_aprcnn._kernels.dispatch import extension

__all__ = [
    "NAMESPACE",
    "array",
    "compiled_for",
    "compiled_for_features",
    "fresh",
    "give_back_free",
    "half_products_for",
    "is_plain",
    "memory",
    "operator",
    "raw_half",
    "reusing_memory",
    "threads",
    "wide",
]

NAMESPACE = "napari_aprcnn"
_HALF = (torch.float16, torch.bfloat16)
_LARGE = 1 << 22  # bytes, for huge pages; numpy draws the same line
_MAPPED = 1 << 20  # bytes, for pages of its own within `reusing_memory`


class Operator:
    """A registered operator of torch that plain inference calls without torch's dispatcher.

    The first call through the dispatcher imports ``torch._dynamo``, and with it triton: seconds, and a crash of the
    process where a window has loaded another LLVM before (Mesa does). Gradients, tracing, compilation and tensors that
    are no plain ones go through the dispatcher as ever; autocast leaves operators alone that have no rule for it.

    Parameters
    ----------
    function
        What is computed.
    name
        Of the operator, within the namespace.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._definition = torch.library.custom_op(f"{NAMESPACE}::{name}", function, mutates_args=())
        self._overload = getattr(getattr(torch.ops, NAMESPACE), name).default
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not is_plain((*args, *kwargs.values())):
            return self._overload(*args, **kwargs)
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._definition, name)


def is_plain(args: tuple[Any, ...]) -> bool:
    """Whether a call has nothing to do but to compute."""
    if torch._C._len_torch_dispatch_stack() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    grads = torch.is_grad_enabled()
    for x in args:
        if isinstance(x, Tensor):
            known = type(x) is Tensor or type(x) is torch.nn.Parameter
            if not known or (grads and x.requires_grad):
                return False
    return True


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that registers a function as the operator ``napari_aprcnn::name``."""
    return lambda function: Operator(function, name)


def compiled_for(*tensors: Tensor) -> Any:
    """The extension where it can take these tensors, else ``None``: it knows float32 on the CPU."""
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        return None
    return extension()


def compiled_for_features(*tensors: Tensor) -> Any:
    """The extension where its kernels between rows can take these features: float32 or bfloat16, all the same."""
    first = tensors[0].dtype
    if first not in (torch.float32, torch.bfloat16) or any(t.dtype != first or t.device.type != "cpu" for t in tensors):
        return None
    return extension()


def fresh(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for an output, on huge pages where the system has them; within `reusing_memory` on pages of its own.

    A hundred megabytes on pages of 4 kB take longer to come by than to fill: 38 and 4 ms; on huge ones 10.
    """
    dtype = like.dtype if dtype is None else dtype
    size = math.prod(shape) * dtype.itemsize
    module = extension() if size >= _MAPPED and like.device.type == "cpu" else None
    if module is not None and module.maps_outputs():
        return torch.from_numpy(module.new_pages(size)).view(dtype).view(shape)
    made = like.new_empty(shape, dtype=dtype)
    if module is not None and size >= _LARGE:
        module.ask_for_huge_pages(made.data_ptr(), size)
    return made


@contextmanager
def reusing_memory() -> Iterator[None]:
    """Within, large outputs take the pages of those that were freed, and at the end the system has all of them back.

    What is freed among smaller things the C library keeps, a fifth of the peak of a network. Spare pages that are not
    enough go back before there are more. Where the library is told to keep large allocations (``MALLOC_MMAP_MAX_=0``)
    they are its own. Not for a training, which frees in another order than it takes: there the library is faster.
    """
    module = extension()
    if module is None:
        yield
        return
    module.begin_reuse()
    try:
        yield
    finally:
        module.end_reuse()


def give_back_free() -> None:
    """Within `reusing_memory`: give what the C library keeps of smaller things that were freed to the system, in ms."""
    module = extension()
    if module is not None and module.maps_outputs():
        module.give_back_free()


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


def memory(tensor: Tensor) -> Any:
    """Memory of features as kernels for float32 and bfloat16 take it."""
    return raw_half(tensor) if tensor.dtype == torch.bfloat16 else array(tensor)


def array(tensor: Tensor) -> Any:
    """The tensor's memory as a numpy array, made contiguous."""
    return tensor.detach().contiguous().numpy()


def threads() -> int:
    """Number of threads that torch is set to."""
    return torch.get_num_threads()


def wide(tensor: Tensor) -> Tensor:
    """Half precision on the CPU is computed in float32."""
    return tensor.float() if tensor.dtype in _HALF and tensor.device.type == "cpu" else tensor
