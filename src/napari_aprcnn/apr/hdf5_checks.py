"""Datasets and attributes of an HDF5 file that may be hostile, each checked before a byte of it is read.

The HDF5 library believes what a file says: a link may lead to another file, a dataset may live in one, a missing chunk
reads as zeros, a chunk may claim gigabytes. None of that has a place in an .apr file, so all of it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import FileFormatError

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

__all__ = ["attribute_names", "float_attribute", "integer_attribute", "open_group", "read_array", "text_attribute"]

_DEFLATE, _SHUFFLE, _FLETCHER32, _BLOSC = 1, 2, 3, 32001
_FILTERS = {_DEFLATE, _SHUFFLE, _FLETCHER32, _BLOSC}
_MOST_CHUNKS = 1 << 20
_LONGEST_TEXT = 1 << 16


def open_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Return a group that lies in this file, by a hard link.

    Raises
    ------
    FileFormatError
        If it is missing, no group, or a link to somewhere else.
    """
    import h5py

    found = _by_hard_link(parent, name)
    if not isinstance(found, h5py.Group):
        raise FileFormatError(f"{name!r} is no group; this is no APR file")
    return found


def read_array(
    parent: h5py.Group, name: str, *, dtypes: tuple[str, ...], count: int | None = None, most_bytes: int
) -> NDArray[Any]:
    """Read a whole one-dimensional dataset of numbers.

    Parameters
    ----------
    parent, name
        Where it is.
    dtypes
        Element types that are expected here, as numpy writes them (``"u2"``).
    count
        Expected number of elements; ``None`` takes any.
    most_bytes
        Most that the dataset, or one of its chunks, may take in memory.

    Returns
    -------
    array [count]
        In the machine's byte order.

    Raises
    ------
    FileFormatError
        If it is missing, of another type, rank, length or storage, incomplete, or too large.
    """
    import h5py

    data = _by_hard_link(parent, name)
    if not isinstance(data, h5py.Dataset):
        raise FileFormatError(f"{name!r} is no dataset")
    # The low-level type first: building a numpy dtype out of a damaged one may fail in many ways.
    kind = data.id.get_type().get_class()
    if kind not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        raise FileFormatError(f"{name!r} does not hold numbers; expected one of {', '.join(dtypes)}")
    dtype = data.dtype
    if dtype.newbyteorder("=").str[1:] not in dtypes:
        raise FileFormatError(f"{name!r} is {dtype}, expected one of {', '.join(dtypes)}")
    if data.ndim != 1:
        raise FileFormatError(f"{name!r} has {data.ndim} axes, expected 1")
    length = int(data.shape[0])
    if count is not None and length != count:
        raise FileFormatError(f"{name!r} has {length:,} elements, expected {count:,}")
    if length * dtype.itemsize > most_bytes:
        raise FileFormatError(
            f"{name!r} declares {length * dtype.itemsize / 2**20:,.0f} MiB, allowed are {most_bytes / 2**20:,.0f}; "
            f"raise the memory limit if the file is to be trusted"
        )
    _check_storage(data, name, length=length, most_bytes=most_bytes)
    array = np.empty(length, dtype.newbyteorder("="))
    if length:
        data.read_direct(array)
    return array


def _by_hard_link(parent: h5py.Group, name: str) -> Any:
    import h5py

    # `in` and `[]` would follow soft and external links, the latter into other files.
    link = parent.get(name, getlink=True)
    if link is None:
        raise FileFormatError(f"there is no {name!r} in {parent.name}")
    if not isinstance(link, h5py.HardLink):
        raise FileFormatError(f"{name!r} is a link to somewhere else, which is not followed")
    return parent[name]


def _check_storage(data: h5py.Dataset, name: str, *, length: int, most_bytes: int) -> None:
    """Refuse data outside the file, filters of unknown behaviour, and chunks that are missing or too large."""
    import h5py

    plan = data.id.get_create_plist()
    layout = plan.get_layout()
    if layout not in (h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or plan.get_external_count():
        raise FileFormatError(f"{name!r} keeps its data outside this file, which is not followed")
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    unknown = sorted(set(filters) - _FILTERS)
    if unknown or len(filters) > len(_FILTERS):
        raise FileFormatError(
            f"{name!r} is compressed with HDF5 filters {filters}, expected some of {sorted(_FILTERS)}"
        )
    if not length:
        return
    if layout != h5py.h5d.CHUNKED:
        # Storage that was never allocated reads as fill values.
        if layout == h5py.h5d.CONTIGUOUS and data.id.get_storage_size() != length * data.dtype.itemsize:
            raise FileFormatError(f"{name!r} is incomplete: its data were never written")
        return
    chunk = int(plan.get_chunk()[0])
    if chunk * data.dtype.itemsize > most_bytes:
        raise FileFormatError(f"{name!r} has chunks of {chunk * data.dtype.itemsize / 2**20:,.0f} MiB")
    expected = -(-length // chunk)
    if expected > _MOST_CHUNKS or data.id.get_num_chunks() != expected:
        raise FileFormatError(f"{name!r} is incomplete: expected {expected:,} chunks of {chunk:,} elements")
    # Compressors step aside where they gain nothing; the chunk then has exactly its own size.
    optional = sum(1 << place for place, number in enumerate(filters) if number in (_BLOSC, _DEFLATE))
    plain = chunk * data.dtype.itemsize + 4 * (_FLETCHER32 in filters)
    for index in range(expected):
        info = data.id.get_chunk_info(index)
        skipped = info.filter_mask
        if skipped & ~optional or (skipped and info.size != plain) or info.chunk_offset[0] % chunk or info.size == 0:
            raise FileFormatError(f"{name!r}: chunk {index} is damaged")


def attribute_names(group: h5py.Group) -> list[str]:
    """Return the names of a group's attributes."""
    return list(group.attrs)


def integer_attribute(group: h5py.Group, name: str) -> int | None:
    """Read one integer; ``None`` where there is no such attribute.

    LibAPR writes 32-bit integers as 64-bit ones whose upper half is whatever lay beside them, and reads only the
    lower half; so does this.

    Raises
    ------
    FileFormatError
        If it is not one integer.
    """
    value = _number(group, name, "iu")
    return None if value is None else int(value) & 0xFFFFFFFF


def float_attribute(group: h5py.Group, name: str) -> float | None:
    """Read one number; ``None`` where there is no such attribute.

    Raises
    ------
    FileFormatError
        If it is not one number.
    """
    value = _number(group, name, "f")
    return None if value is None else float(value)


def _number(group: h5py.Group, name: str, kinds: str) -> Any:
    import h5py

    if not h5py.h5a.exists(group.id, name.encode()):
        return None
    handle = h5py.h5a.open(group.id, name.encode())
    if handle.get_type().get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) or handle.shape not in ((), (1,)):
        raise FileFormatError(f"attribute {name!r} is not one number")
    if handle.dtype.kind not in kinds or handle.dtype.itemsize > 8:
        raise FileFormatError(f"attribute {name!r} is {handle.dtype}, expected {kinds}")
    value = np.zeros(handle.shape, handle.dtype)
    handle.read(value)
    return value.reshape(-1)[0]


def text_attribute(group: h5py.Group, name: str) -> str | None:
    """Read a fixed-length text; ``None`` where there is no such attribute.

    Raises
    ------
    FileFormatError
        If it is no text, too long, or not UTF-8.
    """
    import h5py

    if not h5py.h5a.exists(group.id, name.encode()):
        return None
    handle = h5py.h5a.open(group.id, name.encode())
    kind = handle.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str() or handle.shape not in ((), (1,)):
        raise FileFormatError(f"attribute {name!r} is no text of fixed length")
    if kind.get_size() > _LONGEST_TEXT:
        raise FileFormatError(
            f"attribute {name!r} has {kind.get_size():,} characters, expected at most {_LONGEST_TEXT:,}"
        )
    value = np.zeros(handle.shape, f"S{kind.get_size()}")
    handle.read(value, mtype=h5py.h5t.py_create(value.dtype))
    try:
        return bytes(value.reshape(-1)[0]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"attribute {name!r} is no UTF-8 text") from error
