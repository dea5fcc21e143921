"""What is refused before a training of the Cellpose family begins, rather than after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.models.configs import family_config
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.train.data import read_pairs
from napari_aprcnn.train.names import check_name

__all__ = ["check_request", "check_tests"]


def check_request(
    name: str,
    architecture: str,
    *,
    device: str,
    threads: int | None = None,
    test: Sequence[Path | str] = (),
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> None:
    """Refuse a name that no file can have, an unknown network or device, and test sets that cannot be read.

    Parameters
    ----------
    name, architecture, device, threads, test
        As `train` takes them.
    progress
        As `check_tests` takes it.

    Raises
    ------
    ConfigError
        If the name or the architecture is not usable.
    DeviceError
        If the device, or the number of threads, cannot be used.
    TrainingDataError
        If a test set cannot be read.
    """
    check_name(name)
    family_config(architecture)
    resolve_device(device, threads=threads)
    check_tests(test, progress=progress)


def check_tests(
    paths: Sequence[Path | str], *, progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None
) -> None:
    """Read every image and its labels once, as a score after the training will.

    Parameters
    ----------
    paths
        Archives or folders.
    progress
        Told what is read, how much of it is done, and all of it; what it raises ends the reading.

    Raises
    ------
    TrainingDataError
        If there is nothing to read, something cannot be read, or shapes differ.
    """
    for path in paths:
        pairs = list(read_pairs(path))
        for done, (name, _kind, load) in enumerate(pairs, 1):
            image, labels = load()
            if image.shape != labels.shape:
                raise TrainingDataError(
                    f"{path}: the image {name!r} has shape {image.shape}, its labels {labels.shape}; expected equal "
                    "shapes: mend the pair, or leave it out of the test set"
                )
            progress(f"test images of {Path(path).stem}", done, len(pairs))
