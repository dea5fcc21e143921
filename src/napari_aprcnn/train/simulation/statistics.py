"""Figures of labelled volumes, to hold simulated ones against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_aprcnn.errors import ImageDtypeError, ImageError

__all__ = ["VolumeStatistics", "statistics", "summary_table"]

PEAK_PERCENTILE = 95.0
NOISE_LAG = 2  # neighbours share noise where a camera or a microscope's software resampled
SD_OF_MAD = 1.4826
HEADINGS = {
    "nuclei": "nuclei",
    "diameter_px": "diameter px",
    "diameter_px_p10": "10 %",
    "diameter_px_p90": "90 %",
    "elongation": "z/xy",
    "volume_fraction": "fraction",
    "touching": "touching",
    "contrast_to_noise": "contrast/noise",
    "outline_level": "outline",
    "intensity_cv": "CV",
    "prr": "PRR",
}


@dataclass(frozen=True, kw_only=True)
class VolumeStatistics:
    """What one labelled volume is like; NaN where it has no nuclei to measure.

    Attributes
    ----------
    nuclei
        Number of labels.
    diameter_px, diameter_px_p10, diameter_px_p90
        In-plane diameter in pixels, that of the ellipsoid of equal second moments: median and percentiles.
    elongation
        Median ratio of the extents of a label along z and in plane, both in voxels.
    volume_fraction
        Share of the voxels that are labelled.
    touching
        Share of the nuclei that touch another one by a face of a voxel.
    contrast_to_noise
        Median over the nuclei of the mean intensity above the background, over the standard deviation of the noise.
    outline_level
        Intensity at the label's border with the background, as a share of the nucleus' 95th percentile, both above the
        background; the median over the nuclei.
    intensity_cv
        Standard deviation over mean of the nuclei's intensities above the background.
    prr
        Voxels for each particle of `napari_aprcnn.to_apr` with its default parameters.
    """

    nuclei: int
    diameter_px: float
    diameter_px_p10: float
    diameter_px_p90: float
    elongation: float
    volume_fraction: float
    touching: float
    contrast_to_noise: float
    outline_level: float
    intensity_cv: float
    prr: float


def statistics(image: NDArray[Any], labels: NDArray[Any]) -> VolumeStatistics:
    """Measure a labelled volume.

    Parameters
    ----------
    image : (Z, Y, X)
        Intensities, any real dtype.
    labels : (Z, Y, X) integers
        Instances, 0 is background.

    Returns
    -------
    VolumeStatistics

    Raises
    ------
    ImageError
        If these are not two volumes of one shape.
    ImageDtypeError
        If the labels are no integers.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((16, 32, 32), np.uint16)
    >>> labels[4:12, 8:24, 8:24] = 1
    >>> image = np.where(labels, 900, 100).astype(np.uint16)
    >>> found = statistics(image, labels)
    >>> found.nuclei, round(found.outline_level, 2), found.volume_fraction
    (1, 0.5, 0.125)
    """
    from napari_aprcnn.apr.to_apr import to_apr

    if image.ndim != 3 or image.shape != labels.shape:
        raise ImageError(
            f"got an image of shape {image.shape} and labels of shape {labels.shape}; expected two equal [z, y, x]"
        )
    if labels.dtype.kind not in "ui":
        raise ImageDtypeError(f"labels are {labels.dtype}, expected integers with 0 as background; round them first")
    numbers, inverse = np.unique(labels, return_inverse=True)
    dense = np.asarray(inverse.reshape(labels.shape), np.int32)
    dense += np.int32(0 if numbers[0] == 0 else 1)
    n = int(dense.max())
    prr = float(to_apr(image).prr)
    if n == 0:
        return _without_nuclei(prr)
    values = image.astype(np.float32)
    diameter, elongation = _extents(dense, n)
    background, noise = _background(values, dense)
    mean = np.bincount(dense.ravel(), values.ravel())[1:] / np.bincount(dense.ravel())[1:] - background
    return VolumeStatistics(
        nuclei=n,
        diameter_px=float(np.median(diameter)),
        diameter_px_p10=float(np.percentile(diameter, 10)),
        diameter_px_p90=float(np.percentile(diameter, 90)),
        elongation=float(np.median(elongation)),
        volume_fraction=float((dense > 0).mean()),
        touching=_touching_share(dense, n),
        contrast_to_noise=float(np.median(mean)) / noise,
        outline_level=_outline_level(values - background, dense, n),
        intensity_cv=float(np.std(mean) / max(float(np.mean(mean)), 1e-9)),
        prr=prr,
    )


def _without_nuclei(prr: float) -> VolumeStatistics:
    nan = float("nan")
    return VolumeStatistics(
        nuclei=0, diameter_px=nan, diameter_px_p10=nan, diameter_px_p90=nan, elongation=nan, volume_fraction=0.0,
        touching=nan, contrast_to_noise=nan, outline_level=nan, intensity_cv=nan, prr=prr,
    )  # fmt: skip


def _extents(dense: NDArray[np.int32], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In-plane diameter and z over in-plane extent of each label, by second moments."""
    places = np.nonzero(dense)
    which = dense[places]
    count = np.bincount(which, minlength=n + 1)[1:]
    variance = []
    for place in places:
        first = np.bincount(which, place, n + 1)[1:] / count
        second = np.bincount(which, place.astype(np.float64) ** 2, n + 1)[1:] / count
        variance.append(second - first**2 + 1 / 12)  # a voxel has an extent of its own
    plane = (variance[1] + variance[2]) / 2
    return 2 * np.sqrt(5 * plane), np.sqrt(variance[0] / plane)


def _background(values: NDArray[np.float32], dense: NDArray[np.int32]) -> tuple[float, float]:
    """Median of the unlabelled voxels, and standard deviation of the noise there."""
    free = dense == 0
    if not free.any():
        free = np.ones_like(free)
    pairs = free[..., NOISE_LAG:] & free[..., :-NOISE_LAG]
    steps = (values[..., NOISE_LAG:] - values[..., :-NOISE_LAG])[pairs]
    # A standard deviation, not the median deviation: few photons make a background that is mostly one value.
    limit = np.percentile(np.abs(steps), 99) if steps.size else 0.0
    kept = steps[np.abs(steps) <= limit]
    noise = float(kept.std()) / np.sqrt(2) if kept.size else 0.0
    return float(np.median(values[free])), max(noise, 1e-6)


def _faces(dense: NDArray[np.int32]) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each axis, where a voxel and its next neighbour are."""
    pairs = []
    for axis in range(3):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        pairs.append((tuple(low), tuple(high)))
    return pairs


def _touching_share(dense: NDArray[np.int32], n: int) -> float:
    touching = np.zeros(n + 1, bool)
    for low, high in _faces(dense):
        one, other = dense[low], dense[high]
        met = (one != other) & (one > 0) & (other > 0)
        touching[one[met]] = touching[other[met]] = True
    return float(touching[1:].mean())


def _outline_level(contrast: NDArray[np.float32], dense: NDArray[np.int32], n: int) -> float:
    """Median over the labels of the contrast at the border to the background, over the label's peak."""
    total, count = np.zeros(n + 1), np.zeros(n + 1)
    for low, high in _faces(dense):
        one, other = dense[low], dense[high]
        border = (one > 0) != (other > 0)
        which = np.maximum(one, other)[border]
        total += np.bincount(which, ((contrast[low] + contrast[high]) / 2)[border], n + 1)
        count += np.bincount(which, minlength=n + 1)
    # Noise lifts a percentile, so the peak is taken of a slightly smoothed image.
    smooth = ndimage.gaussian_filter(contrast, (0.5, 1.0, 1.0))
    inside = np.nonzero(dense.ravel())[0]
    order = inside[np.lexsort((smooth.ravel()[inside], dense.ravel()[inside]))]
    ends = np.cumsum(np.bincount(dense.ravel(), minlength=n + 1)[1:])
    sizes = np.diff(ends, prepend=0)
    at = ends - 1 - np.floor((1 - PEAK_PERCENTILE / 100) * (sizes - 1)).astype(int)
    peak = smooth.ravel()[order[at]]
    valid = (count[1:] > 0) & (peak > 0)
    return float(np.median(total[1:][valid] / count[1:][valid] / peak[valid])) if valid.any() else float("nan")


def summary_table(rows: Sequence[tuple[str, Sequence[VolumeStatistics]]]) -> str:
    """One line for each set of volumes: medians over its volumes; the number of nuclei is that of all.

    Parameters
    ----------
    rows
        Name of a set, and the statistics of its volumes.

    Returns
    -------
    str
        A Markdown table.
    """
    lines = ["| set | volumes | " + " | ".join(HEADINGS.values()) + " |", "| --- |" + " ---: |" * (len(HEADINGS) + 1)]
    for name, found in rows:
        cells = [name, str(len(found))]
        for field in fields(VolumeStatistics):
            values = np.array([getattr(item, field.name) for item in found], float)
            values = values[np.isfinite(values)]
            if field.name == "nuclei":
                cells.append(f"{int(values.sum())}")
            else:
                cells.append(_cell(float(np.median(values))) if len(values) else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 3 else f"{value:.2f}"
