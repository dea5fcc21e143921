"""Particle trees to an HDF5 file that LibAPR reads as its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.apr import layout
from napari_aprcnn.apr.hdf5_parse import CHECKSUM, METADATA, checked_arrays
from napari_aprcnn.errors import OutputError, ParticleTreeError

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

    from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["write_file"]

_CHUNK = 1 << 20
# An HDF5 attribute in the format that LibAPR's HDF5 reads has less than 64 KiB.
_LONGEST_METADATA = 60_000
_VALUE_TYPES = ("uint8", "uint16", "float32")
# LibAPR's parameters, their default, and the names they may have in `ParticleTree.conversion`.
_PARAMETERS: dict[str, tuple[float, tuple[str, ...]]] = {
    "lambda": (0.0, ("lambda", "gradient_smoothing", "smoothing")),
    "rel_error": (0.1, ("rel_error", "relative_error")),
    "sigma_th": (0.0, ("sigma_th", "scale_threshold", "sigma_threshold")),
    "sigma_th_max": (0.0, ("sigma_th_max", "scale_cutoff")),
    "grad_th": (0.0, ("grad_th", "gradient_threshold")),
    "I_th": (0.0, ("I_th", "intensity_threshold")),
    "psfx": (2.0, ("psfx",)),
    "psfy": (2.0, ("psfy",)),
    "psfz": (2.0, ("psfz",)),
    "noise_sd_estimate": (0.0, ("noise_sd_estimate",)),
    "background_intensity_estimate": (0.0, ("background_intensity_estimate",)),
}


def write_file(path: Path, trees: Mapping[tuple[str, int], ParticleTree], *, name: str) -> None:
    """Write trees to a new file.

    Parameters
    ----------
    path
        The file; it must not exist.
    trees
        Trees by channel and time point.
    name
        Name of the field of intensities.

    Raises
    ------
    OutputError
        If a name, a type of values or the conversion metadata cannot be stored.
    """
    import h5py

    plans = [(channel, at, tree, _metadata(tree)) for (channel, at), tree in trees.items()]
    for channel, at, tree, _ in plans:
        _check(channel, at, tree, name)
    # The format of HDF5 1.8, which LibAPR holds.
    with h5py.File(path, "w-", libver=("earliest", "v108")) as file:
        root = file.create_group("ParticleRepr")
        for channel, at, tree, text in plans:
            group = root.create_group(group_name(channel, at))
            _write_sizes(group, tree, at)
            _write_parameters(group, tree)
            _write_rows(group, tree.particles.x, tree.particles.offsets[1:])
            below = group.create_group("Tree")
            _number(below, "total_number_particles", len(tree.nodes.x), np.uint64)
            _write_rows(below, tree.nodes.x, tree.nodes.offsets)
            values = _write_values(group, tree, name)
            digest = layout.checksum(
                checked_arrays(tree.particles.x, tree.particles.offsets, values), f"{tuple(tree.shape)};{text}"
            )
            group.attrs.create(METADATA, np.bytes_(text.encode()))
            group.attrs.create(CHECKSUM, np.bytes_(digest.encode()))
            root.attrs.create(f"{CHECKSUM}_{group_name(channel, at)}", np.bytes_(digest.encode()))


def group_name(channel: str, timepoint: int) -> str:
    """Return the name of the HDF5 group of a channel and time point.

    Examples
    --------
    >>> group_name("t", 0), group_name("gfp", 3)
    ('t', 'gfp3')
    """
    return channel if timepoint == 0 else f"{channel}{timepoint}"


def _check(channel: str, timepoint: int, tree: ParticleTree, name: str) -> None:
    if not re.fullmatch(r"\w[\w .-]*", channel) or timepoint < 0:
        raise OutputError(
            f"got channel {channel!r} and time point {timepoint}, expected letters, digits, _ . - and 0 or more"
        )
    if not re.fullmatch(r"\w[\w .-]*", name) or name in ("Tree", "y_vec", "xz_end_vec") or name.startswith("map_"):
        raise OutputError(f"got field name {name!r}, expected letters, digits, _ . - and no name of the structure")
    if tree.intensities is not None and tree.intensities.dtype.name not in _VALUE_TYPES:
        raise OutputError(
            f"got intensities of {tree.intensities.dtype}, expected {', '.join(_VALUE_TYPES)}; convert them with "
            f"tree.with_intensities(tree.intensities.astype(...))"
        )


def _metadata(tree: ParticleTree) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} is no JSON")

    try:
        text = json.dumps(dict(tree.conversion), default=plain, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"the tree's conversion metadata cannot be stored: {error}; expected JSON values") from error
    if len(text.encode()) > _LONGEST_METADATA:
        raise OutputError(
            f"the tree's conversion metadata has {len(text):,} bytes, expected at most {_LONGEST_METADATA:,}"
        )
    return text


def _number(group: h5py.Group, name: str, value: float, dtype: type) -> None:
    group.attrs.create(name, np.array([value], dtype))


def _write_sizes(group: h5py.Group, tree: ParticleTree, timepoint: int) -> None:
    group.attrs.create("name", np.bytes_(b"no_name"))
    group.attrs.create("githash", np.bytes_(b"napari-aprcnn"))
    sizes = {
        "time_steps": timepoint, "level_max": tree.level_max, "level_min": 1,
        "total_number_particles": len(tree.particles.x),
    }  # fmt: skip
    for key, value in sizes.items():
        _number(group, key, value, np.uint64)
    for key, axis in (("z_num", 0), ("x_num", 1), ("y_num", 2)):
        _number(group, key, tree.shape[axis], np.uint64)
        for level in range(1, tree.level_max):
            _number(group, f"{key}_{level}", -(-tree.shape[axis] >> (tree.level_max - level)), np.int32)


def _write_parameters(group: h5py.Group, tree: ParticleTree) -> None:
    spacing = tree.conversion.get("spacing_um", tree.conversion.get("spacing"))
    if not isinstance(spacing, tuple | list) or len(spacing) != 3:
        spacing = (1.0, 1.0, 1.0)
    # LibAPR's x is y here, and its y is x.
    for key, edge in zip(("dz", "dx", "dy"), spacing, strict=True):
        _number(group, key, edge, np.float32)
    for key, (default, names) in _PARAMETERS.items():
        found = [tree.conversion[other] for other in names if isinstance(tree.conversion.get(other), int | float)]
        _number(group, key, found[0] if found else default, np.float32)


def _write_rows(group: h5py.Group, x: NDArray[np.uint16], ends: NDArray[np.int64]) -> None:
    _dataset(group, "y_vec", x)
    _dataset(group, "xz_end_vec", ends.astype(np.uint64))


def _write_values(group: h5py.Group, tree: ParticleTree, name: str) -> NDArray[Any] | None:
    # Values are in the order level, z, y, x, and as they are.
    _number(group, "lzxy_order", 1, np.int32)
    _number(group, "compress_type", 0, np.int32)
    _number(group, "quantization_factor", 0.5, np.float32)
    _number(group, "compress_background", 1.0, np.float32)
    if tree.intensities is not None:
        _dataset(group, name, tree.intensities)
    return tree.intensities


def _dataset(group: h5py.Group, name: str, array: NDArray[Any]) -> None:
    import hdf5plugin

    if len(array) == 0:
        raise ParticleTreeError(f"got no cells for {name!r}, expected a tree of at least one particle")
    group.create_dataset(
        name,
        data=np.ascontiguousarray(array),
        chunks=(min(len(array), _CHUNK),),
        fletcher32=True,
        **hdf5plugin.Blosc(cname="zstd", clevel=4, shuffle=hdf5plugin.Blosc.SHUFFLE),
    )
