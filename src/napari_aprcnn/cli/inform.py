"""Commands that say something: estimate, models, info, samples."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_aprcnn.cli.console import say
from napari_aprcnn.cli.settings import Settings
from napari_aprcnn.errors import DeviceError
from napari_aprcnn.io.atomic import beside, make_folder
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import list_samples, sample_labels_path, sample_path

if TYPE_CHECKING:
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.io.source import ImageSource
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.segment.reduction import Reduction

__all__ = ["copy_samples", "show_estimate", "show_info", "show_models"]


def show_estimate(path: str, settings: Settings, *, as_json: bool) -> None:
    """Print what segmenting an image would take.

    Raises
    ------
    AprcnnError
        If the image cannot be read or segmented, or would not fit the memory.
    """
    from napari_aprcnn.segment.estimate import estimate

    source = open_image(path, series=settings.series)
    config, notes = settings.config_for(source)
    notes += settings.ignored()
    reduction = _reduction(source, config)
    expected = estimate(source.shape, source.data.dtype, config, prr=None if reduction is None else reduction.prr)
    if as_json:
        record = {"input": path, "shape": source.shape, "axes": source.axes, "spacing_um": source.spacing_um}
        measured = {} if reduction is None else {"prr": reduction.prr, "prr_of": reduction.shape}
        typer.echo(json.dumps(record | dataclasses.asdict(expected) | measured))
        return
    for text in notes:
        say(f"note: {text}")
    typer.echo(f"{source.name} ({source.kind}): {source.words}")
    if reduction is not None:
        typer.echo(reduction.words)
    typer.echo(expected.words)


def _reduction(source: ImageSource, config: SegmentConfig) -> Reduction | None:
    """Measure the particle reduction, where the model works on particles of volumes."""
    from napari_aprcnn.models.zoo import card_of, is_for_volumes

    if not is_for_volumes(config.model):
        return None
    from napari_aprcnn.segment.pipeline import resolve_mode
    from napari_aprcnn.segment.reduction import measure_reduction
    from napari_aprcnn.segment.source import map_image
    from napari_aprcnn.segment.volume_run import on_voxels

    card = card_of(config.model)
    resolve_mode(config, map_image(source.data, config.axes), for_volumes=True)
    if card.volume is None or on_voxels(card.volume, config.volume):
        return None
    return measure_reduction(
        source.data,
        config.axes,
        relative_error=config.volume.relative_error or card.relative_error,
        zoom=config.volume.zoom,
        threads=config.threads,
    )


def show_models(*, table: bool, as_json: bool) -> None:
    """Print the trained models, or the table of the architectures."""
    if table:
        _show_table(as_json=as_json)
        return
    from napari_aprcnn.models.zoo import list_models

    cards = list_models()
    if as_json:
        typer.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
        return
    for index, card in enumerate(cards):
        typer.echo(f"{card.name}{' (default)' if index == 0 else ''}")
        typer.echo(f"  {card.title}; architecture {card.architecture}, {_trained(card)}")
        typer.echo(f"  data: {card.data}")
        if card.metrics:
            typer.echo(f"  metrics: {_metrics(card.metrics)}")
        typer.echo(f"  licence: {card.licence}; sha256 {card.sha256[:16]}")


def _trained(card: ModelCard) -> str:
    if card.volume is None:
        return f"for planes, trained at {card.diameter_px:g} px diameter"
    net = card.volume
    stages = "all on voxels" if net.hybrid == 0 else f"{net.hybrid} of {net.depth + 1} stages on particles"
    return f"for volumes, head {net.head}, {stages}, APR error {card.relative_error:g}"


def _metrics(metrics: Mapping[str, Any]) -> str:
    """Return figures by name, those of groups after the name of the group."""
    words = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            words.append(f"{name}: {_metrics(value)}")
        else:
            words.append(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}")
    return "; ".join(words)


def _show_table(*, as_json: bool) -> None:
    from napari_aprcnn.models.configs import OWN
    from napari_aprcnn.models.counting import family_row, family_table

    records = [dataclasses.asdict(row) for row in (*family_table(), *map(family_row, OWN))]
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    typer.echo(_columns([list(records[0]), *[[_cell(value) for value in record.values()] for record in records]]))


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def show_info(*, as_json: bool) -> None:
    """Print versions, devices, instruction set, threads and memory."""
    from napari_aprcnn._kernels import compiled, instruction_set
    from napari_aprcnn.models.devices import resolve_device, usable_threads
    from napari_aprcnn.segment.memory import free_bytes, words_bytes
    from napari_aprcnn.segment.readout import package_versions

    devices = {}
    for name in ("auto", "cpu", "cuda", "mps"):
        try:
            devices[name] = str(resolve_device(name).words)
        except DeviceError as error:
            devices[name] = str(error)
    record: dict[str, Any] = {
        "versions": package_versions(),
        "devices": devices,
        "kernels": instruction_set() if compiled() else f"{instruction_set()} (not compiled: slower)",
        "threads": usable_threads(),
        "free_memory_bytes": free_bytes(),
    }
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    for name, value in record["versions"].items():
        typer.echo(f"{name:14} {value}")
    for name, words in devices.items():
        typer.echo(f"{'device ' + name:14} {words}")
    typer.echo(f"{'kernels':14} {record['kernels']}")
    typer.echo(f"{'threads':14} {record['threads']}")
    typer.echo(f"{'free memory':14} {words_bytes(free_bytes())}")


def copy_samples(names: Sequence[str], folder: Path, *, labels: bool, overwrite: bool) -> None:
    """Copy samples to a folder, or list them where no name is given.

    Raises
    ------
    FileFormatError
        If there is no sample of a name.
    OutputError
        If it cannot be written.
    """
    if not names:
        for sample in list_samples():
            typer.echo(f"{sample.name:14} {sample.title}, {sample.n_nuclei} nuclei; {sample.licence}, {sample.source}")
        return
    chosen = [sample.name for sample in list_samples()] if list(names) == ["all"] else names
    paths = [sample_path(name) for name in chosen]
    if labels:
        paths += [sample_labels_path(name) for name in chosen]
    folder = make_folder(folder)
    for path in paths:
        with beside(folder / path.name, overwrite=overwrite) as temporary:
            shutil.copyfile(path, temporary)
        typer.echo(str(folder / path.name))
