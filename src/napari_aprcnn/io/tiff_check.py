"""A TIFF file's own claims against its size, before anything is allocated.

A header of eight bytes can claim a petabyte. This pass over the directories costs microseconds a page, reads no image
data, and says in words what is wrong; afterwards the real reader (tifffile) meets only files whose claims can be true.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree as ET

import numpy as np

from napari_aprcnn.errors import FileFormatError

__all__ = ["check_tiff"]

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _DESCRIPTION = 256, 257, 258, 259, 270
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _DEPTH, _TILE_DEPTH = 322, 323, 324, 325, 32997, 32998
_WANTED = {
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _DESCRIPTION, _STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR,
    _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _DEPTH, _TILE_DEPTH,
}  # fmt: skip

# The most that a codec can expand: deflate 1032, LZW 2730, PackBits 128; others (zstd, LZMA, JPEG 2000, ...) far more.
_MOST_EXPANSION = {5: 4096, 8: 1100, 32946: 1100, 32773: 130}
_OTHER_EXPANSION = 100_000
# All pages of a normal stack are checked; of a very long one the first ones and every so many after.
_PAGES_IN_FULL = 4096
_MOST_PAGES = 4_000_000
_MOST_OME_PLANES = 1 << 20


@dataclass
class _Layout:
    """How the numbers of this file are written."""

    order: str
    big: bool
    size: int

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))


def check_tiff(path: Path) -> int:
    """Check the directories of a TIFF file against the file's size.

    Parameters
    ----------
    path
        The file; read only, no image data are read.

    Returns
    -------
    int
        Number of pages.

    Raises
    ------
    FileFormatError
        If the file is no TIFF, is truncated, or declares more than it can hold.
    """
    with path.open("rb") as file:
        layout, first = _header(file, path)
        offset, seen, n_pages = first, set[int](), 0
        while offset:
            if offset in seen:
                raise FileFormatError(f"{path.name}: its pages form a circle; the file is damaged, export it again")
            if n_pages >= _MOST_PAGES:
                raise FileFormatError(f"{path.name}: more than {_MOST_PAGES:,} pages; the file is damaged")
            seen.add(offset)
            in_full = n_pages < _PAGES_IN_FULL or n_pages % 64 == 0
            offset = _check_page(file, offset, layout, path=path, index=n_pages, in_full=in_full)
            n_pages += 1
        if n_pages == 0:
            raise FileFormatError(f"{path.name}: a TIFF header without an image; expected at least one page")
        _check_ome(file, first, layout, n_pages=n_pages, path=path)
    return n_pages


def _header(file: BinaryIO, path: Path) -> tuple[_Layout, int]:
    head = file.read(16)
    size = path.stat().st_size
    if size == 0:
        raise FileFormatError(f"{path.name} is empty (0 bytes); copy or export it again")
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) >= 8 else 0
    if order is None or version not in (42, 43):
        raise FileFormatError(
            f"{path.name} is no TIFF file (it starts with {head[:4]!r}); expected TIFF, OME-TIFF, OME-Zarr or .npy: "
            f"open it in the program that wrote it and export as TIFF"
        )
    layout = _Layout(order=order, big=version == 43, size=size)
    if layout.big and len(head) < 16:
        raise _truncated(path, "its header ends early")
    return layout, layout.offset.unpack(head[8:16] if layout.big else head[4:8])[0]


def _truncated(path: Path, detail: str) -> FileFormatError:
    return FileFormatError(f"{path.name} is truncated or damaged: {detail}; copy or export it again")


def _check_page(file: BinaryIO, offset: int, layout: _Layout, *, path: Path, index: int, in_full: bool) -> int:
    """Check one directory and return the offset of the next."""
    tags, following = _directory(file, offset, layout, path=path, index=index, wanted=_WANTED if in_full else set())
    if in_full:
        _check_storage(file, tags, layout, path=path, index=index)
    return following


_Tag = tuple[int, int, bytes]


def _directory(
    file: BinaryIO, offset: int, layout: _Layout, *, path: Path, index: int, wanted: set[int]
) -> tuple[dict[int, _Tag], int]:
    """Return the wanted tags (type, count, inline bytes) of a directory, and the offset of the next directory."""
    if offset + layout.count.size > layout.size:
        raise _truncated(path, f"page {index + 1} starts at byte {offset:,} of {layout.size:,}")
    file.seek(offset)
    n_entries = layout.count.unpack(_exactly(file, layout.count.size, path))[0]
    n_bytes = n_entries * layout.entry.size
    if n_entries == 0 or n_entries > 4096 or file.tell() + n_bytes + layout.offset.size > layout.size:
        raise _truncated(path, f"page {index + 1} has a directory of {n_entries:,} entries that does not fit the file")
    table = _exactly(file, n_bytes, path)
    following = layout.offset.unpack(_exactly(file, layout.offset.size, path))[0]
    tags = {}
    for code, kind, count, inline in layout.entry.iter_unpack(table):
        if code not in wanted or code in tags:
            continue
        needed = _TYPE_BYTES.get(kind, 0) * count
        if needed > layout.offset.size:
            where = layout.offset.unpack(inline)[0]
            if where + needed > layout.size:
                raise _truncated(path, f"tag {code} of page {index + 1} claims {needed:,} bytes at byte {where:,}")
        tags[code] = (kind, count, inline)
    return tags, int(following)


def _exactly(file: BinaryIO, n_bytes: int, path: Path) -> bytes:
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise _truncated(path, "it ends within a directory")
    return data


def _numbers(
    file: BinaryIO, tag: _Tag | None, layout: _Layout, default: int
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return the values of an integer tag as uint64."""
    if tag is None or tag[0] not in _INTEGERS or tag[1] == 0:
        return np.array([default], np.uint64)
    kind, count, inline = tag
    needed = _TYPE_BYTES[kind] * count
    if needed > layout.offset.size:
        file.seek(layout.offset.unpack(inline)[0])
        data = file.read(needed)
    else:
        data = inline[:needed]
    return np.frombuffer(data, layout.order + _INTEGERS[kind]).astype(np.uint64)


def _check_storage(file: BinaryIO, tags: dict[int, _Tag], layout: _Layout, *, path: Path, index: int) -> None:
    """Check what a page claims to hold against the bytes that it points to."""

    def number(code: int, default: int) -> int:
        return int(_numbers(file, tags.get(code), layout, default)[0])

    page = f"page {index + 1}"
    width, height, samples = number(_WIDTH, 0), number(_HEIGHT, 0), number(_SAMPLES, 1)
    depth = max(1, number(_DEPTH, 1))
    if not width or not height or not samples:
        raise FileFormatError(f"{path.name}: {page} has {width} x {height} pixels; the image is empty or damaged")
    bits = int(_numbers(file, tags.get(_BITS), layout, 1).max())
    if not 1 <= bits <= 256:
        raise FileFormatError(f"{path.name}: {page} claims {bits} bits a sample; the file is damaged")
    planes = samples if number(_PLANAR, 1) == 2 else 1
    tiled = _TILES in tags or _TILE_BYTES in tags
    if tiled:
        edges = [number(_TILE_HEIGHT, 0), number(_TILE_WIDTH, 0), max(1, number(_TILE_DEPTH, 1))]
        if min(edges) < 1:
            raise FileFormatError(
                f"{path.name}: {page} has tiles of {edges[1]} x {edges[0]} pixels; the file is damaged"
            )
        expected = -(-height // edges[0]) * -(-width // edges[1]) * -(-depth // edges[2]) * planes
        segment_bits = edges[0] * edges[1] * edges[2] * (samples // planes) * bits
        offsets, counts = tags.get(_TILES) or tags.get(_STRIPS), tags.get(_TILE_BYTES) or tags.get(_STRIP_BYTES)
    else:
        rows = min(height, number(_ROWS, height) or height)
        expected = -(-height // rows) * depth * planes
        segment_bits = rows * width * (samples // planes) * bits
        offsets, counts = tags.get(_STRIPS), tags.get(_STRIP_BYTES)
    declared = width * height * depth * samples * bits // 8
    if offsets is None or offsets[0] not in _INTEGERS or (counts is not None and counts[0] not in _INTEGERS):
        raise FileFormatError(f"{path.name}: {page} points to no image data; the file is damaged or not an image")
    if offsets[1] < expected or (counts is not None and counts[1] < expected):
        raise FileFormatError(
            f"{path.name}: {page} claims {width:,} x {height:,} pixels ({declared / 1e9:,.1f} GB) but lists "
            f"{offsets[1]:,} of {expected:,} parts; the declared size is absurd or the file damaged: export it again"
        )
    starts = _numbers(file, offsets, layout, 0)[:expected].astype(np.float64)
    # A few writers leave the byte counts out, or at zero, where there is a single uncompressed strip.
    stored = _numbers(file, counts, layout, 0)[:expected].astype(np.float64) if counts else np.zeros_like(starts)
    compression = number(_COMPRESSION, 1)
    if expected == 1 and compression == 1 and stored[0] == 0:
        stored = np.array([declared], np.float64)
    present = stored > 0
    if np.any(starts[present] + stored[present] > layout.size):
        missing = float((starts[present] + stored[present]).max()) - layout.size
        raise _truncated(path, f"{page} points {missing:,.0f} bytes beyond the end of the file")
    if not tiled and not present.all():
        raise _truncated(path, f"{int((~present).sum())} of {expected} strips of {page} are empty")
    # Tiles that were never written (sparse files) have a count of zero and cost nothing.
    decoded = min(int(present.sum()) * segment_bits // 8, declared if not tiled else declared * 4 + segment_bits)
    expansion = 1 if compression == 1 else _MOST_EXPANSION.get(compression, _OTHER_EXPANSION)
    # The last strip may be short, tiles of the right and lower edge may be stored cropped.
    if decoded * (0.25 if tiled and compression == 1 else 1) > float(stored.sum()) * expansion + 4096 * (expansion > 1):
        raise FileFormatError(
            f"{path.name}: {page} claims {width:,} x {height:,} pixels ({decoded / 1e9:,.3f} GB) but holds "
            f"{float(stored.sum()):,.0f} bytes; the declared size is absurd or the file damaged: export it again"
        )


def _check_ome(file: BinaryIO, first: int, layout: _Layout, *, n_pages: int, path: Path) -> None:
    """Check the numbers of planes that the OME-XML of the first page declares."""
    tags, _ = _directory(file, first, layout, path=path, index=0, wanted={_DESCRIPTION})
    if _DESCRIPTION not in tags or tags[_DESCRIPTION][1] <= layout.offset.size:
        return
    _, count, inline = tags[_DESCRIPTION]
    file.seek(layout.offset.unpack(inline)[0])
    text = file.read(count).rstrip(b"\x00 \r\n\t")
    if b"<!ENTITY" in text:
        # Entities that hold entities grow without bound; no microscope writes any.
        raise FileFormatError(f"{path.name}: the XML in it declares entities, which image metadata never need; refused")
    if b"OME" not in text[:4096] or not text.endswith(b">"):
        return
    try:
        root = ET.fromstring(text)  # noqa: S314 - entities are refused above
    except (ET.ParseError, ValueError, LookupError):
        return  # the reader falls back to the pages themselves
    # Several files can share one description, so more planes than pages are no error in themselves.
    most = max(_MOST_OME_PLANES, 64 * n_pages)
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        claims: list[int] = []
        if name == "Pixels":
            sizes = [_integer(element.get(f"Size{letter}", "1")) for letter in "TCZ"]
            claims = [sizes[0] * sizes[1] * sizes[2]]
        elif name == "TiffData":
            claims = [
                _integer(element.get(key, "0")) for key in ("NumPlanes", "PlaneCount", "FirstT", "FirstC", "FirstZ")
            ]
        elif name.startswith("Along"):
            span = abs(_real(element, "End", 0) - _real(element, "Start", 0))
            claims = [int(span / (abs(_real(element, "Step", 1)) or 1e-9))]
        if max(claims, default=0) > most:
            raise FileFormatError(
                f"{path.name}: its OME metadata declare {max(claims):,} planes but the file has {n_pages:,} pages; "
                f"the metadata are damaged: export the image again"
            )


def _integer(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,18}", text.strip()) else 0


def _real(element: ET.Element, key: str, default: float) -> float:
    try:
        value = float(element.get(key, default))
    except ValueError:
        return default
    return value if abs(value) < 1e15 else 1e15
