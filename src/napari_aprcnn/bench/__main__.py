"""Run the tables: ``python -m napari_aprcnn.bench [--out DIR] [--only NAME] [--peer PYTHON]``."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_aprcnn.bench.table import BenchTable, machine
from napari_aprcnn.models.configs import NETWORKS

# A table is a module with `table(...) -> BenchTable` (or several of them), which takes what it needs of the options.
TABLES = {
    "accuracy": "napari_aprcnn.bench.accuracy",
    "estimates": "napari_aprcnn.bench.estimates",
    "evaluation": "napari_aprcnn.bench.evaluation",
    "masks": "napari_aprcnn.bench.masks",
    "network": "napari_aprcnn.bench.network",
    "particles": "napari_aprcnn.bench.particles",
    "pipeline": "napari_aprcnn.bench.pipeline",
    "startup": "napari_aprcnn.bench.startup",
    "unets": "napari_aprcnn.bench.unets",
    "volumes": "napari_aprcnn.bench.volumes",
}


def run_table(module: Any, options: dict[str, Any]) -> list[BenchTable]:
    """Call a module's ``table`` with those options that it takes."""
    wanted = inspect.signature(module.table).parameters
    made = module.table(**{name: value for name, value in options.items() if name in wanted})
    return [made] if isinstance(made, BenchTable) else list(made)


def main(
    out: Annotated[Path | None, typer.Option(help="Folder for NAME.txt and NAME.json.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Tables to run: {', '.join(TABLES)}.")] = None,
    peer: Annotated[
        Path | None, typer.Option(help="Python of an environment with cellpose 3.1.1 (benchmarks/peer_environment.sh).")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="Only these networks beside the baseline (table network).")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Zips or folders of labelled images (table accuracy).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Models, by name or file (tables accuracy and volumes).")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Weights of the `cellpose` network to compare with (accuracy, volumes).")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both sides.")] = 2,
    quick: Annotated[bool, typer.Option(help="Small inputs and few repeats, to see that it runs.")] = False,
) -> None:
    """Measure, print, and write the tables."""
    unknown = sorted(set(only or ()) - set(TABLES))
    if unknown:
        raise typer.BadParameter(f"got {', '.join(unknown)}, expected some of {', '.join(TABLES)}")
    strange = sorted(set(network or ()) - set(NETWORKS))
    if strange:
        raise typer.BadParameter(f"got {', '.join(strange)}, expected some of {', '.join(NETWORKS)}")
    typer.echo("; ".join(f"{name} {value}" for name, value in machine().items()))
    for name in only or TABLES:
        try:
            module = import_module(TABLES[name])
        except ModuleNotFoundError as error:
            if error.name != TABLES[name]:
                raise
            typer.echo(f"\n{name}: no such table in this version, left out")
            continue
        options = {"peer": peer, "threads": threads, "quick": quick, "network": network}
        tables = run_table(module, {**options, "data": data, "models": model, "teacher": teacher})
        for number, table in enumerate(tables):
            typer.echo(f"\n{table.text()}")
            if out is not None:
                table.write(out, name if len(tables) == 1 else f"{name}-{number + 1}")


if __name__ == "__main__":
    typer.run(main)
