"""What the arrays inside an .apr file mean, as plain numpy: no HDF5 here.

LibAPR calls the axes z, x, y where this project says z, y, x: its sparse axis "y" is the image's last axis. Two layouts
of the structure exist. The linear one lists the positions of all particles row by row (`y_vec`) with the running total
of each row (`xz_end_vec`). The older gap layout lists only rows that hold particles, as runs; rows of the finest level
stand for up to four image rows each, because there a cell of the level above is always split as a whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import ceil, log2, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "LONGEST_EDGE",
    "GapMaps",
    "check_budget",
    "checksum",
    "decode_values",
    "expected_level_max",
    "from_gaps",
    "grid_rows",
    "level_rows",
    "linear_offsets",
]

# Positions along x are uint16.
LONGEST_EDGE = 1 << 16


def expected_level_max(shape: tuple[int, int, int]) -> int:
    """Return the level of the voxels, ``max(1, ceil(log2(longest edge)))``.

    Examples
    --------
    >>> expected_level_max((20, 33, 48)), expected_level_max((1, 1, 2))
    (6, 1)
    """
    return max(1, ceil(log2(max(shape))))


def grid_rows(shape: tuple[int, int, int], level: int) -> tuple[int, int]:
    """Return how many cells level `level` has along z and y.

    Examples
    --------
    >>> grid_rows((20, 33, 48), 5)
    (10, 17)
    """
    shift = expected_level_max(shape) - level
    return -(-shape[0] >> shift), -(-shape[1] >> shift)


def level_rows(shape: tuple[int, int, int], levels: int) -> NDArray[np.int64]:
    """Return the first row of each of the levels 0..levels-1, and the total.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    levels
        ``level_max + 1`` for particles, ``level_max`` for nodes.

    Returns
    -------
    int64 [levels + 1]

    Examples
    --------
    >>> level_rows((20, 33, 48), 3).tolist()
    [0, 1, 3, 9]
    """
    counts = [rows * columns for rows, columns in (grid_rows(shape, level) for level in range(levels))]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def check_budget(shape: tuple[int, int, int], count: int, most_bytes: int) -> None:
    """Check that no array of such a tree is larger than allowed.

    Raises
    ------
    FileFormatError
        If one is.
    """
    rows = int(level_rows(shape, expected_level_max(shape) + 1)[-1])
    grid = prod(-(-n // 2) for n in shape)
    needed = max(8 * rows, grid, 8 * count)
    if needed > most_bytes:
        raise FileFormatError(
            f"a volume of {shape} with {count:,} particles takes {needed / 2**20:,.0f} MiB in one array, allowed are "
            f"{most_bytes / 2**20:,.0f}; raise the memory limit if the file is to be trusted"
        )


def linear_offsets(ends: NDArray[Any], shape: tuple[int, int, int], count: int, *, nodes: bool) -> NDArray[np.int64]:
    """Turn LibAPR's running totals of rows into offsets.

    Parameters
    ----------
    ends : unsigned integer [rows + 1 of level 0 left out for particles]
        ``xz_end_vec``: one leading 0, then the total after each row; particles have no rows at level 0.
    shape
        Voxels along z, y, x.
    count
        Number of particles (nodes), which the last total must be.
    nodes
        Rows of interior nodes (levels 0..level_max-1) rather than of particles (levels 1..level_max).

    Returns
    -------
    int64 [rows + 1]
        Row r of this project holds the particles ``offsets[r]..offsets[r + 1] - 1``.

    Raises
    ------
    FileFormatError
        If the totals are not the ascending totals of that many rows.
    """
    levels = expected_level_max(shape) + (0 if nodes else 1)
    rows = int(level_rows(shape, levels)[-1])
    expected = rows + 1 if nodes else rows
    if len(ends) != expected:
        raise FileFormatError(f"{len(ends):,} row ends, expected {expected:,} for a volume of {shape}")
    ends = np.asarray(ends).astype(np.uint64, copy=False)
    # Compared as unsigned numbers: a damaged total may not fit a signed one.
    if ends[0] != 0 or int(ends[-1]) != count or bool((ends[1:] < ends[:-1]).any()):
        raise FileFormatError(f"the row ends do not rise from 0 to the number of particles, {count:,}")
    offsets = ends.astype(np.int64)
    return offsets if nodes else np.concatenate([np.zeros(1, np.int64), offsets])


@dataclass(frozen=True, eq=False, kw_only=True)
class GapMaps:
    """The datasets of the gap layout.

    Attributes
    ----------
    level : uint8 [M]
        Level of each row that is not empty.
    z, y : uint16 [M]
        Position of the row on its level's grid; at the finest level, on the grid of the level above.
    runs : uint16 [M]
        Number of runs in the row.
    index_step : uint16 [M]
        Particles added by the row (all its image rows), modulo 2^16; the first includes what came before.
    first, last : uint16 [G]
        First and last position along x of each run.
    """

    level: NDArray[np.uint8]
    z: NDArray[np.uint16]
    y: NDArray[np.uint16]
    runs: NDArray[np.uint16]
    index_step: NDArray[np.uint16]
    first: NDArray[np.uint16]
    last: NDArray[np.uint16]


def from_gaps(
    maps: GapMaps, shape: tuple[int, int, int], count: int, *, finest_by_parent: bool
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64] | None]:
    """Turn the gap layout into rows.

    Parameters
    ----------
    maps
        The datasets.
    shape
        Voxels along z, y, x.
    count
        Number of particles that the file declares.
    finest_by_parent
        Values of the finest level are stored by the stored row: its image rows one after the other (files from before
        LibAPR wrote ``lzxy_order``).

    Returns
    -------
    x : uint16 [count]
        Position along x of each particle, in the order level, z, y, x.
    offsets : int64 [rows + 1]
        Row r holds the particles ``offsets[r]..offsets[r + 1] - 1``.
    order : int64 [count] or None
        Index in the file of the value of each particle; ``None`` where it is its own index.

    Raises
    ------
    FileFormatError
        If the runs are no particles of such a volume.
    """
    top = expected_level_max(shape)
    first_row = level_rows(shape, top + 1)
    level = maps.level.astype(np.int64)
    if len(level) and (level.min() < 1 or level.max() > top):
        raise FileFormatError(f"rows of levels {level.min()}..{level.max()}, expected 1..{top}")
    runs, first, last = (array.astype(np.int64) for array in (maps.runs, maps.first, maps.last))
    if int(runs.sum()) != len(first) or len(first) != len(last) or bool((runs < 1).any()):
        raise FileFormatError(f"{int(runs.sum()):,} runs declared, {len(first):,} starts and {len(last):,} ends found")
    widths = np.array([-(-shape[2] >> (top - at)) for at in range(top + 1)], np.int64)
    owner = np.repeat(np.arange(len(level)), runs)
    if bool((last < first).any()) or bool((last >= widths[level[owner]]).any()):
        raise FileFormatError("a run of particles lies outside the volume")
    lengths = last - first + 1
    per_row = np.bincount(owner, weights=lengths, minlength=len(level)).astype(np.int64)
    stored, dz, dy = _image_rows(maps, level, shape, top)
    if bool((np.diff(level) < 0).any()):
        raise FileFormatError("the rows are not in the order of levels")
    total = int(per_row[stored].sum())
    if total != count:
        raise FileFormatError(f"the rows hold {total:,} particles, the file declares {count:,}")
    _check_steps(maps, per_row, np.bincount(stored, minlength=len(level)))
    fine = (level[stored] == top).astype(np.int64)
    columns = np.array([grid_rows(shape, at)[1] for at in range(top + 1)], np.int64)[level[stored]]
    z = (maps.z.astype(np.int64)[stored] << fine) + dz
    y = (maps.y.astype(np.int64)[stored] << fine) + dy
    row = first_row[level[stored]] + z * columns + y
    place = np.argsort(row, kind="stable")
    if bool((np.diff(row[place]) == 0).any()):
        raise FileFormatError("a row of particles appears twice")
    offsets = np.zeros(int(first_row[-1]) + 1, np.int64)
    offsets[row + 1] = per_row[stored]
    np.cumsum(offsets, out=offsets)
    run_start = np.cumsum(runs) - runs
    chosen = stored[place]
    which = _ranges(run_start[chosen], runs[chosen])
    x = _ranges(first[which], lengths[which]).astype(np.uint16)
    if not finest_by_parent:
        return x, offsets, None
    begin = np.cumsum(per_row[stored]) - per_row[stored]
    return x, offsets, _ranges(begin[place], per_row[chosen])


def _image_rows(
    maps: GapMaps, level: NDArray[np.int64], shape: tuple[int, int, int], top: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return for each row of the image the stored row it comes from, and its place (dz, dy) in there."""
    limits = np.array([grid_rows(shape, min(at, top - 1)) for at in range(top + 1)], np.int64)[level]
    z, y = maps.z.astype(np.int64), maps.y.astype(np.int64)
    if bool((z >= limits[:, 0]).any()) or bool((y >= limits[:, 1]).any()):
        raise FileFormatError("a row of particles lies outside the volume")
    fine = level == top
    stored, dz, dy = [], [], []
    for slot in range(4):
        a, b = slot >> 1, slot & 1
        inside = fine & (2 * z + a < shape[0]) & (2 * y + b < shape[1]) if slot else np.ones(len(level), bool)
        found = np.flatnonzero(inside)
        stored.append(found)
        dz.append(np.full(len(found), a))
        dy.append(np.full(len(found), b))
    joined = np.concatenate(stored).astype(np.int64)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(dz)[order], np.concatenate(dy)[order]


def _check_steps(maps: GapMaps, per_row: NDArray[np.int64], copies: NDArray[np.int64]) -> None:
    expected = (per_row * copies).astype(np.uint64).astype(np.uint16)
    if not np.array_equal(expected, maps.index_step):
        raise FileFormatError("the running index of the rows does not fit their runs")


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``starts[i], starts[i] + 1, ...`` of each length, one after the other."""
    total = int(lengths.sum())
    out = np.ones(total, np.int64)
    if total == 0:
        return out
    keep = lengths > 0
    starts, lengths = starts[keep], lengths[keep]
    at = np.cumsum(lengths)[:-1]
    out[0] = starts[0]
    out[at] = starts[1:] - (starts[:-1] + lengths[:-1] - 1)
    return np.cumsum(out, out=out)


def decode_values(values: NDArray[Any], *, step: float, background: float) -> NDArray[Any]:
    """Undo LibAPR's variance stabilisation (``compress_type`` 1).

    A value I was stored as ``k = round((2 sqrt((I - background) / 2 + e^2) - 2 e) / step)`` with e = 1.6 (Balazs et al.
    2017, A real-time compression library for microscopy images), and k as the unsigned number 2 |k|, less 1 where k is
    negative. What the rounding lost stays lost.

    Parameters
    ----------
    values : uint8, uint16 or float32 [N]
        Stored numbers.
    step
        ``quantization_factor``.
    background
        ``compress_background``.

    Returns
    -------
    same dtype [N]
    """
    e = np.float32(1.6)
    negative = values.astype(np.int64) % 2
    k = (values + negative) / 2 if values.dtype.kind == "f" else (values.astype(np.int64) + negative) // 2
    stretched = np.float32(step) * ((1 - 2 * negative) * k).astype(np.float32) + np.float32(2) * e
    squares = stretched.astype(np.float64) ** 2 / 4.0 - float(e) ** 2
    decoded = np.where(stretched >= 2 * e, squares * 2.0 + background, background).astype(np.float32)
    if values.dtype.kind == "f":
        return decoded.astype(values.dtype)
    # As C++ does on the platforms that LibAPR runs on: towards zero, and modulo the range.
    return np.trunc(decoded).astype(np.int64).astype(values.dtype)


def checksum(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    """Return the SHA-256 of named arrays (name, type, length, little-endian bytes) and a text, as 64 hex digits.

    Examples
    --------
    >>> checksum({"x": np.arange(3, dtype=np.uint16)}, "")[:8]
    'c2a8bbec'
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}:{little.dtype.str}:{little.size};".encode())
        digest.update(little.data.cast("B"))
    digest.update(f"text:{text}".encode())
    return digest.hexdigest()
