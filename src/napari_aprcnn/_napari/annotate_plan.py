"""Which slices the Annotate dock would choose, and by which layer it ranks them. No Qt here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels

from napari_aprcnn._napari.annotate_layers import Frame
from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.evaluate.annotations import is_session
from napari_aprcnn.evaluate.slice_choice import (
    Score,
    SliceIndex,
    choose_slices,
    read_slice,
    score_slices,
    slice_shape,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn._napari.annotate_settings import AnnotateSettings

__all__ = [
    "METHODS",
    "Ranking",
    "choose",
    "fewer_words",
    "guides",
    "new_folder",
    "plane_of",
    "ranking",
    "room",
    "session_folder",
]

# More than this takes minutes to read of a lazy volume, and chooses hardly better.
MOST_SCORED = 256
METHODS = {
    "random": "at random",
    "even": "evenly spaced",
    "uncertainty": "where the prediction is unsure",
    "density": "from sparse to dense",
}


def guides(viewer: Any, frame: Frame | None) -> list[Any]:
    """Return the layers of the same size as the image: predictions to correct or to rank slices by."""
    if frame is None:
        return []
    found = []
    for layer in viewer.layers:
        if layer is frame.layer or not isinstance(layer, Image | Labels) or getattr(layer, "rgb", False):
            continue
        if str(layer.metadata.get(KEY, {}).get("kind", "")).startswith("annotation"):
            continue
        data = layer.data[0] if layer.multiscale else layer.data
        if tuple(data.shape) == _array_shape(frame):
            found.append(layer)
    return found


def _order(frame: Frame) -> str:
    """Axes of a prediction: those of the image without channels, in its own order."""
    return frame.mapping.order.replace("C", "")


def _array_shape(frame: Frame) -> tuple[int, ...]:
    return tuple(frame.shape[frame.axes.index(letter)] for letter in _order(frame))


def plane_of(layer: Any, frame: Frame, index: SliceIndex) -> NDArray[Any]:
    """Read a slice of a prediction, (Y, X)."""
    return read_slice(image_of(layer).data, _order(frame), index)


class Ranking:
    """What slices are ranked by.

    Attributes
    ----------
    data, axes, channel
        The array that is read.
    score
        What is worked out.
    """

    def __init__(self, data: Any, axes: str, channel: int, score: Score) -> None:
        self.data, self.axes, self.channel, self.score = data, axes, channel, score

    def scores(self, progress: Callable[[int, int], None], should_cancel: Callable[[], bool]) -> NDArray[np.float64]:
        """Work the scores out; slow, for a worker thread."""
        return score_slices(
            self.data,
            axes=self.axes,
            channel=self.channel,
            score=self.score,
            most=MOST_SCORED,
            progress=progress,
            should_cancel=should_cancel,
        )


def ranking(settings: AnnotateSettings, frame: Frame, guide: Any | None) -> Ranking | None:
    """Return what slices would be ranked by; nothing where the method needs no scores.

    Raises
    ------
    ConfigError
        If the method needs a layer that is not chosen.
    """
    if settings.method in ("random", "even"):
        return None
    if settings.method == "uncertainty":
        if guide is None or isinstance(guide, Labels):
            raise ConfigError(
                "Choosing where the prediction is unsure needs a layer with its probability, of the image's size: "
                "choose it above (Segment nuclei adds one if you ask for it), or choose slices in another way."
            )
        return Ranking(image_of(guide).data, _order(frame), 0, "entropy")
    if guide is not None:
        score: Score = "objects" if isinstance(guide, Labels) else "bright"
        return Ranking(image_of(guide).data, _order(frame), 0, score)
    return Ranking(frame.image.data, frame.mapping.order, frame.mapping.channel, "bright")


def room(
    sizes: tuple[int, ...],
    distance: int,
    *,
    usable: NDArray[np.bool_] | None = None,
    taken: Iterable[SliceIndex] = (),
) -> int:
    """Return how many slices fit at a distance.

    Parameters
    ----------
    sizes
        Slices along each axis.
    distance
        Least distance between two slices of a time point.
    usable
        Which slices can be chosen; ``None``: all.
    taken
        Slices that are chosen already.

    Examples
    --------
    >>> room((20,), 3), room((2, 20), 3), room((20,), 3, taken=[(10,)]), room((), 3)
    (7, 14, 6, 1)
    """
    taken = [index for index in taken if index]
    if not taken and usable is None:
        return math.prod(-(-n // distance) if axis == len(sizes) - 1 else n for axis, n in enumerate(sizes))
    free = np.ones(sizes, bool) if usable is None else usable.copy()
    for index in taken:
        free[index[:-1]][max(0, index[-1] - distance + 1) : index[-1] + distance] = False
    count = 0
    for row in free.reshape(-1, sizes[-1] if sizes else 1):
        following = 0
        for at in np.flatnonzero(row).tolist():
            if at >= following:
                count, following = count + 1, at + distance
    return count


def choose(
    settings: AnnotateSettings, frame: Frame, scores: NDArray[np.float64] | None, taken: Iterable[SliceIndex] = ()
) -> list[SliceIndex]:
    """Choose slices as the settings say; where so many do not fit at the distance, those that do.

    Raises
    ------
    ConfigError
        If none fits.
    """
    sizes, taken = slice_shape(frame.shape, frame.axes), list(taken)
    usable = None if scores is None else np.isfinite(scores)
    return choose_slices(
        max(1, min(settings.n_slices, room(sizes, settings.min_distance, usable=usable, taken=taken))),
        shape=sizes,
        method=settings.method,
        scores=scores,
        min_distance=settings.min_distance,
        seed=settings.seed,
        taken=taken,
    )


def fewer_words(settings: AnnotateSettings, n: int) -> str:
    """Say that fewer slices were chosen than were asked for."""
    apart = f" at a distance of {settings.min_distance}" if settings.min_distance > 1 else ""
    return f"{n} slices are chosen: {settings.n_slices} do not fit{apart}"


def session_folder(settings: AnnotateSettings, name: str) -> Path:
    """Return the folder of an image's annotations."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "image"
    return settings.root / stem


def new_folder(settings: AnnotateSettings, name: str) -> Path:
    """Return a folder for new annotations of an image: no other ones are in it.

    Raises
    ------
    ConfigError
        If there are too many.
    """
    first = session_folder(settings, name)
    for number in range(1, 1000):
        folder = first if number == 1 else first.with_name(f"{first.name}_{number}")
        try:
            free = not folder.exists() or (folder.is_dir() and not is_session(folder) and not any(folder.iterdir()))
        except OSError as error:
            raise ConfigError(f"{folder} cannot be read: {error.strerror}; choose another folder") from error
        if free:
            return folder
    raise ConfigError(f"{first} has very many neighbours; choose another folder")


def words_of(error: Exception) -> str:
    """Say an error as a sentence; one that nobody expected with its type."""
    text = str(error) if isinstance(error, AprcnnError) else f"{type(error).__name__}: {error}"
    return text[:1].upper() + text[1:]
