"""From the sums of a scan to the table of nuclei: size, place, fitted ellipsoid, shape, intensity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.graph.structure import column_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.graph.scan import Scan

__all__ = ["node_columns"]


def node_columns(scan: Scan, spacing: NDArray[np.float64], *, unit: str) -> dict[str, NDArray[Any]]:
    """Return the columns of the nuclei but for the number of neighbours.

    Parameters
    ----------
    scan
        Of the label image.
    spacing : [D]
        Voxel size in `unit`.
    unit
        ``um`` or ``px``.

    Returns
    -------
    dict of str to [N] arrays
        ``label``; ``centroid_z_px`` ... and, in ``um``, ``centroid_z_um`` ...; ``volume_*3``; ``surface_*2``;
        ``sphericity`` (surface of the ball of equal volume over the surface, at most 1);
        ``equivalent_diameter_*``; ``major_axis_*``, ``middle_axis_*``, ``minor_axis_*``: lengths of the axes of the
        solid ellipsoid of the same second moments; ``major_z`` ...: direction of its longest axis, a unit vector whose
        last component that is not 0 is positive; ``at_border``: cut by the border of the image; ``intensity_mean``,
        ``intensity_std``, where there is an image.
    """
    rank = len(spacing)
    letters = "zyx"[-rank:]

    def name(stem: str) -> str:
        return column_name(stem, rank=rank, unit=unit)

    volume = np.asarray(scan.sizes * float(np.prod(spacing)), np.float64)
    lengths, major = _ellipsoids(scan, spacing)
    columns: dict[str, NDArray[Any]] = {"label": scan.labels}
    columns |= {f"centroid_{letter}_px": scan.first[:, axis].copy() for axis, letter in enumerate(letters)}
    if unit == "um":
        columns |= {f"centroid_{letter}_um": scan.first[:, axis] * spacing[axis] for axis, letter in enumerate(letters)}
    columns[name("volume")] = volume
    columns[name("surface")] = scan.surface
    columns[name("sphericity")] = np.minimum(1.0, _round_surface(volume, rank) / np.maximum(scan.surface, 1e-300))
    columns[name("equivalent_diameter")] = _diameter(volume, rank)
    stems = ("major_axis", "middle_axis", "minor_axis") if rank == 3 else ("major_axis", "minor_axis")
    columns |= {name(stem): lengths[:, index] for index, stem in enumerate(stems)}
    columns |= {f"major_{letter}": major[:, axis] for axis, letter in enumerate(letters)}
    columns["at_border"] = scan.border
    if scan.intensity_sum is not None and scan.intensity_squares is not None:
        mean = scan.intensity_sum / scan.sizes
        shifted = mean - scan.intensity_shift
        columns["intensity_mean"] = mean
        columns["intensity_std"] = np.sqrt(np.maximum(scan.intensity_squares / scan.sizes - shifted**2, 0.0))
    return columns


def _ellipsoids(scan: Scan, spacing: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths of the axes, longest first, (n, D), and directions of the longest, (n, D)."""
    rank = len(spacing)
    # A voxel is a box, not a point: its own second moment keeps objects of one voxel from being flat.
    moments = scan.second * spacing[:, None] * spacing[None, :] + np.diag(spacing**2 / 12)
    values, vectors = np.linalg.eigh(moments)
    # The second moment of a solid ellipsoid along an axis is a^2 / 5, of a solid ellipse a^2 / 4.
    lengths = 2 * np.sqrt((rank + 2) * np.maximum(values[:, ::-1], 0.0))
    major = vectors[:, :, -1]
    big = np.abs(major) > 1e-9
    last = rank - 1 - big[:, ::-1].argmax(axis=1)
    sign = np.sign(major[np.arange(len(major)), last])
    return lengths, major * np.where(sign == 0, 1.0, sign)[:, None]


def _round_surface(volume: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Surface of balls, perimeter of discs."""
    if rank == 3:
        return np.asarray(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3))
    return np.asarray(2 * np.sqrt(np.pi * volume))


def _diameter(volume: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    return np.asarray((6 * volume / np.pi) ** (1 / 3) if rank == 3 else np.sqrt(4 * volume / np.pi))
