"""``aprcnn graph``: from labels to the graph of nuclei, as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_aprcnn.cli.console import Interrupt, guarded, say
from napari_aprcnn.errors import AxesError, ConfigError, ImageError

if TYPE_CHECKING:
    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = ["graph"]


class EdgeKind(StrEnum):
    """Who is whose neighbour."""

    TOUCHING = "touching"
    DISTANCE = "distance"
    DELAUNAY = "delaunay"
    KNN = "knn"


class GraphFormat(StrEnum):
    """Formats of a graph."""

    CSV = "csv"
    GRAPHML = "graphml"
    TENSORS = "tensors"


def graph(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Label image: TIFF, OME-Zarr or .npy.")],
    image: Annotated[
        Path | None, typer.Argument(metavar="[IMAGE]", help="Image, for the nuclei's intensities.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for NAME_nodes.csv, NAME_edges.csv, NAME.graphml ...")
    ] = None,
    edges: Annotated[EdgeKind, typer.Option("--edges", help="Who is whose neighbour.")] = EdgeKind.TOUCHING,
    gap: Annotated[
        float | None, typer.Option("--gap", help="Of touching nuclei: largest gap between surfaces, um (0).", min=0)
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option("--radius", help="Of the others: longest edge, um (distance: 2 diameters, delaunay: 3)."),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", help="Of knn: neighbours of each nucleus (6).", min=1)] = None,
    spacing: Annotated[
        str | None, typer.Option("--spacing", help="Voxel size in um: z,y,x or y,x or one number (from the file).")
    ] = None,
    channel: Annotated[
        int | None,
        typer.Option("--channel", help="Channel of the image, from 0 (the first, or of colours the clearest).", min=0),
    ] = None,
    formats: Annotated[
        list[GraphFormat] | None,
        typer.Option("--format", help="Can be repeated (csv). tensors: safetensors for PyTorch Geometric."),
    ] = None,
    descriptors: Annotated[
        bool,
        typer.Option("--descriptors", help="Describe the organoid, and tell its phenotype: NAME_descriptors.json."),
    ] = False,
    surface_distance: Annotated[
        bool, typer.Option("--surface-distance/--no-surface-distance", help="Measure gaps along every edge.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What was found, as JSON.")] = False,
) -> None:
    """Build the graph of nuclei of a label image, and describe the organoid."""
    with guarded():
        if output is None and not descriptors:
            raise ConfigError("got neither a folder to write to nor --descriptors; expected at least one of them")
        if channel is not None and image is None:
            raise ConfigError(f"got --channel {channel} without an image; give the image behind the labels")
        _check_kind(edges, gap=gap, radius=radius, k=k)
        array, spacing_um = _labels(labels, spacing)
        values, note = (None, None) if image is None else _image(image, array.shape, channel)
        if note is not None and not quiet:
            say(f"note: {note}")
        from napari_aprcnn.graph.build import nuclei_graph

        with Interrupt() as interrupt, _bar(shown=not quiet) as progress:
            made = nuclei_graph(
                array,
                values,
                spacing_um=spacing_um,
                edges=edges.value,
                gap_um=gap or 0.0,
                radius_um=radius,
                k=6 if k is None else k,
                surface_distance=surface_distance,
                progress=progress,
                should_cancel=interrupt.wanted,
            )
        found = _described(made, array) if descriptors else None
        if output is not None:
            from napari_aprcnn.cli.inputs import stem_of

            chosen = list(dict.fromkeys(formats or [GraphFormat.CSV]))
            names = _write(made, found, output, stem_of(labels), chosen, overwrite=overwrite)
            if not quiet:
                say(f"{output}: {', '.join(names)}")
        _show(made, found, as_json=as_json, quiet=quiet)


def _check_kind(edges: EdgeKind, *, gap: float | None, radius: float | None, k: int | None) -> None:
    """Refuse parameters of another kind of edges, which would do nothing."""
    others = (EdgeKind.DISTANCE, EdgeKind.DELAUNAY, EdgeKind.KNN)
    for name, value, kinds in (("--gap", gap, (EdgeKind.TOUCHING,)), ("--radius", radius, others),
                               ("-k", k, (EdgeKind.KNN,))):  # fmt: skip
        if value is not None and edges not in kinds:
            raise ConfigError(
                f"got {name} {value:g} with --edges {edges.value}, which has none; expected it with --edges "
                f"{' or '.join(kind.value for kind in kinds)}"
            )


def _labels(path: Path, spacing: str | None) -> tuple[Any, tuple[float, ...] | None]:
    import numpy as np

    from napari_aprcnn.cli.settings import parse_spacing
    from napari_aprcnn.io.read import open_image

    source = open_image(path)
    letters = source.axes
    # A label image of few planes looks like one of channels; labels have none.
    if letters == "CYX":
        letters = "ZYX"
    if letters not in ("YX", "ZYX"):
        raise AxesError(f"{path.name} has axes {source.axes}; expected labels with Y, X or Z, Y, X: one time point")
    size = parse_spacing(spacing) if spacing is not None else source.spacing_um
    return np.asarray(source.data), None if size is None else tuple(size[-len(letters) :])


def _image(path: Path, shape: tuple[int, ...], channel: int | None) -> tuple[Any, str | None]:
    import numpy as np

    from napari_aprcnn.cli.channels import choose_channel
    from napari_aprcnn.io.read import open_image

    source = open_image(path)
    data, note = source.data, None
    if tuple(data.shape) != tuple(shape) and "C" in source.axes:
        at = source.axes.index("C")
        if channel is None:
            channel, note = choose_channel(source, source.axes, use="measured")
        if channel >= data.shape[at]:
            raise AxesError(f"{path.name} has {data.shape[at]} channels; expected --channel 0 to {data.shape[at] - 1}")
        data = data[(slice(None),) * at + (channel,)]
    elif channel:
        raise AxesError(f"{path.name} has no channels; leave --channel out")
    return np.asarray(data), None if note is None else f"{path.name}: {note}"


@contextmanager
def _bar(*, shown: bool) -> Iterator[Callable[[float, str], None] | None]:
    import sys

    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("graph", total=1.0)
        yield lambda share, words: bar.update(task, completed=share, description=words)


def _described(made: NucleiGraph, array: Any) -> dict[str, Any]:
    """Descriptors, ellipsoid model and phenotype; what cannot be told is null, with the reason."""
    from napari_aprcnn.graph.descriptors import describe
    from napari_aprcnn.graph.ellipsoid import fit_ellipsoid
    from napari_aprcnn.graph.phenotypes import classify_phenotype

    found = describe(made, array)
    values: dict[str, Any] = {
        "unit": made.unit,
        "edges": {"kind": made.kind, **made.parameters},
        "descriptors": found.to_json(),
        "ellipsoid": None,
        "phenotype": None,
    }
    try:
        model = fit_ellipsoid(made)
        values["ellipsoid"] = {
            "centre": model.centre.tolist(),
            "semi_axes": model.semi_axes.tolist(),
            "thickness": model.thickness,
            "residual": model.residual,
        }
        values["phenotype"] = classify_phenotype(made, array, descriptors=found)
    except ImageError as error:
        values["why_not"] = str(error)
    return values


def _write(
    made: NucleiGraph,
    found: dict[str, Any] | None,
    output: Path,
    stem: str,
    formats: list[GraphFormat],
    *,
    overwrite: bool,
) -> list[str]:
    """Write all files, or none of them."""
    from napari_aprcnn.graph.export import write_csv, write_graphml, write_tensors
    from napari_aprcnn.io.atomic import make_folder, staged, write_text

    with staged(make_folder(output), overwrite=overwrite) as stage:
        if GraphFormat.CSV in formats:
            write_csv(made, stage, stem=stem)
        if GraphFormat.GRAPHML in formats:
            write_graphml(made, stage / f"{stem}.graphml")
        if GraphFormat.TENSORS in formats:
            write_tensors(made, stage / f"{stem}.safetensors")
        if found is not None:
            write_text(json.dumps(found, indent=1) + "\n", stage / f"{stem}_descriptors.json")
        return sorted(path.name for path in stage.iterdir())


def _show(made: NucleiGraph, found: dict[str, Any] | None, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        about = {"n_nuclei": len(made), "n_edges": len(made.edges), "kind": made.kind, "unit": made.unit}
        typer.echo(json.dumps({**about, **(found or {})}, indent=1))
    elif not quiet:
        typer.echo(f"{len(made)} nuclei, {len(made.edges)} edges ({made.kind})")
        for name, value in (found["descriptors"] if found else {}).items():
            if not isinstance(value, tuple | list):
                typer.echo(f"{name:24} {'-' if value is None else f'{value:.4g}'}")
        for name, chance in ((found or {}).get("phenotype") or {}).items():
            typer.echo(f"{name:24} {chance:.3f}")
