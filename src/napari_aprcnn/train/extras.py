"""The packages that only a training on volumes needs."""

from __future__ import annotations

from importlib.util import find_spec

from napari_aprcnn.errors import MissingDependencyError

__all__ = ["missing_extras", "need_extras"]

_NEEDED = ("lightning", "monai", "tensorboard")


def missing_extras() -> tuple[str, ...]:
    """Names of the packages that are not installed; nothing is imported."""
    return tuple(name for name in _NEEDED if find_spec(name) is None)


def need_extras() -> None:
    """Say what to install, if something is missing.

    Raises
    ------
    MissingDependencyError
        If a package is not installed.
    """
    missing = missing_extras()
    if missing:
        raise MissingDependencyError(
            f"training on volumes needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed; install the extra: pip install 'napari-aprcnn[train]'"
        )
