"""Write what a run gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_aprcnn import __version__
from napari_aprcnn.io.read import ImageSource
from napari_aprcnn.io.write import (
    write_geojson,
    write_image,
    write_labels,
    write_measurements,
    write_overlay,
    write_rois,
    write_text,
)

if TYPE_CHECKING:
    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.config import AxisMapping
    from napari_aprcnn.segment.result import SegmentationResult

__all__ = ["segmented_channel", "write_results"]


def segmented_channel(source: ImageSource, mapping: AxisMapping, axes: str) -> Any:
    """Return the lazy image of the channel that was segmented, with the axes of the labels."""
    data, order = source.data, mapping.order
    if "C" in order:
        data = data[(slice(None),) * order.index("C") + (mapping.channel,)]
        order = order.replace("C", "")
    return data.transpose([order.index(letter) for letter in axes])


def write_results(
    result: SegmentationResult, source: ImageSource, folder: Path, names: dict[str, str]
) -> dict[str, Any]:
    """Write the results of a run to a folder.

    Parameters
    ----------
    result
        The run's result.
    source
        The image.
    folder
        Where to.
    names
        File name of each result, by kind; probability, flows and particles are left out where the result has
        none.

    Returns
    -------
    dict
        The run's record, as it is in the run file.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    labels, axes = result.labels, result.readout.axes
    spacing = result.config.spacing_um
    mapping = result.config.axes
    image = segmented_channel(source, mapping, axes) if mapping is not None else None
    write_labels(labels, folder / names["labels"], axes=axes, spacing_um=spacing)
    if "rois" in names:
        write_rois(labels, folder / names["rois"], axes=axes, hyperstack="C" in source.axes)
    if "geojson" in names:
        write_geojson(labels, folder / names["geojson"], axes=axes, spacing_um=spacing)
    if "csv" in names:
        write_measurements(labels, folder / names["csv"], axes=axes, spacing_um=spacing, image=image)
    if "overlay" in names and image is not None:
        write_overlay(image, labels, folder / names["overlay"], axes=axes)
    if "probability" in names and result.probability is not None:
        write_image(result.probability, folder / names["probability"], axes=axes, spacing_um=spacing)
    if "flows" in names and result.flows is not None:
        directions = "zyx"[-result.flows.shape[0] :]
        write_image(
            result.flows,
            folder / names["flows"],
            axes="C" + axes,
            spacing_um=spacing,
            channel_names=tuple(f"flow {letter}" for letter in directions),
        )
    if "particles" in names and result.particles is not None:
        from napari_aprcnn.apr.files import write_apr

        write_apr(folder / names["particles"], _placed(result.particles, labels.shape, axes, spacing))
    written = {kind: name for kind, name in names.items() if (folder / name).exists()}
    record = {
        "napari_aprcnn": __version__,
        "input": {
            "path": str(source.path.absolute()),
            "series": source.series,
            "kind": source.kind,
            "axes": source.axes,
            "shape": list(source.shape),
            "dtype": str(source.data.dtype),
            "spacing_um": source.spacing_um,
        },
        "outputs": written | {"run": names["run"]},
        "config": json.loads(result.config.to_json()),
        "readout": json.loads(result.readout.to_json()),
    }
    write_text(json.dumps(record, indent=2) + "\n", folder / names["run"])
    return record


def _placed(
    tree: ParticleTree, shape: tuple[int, ...], axes: str, spacing_um: tuple[float, float, float] | None
) -> ParticleTree:
    """Return particles with the size of their own voxels: those of the image, smaller where a zoom enlarged it."""
    if spacing_um is None:
        return tree
    size = dict(zip(axes, shape, strict=True))
    edges = [edge * size[axis] / n for edge, axis, n in zip(spacing_um, "ZYX", tree.shape, strict=True)]
    return type(tree)(
        tree.shape,
        tree.particles,
        tree.nodes,
        intensities=tree.intensities,
        conversion={**tree.conversion, "spacing_um": edges},
    )
