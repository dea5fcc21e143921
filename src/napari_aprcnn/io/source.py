"""An image in a file: what the readers give and everything else takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import AprcnnError, FileFormatError, MissingDependencyError

__all__ = ["ImageSource", "LazyArray", "guess_letters", "lazy_dask", "reading", "settle_axes"]

# A dask chunk of about this size: small enough to stay lazy, large enough for a short task graph.
_CHUNK_BYTES = 8 << 20
_LARGEST_CHUNK_BYTES = 2 << 30
_MOST_CHUNKS = 4_000_000
# An axis of at most this many entries, beside planes at least eight times larger, is taken for channels.
_FEW = 4
_COLOUR_SAMPLES = (3, 4)  # red, green, blue, perhaps alpha


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSource:
    """An image in a file, not loaded.

    Attributes
    ----------
    data
        Lazy dask array of the full resolution.
    axes
        One letter of T, C, Z, Y, X for each axis of `data`.
    spacing_um
        Voxel size (z, y, x) in micrometres; ``None`` where the file gives none. z of an image without a Z axis is y.
    channel_names
        Names of the channels, as far as the file gives them.
    name
        Name of the image: the file name without suffix, and the series' name where there are several.
    path
        The file or folder.
    units
        ``um`` where `spacing_um` is known, else ``px``.
    kind
        Format in words, for example ``OME-TIFF``.
    axes_known
        Whether the file names its axes; else `axes` is a guess from the shape.
    series, series_names
        Index of the image within the file, and the names of all of them.
    multiscale
        Lazy arrays from full to coarsest resolution; `data` is the first.
    notes
        Whatever was guessed, in sentences.
    """

    data: Any
    axes: str
    spacing_um: tuple[float, float, float] | None
    channel_names: tuple[str, ...]
    name: str
    path: Path
    units: str = "px"
    kind: str = ""
    axes_known: bool = True
    series: int = 0
    series_names: tuple[str, ...] = ()
    multiscale: tuple[Any, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full resolution."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def words(self) -> str:
        """Shape, type and voxel size in words.

        Examples
        --------
        ``Z 64 x Y 512 x X 512, uint16, voxel 0.5 x 0.2 x 0.2 um``
        """
        shape = " x ".join(f"{letter} {n}" for letter, n in zip(self.axes, self.shape, strict=True))
        spacing = "voxel size unknown"
        if self.spacing_um is not None:
            shown = self.spacing_um if "Z" in self.axes else self.spacing_um[1:]
            spacing = "voxel " + " x ".join(f"{value:.4g}" for value in shown) + " um"
        return f"{shape}, {self.data.dtype}, {spacing}"


class LazyArray:
    """An array of a file that raises `FileFormatError` when a part of it turns out to be unreadable.

    Parameters
    ----------
    array
        Anything with ``shape``, ``dtype`` and slicing.
    path
        The file that the messages name.
    """

    def __init__(self, array: Any, path: Path) -> None:
        self._array = array
        self._path = path
        self.shape = tuple(int(n) for n in array.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with reading(self._path, "its data are damaged or truncated; export the image again"):
            part = np.asarray(self._array[key])
            return part.astype(self.dtype, copy=False)


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn every failure of a foreign parser into a `FileFormatError` that names the file and a remedy."""
    try:
        yield
    except AprcnnError:
        raise
    except MemoryError as error:
        raise FileFormatError(f"{path.name}: reading needs more memory than there is; {remedy}") from error
    except Exception as error:
        # Parsers of untrusted files raise anything; all of it means: unreadable.
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, ImportError) or "imagecodecs" in detail:
            raise MissingDependencyError(
                f"{path.name} is compressed in a way that needs another package ({detail}); "
                f"run: pip install imagecodecs, or export the file uncompressed or with ZIP compression"
            ) from error
        raise FileFormatError(f"cannot read {path.name}: {detail}; {remedy}") from error


def lazy_dask(array: Any, path: Path, *, chunks: Sequence[int], letters: str) -> Any:
    """Wrap a lazy array as dask, with chunks that are whole multiples of the stored ones.

    Parameters
    ----------
    array
        Anything with ``shape``, ``dtype`` and slicing.
    path
        The file that error messages name.
    chunks
        Edge lengths of the stored chunks.
    letters
        One letter for each axis; only Y and X chunks are joined, so that one plane never drags in another.

    Raises
    ------
    FileFormatError
        If a single stored chunk would not fit in memory, or there are absurdly many.
    """
    import dask.array as da

    shape = tuple(int(n) for n in array.shape)
    itemsize = np.dtype(array.dtype).itemsize
    edges = [max(1, min(int(c), n)) for c, n in zip(chunks, shape, strict=True)]
    if prod(edges) * itemsize > _LARGEST_CHUNK_BYTES:
        raise FileFormatError(
            f"{path.name}: one stored chunk of shape {tuple(edges)} takes {prod(edges) * itemsize / 2**30:.0f} GiB, "
            f"expected at most {_LARGEST_CHUNK_BYTES >> 30}; write the image again with smaller chunks"
        )
    for axis in reversed(range(len(edges))):
        room = _CHUNK_BYTES // max(1, prod(edges) * itemsize)
        if letters[axis] in "YX" and room > 1:
            edges[axis] = min(shape[axis], edges[axis] * room)
    count = prod(-(-n // edge) for n, edge in zip(shape, edges, strict=True))
    if count > _MOST_CHUNKS:
        raise FileFormatError(
            f"{path.name}: shape {shape} in chunks of {tuple(edges)} makes {count:,} chunks, expected at most "
            f"{_MOST_CHUNKS:,}; the declared size is absurd, or write the image again with larger chunks"
        )
    lazy = LazyArray(array, path)
    return da.from_array(lazy, chunks=tuple(edges), name=False, meta=np.empty((0,) * lazy.ndim, lazy.dtype))


def guess_letters(shape: tuple[int, ...]) -> str | None:
    """Guess the axes of an array without names; ``None`` where it has fewer than two or more than five.

    The rule of the pipeline: the last two axes are Y and X, a short axis (at most 4, beside larger planes) at the end
    or before the planes holds channels, a third axis is Z and a fourth T.

    Examples
    --------
    >>> guess_letters((512, 512)), guess_letters((64, 512, 512)), guess_letters((512, 512, 3))
    ('YX', 'ZYX', 'YXC')
    """
    rank = len(shape)
    if not 2 <= rank <= 5:
        return None
    if rank == 2:
        return "YX"
    second = sorted(shape)[1:][-2]
    short = second >= 8 * _FEW or second >= 8 * min(shape)
    if short and shape[-1] <= _FEW and shape[-1] == min(shape):
        return {3: "YXC", 4: "ZYXC", 5: "TZYXC"}[rank]
    if rank == 3:
        return "CYX" if short and 1 < shape[0] <= _FEW else "ZYX"
    if rank == 4:
        if short and shape[1] <= _FEW and shape[1] <= shape[0]:
            return "ZCYX"
        return "CZYX" if short and shape[0] <= _FEW else "TZYX"
    return "TCZYX" if shape[1] <= shape[2] else "TZCYX"


def settle_axes(levels: Sequence[Any], letters: str, *, path: Path) -> tuple[list[Any], str, list[str]]:
    """Bring the axes of a file to T, C, Z, Y, X, each at most once.

    Axes of length 1 other than Y and X are dropped. Samples (S: the colours of an RGB pixel) become, or join, the
    channels. An axis with another letter (a series of pages of unknown meaning, lifetimes, angles, ...) becomes Z
    where there is none, else T where there is none; two of them become T, then Z, as in arrays without names.

    Parameters
    ----------
    levels
        Lazy arrays of the same axes, full resolution first.
    letters
        One letter for each axis.
    path
        The file that error messages name.

    Returns
    -------
    levels, letters, notes
        The arrays and letters after the changes, and sentences about what was guessed.

    Raises
    ------
    FileFormatError
        If there are no Y and X axes, or more axes of unknown meaning than Z and T can take.
    """
    levels, letters, notes = list(levels), letters.upper(), []
    if len(letters) != levels[0].ndim:
        raise FileFormatError(f"{path.name}: {levels[0].ndim} axes, but the names are {letters!r}; the file is damaged")
    for axis in reversed(range(len(letters))):
        letter = letters[axis]
        spare = letter not in "YX" or letters.count(letter) > 1
        if spare and all(level.shape[axis] == 1 for level in levels):
            levels = [level[(slice(None),) * axis + (0,)] for level in levels]
            letters = letters[:axis] + letters[axis + 1 :]
    if letters.count("Y") != 1 or letters.count("X") != 1:
        raise FileFormatError(f"{path.name}: axes {letters!r} hold no plane; expected one Y and one X axis")
    if "S" in letters and "C" not in letters:
        at = letters.index("S")
        if levels[0].shape[at] in _COLOUR_SAMPLES and at < len(letters) - 1:  # colours, plane by plane
            order = [axis for axis in range(len(letters)) if axis != at] + [at]
            levels, letters = [level.transpose(order) for level in levels], "".join(letters[axis] for axis in order)
        letters = letters.replace("S", "C", 1)
    known_ones = [
        (letter in "TCZYX" and letters.index(letter) == axis) or (letter == "S" and letters.count("S") == 1)
        for axis, letter in enumerate(letters)
    ]
    preferred = "ZT" if known_ones.count(False) == 1 else "TZ"
    for axis, letter in enumerate(letters):
        if known_ones[axis]:
            continue
        free = [known for known in preferred if known not in letters]
        if not free:
            raise FileFormatError(
                f"{path.name}: axis {letter!r} of length {levels[0].shape[axis]} beside {letters!r} has no meaning "
                f"here, expected T, C, Z, Y, X; export the image with at most these axes"
            )
        notes.append(f"axis {letter!r} of length {levels[0].shape[axis]} is taken as {free[0]}")
        letters = letters[:axis] + free[0] + letters[axis + 1 :]
    if "S" in letters:
        levels, letters = _join_samples(levels, letters)
    return levels, letters, notes


def _join_samples(levels: list[Any], letters: str) -> tuple[list[Any], str]:
    channel, samples = letters.index("C"), letters.index("S")
    others = [axis for axis in range(len(letters)) if axis not in (channel, samples)]
    where = sum(axis < channel for axis in others)
    order = [*others[:where], channel, samples, *others[where:]]
    joined = []
    for level in levels:
        moved = level.transpose(order)
        shape = moved.shape
        joined.append(moved.reshape((*shape[:where], shape[where] * shape[where + 1], *shape[where + 2 :])))
    return joined, "".join(letters[axis] for axis in order if axis != samples)
