"""Particle trees in ``.apr`` files, the HDF5 format of LibAPR and pyapr.

pyapr trusts what it reads: of files with a few changed bytes some crash the process and many give another image. Here a
file is read in a process of its own, with limits, and its particles must tile the volume before anyone sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr import layout
from napari_aprcnn.apr.children import ChildFailedError, job_folder, load_result, run_child
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.errors import (
    CancelledError,
    FileFormatError,
    ImageError,
    MissingDependencyError,
    OutputError,
    ParticleTreeError,
)
from napari_aprcnn.io.atomic import beside

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AprImage", "AprLimits", "build_tree", "list_apr", "read_apr", "write_apr"]

_READER = "napari_aprcnn.apr.reading_child"
_SLOWEST_BYTES_PER_SECOND = 4 << 20
_SHORTEST_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class AprLimits:
    """What reading a file may take before it is refused.

    Attributes
    ----------
    memory_bytes
        Memory of the reading process; ``None``: half of what is free. One array may take half of it.
    seconds
        Wall time; ``None``: 30 s and one more for every 4 MiB of the file.
    """

    memory_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class AprImage:
    """One image in an ``.apr`` file.

    Attributes
    ----------
    group
        Its HDF5 group: the channel, followed by the time point unless that is 0. Pass it as `read_apr`'s ``channel``.
    shape
        Voxels along z, y, x.
    particles
        Number of particles.
    fields
        Names of the fields of values, and their types.
    """

    group: str
    shape: tuple[int, int, int]
    particles: int
    fields: Mapping[str, str]


def read_apr(
    path: Path | str,
    *,
    name: str | None = None,
    channel: str = "t",
    timepoint: int = 0,
    limits: AprLimits | None = None,
    should_cancel: Callable[[], bool] | None = None,
    threads: int | None = None,
) -> ParticleTree:
    """Read a particle tree from an ``.apr`` file.

    Reads what pyapr 1.0.7 and this package write, the older files whose structure is stored as gaps, and values that
    were stored with LibAPR's variance stabilisation.

    Parameters
    ----------
    path
        The file.
    name
        Field with the values; ``None``: ``particles``, ``particle_intensities``, or the only one there is.
    channel, timepoint
        Which image of the file.
    limits
        Memory and time that reading may take.
    should_cancel
        Asked every 20 ms while the file is read; a cancel ends the reading process.
    threads
        Threads that build the tree; by default all cores.

    Returns
    -------
    ParticleTree
        With intensities (uint8, uint16 or float32), unless the file has none. ``conversion`` holds LibAPR's parameters
        as far as the file names them, or what `write_apr` was given.

    Raises
    ------
    FileFormatError
        If the file is damaged, of another format, too large for the limits, or its cells are no particle tree.
    CancelledError
        If ``should_cancel`` says so.
    MissingDependencyError
        If h5py or hdf5plugin is not installed.

    Examples
    --------
    >>> import tempfile
    >>> tree = ParticleTree.from_levels(np.full((2, 2, 2), 2, np.uint8), shape=(4, 4, 4))
    >>> file = write_apr(Path(tempfile.mkdtemp()) / "cell.apr", tree.with_intensities(np.arange(64, dtype=np.uint8)))
    >>> read_apr(file)
    ParticleTree(shape=(4, 4, 4), particles=64, PRR=1.0, uint8 intensities)
    """
    path = _existing(path)
    bounds = _settle(limits, path)
    job = {"task": "read", "group": _group(channel, timepoint), "name": name}
    answer, arrays = _ask_child(path, job, bounds, should_cancel)
    try:
        return build_tree(answer, arrays, memory_bytes=bounds[0], threads=threads)
    except (FileFormatError, ParticleTreeError, ImageError) as error:
        raise FileFormatError(f"{path.name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path.name}: the reading process gave no usable answer ({error})") from error


def list_apr(path: Path | str, *, limits: AprLimits | None = None) -> tuple[AprImage, ...]:
    """List the images (channels and time points) in an ``.apr`` file, without reading them.

    Raises
    ------
    FileFormatError
        If the file is damaged or of another format.
    MissingDependencyError
        If h5py or hdf5plugin is not installed.
    """
    path = _existing(path)
    answer, _ = _ask_child(path, {"task": "list"}, _settle(limits, path), None)
    try:
        return tuple(
            AprImage(
                group=str(item["group"]),
                shape=_shape(item),
                particles=int(item["particles"]),
                fields=dict(item["fields"]),
            )
            for item in answer["images"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path.name}: the reading process gave no usable answer ({error})") from error


def write_apr(
    path: Path | str,
    tree: ParticleTree | Mapping[tuple[str, int], ParticleTree],
    *,
    name: str = "particles",
    overwrite: bool = False,
) -> Path:
    """Write a particle tree to an ``.apr`` file that pyapr and LibAPR read too.

    The file carries a SHA-256 of structure, values and conversion, which `read_apr` checks.

    Parameters
    ----------
    path
        The file.
    tree
        A tree, or several by (channel, time point).
    name
        Name of the field of intensities; ``particles`` is what pyapr looks for.
    overwrite
        Replace a file that is there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If it cannot be written: exists, no permission, disk full, intensities other than uint8, uint16 and float32,
        conversion metadata that are no JSON.
    MissingDependencyError
        If h5py or hdf5plugin is not installed.
    """
    _require()
    from napari_aprcnn.apr.hdf5_write import write_file

    trees = {("t", 0): tree} if isinstance(tree, ParticleTree) else dict(tree)
    if not trees:
        raise OutputError("got no tree to write, expected at least one")
    path = Path(path).expanduser()
    with beside(path, overwrite=overwrite) as temporary:
        try:
            write_file(temporary, trees, name=name)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, OutputError | ParticleTreeError):
                raise
            raise OutputError(f"cannot write {path}: HDF5 says {error}; check the free space") from error
    return path


def _group(channel: str, timepoint: int) -> str:
    return channel if timepoint == 0 else f"{channel}{timepoint}"


def _require() -> None:
    missing = [package for package in ("h5py", "hdf5plugin") if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f".apr files need {' and '.join(missing)}: pip install h5py hdf5plugin (part of napari-aprcnn[all])"
        )


def _existing(path: Path | str) -> Path:
    _require()
    # Absolute: the reading process works in another folder.
    path = Path(path).expanduser().absolute()
    try:
        if not path.is_file():
            raise FileFormatError(f"there is no file {path}; check the path")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}; check that you may read it") from error
    if empty:
        raise FileFormatError(f"{path.name} is empty (0 bytes); copy or export it again")
    return path


def _settle(limits: AprLimits | None, path: Path) -> tuple[int, float]:
    import psutil

    limits = limits or AprLimits()
    memory = psutil.virtual_memory().available // 2 if limits.memory_bytes is None else limits.memory_bytes
    seconds = limits.seconds
    if seconds is None:
        seconds = _SHORTEST_SECONDS + path.stat().st_size / _SLOWEST_BYTES_PER_SECOND
    return int(memory), seconds


def _ask_child(
    path: Path, job: dict[str, Any], bounds: tuple[int, float], should_cancel: Callable[[], bool] | None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    memory_bytes, seconds = bounds
    try:
        with job_folder(job | {"path": str(path), "memory_bytes": memory_bytes}) as folder:
            # The interpreter and HDF5 themselves take some memory.
            resident = memory_bytes + (256 << 20)
            run_child(_READER, folder, seconds=seconds, memory_bytes=resident, should_cancel=should_cancel)
            answer, arrays = load_result(folder)
    except ChildFailedError as error:
        if error.reason == "cancelled":
            raise CancelledError(f"cancelled: reading {path.name} was stopped on request") from error
        raise FileFormatError(f"{path.name} could not be read: {error}; it is damaged, or raise the limits") from error
    if "error" in answer:
        raise FileFormatError(f"{path.name}: {answer['error']}")
    return answer, arrays


def _shape(answer: Mapping[str, Any]) -> tuple[int, int, int]:
    z, y, x = (int(edge) for edge in answer["shape"])
    if min(z, y, x) < 1 or max(z, y, x) > layout.LONGEST_EDGE:
        raise ValueError(f"shape {(z, y, x)}")
    return z, y, x


def build_tree(
    answer: dict[str, Any], arrays: dict[str, NDArray[Any]], *, memory_bytes: int, threads: int | None
) -> ParticleTree:
    """Make the tree that a child process answered with.

    Raises
    ------
    FileFormatError, ParticleTreeError, ImageError
        If its arrays are no particle tree.
    """
    shape = _shape(answer)
    layout.check_budget(shape, len(arrays["x"]), memory_bytes)
    tree = ParticleTree.from_rows(
        shape,
        arrays["x"],
        arrays["offsets"],
        intensities=arrays.get("intensities"),
        conversion=dict(answer["conversion"]),
        threads=threads,
    )
    if "node_x" in arrays and not (
        np.array_equal(arrays["node_x"], tree.nodes.x) and np.array_equal(arrays["node_offsets"], tree.nodes.offsets)
    ):
        raise FileFormatError("its interior nodes are not those of its particles; it is damaged")
    return tree
