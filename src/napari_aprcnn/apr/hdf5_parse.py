"""An .apr file to checked arrays; runs in the child process of `napari_aprcnn.apr.files`.

Layout of a file: ``/ParticleRepr/<group>`` holds one image; the group is the channel's name (``t`` if it has none)
followed by the time point unless that is 0. In it lie the structure (see `napari_aprcnn.apr.layout`), any number of
fields with one value for each particle, and ``Tree``, the interior nodes. Sizes and parameters are attributes of the
group, in old files of ``/ParticleRepr``.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr import layout
from napari_aprcnn.apr.hdf5_checks import (
    attribute_names,
    float_attribute,
    integer_attribute,
    open_group,
    read_array,
    text_attribute,
)
from napari_aprcnn.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

__all__ = ["CHECKSUM", "DEFAULT_NAMES", "METADATA", "ParsedApr", "checked_arrays", "describe", "parse"]

# pyapr's own name, and that of files from before it.
DEFAULT_NAMES = ("particles", "particle_intensities")
CHECKSUM = "aprcnn_sha256"
METADATA = "aprcnn_conversion"
_STRUCTURE = {
    "y_vec", "xz_end_vec", "map_level", "map_z", "map_x", "map_number_gaps", "map_global_index", "map_y_begin",
    "map_y_end", "Tree",
}  # fmt: skip
_VALUE_TYPES = ("u1", "u2", "f4")
_ALL_TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
_PARAMETERS = (
    "dx", "dy", "dz", "psfx", "psfy", "psfz", "lambda", "rel_error", "sigma_th", "sigma_th_max", "grad_th", "I_th",
    "noise_sd_estimate", "background_intensity_estimate",
)  # fmt: skip
_MOST_GROUPS = 100_000


@dataclass(frozen=True, eq=False, kw_only=True)
class ParsedApr:
    """What a file says, checked as far as that goes without building the tree.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    x : uint16 [N]
        Position along x of each particle, in the order level, z, y, x.
    offsets : int64 [rows + 1]
        Row r holds the particles ``offsets[r]..offsets[r + 1] - 1``; levels 0..level_max.
    node_x, node_offsets
        The same for the interior nodes as the file lists them, or ``None`` where it does not.
    intensities : uint8, uint16 or float32 [N]
        Values, or ``None`` for a file without any.
    name
        The field that the values come from.
    conversion
        Parameters of the conversion that the file names.
    verified
        Whether the file carries a checksum (then it fits).
    """

    shape: tuple[int, int, int]
    x: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    node_x: NDArray[np.uint16] | None
    node_offsets: NDArray[np.int64] | None
    intensities: NDArray[Any] | None
    name: str | None
    conversion: dict[str, Any]
    verified: bool


@contextmanager
def _opened(path: Path) -> Iterator[h5py.Group]:
    """Open the file; everything that HDF5 objects to inside becomes a `FileFormatError`."""
    import h5py
    import hdf5plugin  # noqa: F401 - registers the Blosc filter

    try:
        with h5py.File(path, "r", locking=False) as file:
            yield open_group(file, "ParticleRepr")
    except FileFormatError:
        raise
    except MemoryError as error:
        raise FileFormatError("reading it takes more memory than allowed") from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as error:
        # What h5py raises on damaged files has no common class: HDF5's own errors, failed conversions of types, ...
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise FileFormatError(f"HDF5 cannot read it ({detail}); it is damaged or no APR file") from error


def describe(path: Path) -> list[dict[str, Any]]:
    """List the images in a file: group, fields with their types, number of particles, shape.

    Raises
    ------
    FileFormatError
        If the file is no APR file.
    """
    import h5py

    found = []
    with _opened(path) as root:
        names = list(root)[:_MOST_GROUPS]
        for name in names:
            if not isinstance(root.get(name, getlink=True), h5py.HardLink) or not isinstance(root[name], h5py.Group):
                continue
            group = root[name]
            if not {"y_vec", "map_level"} & set(group):
                continue
            shape, count = _sizes(group, root)
            found.append({"group": name, "shape": shape, "particles": count, "fields": _fields(group)})
    return found


def parse(path: Path, *, group: str = "t", name: str | None = None, most_bytes: int = 1 << 32) -> ParsedApr:
    """Read one image of a file.

    Parameters
    ----------
    path
        The file.
    group
        Channel and time point.
    name
        Field with the values; ``None``: ``particles``, ``particle_intensities``, or the only one there is.
    most_bytes
        Most memory that one array may take.

    Raises
    ------
    FileFormatError
        If anything does not fit together.
    """
    with _opened(path) as root:
        if not group or "/" in group or group in (".", ".."):
            raise FileFormatError(
                f"got group {group!r}, expected the name of a channel and time point such as 't' or 't1'"
            )
        if group not in list(root)[:_MOST_GROUPS]:
            raise FileFormatError(f"there is no group {group!r}; the file has {', '.join(list(root)[:20]) or 'none'}")
        here = open_group(root, group)
        shape, count = _sizes(here, root)
        layout.check_budget(shape, count, most_bytes)
        x, offsets, order = _structure(here, shape, count, root=root, most_bytes=most_bytes)
        node_x, node_offsets = _nodes(here, shape, most_bytes=most_bytes)
        found, values = _values(here, root, name, count=count, order=order, most_bytes=most_bytes)
        conversion, verified = _conversion(here, root, group, shape, checked_arrays(x, offsets, values))
    return ParsedApr(
        shape=shape, x=x, offsets=offsets, node_x=node_x, node_offsets=node_offsets, intensities=values, name=found,
        conversion=conversion, verified=verified,
    )  # fmt: skip


def checked_arrays(
    x: NDArray[np.uint16], offsets: NDArray[np.int64], values: NDArray[Any] | None
) -> dict[str, NDArray[Any]]:
    """Return the arrays that the checksum of our own files covers."""
    arrays: dict[str, NDArray[Any]] = {"x": x, "offsets": offsets}
    return arrays if values is None else {**arrays, "intensities": values}


def _sizes(group: h5py.Group, root: h5py.Group) -> tuple[tuple[int, int, int], int]:
    home = _home(group, root)
    numbers = {key: integer_attribute(home, key) for key in ("z_num", "x_num", "y_num", "total_number_particles")}
    missing = [key for key, value in numbers.items() if value is None]
    if missing:
        raise FileFormatError(f"attributes {', '.join(missing)} are missing; this is no APR file")
    z, y, x, count = (int(value or 0) for value in numbers.values())
    shape = z, y, x
    if min(shape) < 1 or max(shape) > layout.LONGEST_EDGE:
        raise FileFormatError(f"it declares a volume of {shape}, expected edges of 1 to {layout.LONGEST_EDGE:,} voxels")
    if not 1 <= count <= min(prod(shape), 2**31 - 1):
        raise FileFormatError(f"it declares {count:,} particles in a volume of {shape}")
    level_max = integer_attribute(home, "level_max")
    if level_max is not None and level_max != layout.expected_level_max(shape):
        raise FileFormatError(f"level_max is {level_max}, expected {layout.expected_level_max(shape)} for {shape}")
    for level in range(1, layout.expected_level_max(shape)):
        rows, columns = layout.grid_rows(shape, level)
        width = -(-x >> (layout.expected_level_max(shape) - level))
        for key, expected in (("z_num", rows), ("x_num", columns), ("y_num", width)):
            declared = integer_attribute(home, f"{key}_{level}")
            if declared not in (None, expected):
                raise FileFormatError(f"{key}_{level} is {declared}, expected {expected} for a volume of {shape}")
    return shape, count


def _home(group: h5py.Group, root: h5py.Group) -> h5py.Group:
    """Return the group that holds the sizes: the image's own, in old files the one above."""
    return group if "level_max" in attribute_names(group) or "z_num" in attribute_names(group) else root


def _structure(
    group: h5py.Group, shape: tuple[int, int, int], count: int, *, root: h5py.Group, most_bytes: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64] | None]:
    names = set(group)
    if "y_vec" in names and "map_level" in names:
        raise FileFormatError("it holds its structure twice, as rows and as gaps; expected one of them")
    if "y_vec" in names:
        ends = read_array(group, "xz_end_vec", dtypes=("u8",), most_bytes=most_bytes)
        offsets = layout.linear_offsets(ends, shape, count, nodes=False)
        return read_array(group, "y_vec", dtypes=("u2",), count=count, most_bytes=most_bytes), offsets, None
    home = _home(group, root)
    rows = integer_attribute(home, "total_number_non_empty_rows")
    gaps = integer_attribute(home, "total_number_gaps")

    def words(name: str, size: int | None) -> NDArray[np.uint16]:
        # Written as signed, meant as unsigned.
        return read_array(group, name, dtypes=("i2", "u2"), count=size, most_bytes=most_bytes).view(np.uint16)

    maps = layout.GapMaps(
        level=read_array(group, "map_level", dtypes=("u1",), count=rows, most_bytes=most_bytes),
        z=words("map_z", rows),
        y=words("map_x", rows),
        runs=words("map_number_gaps", rows),
        index_step=words("map_global_index", rows),
        first=words("map_y_begin", gaps),
        last=words("map_y_end", gaps),
    )
    if len({len(part) for part in (maps.level, maps.z, maps.y, maps.runs, maps.index_step)}) != 1:
        raise FileFormatError("the datasets of the rows differ in length")
    return layout.from_gaps(maps, shape, count, finest_by_parent="lzxy_order" not in attribute_names(group))


def _nodes(
    group: h5py.Group, shape: tuple[int, int, int], *, most_bytes: int
) -> tuple[NDArray[np.uint16] | None, NDArray[np.int64] | None]:
    """Read the interior nodes, which a reader can make itself: they are there to be compared."""
    if "Tree" not in set(group):
        return None, None
    tree = open_group(group, "Tree")
    if "y_vec" not in set(tree):
        return None, None
    x = read_array(tree, "y_vec", dtypes=("u2",), most_bytes=most_bytes)
    count = integer_attribute(tree, "total_number_particles")
    if count is not None and count != len(x) & 0xFFFFFFFF:
        raise FileFormatError(f"it declares {count:,} interior nodes and lists {len(x):,}")
    ends = read_array(tree, "xz_end_vec", dtypes=("u8",), most_bytes=most_bytes)
    return x, layout.linear_offsets(ends, shape, len(x), nodes=True)


def _fields(group: h5py.Group) -> dict[str, str]:
    import h5py

    fields = {}
    for name in group:
        if name in _STRUCTURE or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset) and item.dtype.newbyteorder("=").str[1:] in _ALL_TYPES:
            fields[name] = item.dtype.name
    return fields


def _values(
    group: h5py.Group,
    root: h5py.Group,
    name: str | None,
    *,
    count: int,
    order: NDArray[np.int64] | None,
    most_bytes: int,
) -> tuple[str | None, NDArray[Any] | None]:
    fields = _fields(group)
    if name is None:
        # Whatever has a usual name is meant to be the values, also where it is damaged.
        usual = [field for field in DEFAULT_NAMES if field in set(group)]
        if not fields and not usual:
            return None, None
        if not usual and len(fields) > 1:
            raise FileFormatError(f"it has the fields {', '.join(fields)}; say which one to read (name=...)")
        name = usual[0] if usual else next(iter(fields))
    if name not in fields and name not in DEFAULT_NAMES:
        raise FileFormatError(f"there is no field {name!r}; the file has {', '.join(fields) or 'none'}")
    values = read_array(group, name, dtypes=_VALUE_TYPES, count=count, most_bytes=most_bytes)
    home = group if "compress_type" in attribute_names(group) else root
    kind = integer_attribute(home, "compress_type") or 0
    if kind > 1:
        raise FileFormatError(
            f"its values are stored as differences to neighbours (compress_type {kind}), which is not read here; "
            f"write the file again with pyapr, without that compression"
        )
    if kind == 1:
        step, background = float_attribute(home, "quantization_factor"), float_attribute(group, "compress_background")
        if background is None:
            noise = float_attribute(_home(group, root), "noise_sd_estimate") or 0.0
            background = (float_attribute(_home(group, root), "background_intensity_estimate") or 0.0) - noise
        if step is None or not 0 < step < inf or not isfinite(background):
            raise FileFormatError(f"values are stored in steps of {step} above {background}, expected finite numbers")
        values = layout.decode_values(values, step=step, background=background)
    return name, values if order is None else values[order]


def _conversion(
    group: h5py.Group, root: h5py.Group, name: str, shape: tuple[int, int, int], arrays: dict[str, NDArray[Any]]
) -> tuple[dict[str, Any], bool]:
    """Return what the file says of its making, and whether a checksum vouches for the arrays."""
    text = text_attribute(group, METADATA)
    # Two copies, so that damage to the name of one does not switch the check off.
    sums = {text_attribute(group, CHECKSUM), text_attribute(root, f"{CHECKSUM}_{name}")}
    if sums == {None} and text is None:
        numbers = {key: float_attribute(_home(group, root), key) for key in _PARAMETERS}
        return {key: value for key, value in numbers.items() if value is not None and isfinite(value)}, False
    if text is None or sums != {layout.checksum(arrays, f"{shape};{text}")}:
        raise FileFormatError(
            "the checksum does not fit its contents; copy the file again, it was damaged after writing"
        )
    try:
        conversion = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"attribute {METADATA!r} is no JSON ({error})") from error
    if not isinstance(conversion, dict):
        raise FileFormatError(f"attribute {METADATA!r} is a JSON {type(conversion).__name__}, expected an object")
    return conversion, True
