"""Which axis of an array is time, channel, depth, row and column."""

from __future__ import annotations

from collections.abc import Sequence

from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AxesError, ConfigError

__all__ = ["check_axes", "describe_axes", "guess_axes"]

# An axis of at most this many entries, beside planes at least eight times larger, is taken for channels.
FEW = 4
_WORDS = {
    "T": "T", "TIME": "T", "FRAME": "T", "FRAMES": "T",
    "C": "C", "S": "C", "CHANNEL": "C", "CHANNELS": "C", "CH": "C",
    "Z": "Z", "DEPTH": "Z", "PLANE": "Z", "PLN": "Z", "SLICE": "Z",
    "Y": "Y", "HEIGHT": "Y", "ROW": "Y", "ROWS": "Y",
    "X": "X", "WIDTH": "X", "COL": "X", "COLUMN": "X", "COLUMNS": "X",
}  # fmt: skip


def guess_axes(shape: Sequence[int], *, names: str | Sequence[str] | None = None) -> AxisMapping:
    """Guess the meaning of an array's axes.

    Names are believed where there are any; else the shape decides: the last two axes are Y and X, a short axis at the
    end or before the planes holds channels, a third axis is Z and a fourth T.

    Parameters
    ----------
    shape
        Shape of the array.
    names
        Names of the axes as a file or a viewer gives them: ``"TCZYX"``, ``("time", "z", "y", "x")``. Names that say
        nothing ("axis 0", "Q") are ignored.

    Returns
    -------
    AxisMapping

    Raises
    ------
    AxesError
        If the array has fewer than two or more than five axes.

    Examples
    --------
    >>> guess_axes((64, 512, 512)).order
    'ZYX'
    >>> guess_axes((480, 640, 3)).order
    'YXC'
    >>> guess_axes((10, 512, 512), names=("time", "y", "x")).order
    'TYX'
    """
    shape = tuple(int(n) for n in shape)
    if not 2 <= len(shape) <= 5:
        raise AxesError(
            f"the image has {len(shape)} axes (shape {shape}); expected 2 to 5 out of T, C, Z, Y, X: "
            "pick a part of it, or give the axes by name"
        )
    if names is not None:
        letters = "".join(_WORDS.get(str(name).strip().upper(), "?") for name in names)
        try:
            return check_axes(shape, AxisMapping(order=letters))
        except (ConfigError, AxesError):
            pass  # names that say nothing, or of another array: the shape decides
    return AxisMapping(order=_by_shape(shape))


def _by_shape(shape: tuple[int, ...]) -> str:
    rank = len(shape)
    if rank == 2:
        return "YX"
    others = sorted(shape)[1:]
    short = others[-2] >= 8 * FEW or others[-2] >= 8 * min(shape)
    colour_last = short and shape[-1] <= FEW and shape[-1] == min(shape)
    if rank == 3:
        if colour_last:
            return "YXC"
        return "CYX" if short and 1 < shape[0] <= FEW else "ZYX"
    if colour_last:
        return {4: "ZYXC", 5: "TZYXC"}[rank]
    if rank == 4:
        if short and shape[1] <= FEW and shape[1] <= shape[0]:
            return "ZCYX"
        return "CZYX" if short and shape[0] <= FEW else "TZYX"
    return "TCZYX" if shape[1] <= shape[2] else "TZCYX"


def check_axes(shape: Sequence[int], mapping: AxisMapping) -> AxisMapping:
    """Check that a mapping fits a shape, and return it.

    Raises
    ------
    AxesError
        If the number of axes differs, or the channel does not exist.
    """
    shape = tuple(int(n) for n in shape)
    if len(mapping.order) != len(shape):
        raise AxesError(
            f"the axes {mapping.order} name {len(mapping.order)} axes but the image has {len(shape)} (shape {shape}); "
            f"give one letter for each, for example {_example(len(shape))}"
        )
    if "C" in mapping.order:
        n_channels = shape[mapping.order.index("C")]
        if mapping.channel >= n_channels > 0:
            raise AxesError(
                f"channel {mapping.channel} was asked for but the image has {n_channels} "
                f"({describe_axes(shape, mapping)}); expected 0 to {n_channels - 1}"
            )
    elif mapping.channel:
        raise AxesError(
            f"channel {mapping.channel} was asked for but the axes {mapping.order} have no C; name the channel axis"
        )
    return mapping


def _example(rank: int) -> str:
    return {2: "YX", 3: "ZYX", 4: "TZYX or CZYX", 5: "TCZYX"}.get(rank, "TCZYX (at most 5 axes)")


def describe_axes(shape: Sequence[int], mapping: AxisMapping) -> str:
    """Say an image's shape in words.

    Examples
    --------
    >>> describe_axes((3, 64, 512, 512), AxisMapping(order="CZYX"))
    'Z 64 x Y 512 x X 512, channel 0 of 3'
    """
    sizes = dict(zip(mapping.order, (int(n) for n in shape), strict=False))
    words = " x ".join(f"{letter} {sizes[letter]}" for letter in "TZYX" if letter in sizes)
    return f"{words}, channel {mapping.channel} of {sizes['C']}" if "C" in sizes else words
