"""``aprcnn simulate``: labelled volumes that nobody had to draw, and how they compare with real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_aprcnn.cli.console import Interrupt, guarded, say
from napari_aprcnn.errors import CancelledError, ConfigError, OutputError, TrainingDataError

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
        seeds, folder = range(seed, seed + number), None
        if output is not None:
            folder = _Folder(output, chosen, overwrite=overwrite)
            folder.check(seeds)
        with Interrupt() as interrupt:
            wanted = [one for one in seeds if statistics or folder is None or one not in folder.there]
            made = _volumes(chosen, wanted, interrupt)
            found = _write(made, folder, measure=statistics, quiet=quiet, number=len(wanted))
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
            raise CancelledError("cancelled; the volumes written so far are whole and stay: the same command goes on")
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


class _Folder:
    """Folder of volumes with its index, to which those that are not there yet are added.

    Raises `TrainingDataError` if the index cannot be read, and `OutputError` if the folders cannot be made.
    """

    def __init__(self, path: Path, config: SimulationConfig, *, overwrite: bool) -> None:
        from napari_aprcnn.io.atomic import make_folder

        self.path, self.overwrite = path, overwrite
        self.images, self.labels = make_folder(path / "images"), make_folder(path / "labels")
        self.mark = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
        self.index = _read_index(path / "index.json")
        self.new: dict[str, dict[str, Any]] = {}
        self.there: set[int] = set()

    def check(self, seeds: Sequence[int]) -> None:
        """Note which volumes are there, of the same configuration; refuse to do nothing at all."""
        if self.overwrite:
            return
        self.there = {seed for seed in seeds if self._has(_NAME.format(seed=seed))}
        if len(self.there) == len(seeds):
            raise OutputError(
                f"{self.path} holds all {len(seeds)} volumes already; choose another folder or seed, or a larger "
                "--number, or make them again (--overwrite)"
            )

    def _has(self, name: str) -> bool:
        if self.index.get(name, {}).get("configuration") != self.mark:
            return False
        return all((folder / f"{name}.tif").is_file() for folder in (self.images, self.labels))

    def write(self, volume: SimulatedVolume) -> None:
        """Write a volume, unless it is there."""
        from napari_aprcnn.io.write import write_image, write_labels

        seed = volume.parameters["seed"]
        if seed in self.there:
            return
        name = _NAME.format(seed=seed)
        more: dict[str, Any] = {"axes": "ZYX", "spacing_um": volume.spacing_um, "overwrite": self.overwrite}
        # Labels first: an image without labels would be refused as training data, labels alone are passed over.
        write_labels(volume.labels, self.labels / f"{name}.tif", **more)
        write_image(volume.image, self.images / f"{name}.tif", **more)
        self.new[name] = {
            "name": name,
            "kind": volume.parameters["style"]["scene"],
            "n": int(volume.labels.max()),
            "spacing_um": volume.spacing_um,
            "configuration": self.mark,
            "parameters": volume.parameters,
        }

    def write_index(self) -> None:
        """Write the index with the new volumes; those of the same names are replaced."""
        from napari_aprcnn.io.atomic import write_text

        entries = [entry for _, entry in sorted((self.index | self.new).items())]
        write_text(json.dumps(entries, indent=1), self.path / "index.json", overwrite=True)


def _write(
    volumes: Iterator[SimulatedVolume], folder: _Folder | None, *, measure: bool, quiet: bool, number: int
) -> list[tuple[str, VolumeStatistics]]:
    """Write the volumes to a folder, if there is one; return their scenes and statistics, if they are wanted."""
    from napari_aprcnn.train.simulation import statistics

    found: list[tuple[str, VolumeStatistics]] = []
    try:
        with _bar(number, shown=not quiet) as advance:
            for volume in volumes:
                if folder is not None:
                    folder.write(volume)
                if measure:
                    found.append((volume.parameters["style"]["scene"], statistics(volume.image, volume.labels)))
                advance()
    finally:
        if folder is not None and folder.new:  # also when it is cancelled: what is there is known, and not made again
            folder.write_index()
    if folder is not None and not quiet:
        before = f", {len(folder.there)} were there already" if folder.there else ""
        count = sum(entry["n"] for entry in folder.new.values())
        say(f"{folder.path}: {len(folder.new)} volumes with {count:,} nuclei{before}")
    return found


def _by_scene(scene: str, found: list[tuple[str, VolumeStatistics]]) -> list[tuple[str, list[VolumeStatistics]]]:
    """All of them, then those of each scene, where there are several."""
    rows = [(f"simulated, {scene}", [item for _, item in found])]
    scenes = sorted({name for name, _ in found})
    if len(scenes) > 1:
        rows += [(f"- {name}", [item for kind, item in found if kind == name]) for name in scenes]
    return rows


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    """The index of a folder by names; empty where there is none."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return {str(entry["name"]): dict(entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
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
