"""Files of training data, in a folder or a zip: read by their names, and whatever is wrong with one named."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import AprcnnError, TrainingDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IMAGE_SUFFIXES", "INDEX", "DataFiles", "checked_image", "read_png", "stem"]

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
"""Of images and labels, in any case."""

INDEX = "index.json"
"""Of a zip: what its images are called, and more about them."""

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_LARGEST = float(np.finfo(np.float32).max) / 4  # differences of two such numbers are finite, too
_DAMAGED = "it is damaged or truncated: copy or export it again"


class DataFiles:
    """The files of a folder (of it, its ``images`` and its ``labels``) or of a zip, by their names within it.

    Hidden files and what macOS adds to zips are no files of the data; a folder that holds all of a zip is not part of
    the names.

    Parameters
    ----------
    path
        The folder or zip.

    Attributes
    ----------
    path
        The same.
    is_zip
        Which of both it is.
    names, known
        Of the files (``images/a.tif``), sorted, and as a set.
    folders
        Names of the folders in it.

    Raises
    ------
    TrainingDataError
        If it is neither, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.is_zip = path, path.suffix.lower() == ".zip" and not path.is_dir()
        self._above = ""
        if self.is_zip:
            with self._telling(str(path), "expected a zip with images/, labels/, index.json: make it again"):
                self._archive = zipfile.ZipFile(path)
                found = [name for name in self._archive.namelist() if not _hidden(name)]
            while len(tops := {name.split("/", 1)[0] if "/" in name else "" for name in found}) == 1:
                (top,) = tops
                if top in ("", "images", "labels"):
                    break
                self._above += f"{top}/"
                found = [name for name in (one.removeprefix(f"{top}/") for one in found) if name]
        elif path.is_dir():
            with self._telling(str(path), "check that you may read it"):
                found = [name for part in ("", "images/", "labels/") for name in _listed(path, part)]
        else:
            raise TrainingDataError(f"{path} is neither a folder nor a zip; expected training data")
        self.known = {name for name in found if not name.endswith("/")}
        self.names = sorted(self.known)
        self.folders = {name.split("/", 1)[0] for name in found if "/" in name}

    @property
    def is_indexed(self) -> bool:
        """Whether it is a zip with an index."""
        return self.is_zip and INDEX in self.known

    @property
    def pictures(self) -> list[str]:
        """Names of TIFFs and PNGs; a PNG beside a TIFF of the same name is a picture of that, and left out."""
        found = [name for name in self.names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
        tiffs = {stem(name) for name in found if not _is_png(name)}
        return [name for name in found if not _is_png(name) or stem(name) not in tiffs]

    def shown(self, name: str) -> str:
        """A file in words."""
        return f"{name} in {self.path}" if self.is_zip else str(self.path / name)

    def read(self, name: str) -> bytes:
        """Bytes of a file.

        Raises
        ------
        TrainingDataError
            If it cannot be read.
        """
        with self._opened(name) as file:
            return file.read()

    def image(self, name: str) -> NDArray[Any]:
        """Intensities of an image of one channel, finite and in native byte order; booleans become 0 and 1.

        Raises
        ------
        TrainingDataError
            If it cannot be read, has colours, or holds what is no intensity.
        """
        return checked_image(self._pixels(name), self.shown(name))

    def labels(self, name: str) -> NDArray[Any]:
        """Labels in native byte order; ids far beyond the number of pixels are numbered anew, in their order.

        Raises
        ------
        TrainingDataError
            If they cannot be read, have colours, or are negative.
        """
        labels = self._pixels(name)
        if labels.dtype.kind not in "iu" or not labels.size:
            return labels
        if labels.min() < 0:
            raise TrainingDataError(
                f"{self.shown(name)} holds the negative label {labels.min()}; expected 0 for background and ids above "
                "0: number the objects from 1"
            )
        if labels.max() > max(labels.size, 0xFFFF):
            values, numbers = np.unique(labels, return_inverse=True)
            return (numbers.reshape(labels.shape) + int(values[0] != 0)).astype(np.uint32)
        return labels

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Path of a file, of a zip's one for as long as the context lasts."""
        if not self.is_zip:
            yield self.path / name
            return
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder) / PurePosixPath(name).name
            with self._opened(name) as file, path.open("wb") as copy:
                shutil.copyfileobj(file, copy)
            yield path

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if name not in self.known:
            raise TrainingDataError(f"there is no {self.shown(name)}; add it, or remove it from {INDEX}")
        with (
            self._telling(self._told(name), _DAMAGED),
            self._archive.open(self._above + name) if self.is_zip else (self.path / name).open("rb") as file,
        ):
            yield file

    def _pixels(self, name: str) -> NDArray[Any]:
        """A plane or a stack; the colours of a pixel would pass for columns."""
        import tifffile

        source: Path | io.BytesIO = io.BytesIO(self.read(name)) if self.is_zip else self.path / name
        with self._telling(self._told(name), _DAMAGED):
            if _is_png(name):
                array = read_png(source)
                if array.ndim > 2:
                    raise self._coloured(name, array.shape)
            else:
                with tifffile.TiffFile(source) as tif:
                    if not tif.series:
                        raise ValueError("it holds no image")
                    if tif.series[0].axes.endswith("S"):
                        raise self._coloured(name, tif.series[0].shape)
                    array = np.asarray(tif.asarray())
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def _coloured(self, name: str, shape: tuple[int, ...]) -> TrainingDataError:
        return TrainingDataError(
            f"{self.shown(name)} is a colour image of shape {shape}; expected one channel: save the one with the "
            "nuclei alone"
        )

    def _told(self, name: str) -> str:
        return f"{PurePosixPath(name).stem!r} ({self.shown(name)})"

    @contextmanager
    def _telling(self, what: str, remedy: str) -> Iterator[None]:
        """Turn every failure of a foreign parser into a `TrainingDataError`."""
        try:
            yield
        except AprcnnError:
            raise
        except MemoryError as error:
            raise TrainingDataError(f"cannot read {what}: it needs more memory than there is; {remedy}") from error
        except Exception as error:
            # Parsers of damaged files raise anything; all of it means: unreadable.
            detail = " ".join(str(error).split())[:200] or type(error).__name__
            if isinstance(error, ImportError) or "imagecodecs" in detail:
                remedy = "run: pip install imagecodecs, or export it uncompressed or with ZIP compression"
            raise TrainingDataError(f"cannot read {what}: {detail}; {remedy}") from error


def stem(name: str) -> str:
    """Name without its last suffix, with its folders."""
    return name.removesuffix(PurePosixPath(name).suffix)


def checked_image(image: NDArray[Any], what: str) -> NDArray[Any]:
    """Check that intensities are finite numbers; booleans become 0 and 1.

    Raises
    ------
    TrainingDataError
        If they are not.

    Examples
    --------
    >>> checked_image(np.array([[True, False]]), "a.tif")
    array([[1, 0]], dtype=uint8)
    """
    if image.dtype.kind == "b":
        return image.astype(np.uint8)
    if image.dtype.kind not in "iuf":
        raise TrainingDataError(f"{what} has pixels of type {image.dtype}; expected integers, floats or booleans")
    if image.dtype.kind == "f" and image.size:
        # NaN is the smallest and the largest of what it is in.
        with np.errstate(invalid="ignore"):
            low, high = float(image.min()), float(image.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise TrainingDataError(
                f"{what} holds NaN or infinite values; expected finite ones: replace them, for example with "
                "numpy.nan_to_num, or leave the image out"
            )
        if max(-low, high) > _LARGEST:
            raise TrainingDataError(
                f"{what} holds values of {low:.3g} to {high:.3g}; expected at most {_LARGEST:.1g}: divide them by a "
                "number, the scale does not matter"
            )
    return image


def read_png(source: Path | IO[bytes]) -> NDArray[Any]:
    """Read a PNG, (H, W) or with colours (H, W, 3); transparency is dropped, and colours that are all grey are one."""
    from skimage.io import imread

    data = source.read_bytes() if isinstance(source, Path) else source.read()
    if not data.startswith(_PNG_HEAD):
        raise ValueError(f"it is no PNG (it starts with {data[:4]!r})")
    array = np.asarray(imread(io.BytesIO(data)))
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        array = array[..., :-1]
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    return array


def _is_png(name: str) -> bool:
    return name.lower().endswith(".png")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _listed(folder: Path, part: str) -> list[str]:
    """Entries of a part of a folder, folders with a slash at the end."""
    where = folder / part
    if not where.is_dir():
        return []
    found = [part] if part else []
    found += [f"{part}{path.name}" for path in where.iterdir() if not _hidden(path.name) and not path.is_dir()]
    return found
