"""Results are written beside their place and renamed: whole or not at all."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_aprcnn.errors import AprcnnError, OutputError

__all__ = ["beside", "check_output", "make_folder", "staged", "write_text"]

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or write to another disk",
    errno.EDQUOT: "your disk quota is used up; free some space or write elsewhere",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; create it or choose another",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EFBIG: "the file is larger than this disk's format allows; write OME-Zarr or to another disk",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


@contextmanager
def beside(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a name beside `path` to write to; rename to `path` at the end, or leave nothing.

    The temporary name keeps the suffix. Files and folders both work; a folder is replaced only if it is a zarr.

    Parameters
    ----------
    path
        Where the result shall be.
    overwrite
        Replace what is there.

    Yields
    ------
    Path
        The name to write to.

    Raises
    ------
    OutputError
        If it cannot be written, or exists and `overwrite` is off. Nothing partial is left, the old result stays.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with beside(target) as name:
    ...     _ = name.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    path = check_output(path, overwrite=overwrite)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.part.{path.name}"[-200:])
    try:
        yield temporary
        _put(temporary, path, overwrite=overwrite)
    except AprcnnError:
        raise
    except OSError as error:
        raise _explain(path, error) from error
    except ValueError as error:
        # A codec of tifffile or zarr may hide the operating system's error behind its own.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError):
            raise _explain(path, cause) from error
        raise
    finally:
        _remove(temporary)


@contextmanager
def staged(folder: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder inside `folder` to write several results to; move them to `folder` at the end, or leave nothing.

    Parameters
    ----------
    folder
        Where the results shall be; it must exist.
    overwrite
        Replace what is there.

    Yields
    ------
    Path
        An empty folder on the same disk.

    Raises
    ------
    OutputError
        If a result cannot be written, or exists and `overwrite` is off.
    """
    folder = Path(folder).expanduser()
    stage = folder / f".aprcnn-{uuid.uuid4().hex[:8]}.part"
    try:
        stage.mkdir()
        yield stage
        results = sorted(stage.iterdir())
        for result in results:
            check_output(folder / result.name, overwrite=overwrite)
        for result in results:
            _put(result, folder / result.name, overwrite=overwrite)
    except AprcnnError:
        raise
    except OSError as error:
        raise _explain(folder, error) from error
    finally:
        _remove(stage)


def make_folder(folder: Path | str) -> Path:
    """Make a folder and those above it, if they are missing.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explain(folder, error) from error
    return folder


def check_output(path: Path | str, *, overwrite: bool = False) -> Path:
    """Check before any work that a result can be put at a path.

    Raises
    ------
    OutputError
        If the folder is missing, or something is there that must not be replaced.
    """
    path = Path(path).expanduser()
    try:
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise _explain(path, error) from error
    if exists and not overwrite:
        raise OutputError(f"{path} exists already; choose another name, or overwrite it (--overwrite)")
    if is_folder and not any((path / mark).exists() for mark in _ZARR_MARKS):
        raise OutputError(f"{path} is a folder that is no zarr, and is not replaced; choose another name")
    return path


def write_text(text: str, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write a text file, UTF-8, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with beside(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def _put(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not temporary.is_dir() and not path.is_dir():
        if not overwrite and path.exists():
            raise OutputError(f"{path} appeared while writing and was not replaced; choose another name")
        temporary.replace(path)
        return
    # A folder cannot be replaced in one step: the old one steps aside until the new one is in place.
    old = path.with_name(f".{uuid.uuid4().hex[:8]}.old.{path.name}"[-200:])
    had_old = path.exists()
    if had_old:
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if had_old:
            old.rename(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _explain(path: Path, error: OSError) -> OutputError:
    remedy = _REMEDIES.get(error.errno or 0, "check the folder and the free space")
    return OutputError(f"cannot write {path}: {error.strerror or error}; {remedy}")
