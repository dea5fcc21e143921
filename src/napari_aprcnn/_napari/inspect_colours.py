"""Colour labels by a column of their table, fast for many objects. No Qt here.

napari maps a `DirectLabelColormap` with a dictionary: a hundred thousand entries take a second or two to prepare, and
none to draw. So it is prepared in another thread, its tables included, and with few enough colours for a small texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap, ensure_colormap
from numpy.typing import NDArray

from napari_aprcnn.io.object_table import ObjectTable

__all__ = ["Colouring", "colour_scale", "make_colouring", "unit_of"]

N_COLOURS = 240
SCALE = "viridis"
_FEW = 50
_NO_NUMBER = (0.6, 0.6, 0.6, 1.0)
_LEFT_OUT = (0.5, 0.5, 0.5, 0.25)


@dataclass(frozen=True, eq=False)
class Colouring:
    """Colours of labels.

    Attributes
    ----------
    column
        What they show.
    low, high
        Values at the ends of the scale.
    clipped
        Some values lie beyond the ends.
    colormap
        For the layer.
    """

    column: str
    low: float
    high: float
    clipped: bool
    colormap: DirectLabelColormap

    @property
    def unit(self) -> str:
        """Unit of the values, or an empty string."""
        return unit_of(self.column)

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends of the scale in words."""
        unit = f" {self.unit}" if self.unit else ""
        below, above = ("≤ ", "≥ ") if self.clipped else ("", "")
        return f"{below}{self.low:.4g}{unit}", f"{above}{self.high:.4g}{unit}"


def unit_of(column: str) -> str:
    """Return the unit that a column's name ends with.

    Examples
    --------
    >>> unit_of("volume_um3"), unit_of("sphericity"), unit_of("bbox_z0_px")
    ('µm³', '', 'px')
    """
    units = {"um": "µm", "um2": "µm²", "um3": "µm³", "px": "px", "px2": "px²", "vox": "voxels"}
    return units.get(column.rsplit("_", 1)[-1], "") if "_" in column else ""


def colour_scale(n: int = N_COLOURS) -> NDArray[np.float32]:
    """Return the colours of the scale, low to high: (N, 4), 0..1."""
    return np.asarray(ensure_colormap(SCALE).map(np.linspace(0, 1, n)), np.float32)


def make_colouring(
    table: ObjectTable, column: str, dtype: np.dtype[Any], *, shown: NDArray[np.integer] | None = None
) -> Colouring:
    """Colour every label by its value; of an object at several times, by the mean.

    Parameters
    ----------
    table, column
        Where the values are.
    dtype
        Of the labels: the colormap's tables for it are made.
    shown
        Rows that are coloured, the others are faint; ``None``: all.

    Returns
    -------
    Colouring
        From the least to the largest value; of many objects from the 1st to the 99th percentile.
    """
    ids, place = np.unique(table["label"], return_inverse=True)
    total = np.bincount(place, weights=table[column].astype(np.float64), minlength=len(ids))
    values = total / np.maximum(1, np.bincount(place, minlength=len(ids)))
    finite = values[np.isfinite(values)]
    ends = (0, 100) if len(finite) < _FEW else (1, 99)
    low, high = (float(v) for v in np.percentile(finite, ends)) if len(finite) else (0.0, 1.0)
    clipped = bool(len(finite)) and (float(finite.min()) < low or float(finite.max()) > high)
    with np.errstate(invalid="ignore"):
        share = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1)
    bins = np.where(np.isfinite(share), np.nan_to_num(share) * (N_COLOURS - 1), N_COLOURS).round().astype(int)
    if shown is not None:
        visible = np.zeros(len(ids), bool)
        visible[place[shown]] = True
        bins[~visible] = N_COLOURS + 1
    colours = [*colour_scale(), np.array(_NO_NUMBER, np.float32), np.array(_LEFT_OUT, np.float32)]
    clear = np.zeros(4, np.float32)
    known: dict[int | None, NDArray[np.float32]] = {None: clear, 0: clear}
    known.update((label, colours[k]) for label, k in zip(ids.tolist(), bins.tolist(), strict=True))
    colormap = DirectLabelColormap(color_dict=known)
    _prepare(colormap, np.dtype(dtype))
    return Colouring(column, low, high, clipped, colormap)


def _prepare(colormap: DirectLabelColormap, dtype: np.dtype[Any]) -> None:
    """Let the colormap make its tables now, in this thread, rather than when it is drawn."""
    one = np.zeros((1, 1), dtype)
    colormap.map(one)
    texture = getattr(colormap, "_data_to_texture", None)
    if texture is not None:
        texture(one)
