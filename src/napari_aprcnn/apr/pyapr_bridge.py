"""To and from pyapr's objects, and pyapr as a converter.

pyapr holds the interpreter's lock for as long as it works, and ends the process on some inputs: it converts in a
process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn._kernels.dispatch import default_threads
from napari_aprcnn.apr.children import ChildFailedError, job_folder, load_result, run_child
from napari_aprcnn.apr.files import build_tree, read_apr, write_apr
from napari_aprcnn.apr.tree import ParticleTree, shape_of
from napari_aprcnn.config import PyaprConfig
from napari_aprcnn.errors import (
    CancelledError,
    ConversionError,
    FileFormatError,
    ImageDtypeError,
    ImageError,
    ImageValueError,
    MissingDependencyError,
    OutputError,
    ParticleTreeError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["convert_with_pyapr", "from_pyapr", "has_pyapr", "to_pyapr"]

_DTYPES = ("uint8", "uint16", "float32")
# pyapr gives no particles for images of up to 4 voxels, and of 5 and 6 what lies beside them in memory decides.
_SHORTEST_LONGEST_EDGE = 7
# Measured on one core; it only scales the progress bar.
_SECONDS_PER_VOXEL = 4e-8
_STARTING_SECONDS = 0.3
_SLAB_BYTES = 64 << 20


def has_pyapr() -> bool:
    """Return whether pyapr's compiled part is installed."""
    return find_spec("_pyaprwrapper") is not None


def from_pyapr(apr: Any, particles: Any = None) -> ParticleTree:
    """Turn pyapr's structure, and values, into a particle tree.

    Parameters
    ----------
    apr
        ``pyapr.APR``.
    particles
        ``pyapr.ByteParticles``, ``ShortParticles``, ``FloatParticles``, ..., or an array [N] in the order level, z, y,
        x.

    Returns
    -------
    ParticleTree
        Exactly the same particles; ``conversion`` holds the parameters that `apr` carries.

    Raises
    ------
    ParticleTreeError
        If `apr` is empty, or there is not one value for each particle.
    MissingDependencyError
        If pyapr, h5py or hdf5plugin is not installed.
    """
    _require()
    from napari_aprcnn.apr.pyapr_child import write_structure

    if apr.total_number_particles() == 0:
        raise ParticleTreeError("got an APR without particles, expected one that was read or converted")
    with tempfile.TemporaryDirectory(prefix="aprcnn-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "tree.apr"
        try:
            write_structure(apr, path)
        except RuntimeError as error:
            raise OutputError(f"cannot write {path}: {error}; check the free space") from error
        tree = read_apr(path)
    return tree if particles is None else tree.with_intensities(np.array(particles))


def to_pyapr(tree: ParticleTree) -> tuple[Any, Any]:
    """Turn a particle tree into pyapr's structure and values.

    Returns
    -------
    apr, particles
        ``pyapr.APR`` and ``ByteParticles``, ``ShortParticles`` or ``FloatParticles``; ``None`` for a tree without
        intensities.

    Raises
    ------
    OutputError
        If the intensities are not uint8, uint16 or float32.
    ConversionError
        If pyapr does not take the tree.
    MissingDependencyError
        If pyapr, h5py or hdf5plugin is not installed.
    """
    _require()
    from _pyaprwrapper.data_containers import APR
    from _pyaprwrapper.io import APRFile

    from napari_aprcnn.apr.pyapr_child import particle_class

    with tempfile.TemporaryDirectory(prefix="aprcnn-", ignore_cleanup_errors=True) as folder:
        path = write_apr(Path(folder) / "tree.apr", tree)
        file, apr, particles = APRFile(), APR(), None
        file.open(str(path), "READ")
        read = file.read_apr(apr)
        if tree.intensities is not None:
            particles = particle_class(tree.intensities.dtype.name)()
            read = read and file.read_particles(apr, "particles", particles, apr_or_tree=True)
        file.close()
    # pyapr says that it read a file even where HDF5 could not.
    same = particles is None or np.array(particles).tobytes() == np.asarray(tree.intensities).tobytes()
    if not read or apr.total_number_particles() != len(tree) or not same:
        raise ConversionError(f"pyapr did not take {tree}; it read {apr.total_number_particles()} particles")
    return apr, particles


def convert_with_pyapr(
    image: NDArray[Any],
    config: PyaprConfig | None = None,
    *,
    progress: Callable[[float], Any] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    timeout: float | None = None,
    threads: int | None = None,
) -> ParticleTree:
    """Convert an image to particles with pyapr, in a process of its own.

    Parameters
    ----------
    image : uint8, uint16 or float32 [Z, Y, X] or [Y, X]
        Finite, not negative.
    config
        Parameters; by default pyapr's own, with automatic thresholds.
    progress
        Called with the share done, 0..1, as far as the time of earlier runs tells: pyapr itself tells nothing.
    should_cancel
        Asked every 20 ms; a cancel ends the process at once.
    timeout
        Longest wall time in seconds; ``None``: a minute and a microsecond for every voxel.
    threads
        Threads of pyapr; by default all cores. A few particles in a million depend on it.

    Returns
    -------
    ParticleTree
        Intensities in the image's dtype; ``conversion`` with the thresholds that pyapr used.

    Raises
    ------
    ImageError
        For other than 2 or 3 axes, empty axes, and shapes on which pyapr ends the process or loses the content.
    ImageDtypeError, ImageValueError
        For other types, and for voxels that are negative or not finite, whose surroundings pyapr silently loses.
    ConversionError
        If pyapr failed, crashed, or took too long.
    CancelledError
        If ``should_cancel`` says so.
    MissingDependencyError
        If pyapr, h5py or hdf5plugin is not installed.
    """
    _require()
    config = config or PyaprConfig()
    volume = _checked(np.asarray(image))
    seconds = 60 + 1e-6 * volume.size if timeout is None else timeout
    expected = _STARTING_SECONDS + _SECONDS_PER_VOXEL * volume.size
    job = {"shape": volume.shape, "dtype": volume.dtype.str, "config": config.model_dump(mode="json")}
    try:
        with job_folder(job) as folder:
            _store(volume, folder / "image.raw", should_cancel or (lambda: False))
            run_child(
                "napari_aprcnn.apr.pyapr_child",
                folder,
                seconds=seconds,
                memory_bytes=1 << 62,
                threads=default_threads(threads),
                progress=None if progress is None else lambda passed: progress(min(0.95, passed / expected)),
                should_cancel=should_cancel,
            )
            if should_cancel is not None and should_cancel():
                raise CancelledError("cancelled: the conversion was stopped on request")
            answer, arrays = load_result(folder)
    except ChildFailedError as error:
        if error.reason == "cancelled":
            raise CancelledError("cancelled: the conversion was stopped on request") from error
        raise ConversionError(f"pyapr did not convert the image: {error}; use the built-in converter") from error
    if "error" in answer:
        raise ConversionError(f"pyapr did not convert the image: {answer['error']}; use the built-in converter")
    try:
        tree = build_tree(answer, arrays, memory_bytes=1 << 62, threads=threads)
    except (FileFormatError, ParticleTreeError) as error:
        raise ConversionError(f"pyapr made no particle tree: {error}; use the built-in converter") from error
    if progress is not None:
        progress(1.0)
    return tree


def _checked(image: NDArray[Any]) -> NDArray[Any]:
    """Refuse what pyapr would answer with the end of the process, or with another image."""
    shape = shape_of(image.shape)
    if image.dtype.name not in _DTYPES:
        raise ImageDtypeError(
            f"got an image of {image.dtype}, expected {', '.join(_DTYPES)}; convert it, for example .astype('float32')"
        )
    if max(shape) < _SHORTEST_LONGEST_EDGE or shape[2] == 1:
        raise ImageError(
            f"got an image of shape {shape}; pyapr needs an edge of {_SHORTEST_LONGEST_EDGE} voxels and more than one "
            f"along x; use the built-in converter"
        )
    volume = np.ascontiguousarray(image).reshape(shape)
    if volume.dtype.kind == "f":
        low, high = float(volume.min()), float(volume.max())
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
            raise ImageValueError(
                f"got voxels from {low} to {high}, expected finite ones, 0 or more: pyapr loses what is near others; "
                f"replace them first, for example with numpy.nan_to_num and by subtracting the minimum"
            )
    return volume


def _store(volume: NDArray[Any], path: Path, should_cancel: Callable[[], bool]) -> None:
    planes = max(1, _SLAB_BYTES * len(volume) // max(1, volume.nbytes))
    try:
        with path.open("wb") as file:
            for start in range(0, len(volume), planes):
                if should_cancel():
                    raise ChildFailedError("cancelled", "it was cancelled")
                volume[start : start + planes].tofile(file)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space for temporary files"
        ) from error


def _require() -> None:
    if not has_pyapr():
        raise MissingDependencyError(
            "pyapr is not installed: pip install 'napari-aprcnn[apr]' under Python 3.11 (pyapr 1.0.7 has no wheels for "
            "later ones), or use the built-in converter"
        )
