"""``aprcnn convert``: images to particles (.apr) and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import typer

from napari_aprcnn.cli.console import Interrupt, say
from napari_aprcnn.cli.results import segmented_channel
from napari_aprcnn.cli.settings import Settings
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.errors import AxesError, ConfigError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.write import write_image

__all__ = ["convert_file"]


@contextmanager
def _bar(title: str, *, shown: bool) -> Iterator[Callable[[float], None]]:
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def convert_file(
    path: Path,
    output: Path | None,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    converter: str,
    smooth: bool,
    threads: int | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Convert an image to ``.apr``, or an ``.apr`` file to TIFF, and say what came out.

    Parameters
    ----------
    path, output
        Input, and output; by default beside the working directory's other results, with the other suffix.
    settings
        Axes, channel, voxel size and series of the image.
    parameters
        Fields of `ConversionConfig` to change.
    converter
        ``own`` or ``pyapr``.
    smooth
        Of an ``.apr`` file: interpolate instead of painting cells.
    threads, overwrite, quiet, as_json
        As everywhere.

    Raises
    ------
    AprcnnError
        If the input cannot be read or converted, or the output not written.
    """
    back = path.suffix.lower() == ".apr"
    target = output or Path(path.stem.removesuffix(".ome") + (".tif" if back else ".apr"))
    if (target.suffix.lower() == ".apr") == back:
        expected = "a name that ends in .tif or .zarr" if back else "a name that ends in .apr"
        raise ConfigError(f"got output {target.name} for input {path.name}, expected {expected}")
    record = (
        _to_image(path, target, smooth=smooth, threads=threads, overwrite=overwrite)
        if back
        else _to_particles(path, target, settings, parameters, converter, threads, overwrite=overwrite, quiet=quiet)
    )
    if as_json:
        typer.echo(json.dumps(record))
    elif not quiet:
        typer.echo(
            f"{target}: {record['particles']:,} particles for {record['voxels']:,} voxels, PRR {record['prr']:.1f}"
            + (f"; error at most {record['largest_error']:.2f} of the tolerance" if "largest_error" in record else "")
        )


def _to_image(path: Path, target: Path, *, smooth: bool, threads: int | None, overwrite: bool) -> dict[str, Any]:
    from napari_aprcnn.apr.files import read_apr

    tree = read_apr(path, threads=threads)
    image = tree.reconstruct(smooth=smooth, threads=threads)
    flat = tree.shape[0] == 1
    edges = [float(edge) for edge in tree.conversion.get("spacing_um") or tree.conversion.get("spacing") or ()]
    # Ones stand for a voxel size that was not known.
    spacing = (edges[0], edges[1], edges[2]) if len(edges) == 3 and edges != [1.0, 1.0, 1.0] else None
    write_image(
        image[0] if flat else image,
        target,
        axes="YX" if flat else "ZYX",
        spacing_um=spacing,
        overwrite=overwrite,
    )
    return {"input": str(path), "output": str(target), "particles": len(tree), "voxels": tree.voxels, "prr": tree.prr}


def _to_particles(
    path: Path,
    target: Path,
    settings: Settings,
    parameters: Mapping[str, Any],
    converter: str,
    threads: int | None,
    *,
    overwrite: bool,
    quiet: bool,
) -> dict[str, Any]:
    from napari_aprcnn.apr.files import write_apr
    from napari_aprcnn.apr.to_apr import to_apr
    from napari_aprcnn.io.atomic import check_output

    check_output(target, overwrite=overwrite)
    source = open_image(path, series=settings.series)
    chosen, notes = settings.config_for(source)
    if chosen.axes is None or "T" in chosen.axes.order:
        raise AxesError(
            f"got axes {source.axes or '?'}, expected y, x, perhaps z and a channel; convert time points one by one"
        )
    axes = "ZYX" if "Z" in chosen.axes.order else "YX"
    image = np.asarray(segmented_channel(source, chosen.axes, axes))
    for text in notes if not quiet else []:
        say(f"note: {text}")
    spacing = chosen.spacing_um or (1.0, 1.0, 1.0)
    config = ConversionConfig(**{"spacing": spacing, **parameters})
    with Interrupt() as interrupt, _bar(path.name, shown=not quiet) as progress:
        tree = to_apr(
            image,
            config,
            converter="pyapr" if converter == "pyapr" else "own",
            threads=threads,
            progress=progress,
            should_cancel=interrupt.wanted,
        )
    write_apr(target, tree, overwrite=overwrite)
    record = {
        "input": str(path),
        "output": str(target),
        "particles": len(tree),
        "voxels": tree.voxels,
        "prr": tree.prr,
        "conversion": dict(tree.conversion),
    }
    if converter == "own":
        record["largest_error"] = tree.error(image, threads=threads).bound.maximum
    return record
