"""From what was typed to the list of images, and a name for each result."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from napari_aprcnn.errors import ConfigError, FileFormatError, OutputError
from napari_aprcnn.io.read import is_image_path

__all__ = ["check_format", "find_images", "keep_inputs", "result_stems", "split_output", "stem_of"]

# What an earlier run left in a folder is no input of the next; masks are what Cellpose and others call their labels.
_RESULTS = ("_labels", "_probability", "_flows", "_masks")
_OF_CELLPOSE = "_seg.npy"
_FORMATS = {".ome.tif": "ome-tif", ".ome.tiff": "ome-tif", ".tif": "tif", ".tiff": "tif", ".zarr": "zarr"}
_SUFFIXES = (
    ".ome.tiff",
    ".ome.tif",
    ".ome.zarr",
    ".ome.tf2",
    ".ome.tf8",
    ".ome.btf",
    ".tiff",
    ".tif",
    ".zarr",
    ".npy",
    ".btf",
    ".tf8",
    ".tf2",
    ".lsm",
    ".stk",
    ".svs",
)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Return the images that arguments stand for: files, zarr folders, the images of a folder, or a pattern's matches.

    Parameters
    ----------
    inputs
        Arguments, in the order given; patterns may come quoted. Masks and other results of earlier runs in a
        folder or among a pattern's matches are left out, unless the pattern asks for them (``*_masks.tif``).

    Returns
    -------
    list of Path
        Each image once. A file that does not exist stays in the list: its error comes when its turn comes.

    Raises
    ------
    FileFormatError
        If a folder has no image, or a pattern no match.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if not path.exists() and glob.has_magic(text):
            # Path.glob takes no absolute patterns.
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            if not _is_result(path):
                matches = [match for match in matches if not _is_result(match)]
            images = [match for match in matches if is_image_path(match)]
            # A pattern that names no image by its suffix means what it says.
            images = images or [match for match in matches if match.is_file()]
            if not images:
                raise FileFormatError(f"no file matches {text!r}; check the pattern (and quote it, so that ** works)")
        elif path.is_dir() and not is_image_path(path):
            images = sorted(entry for entry in path.iterdir() if is_image_path(entry) and not _is_result(entry))
            if not images:
                raise FileFormatError(
                    f"the folder {path} holds no TIFF, OME-Zarr or .npy image (beside results of earlier runs); check "
                    "the path"
                )
        else:
            images = [path]
        found.update(dict.fromkeys(images))
    return list(found)


def _is_result(path: Path) -> bool:
    return stem_of(path).endswith(_RESULTS) or path.name.endswith(_OF_CELLPOSE)


def stem_of(path: Path) -> str:
    """Return the name of an image without its suffix.

    Examples
    --------
    >>> stem_of(Path("a/b.c.ome.tif"))
    'b.c'
    """
    name = path.name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def result_stems(images: Sequence[Path]) -> list[str]:
    """Return a name for the results of each image: its own, with its folder's where two are the same.

    Examples
    --------
    >>> result_stems([Path("day1/a.tif"), Path("day2/a.ome.tif"), Path("day2/b.tif")])
    ['day1_a', 'day2_a', 'b']
    """
    stems = [stem_of(path) for path in images]
    same = Counter(stem.lower() for stem in stems)
    longer = [
        f"{path.absolute().parent.name}_{stem}" if same[stem.lower()] > 1 else stem
        for path, stem in zip(images, stems, strict=True)
    ]
    used: Counter[str] = Counter()
    final = []
    for name in longer:
        used[name.lower()] += 1
        final.append(name if used[name.lower()] == 1 else f"{name}-{used[name.lower()]}")
    return final


def split_output(output: Path | None, *, n_images: int) -> tuple[Path, str | None]:
    """Return the folder for results, and the name of the label file where one was given.

    Raises
    ------
    OutputError
        If nothing was given, or a single file for several images.
    """
    if output is None:
        raise OutputError("no output was given; add -o FOLDER (or -o NAME.tif for one image)")
    output = output.expanduser()
    is_file_name = output.name.lower().endswith((".tif", ".tiff", ".zarr"))
    if output.is_dir() and not is_file_name:
        return output, None
    if is_file_name:
        if n_images > 1:
            raise OutputError(f"{n_images} images cannot all be written to {output.name}; give a folder with -o")
        return output.parent, output.name
    if output.exists():
        raise OutputError(f"{output} is a file; give a folder with -o")
    return output, None


def check_format(output: Path | None, wanted: str) -> None:
    """Check that the name of a label file, if one was given, is one of the format that was asked for.

    Parameters
    ----------
    output
        What ``-o`` gave.
    wanted
        ``tif``, ``ome-tif`` or ``zarr``.

    Raises
    ------
    ConfigError
        If the two contradict each other.
    """
    name = "" if output is None else output.name.lower()
    named = next((kind for ending, kind in _FORMATS.items() if name.endswith(ending)), wanted)
    if output is not None and named != wanted:
        raise ConfigError(
            f"got --format {wanted} and -o {output.name}, which is {named}; leave --format out, or give a folder or "
            "another name with -o"
        )


def keep_inputs(targets: Iterable[Path], images: Sequence[Path]) -> None:
    """Check that no result replaces an input, whatever may be overwritten.

    Parameters
    ----------
    targets
        Where results shall be.
    images
        The inputs.

    Raises
    ------
    OutputError
        If a result is an input (under any name: links are followed), holds one, or is a part of one that exists.
    """
    real = {Path(os.path.realpath(path.expanduser())): path for path in images}
    same = {key: path for place, path in real.items() if (key := _identity(place))}
    above = {folder: path for place, path in real.items() for folder in place.parents}
    for target in targets:
        place = Path(os.path.realpath(target.expanduser()))
        hit = real.get(place) or same.get(_identity(place)) or above.get(place)
        if hit is None and place.exists():
            hit = next((real[folder] for folder in place.parents if folder in real), None)
        if hit is not None:
            raise OutputError(
                f"the result {target} would replace the input {hit}, or a part of it; nothing was done: choose another "
                "name or folder with -o"
            )


def _identity(path: Path) -> tuple[int, ...]:
    """What a file is to the system, under any name; empty where it cannot be told."""
    with suppress(OSError, ValueError):
        status = path.stat()
        return (status.st_dev, status.st_ino) if status.st_ino else ()
    return ()
