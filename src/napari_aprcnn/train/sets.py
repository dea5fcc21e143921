"""Several archives or folders as one training set: what each is called, how often it is drawn, what it holds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.train.data import LabelledImage, read_training_data
from napari_aprcnn.train.volume_identity import mark_of_arrays

__all__ = ["check_shares", "mark_of_sets", "read_sets", "source_names"]

logger = logging.getLogger(__name__)


def source_names(paths: Sequence[Path | str]) -> list[str]:
    """Name of each source: the stem of its path, or the end of its path where others have the same stem.

    Examples
    --------
    >>> source_names(["a/train.zip", "a/test.zip"]), source_names(["a/train.zip", "b/train.zip", "b/more.zip"])
    (['train', 'test'], ['a/train.zip', 'b/train.zip', 'more'])
    """
    whole = [Path(path).absolute() for path in paths]
    possible = {}
    for path in whole:
        ends = ["/".join(path.parts[-n:]) for n in range(1, len(path.parts) + 1)]
        possible[path] = [path.stem, *ends]
    names = []
    for path in whole:
        taken = {name for other, theirs in possible.items() if other != path for name in theirs}
        names.append(next(name for name in possible[path] if name not in taken))
    return names


def read_sets(
    paths: Sequence[Path | str], *, progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None
) -> list[LabelledImage]:
    """Read several archives or folders into one training set; `source_names` says what their images' source is.

    Parameters
    ----------
    paths
        As `read_training_data` takes them.
    progress
        Told what is read, how much of it is done, and all of it, after every image; what it raises ends the reading.

    Raises
    ------
    TrainingDataError
        If the data cannot be read.
    """
    images: list[LabelledImage] = []
    for path, source in zip(paths, source_names(paths), strict=True):

        def tell(done: int, total: int, what: str = f"images of {source}") -> None:
            progress(what, done, total)

        found = read_training_data(path, progress=tell)
        images += [item if item.source == source else replace(item, source=source) for item in found]
        logger.info("%s: %d images so far", path, len(images))
    return images


def mark_of_sets(images: Sequence[LabelledImage]) -> str:
    """Digest of what a training sees of its images: pixels, labels, and which share a source and a kind.

    What images and sources are called does not matter.
    """
    sources: dict[str, int] = {}
    kinds: dict[tuple[str, str], int] = {}
    return mark_of_arrays(
        (
            f"{sources.setdefault(item.source, len(sources))} "
            f"{kinds.setdefault((item.source, item.kind), len(kinds))} {part}",
            array,
        )
        for item in images
        for part, array in (("image", item.image), ("labels", item.labels))
    )[:16]


def check_shares(shares: Mapping[str, float], sources: Collection[str]) -> None:
    """Refuse shares that no choice can be made by, or that belong to no source.

    Raises
    ------
    ConfigError
        If a share is negative or not finite, all are 0, or there is no source of that name.
    """
    for source, share in shares.items():
        if source not in sources:
            raise ConfigError(f"got a share of {source!r}; expected one of the sources {sorted(sources)}")
        if not (math.isfinite(share) and share >= 0):
            raise ConfigError(f"got the share {share:g} of {source!r}, expected 0 or more, as in train.zip=0.5")
    if shares and set(shares) >= set(sources) and not any(shares.values()):
        raise ConfigError(f"the shares of all sources ({', '.join(shares)}) are 0; give one of them more")
