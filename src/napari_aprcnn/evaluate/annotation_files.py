"""The files of annotations: what they hold, and the checks that they are what they say."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np
from pydantic import Field

from napari_aprcnn.apr.lazy_array import BoxArray, Span
from napari_aprcnn.errors import AprcnnError, AxesError, ConfigError, FileFormatError, OutputError
from napari_aprcnn.evaluate.slice_choice import SliceIndex, slice_axes, slice_shape
from napari_aprcnn.frozen import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SESSION",
    "Mode",
    "Progress",
    "SessionInfo",
    "SparseLabels",
    "State",
    "checked_info",
    "checked_name",
    "file_key",
    "is_session",
    "locked",
    "read_info",
    "read_plane",
    "read_progress",
    "signature",
    "sizes_words",
    "slice_words",
]

State = Literal["todo", "doing", "done"]
Mode = Literal["points", "labels"]

SESSION = "session.json"
_FORMAT: Literal["napari-aprcnn annotations"] = "napari-aprcnn annotations"
_VERSION = 1
_MOST_BYTES = 64 << 20
_MOST_NAME = 40
_LOCK_SECONDS = 2.0
_STALE_SECONDS = 30.0


class SessionInfo(Frozen):
    """What is annotated (``session.json``).

    Attributes
    ----------
    format, version
        Of the folder.
    image_name
        Name of the image.
    shape, axes
        Of the image without channels: YX, ZYX, TYX or TZYX.
    spacing_um
        Voxel size of the spatial axes in micrometres, where it is known.
    mode
        ``points``: centres of nuclei; ``labels``: painted nuclei.
    slices
        The chosen slices, in order.
    choice
        How they were chosen: method, seed and so on.
    software
        Name and version of what wrote it.
    """

    format: Literal["napari-aprcnn annotations"] = _FORMAT
    version: int = _VERSION
    image_name: str = ""
    shape: tuple[int, ...]
    axes: str
    spacing_um: tuple[float, ...] | None = None
    mode: Mode = "points"
    slices: tuple[tuple[int, ...], ...] = ()
    choice: dict[str, str | int | float] = Field(default_factory=dict)
    software: str = ""


class Progress(Frozen):
    """How far an annotator is (``annotator_NAME.json``).

    Attributes
    ----------
    annotator
        The name as it was typed.
    states
        Slices that were begun, with how far they are.
    current
        The slice that was looked at last.
    """

    annotator: str
    states: tuple[tuple[tuple[int, ...], State], ...] = ()
    current: tuple[int, ...] | None = None


class SparseLabels(BoxArray):
    """A label image of which only some slices exist; the others are empty. Sliced like a numpy array.

    Parameters
    ----------
    files
        The label images (Y, X) of the slices.
    info
        Shape and axes of the whole.

    Attributes
    ----------
    slices
        Those that exist, in order.
    """

    def __init__(self, files: Mapping[SliceIndex, Path], info: SessionInfo) -> None:
        super().__init__(info.shape, np.dtype(np.uint32))
        self._files = dict(files)
        self.slices = sorted(self._files)

    def read_box(self, spans: Sequence[Span]) -> NDArray[Any]:
        """Read the slices that a box cuts."""
        out = np.zeros([high - low for low, high in spans], np.uint32)
        (y0, y1), (x0, x1) = spans[-2:]
        for index in self.slices:
            if all(low <= i < high for i, (low, high) in zip(index, spans[:-2], strict=True)):
                place = tuple(i - low for i, (low, _) in zip(index, spans[:-2], strict=True))
                plane = read_plane(self._files[index], (self.shape[-2], self.shape[-1]))
                if plane is not None:
                    out[place] = plane[y0:y1, x0:x1]
        return out


def slice_words(index: SliceIndex, axes: str) -> str:
    """Name a slice: ``t 3, z 12``.

    Examples
    --------
    >>> slice_words((3, 12), "TZYX"), slice_words((), "YX")
    ('t 3, z 12', 'the image')
    """
    return ", ".join(f"{a.lower()} {i}" for a, i in zip(slice_axes(axes), index, strict=True)) or "the image"


def sizes_words(info: SessionInfo) -> str:
    """Say how large an image is: ``ZYX 30 x 64 x 64``."""
    return f"{info.axes} {' x '.join(map(str, info.shape))}"


def is_session(folder: Path | str) -> bool:
    """Whether a folder holds annotations."""
    return (Path(folder).expanduser() / SESSION).is_file()


# --- names ------------------------------------------------------------------------------------------------------------


def checked_name(annotator: str) -> str:
    """Return the name of an annotator without needless blanks.

    Raises
    ------
    ConfigError
        If there is none, or it is too long.
    """
    name = " ".join(unicodedata.normalize("NFC", str(annotator)).split())
    if not name or len(name) > _MOST_NAME or not name.isprintable():
        raise ConfigError(f"annotator {name[:60]!r}; expected a name of 1 to {_MOST_NAME} characters, such as initials")
    return name


def file_key(annotator: str) -> str:
    """Return the part of a file name that belongs to an annotator; no two names share one.

    Examples
    --------
    >>> file_key("Ann B."), file_key("../x")
    ('ann b%2E', '%2E%2E%2Fx')
    """
    letters = checked_name(annotator).casefold()
    return "".join(c if c.isalnum() or c in " -_" else quote(c, safe="").replace(".", "%2E") for c in letters)


# --- reading ----------------------------------------------------------------------------------------------------------


def checked_info(info: SessionInfo) -> SessionInfo:
    """Check what is to be annotated.

    Raises
    ------
    AxesError
        If the axes do not fit the shape.
    ConfigError
        If the voxel size does not fit, or a slice lies outside the image.
    """
    if info.axes not in ("YX", "ZYX", "TYX", "TZYX"):
        raise AxesError(f"annotations of axes {info.axes!r}; expected YX, ZYX, TYX or TZYX")
    sizes = slice_shape(info.shape, info.axes)
    for index in info.slices:
        if len(index) != len(sizes) or not all(0 <= i < n for i, n in zip(index, sizes, strict=True)):
            raise ConfigError(f"slice {index} is outside the image ({sizes_words(info)})")
    spacing = info.spacing_um
    if spacing is not None and (len(spacing) != len(info.axes.replace("T", "")) or min(spacing) <= 0):
        raise ConfigError(
            f"voxel size {spacing} of an image {info.axes}; expected a positive number for each of Z, Y, X"
        )
    if len(set(info.slices)) != len(info.slices):
        raise ConfigError("a slice is there twice")
    return info


def read_info(folder: Path) -> SessionInfo:
    """Read ``session.json``.

    Raises
    ------
    FileFormatError
        If there is none, it is damaged, or of a newer version.
    """
    path = folder / SESSION
    if not is_session(folder):
        raise FileFormatError(f"{folder} holds no annotations ({SESSION} is missing); choose another folder")
    values = _read_json(path)
    if values.get("format") != _FORMAT:
        raise FileFormatError(f"{path} is of another program; choose a folder that the Annotate dock has made")
    version = values.get("version")
    if not isinstance(version, int) or version > _VERSION:
        raise FileFormatError(f"{path} has version {version!r}, expected up to {_VERSION}; update napari-aprcnn")
    try:
        return checked_info(SessionInfo(**values))
    except (AprcnnError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is damaged: {error}; restore it from a backup") from error


def read_progress(path: Path) -> Progress:
    """Read how far an annotator is.

    Raises
    ------
    FileFormatError
        If the file is damaged.
    """
    try:
        return Progress(**_read_json(path))
    except (ConfigError, TypeError) as error:
        raise FileFormatError(
            f"{path} is damaged: {error}; restore it from a backup, or move it away (the points and labels stay)"
        ) from error


def read_plane(path: Path, shape: tuple[int, int]) -> NDArray[Any] | None:
    """Read the labels of a slice, (Y, X); nothing if the file is not there.

    Raises
    ------
    FileFormatError
        If it is damaged, of another shape, or no labels.
    """
    from napari_aprcnn.io.read import open_image

    if not path.is_file():
        return None
    source = open_image(path)
    if tuple(source.data.shape) != shape or np.dtype(source.data.dtype).kind not in "iu":
        raise FileFormatError(
            f"{path} has shape {tuple(source.data.shape)} and type {source.data.dtype}, expected labels of {shape}"
        )
    return np.asarray(source.data)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise FileFormatError(f"{path} has {path.stat().st_size:,} bytes; expected at most {_MOST_BYTES:,}")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is no JSON file: {error}; restore it from a backup") from error
    if not isinstance(values, dict):
        raise FileFormatError(f"{path} holds a {type(values).__name__}, expected an object; restore it from a backup")
    return values


# --- several writers --------------------------------------------------------------------------------------------------


def signature(path: Path) -> tuple[int, ...] | None:
    """Return what tells one writing of a file from another; nothing if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other programs from changing ``session.json`` meanwhile.

    Raises
    ------
    OutputError
        If another program holds it for long, or the folder cannot be written.
    """
    lock, until = folder / ".session.lock", time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            with suppress(OSError):
                if time.time() - lock.stat().st_mtime > _STALE_SECONDS:
                    lock.unlink()  # its program has ended without taking it away
            if time.monotonic() > until:
                raise OutputError(f"another program is changing {folder}; try again in a moment") from None
            time.sleep(0.02)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
