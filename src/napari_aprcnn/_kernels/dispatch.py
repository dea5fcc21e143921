"""Which implementation runs: the extension with one of its instruction sets, or the reference."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Any

__all__ = ["Stopped", "compiled", "default_threads", "extension", "instruction_set", "instruction_sets", "use_kernels"]

logger = logging.getLogger(__name__)


def _load() -> Any:
    try:
        return import_module("napari_aprcnn._kernels._cpu")
    except ModuleNotFoundError:  # installed without a compiler
        return None
    except ImportError as error:
        logger.warning("the compiled kernels do not load (%s); numpy does their job, slower", error)
        return None


_extension = _load()
_NAMES = ("avx512", "avx2", "neon", "plain")
_state: dict[str, bool] = {"compiled": _extension is not None}


class Stopped(Exception):  # noqa: N818 - not an error: the caller asked for it
    """``should_cancel`` said yes; nothing was returned."""


def extension() -> Any:
    """The extension module, or ``None`` where the reference is to run."""
    return _extension if _state["compiled"] else None


def compiled() -> bool:
    """Whether the compiled kernels run."""
    return _state["compiled"]


def instruction_set() -> str:
    """Name of what runs: ``avx512``, ``avx2``, ``neon``, ``plain``, or ``python`` for the reference."""
    return str(_extension.instruction_set()) if compiled() else "python"


def instruction_sets() -> list[str]:
    """All that could run here, fastest first; the last is ``python``."""
    names = [] if _extension is None else [name for name in _NAMES if _extension.has_instruction_set(name)]
    return [*names, "python"]


def use_kernels(name: str = "auto") -> str:
    """Choose what runs from now on in this process; returns the name of the choice before.

    Parameters
    ----------
    name
        ``auto``: the best there is; ``reference`` or ``python``; or one of `instruction_sets`.

    Raises
    ------
    ValueError
        If this machine, or this installation, does not have it.
    """
    before = instruction_set()
    if name in {"reference", "python"}:
        _state["compiled"] = False
    elif name in {"auto", ""}:
        _state["compiled"] = _extension is not None
        if _extension is not None:
            _extension.choose_instruction_set("")
    elif name in instruction_sets():
        _state["compiled"] = True
        _extension.choose_instruction_set(name)
    else:
        raise ValueError(f"got kernels {name!r}, expected auto, reference or one of {instruction_sets()}")
    return before


def default_threads(threads: int | None) -> int:
    """Number of threads to use: as given, or as many cores as this process may use.

    Never more than torch was told to use (``OMP_NUM_THREADS``, `torch.set_num_threads`, a worker of a data loader): the
    threads are torch's, and where several processes share a machine, teams of all its cores wait for one another.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"got {threads} threads, expected at least 1")
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return max(1, min(cores, int(torch.get_num_threads())))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(wanted))) if wanted.isdecimal() else cores


use_kernels(os.environ.get("APRCNN_KERNELS", "auto").strip().lower())
