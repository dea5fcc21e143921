"""Segment one image or many: each on its own, so that a bad file does not stop the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_aprcnn.cli.console import CANCELLED, Interrupt, complain, debugging, progress_bar, say
from napari_aprcnn.cli.inputs import find_images, keep_inputs, result_stems, split_output, stem_of
from napari_aprcnn.cli.settings import Outputs, Settings, model_path
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import (
    CancelledError,
    ConfigError,
    DeviceError,
    ImageError,
    ModelNotFoundError,
    WeightsError,
)
from napari_aprcnn.io.atomic import check_output, make_folder, staged
from napari_aprcnn.io.read import ImageSource, open_image

if TYPE_CHECKING:
    from napari_aprcnn.segment.result import SegmentationResult

__all__ = ["Job", "replay_run", "run_batch"]

# Errors that every other input would meet as well.
_HOPELESS = (ConfigError, DeviceError, ModelNotFoundError, WeightsError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image to segment.

    Attributes
    ----------
    path
        The image.
    folder
        Where its results go.
    names
        File name of each result, by kind.
    """

    path: Path
    folder: Path
    names: dict[str, str]


@dataclass(frozen=True)
class _Manner:
    """How to talk."""

    quiet: bool
    as_json: bool

    def tell(self, text: str) -> None:
        if not self.quiet and not self.as_json:
            typer.echo(text)

    def note(self, text: str) -> None:
        if not self.quiet:
            say(f"note: {text}")


def run_batch(
    inputs: Sequence[str], settings: Settings, outputs: Outputs, *, preview: bool, quiet: bool, as_json: bool
) -> int:
    """Segment all images that the inputs stand for.

    Returns
    -------
    int
        Exit code: 0; that of the only kind of error if nothing succeeded; 1 if some inputs failed; 130 if cancelled.

    Raises
    ------
    FileFormatError, OutputError
        If the inputs are no images, the output cannot be used at all, or a result would replace an input.
    """
    images = find_images(inputs)
    output = outputs.folder_or_file
    folder, label_name = split_output(Path() if preview and output is None else output, n_images=len(images))
    jobs = []
    for path, stem in zip(images, result_stems(images), strict=True):
        names = outputs.names(stem)
        if label_name is not None:
            names = outputs.names(stem_of(Path(label_name)).removesuffix("_labels")) | {"labels": label_name}
        jobs.append(Job(path=path, folder=folder, names={"preview": f"{stem}_preview.png"} if preview else names))
    keep_inputs((job.folder / name for job in jobs for name in job.names.values()), images)
    make_folder(folder)
    manner = _Manner(quiet, as_json)
    for text in settings.ignored():
        manner.note(text)
    codes = []
    with Interrupt() as interrupt:
        for index, job in enumerate(jobs):
            title = job.path.name if len(jobs) == 1 else f"{job.path.name} ({index + 1} of {len(jobs)})"
            try:
                record = _run_one(job, settings, outputs, title=title, manner=manner, should_cancel=interrupt.wanted)
                codes.append(0)
            except (Exception, KeyboardInterrupt) as error:
                if debugging():
                    raise
                codes.append(complain(error, about=job.path.name))
                record = {"input": str(job.path), "error": str(error), "exit_code": codes[-1]}
                stop = codes[-1] == CANCELLED or isinstance(error, _HOPELESS)
            else:
                stop = False
            if as_json:
                typer.echo(json.dumps(record))
            if stop:
                return codes[-1]
    failed = [code for code in codes if code]
    if failed and len(jobs) > 1:
        say(f"{len(failed)} of {len(jobs)} images failed")
    return failed[0] if len(failed) == len(codes) and len(set(failed)) == 1 else int(bool(failed))


def _run_one(
    job: Job, settings: Settings, outputs: Outputs, *, title: str, manner: _Manner, should_cancel: Callable[[], bool]
) -> dict[str, Any]:
    """Segment one image and write its results; all of them appear, or none."""
    if should_cancel():
        raise CancelledError("cancelled; nothing half-written was left")
    for name in job.names.values():
        check_output(job.folder / name, overwrite=outputs.overwrite)
    source = open_image(job.path, series=settings.series)
    config, notes = settings.config_for(source)
    if not (settings.spacing_um or settings.base.spacing_um):
        _check_own_voxel_size(source, config)
    if len(source.series_names) > 1:
        notes.append(
            f"{job.path.name} holds {len(source.series_names)} images; number {source.series} is used (--series)"
        )
    for text in notes:
        manner.note(f"{job.path.name}: {text}")
    if "preview" in job.names:
        from napari_aprcnn.cli.preview import preview_one

        return preview_one(job, source, config, title=title, overwrite=outputs.overwrite, tell=manner.tell,
                           show=not manner.quiet, should_cancel=should_cancel)  # fmt: skip
    from napari_aprcnn.cli.results import write_results
    from napari_aprcnn.segment.pipeline import segment

    # The folder for half-finished results is made first: that it cannot be is better known before the work.
    with staged(job.folder, overwrite=outputs.overwrite) as stage:
        with progress_bar(title, shown=not manner.quiet) as progress:
            result = segment(source.data, config=config, progress=progress, should_cancel=should_cancel)
        if should_cancel():
            raise CancelledError("cancelled; nothing half-written was left")
        record = write_results(result, source, stage, job.names)
    record["outputs"] = {kind: str(job.folder / name) for kind, name in job.names.items() if kind in record["outputs"]}
    for kind in sorted(set(job.names) - set(record["outputs"])):
        manner.note(f"{job.path.name}: {_why_missing(kind, result)}")
    readout = result.readout
    manner.tell(
        f"{job.path.name}: {readout.n_objects} nuclei in {readout.seconds:.1f} s -> {job.folder / job.names['labels']}"
    )
    return record


def _check_own_voxel_size(source: ImageSource, config: SegmentConfig) -> None:
    """Refuse a voxel size that the file alone gives as a fault of that file: the others may be right.

    Raises
    ------
    ImageError
        If networks for planes cannot work with it.
    """
    from napari_aprcnn.models.zoo import is_for_volumes
    from napari_aprcnn.segment.scale import scale_for

    if is_for_volumes(config.model):
        return
    try:
        scale_for(None, 1.0, source.spacing_um)
    except ConfigError as error:
        raise ImageError(f"the voxel size in the file cannot be right: {error}; or give it with --spacing") from error


def _why_missing(kind: str, result: SegmentationResult) -> str:
    readout = result.readout
    if kind == "flows" and result.probability is not None:
        return f"no flows were written: {readout.model} has none"
    if kind != "particles":
        return f"{kind} did not fit the memory and was not written"
    if readout.dimensionality != "volume":
        return f"no particles were written: {readout.model} is a model for planes"
    return "no particles were written: only a single time point that runs on particles in one block has them"


def replay_run(run_file: Path, output: Path | None, *, overwrite: bool, quiet: bool, as_json: bool) -> int:
    """Run a run file again on the input that it names.

    Raises
    ------
    ConfigError
        If the file is no run file, or its input or its model is no longer what it was.
    """
    base = SegmentConfig.from_file(run_file)
    base = base.replace(model=model_path(base.model, beside=run_file.absolute().parent))
    try:
        record = json.loads(run_file.read_text(encoding="utf-8"))
        path = record["input"]["path"]
        series = int(record["input"].get("series", 0))
        kinds = set(record.get("outputs", {}))
        suffix = str(record.get("outputs", {}).get("labels", ".tif")).lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{run_file.name} does not name its input image; expected a run file of `aprcnn segment` "
            f"(a configuration alone goes with: aprcnn segment IMAGE --config {run_file.name})"
        ) from error
    image = Path(path)
    if not image.is_absolute() or not image.exists():
        # The results may have moved together with the image.
        beside = run_file.resolve().parent / image.name
        image = beside if beside.exists() else image
    outputs = Outputs(
        folder_or_file=output or run_file.parent,
        format="zarr" if suffix.endswith(".zarr") else "ome-tif" if suffix.endswith(".ome.tif") else "tif",
        overwrite=overwrite,
        **dict.fromkeys(kinds & {"rois", "geojson", "csv", "overlay", "probability", "flows", "particles"}, True),
    )
    settings = Settings(base=base, has_file=True, series=series)
    _warn_of_changes(record, base.model, quiet=quiet)
    return run_batch([str(image)], settings, outputs, preview=False, quiet=quiet, as_json=as_json)


def _warn_of_changes(record: dict[str, Any], model: str, *, quiet: bool) -> None:
    """Say where the replay will not be the same: other weights."""
    then, now = (record.get("readout") or {}).get("model_sha256"), _sha256_of(model)
    if now and then and now != then and not quiet:
        say(f"note: the weights of {model} are not those of the recorded run; the result may differ")


def _sha256_of(model: str) -> str:
    """Checksum of a model's weights now; empty where there is none, which loading it will say."""
    from napari_aprcnn.models.checkpoints import sha256_of
    from napari_aprcnn.models.zoo import list_models

    cards = {card.name: card.sha256 for card in list_models()}
    if model in cards:
        return cards[model]
    with suppress(OSError, ValueError):
        return sha256_of(Path(model))
    return ""
