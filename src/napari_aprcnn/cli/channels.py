"""Which channel is segmented where nobody said so, and what is said of it."""

from __future__ import annotations

import numpy as np

from napari_aprcnn.io.source import ImageSource

__all__ = ["choose_channel"]

_COLOURS = ("red", "green", "blue")
# Of an image with colours, so much of its middle is looked at.
_EDGE_PX = 2048


def choose_channel(source: ImageSource, order: str, *, use: str = "segmented") -> tuple[int, str | None]:
    """Choose a channel: the first, or of an image with colours the one with the largest contrast.

    Nuclei are often blue in pictures of a microscope, and red may hold nothing at all.

    Parameters
    ----------
    source
        The image.
    order
        Its axes, as they are taken.
    use
        What is done with the channel, for the note.

    Returns
    -------
    int, str or None
        The channel, and a note of it; no note where there is only one.

    Raises
    ------
    FileFormatError
        If the colours cannot be read.
    """
    if "C" not in order or len(order) != len(source.shape):
        return 0, None
    count = source.shape[order.index("C")]
    if count < 2:
        return 0, None
    if _has_colours(source, order):
        channel = _largest_contrast(source, order)
        return channel, (
            f"the image has colours; {_COLOURS[channel]} (channel {channel}), that of the largest contrast, is "
            f"{use}: choose another with --channel"
        )
    name = source.channel_names[0] if source.channel_names else ""
    named = f" ({name})" if name and name != "channel 0" else ""
    return 0, f"the image has {count} channels; channel 0{named} is {use}: choose another with --channel"


def _has_colours(source: ImageSource, order: str) -> bool:
    """Whether pixels are red, green and blue, perhaps with an alpha: side by side, and of TIFF or of 8 bits."""
    dtype = source.data.dtype
    if order[-1] != "C" or source.shape[-1] not in (3, 4) or dtype.kind not in "buif":
        return False
    return "TIFF" in source.kind or dtype == np.uint8


def _largest_contrast(source: ImageSource, order: str) -> int:
    level = source.multiscale[-1] if source.multiscale else source.data
    index: list[int | slice] = []
    for letter, n in zip(order, level.shape, strict=True):
        if letter in "YX":
            start = max(0, (n - _EDGE_PX) // 2)
            index.append(slice(start, start + _EDGE_PX))
        else:
            index.append({"T": 0, "Z": n // 2, "C": slice(0, len(_COLOURS))}[letter])
    part = np.asarray(level[tuple(index)]).astype(np.float64)
    return int(np.argmax(np.nan_to_num(part.reshape(-1, part.shape[-1]).std(0))))
