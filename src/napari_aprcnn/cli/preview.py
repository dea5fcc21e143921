"""A look at the result before the work: the middle of the image only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.cli.console import progress_bar
from napari_aprcnn.config import AxisMapping, SegmentConfig
from napari_aprcnn.errors import AprcnnError
from napari_aprcnn.io.read import ImageSource
from napari_aprcnn.io.write import write_overlay

if TYPE_CHECKING:
    from napari_aprcnn.cli.batch import Job

__all__ = ["middle", "preview_one"]

_EDGE_PX = 512
_EDGE_VOX = 128


def middle(shape: tuple[int, ...], mapping: AxisMapping, *, volume: bool = False) -> tuple[int | slice, ...]:
    """Return the index of the middle of an image: the first time point, the middle plane, the central pixels.

    Parameters
    ----------
    shape, mapping
        Of the image.
    volume
        The central 128 voxels along z, y and x instead of a plane.

    Examples
    --------
    >>> middle((9, 1024, 100), AxisMapping(order="ZYX"))
    (4, slice(256, 768, None), slice(0, 100, None))
    """
    index: list[int | slice] = []
    kept, edge = ("ZYX", _EDGE_VOX) if volume else ("YX", _EDGE_PX)
    for letter, n in zip(mapping.order, shape, strict=True):
        if letter in kept:
            start = max(0, (n - edge) // 2)
            index.append(slice(start, min(n, start + edge)))
        else:
            index.append({"T": 0, "Z": n // 2, "C": min(mapping.channel, n - 1)}[letter])
    return tuple(index)


def preview_one(
    job: Job,
    source: ImageSource,
    config: SegmentConfig,
    *,
    title: str,
    overwrite: bool,
    tell: Callable[[str], None],
    show: bool,
    should_cancel: Callable[[], bool],
) -> dict[str, Any]:
    """Segment the middle of an image, write its overlay, and say what the whole would take.

    Returns
    -------
    dict
        The preview's figures.

    Raises
    ------
    AprcnnError
        As `segment` and `write_overlay`.
    """
    from napari_aprcnn.models.zoo import is_for_volumes
    from napari_aprcnn.segment.axes import check_axes
    from napari_aprcnn.segment.estimate import estimate
    from napari_aprcnn.segment.pipeline import segment

    mapping = check_axes(source.shape, config.axes or AxisMapping(order=source.axes))
    volume = is_for_volumes(config.model)
    crop = np.asarray(source.data[middle(source.shape, mapping, volume=volume)])
    order = "".join(letter for letter in mapping.order if letter in ("ZYX" if volume else "YX"))
    flat = config.replace(axes=AxisMapping(order=order), dimensionality="auto" if volume else "2d")
    with progress_bar(title, shown=show) as progress:
        result = segment(crop, config=flat, progress=progress, should_cancel=should_cancel)
    path = job.folder / job.names["preview"]
    write_overlay(crop, result.labels, path, axes=result.readout.axes, overwrite=overwrite)
    diameter = result.readout.diameter_px
    try:
        prr = result.readout.prr or None if volume else None
        words = estimate(source.shape, source.data.dtype, config, prr=prr).words
    except AprcnnError as error:
        words = str(error)
    tell(f"{job.path.name}: {source.words}")
    size = " x ".join(map(str, crop.shape))
    found = f", PRR {result.readout.prr:.1f}" if volume else f", diameter {diameter:.0f} px"
    tell(f"  the middle {size} px: {result.readout.n_objects} nuclei{found}")
    tell(f"  the whole: {words}")
    tell(f"  -> {path}")
    return {
        "input": str(job.path),
        "outputs": {"preview": str(path)},
        "n_objects": result.readout.n_objects,
        "diameter_px": diameter,
        "estimate": words,
    }
