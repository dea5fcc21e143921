"""``aprcnn simulate``: labelled volumes that nobody had to draw, and how they compare with real ones."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_aprcnn.cli.console import Interrupt, guarded, say
from napari_aprcnn.errors import CancelledError, ConfigError, TrainingDataError

if TYPE_CHECKING:
    from napari_aprcnn.train.simulation import SimulatedVolume, SimulationConfig, VolumeStatistics

__all__ = ["simulate"]

_NAME = "simulated_{seed:06d}"


class SceneName(StrEnum):
    """What a volume shows."""

    MIXED = "mixed"
    CYSTIC = "cystic"
    COMPACT = "compact"
    CAULIFLOWER = "cauliflower"
    EMBRYO = "embryo"
    SCATTERED = "scattered"
    TISSUE = "tissue"
    EMPTY = "empty"


def simulate(
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="Folder for images/, labels/ and index.json.")
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="Number of volumes.", min=1)] = 1,
    shape: Annotated[
        tuple[int, int, int] | None, typer.Option("--shape", metavar="Z Y X", help="Voxels of a volume (64 96 96).")
    ] = None,
    scene: Annotated[SceneName | None, typer.Option("--scene", help="What they show (mixed).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first volume; the next ones count up.", min=0)] = 0,
    diameter: Annotated[
        tuple[float, float] | None,
        typer.Option("--diameter", metavar="MIN MAX", help="Range of the nuclei's median diameter, px (8 32)."),
    ] = None,
    outline_level: Annotated[
        float | None,
        typer.Option("--outline-level", help="Where labels end, as a share of a nucleus' peak (0.25)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="JSON with fields of SimulationConfig; options override it.")
    ] = None,
    statistics: Annotated[bool, typer.Option("--statistics", help="Print a table of what they are like.")] = False,
    compare: Annotated[
        list[Path] | None,
        typer.Option("--compare", help="Zip or folder of labelled volumes for the table; can be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Simulate labelled 3D images of nuclei: organoids, embryos, scattered cells, tissue."""
    with guarded():
        if output is None and not statistics:
            raise ConfigError("got neither a folder to write to nor --statistics; expected at least one of them")
        if compare and not statistics:
            raise ConfigError("got --compare without --statistics; add --statistics to print the table")
        changes = {
            "shape": shape, "scene": scene and scene.value, "diameter_px": diameter, "outline_level": outline_level,
        }  # fmt: skip
        chosen = _config(config, {name: value for name, value in changes.items() if value is not None})
        with Interrupt() as interrupt:
            made = _volumes(chosen, range(seed, seed + number), interrupt)
            found = _write(made, output, measure=statistics, overwrite=overwrite, quiet=quiet, number=number)
            if statistics:
                rows = _by_scene(chosen.scene, found)
                rows += [(path.stem, _measured(path, interrupt)) for path in compare or []]
                _show(rows, as_json=as_json)


def _config(path: Path | None, changes: dict[str, Any]) -> SimulationConfig:
    from napari_aprcnn.train.simulation import SimulationConfig, read_simulation

    if path is not None:
        return read_simulation(path).replace(**changes)
    return SimulationConfig(**changes)


def _volumes(config: SimulationConfig, seeds: Sequence[int], interrupt: Interrupt) -> Iterator[SimulatedVolume]:
    from napari_aprcnn.train.simulation import simulate_volume

    for seed in seeds:
        if interrupt.wanted():
            raise CancelledError("cancelled; the volumes written so far are whole and stay")
        yield simulate_volume(config, seed=seed)


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    import sys

    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=total)
        yield lambda: bar.advance(task)


def _write(
    volumes: Iterator[SimulatedVolume], output: Path | None, *, measure: bool, overwrite: bool, quiet: bool, number: int
) -> list[tuple[str, VolumeStatistics]]:
    """Write the volumes to a folder, if there is one; return their scenes and statistics, if they are wanted."""
    from napari_aprcnn.io.atomic import make_folder
    from napari_aprcnn.io.write import write_image, write_labels, write_text
    from napari_aprcnn.train.simulation import statistics

    found: list[tuple[str, VolumeStatistics]] = []
    index: list[dict[str, Any]] = []
    if output is not None:
        images, labels = make_folder(output / "images"), make_folder(output / "labels")
    with _bar(number, shown=not quiet) as advance:
        for volume in volumes:
            name = _NAME.format(seed=volume.parameters["seed"])
            if output is not None:
                more: dict[str, Any] = {"axes": "ZYX", "spacing_um": volume.spacing_um, "overwrite": overwrite}
                # Labels first: an image without labels would be refused as training data, labels alone are passed over.
                write_labels(volume.labels, labels / f"{name}.tif", **more)
                write_image(volume.image, images / f"{name}.tif", **more)
            entry = {"name": name, "kind": volume.parameters["style"]["scene"], "n": int(volume.labels.max())}
            index.append({**entry, "spacing_um": volume.spacing_um, "parameters": volume.parameters})
            if measure:
                found.append((entry["kind"], statistics(volume.image, volume.labels)))
            advance()
    if output is not None:
        write_text(json.dumps(_merged(output / "index.json", index), indent=1), output / "index.json", overwrite=True)
        if not quiet:
            say(f"{output}: {len(index)} volumes with {sum(item['n'] for item in index):,} nuclei")
    return found


def _by_scene(scene: str, found: list[tuple[str, VolumeStatistics]]) -> list[tuple[str, list[VolumeStatistics]]]:
    """All of them, then those of each scene, where there are several."""
    rows = [(f"simulated, {scene}", [item for _, item in found])]
    scenes = sorted({name for name, _ in found})
    if len(scenes) > 1:
        rows += [(f"- {name}", [item for kind, item in found if kind == name]) for name in scenes]
    return rows


def _merged(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The index of a folder with new entries; those of the same names are replaced."""
    try:
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        names = {entry["name"] for entry in entries}
        return sorted([*(o for o in old if o["name"] not in names), *entries], key=lambda entry: str(entry["name"]))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise TrainingDataError(f"cannot read {path} ({error}); remove it, or write to another folder") from error


def _measured(path: Path, interrupt: Interrupt) -> list[VolumeStatistics]:
    """Statistics of the labelled volumes of an archive or a folder; what is no pair of volumes is passed over."""
    from napari_aprcnn.train.data import read_pairs
    from napari_aprcnn.train.simulation import statistics

    found = []
    for name, _, load in read_pairs(path):
        if interrupt.wanted():
            raise CancelledError("cancelled; nothing was printed")
        try:
            image, labels = load()
        except TrainingDataError as error:
            say(f"note: {name} is passed over: {error}")
            continue
        if image.ndim != 3 or image.shape != labels.shape:
            say(f"note: {name} is passed over: shapes {image.shape} and {labels.shape} are no pair of volumes")
            continue
        found.append(statistics(image, labels))
    if not found:
        raise TrainingDataError(f"{path} holds no labelled volumes; expected pairs of 3D images and labels")
    return found


def _show(rows: list[tuple[str, list[VolumeStatistics]]], *, as_json: bool) -> None:
    from napari_aprcnn.train.simulation import summary_table

    if not as_json:
        typer.echo(summary_table(rows))
        return
    records = [
        {
            "set": name,
            # JSON has no NaN.
            "volumes": [
                {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in dataclasses.asdict(s).items()}
                for s in found
            ],
        }
        for name, found in rows
    ]
    typer.echo(json.dumps(records, indent=1))
