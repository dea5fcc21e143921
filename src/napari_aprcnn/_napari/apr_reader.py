"""``.apr`` files as napari layers: the particles are painted where the viewer looks, at the resolution it asks for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["MOST_IMAGES", "layer_of_tree", "read_apr_layers"]

LayerData = tuple[Any, dict[str, Any], str]
MOST_IMAGES = 16


def read_apr_layers(path: Path | str) -> list[LayerData]:
    """Open the images (channels, time points) of an ``.apr`` file, one layer each, 16 at most.

    Raises
    ------
    FileFormatError
        If the file is damaged, of another format or too large.
    MissingDependencyError
        If h5py or hdf5plugin is not installed.
    """
    from napari_aprcnn.apr.files import list_apr, read_apr

    path = Path(path)
    images = list_apr(path)
    if len(images) > MOST_IMAGES:
        # napari shows a warning of a reader to the user.
        warnings.warn(
            f"{path.name} holds {len(images)} images, of which the first {MOST_IMAGES} are shown; open others with "
            "napari_aprcnn.read_apr(path, channel=...)",
            stacklevel=2,
        )
    layers = []
    for image in images[:MOST_IMAGES]:
        tree = read_apr(path, channel=image.group)
        name = path.stem if len(images) == 1 else f"{path.stem} {image.group}"
        layers.append(layer_of_tree(tree, name=name, path=str(path)))
    return layers


def layer_of_tree(tree: ParticleTree, *, name: str, path: str = "") -> LayerData:
    """Turn a tree into layer data: its intensities, or its levels where it has none.

    Parameters
    ----------
    tree
        The particles.
    name, path
        Of the layer, and of the file for its metadata.

    Returns
    -------
    (data, kwargs, "image")
        A multiscale image where the tree is large enough for one. A flat tree gives an image of two axes.
    """
    from napari_aprcnn.apr.pyramid import tree_pyramid

    values = tree.levels if tree.intensities is None else tree.intensities
    pyramid: list[Any] = list(tree_pyramid(tree, values))
    flat = tree.shape[0] == 1
    if flat:
        pyramid = [np.asarray(pyramid[0])[0]]
    spacing, known = _spacing(tree.conversion)
    low, high = float(values.min()), float(values.max())
    options: dict[str, Any] = {
        "name": name,
        "scale": spacing[flat:],
        "units": ["micrometer" if known else "pixel"] * (3 - flat),
        "axis_labels": list("zyx"[flat:]),
        "multiscale": len(pyramid) > 1,
        # Else napari would paint the whole image to find them.
        "contrast_limits": (low, high if high > low else low + 1),
        "metadata": {
            "path": path,
            "kind": "APR",
            "axes": "ZYX"[flat:],
            "spacing_um": tuple(spacing) if known else None,
            "particles": len(tree),
            "prr": round(tree.prr, 3),
            "conversion": dict(tree.conversion),
        },
    }
    return (pyramid if len(pyramid) > 1 else pyramid[0]), options, "image"


def _spacing(conversion: Mapping[str, Any]) -> tuple[list[float], bool]:
    """Voxel size z, y, x, and whether it is one: ones stand for a size that was not known."""
    found = conversion.get("spacing_um") or conversion.get("spacing")
    if found is None and all(name in conversion for name in ("dz", "dx", "dy")):
        # LibAPR calls the axes z, x, y.
        found = [conversion[name] for name in ("dz", "dx", "dy")]
    try:
        edges = [float(edge) for edge in found or ()]
    except (TypeError, ValueError):
        edges = []
    usable = len(edges) == 3 and all(np.isfinite(edges)) and min(edges) > 0
    return (edges, edges != [1.0, 1.0, 1.0]) if usable else ([1.0, 1.0, 1.0], False)
