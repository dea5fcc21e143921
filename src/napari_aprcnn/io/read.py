"""Open an image file of any supported format, lazily.

Files are untrusted: whatever is wrong with one becomes a `FileFormatError` (or `MissingDependencyError`) that says
what to do, before anything of the declared size is allocated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_aprcnn.errors import FileFormatError
from napari_aprcnn.io.source import ImageSource, guess_letters, lazy_dask, reading, settle_axes

__all__ = ["ImageSource", "is_image_path", "open_image"]

_TIFF = (".tif", ".tiff", ".tf2", ".tf8", ".btf", ".lsm", ".stk", ".svs")
_ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def open_image(path: Path | str, *, series: int = 0) -> ImageSource:
    """Open an image without loading it.

    TIFF (OME-TIFF, ImageJ, plain, BigTIFF, pyramids), OME-Zarr 0.1 - 0.5, plain zarr arrays, and ``.npy``.

    Parameters
    ----------
    path
        File, or folder of a zarr image.
    series
        Which image of a file that holds several; their names are in `ImageSource.series_names`.

    Returns
    -------
    ImageSource
        The lazy image with its axes and voxel size.

    Raises
    ------
    FileFormatError
        If the file is missing, of another format, truncated, damaged, or of an absurd declared size.
    MissingDependencyError
        If its compression needs an optional package.

    Examples
    --------
    >>> from napari_aprcnn.io.samples import sample_path
    >>> source = open_image(sample_path("ovule-3d"))
    >>> source.axes, source.shape
    ('ZYX', (100, 100, 100))
    """
    path = Path(path).expanduser()
    with reading(path, "check that the path is right and that you may read it"):
        is_folder, exists = path.is_dir(), path.exists()
    if not exists:
        raise FileFormatError(f"there is no file {path}; check the path")
    if is_folder:
        return _open_folder(path, series=series)
    with reading(path, "check that you may read it"), path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x93NUMPY"):
        return _open_npy(path)
    from napari_aprcnn.io.tiff import open_tiff

    return open_tiff(path, series=series)


def is_image_path(path: Path) -> bool:
    """Whether a folder's entry looks like an image that `open_image` reads; only names are looked at.

    Examples
    --------
    >>> is_image_path(Path("a.ome.tif")), is_image_path(Path("notes.txt")), is_image_path(Path(".hidden.tif"))
    (True, False, False)
    """
    if path.name.startswith("."):
        return False
    if path.suffix.lower() == ".zarr" or any((path / name).exists() for name in _ZARR_FILES):
        return path.is_dir()
    return path.suffix.lower() in (*_TIFF, ".npy")


def _open_folder(path: Path, *, series: int) -> ImageSource:
    if not any((path / name).exists() for name in _ZARR_FILES):
        raise FileFormatError(
            f"the folder {path} is no zarr image (it has none of {', '.join(_ZARR_FILES)}); "
            f"expected an OME-Zarr folder, or give the image files in it"
        )
    from napari_aprcnn.io.omezarr import open_zarr

    return open_zarr(path, series=series)


def _open_npy(path: Path) -> ImageSource:
    with reading(path, "write it again with numpy.save"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    letters = guess_letters(array.shape)
    if letters is None:
        raise FileFormatError(f"{path.name} has {array.ndim} axes, expected 2 to 5 (T, C, Z, Y, X)")
    chunks = (*(1 for _ in array.shape[:-2]), *array.shape[-2:])
    if array.ndim >= 2 and int(np.prod(chunks)) * array.dtype.itemsize > 1 << 30:
        chunks = (*chunks[:-2], min(2048, array.shape[-2]), min(2048, array.shape[-1]))
    if 0 in array.shape:
        raise FileFormatError(f"{path.name} is empty: its shape is {array.shape}; expected at least one pixel")
    levels, axes, notes = settle_axes([lazy_dask(array, path, chunks=chunks, letters=letters)], letters, path=path)
    return ImageSource(
        data=levels[0],
        axes=axes,
        spacing_um=None,
        channel_names=(),
        name=path.stem,
        path=path,
        kind="npy",
        axes_known=False,
        series_names=(path.stem,),
        multiscale=tuple(levels),
        notes=tuple(notes),
    )
