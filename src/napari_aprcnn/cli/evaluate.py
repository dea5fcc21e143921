"""``aprcnn evaluate``: how good predictions are, against labels or points."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_aprcnn.cli.console import Interrupt, guarded, say
from napari_aprcnn.errors import AxesError, ConfigError, FileFormatError, ImageError

if TYPE_CHECKING:
    from napari_aprcnn.evaluate.comparison import Comparison
    from napari_aprcnn.evaluate.config import EvaluateConfig
    from napari_aprcnn.evaluate.scores import ImagePair
    from napari_aprcnn.io.points import Points

__all__ = ["evaluate", "parse_columns", "parse_min_size", "parse_slices"]

# What people and programs put behind the name of an image to name its labels.
_ENDINGS = ("_labels", "_cp_masks", "_masks", "_mask", "_truth", "_gt", "_points", "_nuclei")
Spacing = tuple[float, float, float]


def evaluate(
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Labels, points (CSV: z, y, x, voxels), or a folder.")],
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="PRED...", help="Predicted labels; for a folder of truth, folders."),
    ],
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Name of a prediction; repeat it, in their order.")
    ] = None,
    iou: Annotated[float, typer.Option("--iou", help="IoU from which on an object counts as found.")] = 0.5,
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", "-t", help="IoU of the curve; repeat it (0.1 to 0.9).")
    ] = None,
    slices: Annotated[
        str | None, typer.Option("--slices", help="Annotated slices, each by itself: 0,4,10-12, or all (volumes).")
    ] = None,
    min_size: Annotated[
        str | None,
        typer.Option("--min-size", help="Leave smaller objects out: 50 (voxels), 20um (um3; planes um2)."),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option("--ignore", help="Region that counts for nobody: a mask, or a value of the truth."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns of the CSV: z=slice,y=Y,x=X (z_um=... for micrometres).")
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--spacing", metavar="Z Y X", help="Voxel size, um, whatever the files say."),
    ] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", help="Draws for 95 % intervals; 0: none.", min=0)] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.", min=0)] = 0,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with the plot.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write scores to it, errors to NAME_errors.csv.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No table, no notes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Scores and errors as JSON instead of the table.")] = False,
) -> None:
    """Score predicted labels against true labels or points: precision, recall, F1, accuracy, and every error."""
    with guarded():
        from napari_aprcnn.evaluate.comparison import compare
        from napari_aprcnn.evaluate.config import EvaluateConfig
        from napari_aprcnn.io.atomic import check_output

        mask, value = _ignored(ignore)
        size, unit = parse_min_size(min_size)
        given: dict[str, Any] = {"thresholds": tuple(threshold)} if threshold else {}
        config = EvaluateConfig(
            iou=iou, slices=parse_slices(slices), min_size=size, min_size_unit=unit, ignore_label=value,
            bootstrap=bootstrap, seed=seed, **given,
        )  # fmt: skip
        # Before any work: a report that cannot be written at the end would be a waste.
        for path in (html, csv, csv and csv.with_name(f"{csv.stem}_errors{csv.suffix}")):
            if path is not None:
                check_output(path, overwrite=overwrite)
        options = _Reading(parse_columns(columns), spacing, mask, config)
        pairs = _predictions(truth, predictions, name, options, quiet=quiet)
        with Interrupt() as interrupt, _bar(shown=not quiet) as progress:
            comparison = compare(pairs, config=config, progress=progress, should_cancel=interrupt.wanted)
        if as_json:
            typer.echo(json.dumps(comparison.to_dict(), indent=1))
        elif not quiet:
            _show(comparison)
        if csv is not None:
            comparison.write_csv(csv, overwrite=overwrite)
        if html is not None:
            comparison.write_html(html, title=f"Evaluation against {truth.name}", overwrite=overwrite)


# --- what was typed ---------------------------------------------------------------------------------------------------


def parse_slices(text: str | None) -> tuple[int, ...] | str | None:
    """Turn ``0,4,10-12`` into indices; ``all`` stays.

    Raises
    ------
    ConfigError
        If it is no such list.

    Examples
    --------
    >>> parse_slices("0,4,10-12"), parse_slices("all"), parse_slices(None)
    ((0, 4, 10, 11, 12), 'all', None)
    """
    if text is None or text.strip().lower() == "all":
        return None if text is None else "all"
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            start, end = int(first), int(last or first)
            if end < start or end - start > 100_000:
                raise ValueError(part)
            found.update(range(start, end + 1))
    except ValueError:
        raise ConfigError(f"got slices {text!r}; expected numbers and ranges, such as 0,4,10-12, or all") from None
    return tuple(sorted(found))


def parse_min_size(text: str | None) -> tuple[float, str]:
    """Turn ``50`` into voxels and ``20um`` (or um3, um2) into micrometres.

    Raises
    ------
    ConfigError
        If it is no such size.

    Examples
    --------
    >>> parse_min_size("50"), parse_min_size("20um3"), parse_min_size(None)
    ((50.0, 'voxels'), (20.0, 'um'), (0.0, 'voxels'))
    """
    words = (text or "0").strip().lower().replace("µ", "u")
    ending = next((e for e in ("um3", "um2", "um^3", "um^2", "um") if words.endswith(e)), "")
    try:
        return float(words.removesuffix(ending)), "um" if ending else "voxels"
    except ValueError:
        raise ConfigError(f"got the minimum size {text!r}; expected voxels (50) or micrometres (20um)") from None


def parse_columns(text: str | None) -> dict[str, str] | None:
    """Turn ``z=slice,y=Y,x=X`` into a mapping.

    Raises
    ------
    ConfigError
        If it is no such list.

    Examples
    --------
    >>> parse_columns("z=slice, y=Y,x=X")
    {'z': 'slice', 'y': 'Y', 'x': 'X'}
    """
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if not all(key.strip() and sign and column.strip() for key, sign, column in parts):
        raise ConfigError(f"got the columns {text!r}; expected axis=column pairs, such as z=slice,y=Y,x=X")
    return {key.strip(): column.strip() for key, _, column in parts}


def _ignored(text: str | None) -> tuple[Path | None, int | None]:
    """A mask's path, or a value of the true labels."""
    if text is None:
        return None, None
    try:
        return None, int(text)
    except ValueError:
        path = Path(text).expanduser()
        if not path.exists():
            raise FileFormatError(f"there is no mask {path}; expected a file, a folder, or a label to ignore") from None
        return path, None


# --- files ------------------------------------------------------------------------------------------------------------


class _Reading:
    """Opens truth, predictions and masks, lazily, as volumes or planes of equal axes."""

    def __init__(
        self, columns: dict[str, str] | None, spacing: Spacing | None, mask: Path | None, config: EvaluateConfig
    ) -> None:
        self.columns, self.spacing, self.mask, self.config = columns, spacing, mask, config

    def pairs(self, name: str, truth: Path, prediction: Path, mask: Path | None) -> list[ImagePair]:
        """Pair a file of predictions with its truth: one pair for each time point."""
        from napari_aprcnn.evaluate.scores import ImagePair

        labels, axes, spacing = self._labels(prediction)
        used = self.spacing or spacing
        hidden = None if mask is None else self._like(mask, axes, labels, prediction)
        if truth.suffix.lower() == ".csv":
            trues: list[Any] = self._points(truth, axes, used, len(labels))
        else:
            true, true_axes, true_spacing = self._labels(truth)
            self._check(truth, true_axes, true_spacing, prediction, axes, spacing, len(true), len(labels))
            trues = list(true)
        rank = len(axes.replace("T", ""))
        return [
            ImagePair(
                name=name if len(labels) == 1 else f"{name}, t {t}",
                labels=volume,
                truth=trues[t],
                ignore=None if hidden is None else hidden[t],
                spacing_um=None if used is None else tuple(used[-rank:]),
            )
            for t, volume in enumerate(labels)
        ]

    def _labels(self, path: Path) -> tuple[list[Any], str, Spacing | None]:
        """Volumes or planes of a label file, one for each time point; their axes; the voxel size."""
        from napari_aprcnn.io.read import open_image

        source = open_image(path)
        # Without names, labels of few planes look like channels, which labels have none of.
        guessed = not source.axes_known and "Z" not in source.axes
        data, axes = source.data, source.axes.replace("C", "Z") if guessed else source.axes
        for letter in "CTZ":
            if letter in axes and data.shape[axes.index(letter)] == 1 and (letter != "Z" or "C" not in axes):
                data, axes = data[(slice(None),) * axes.index(letter) + (0,)], axes.replace(letter, "")
        if "C" in axes:
            raise AxesError(f"{path.name} has axes {source.axes} of shape {source.shape}; expected labels: one channel")
        order = "".join(letter for letter in "TZYX" if letter in axes)
        data, axes = data.transpose([axes.index(letter) for letter in order]), order
        volumes = [data[t] for t in range(data.shape[0])] if axes.startswith("T") else [data]
        return volumes, axes, source.spacing_um

    def _like(self, mask: Path, axes: str, labels: Sequence[Any], prediction: Path) -> list[Any]:
        hidden, mask_axes, _ = self._labels(mask)
        if len(hidden) != len(labels) or mask_axes != axes:
            raise ImageError(
                f"the mask {mask.name} has axes {mask_axes}, {prediction.name} {axes}; expected a mask of its shape"
            )
        return hidden

    def _points(self, path: Path, axes: str, spacing: Spacing | None, n_times: int) -> list[Points]:
        from napari_aprcnn.io.points import Points, read_points

        rank = len(axes.replace("T", ""))
        try:
            points = read_points(path, columns=self.columns, spacing_um=None if spacing is None else spacing[-rank:])
        except OSError as error:
            raise FileFormatError(f"cannot open {path}: {error.strerror or error}; check the path") from error
        if points.spatial_axes != axes.replace("T", ""):
            raise AxesError(
                f"{path.name} has points with axes {points.axes}, the labels {axes}; expected the same: name the "
                f"columns (--columns z=...,y=...,x=...)"
            )
        if not points.axes.startswith("T"):
            if n_times > 1:
                raise AxesError(f"the labels have {n_times} time points, {path.name} no column t; add it")
            return [points]
        times = points.coordinates[:, 0].round()
        if len(times) and not 0 <= times.min() <= times.max() < n_times:
            raise ImageError(f"{path.name} has points at t {times.max():g}, the labels {n_times} time points")
        return [Points(points.spatial[times == t], axes=points.spatial_axes) for t in range(n_times)]

    def _check(
        self, truth: Path, true_axes: str, true_spacing: Spacing | None, prediction: Path, axes: str,
        spacing: Spacing | None, n_true: int, n: int,
    ) -> None:  # fmt: skip
        if true_axes != axes or n_true != n:
            here, there = f"{axes} ({n} time points)", f"{true_axes} ({n_true})"
            raise AxesError(f"{prediction.name} has axes {here}, {truth.name} {there}; expected the same")
        if self.spacing is None and spacing is not None and true_spacing is not None:
            rank = len(axes.replace("T", ""))
            pairs = zip(spacing[-rank:], true_spacing[-rank:], strict=True)
            if any(abs(a - b) > 0.01 * max(a, b) for a, b in pairs):
                raise ImageError(
                    f"{prediction.name} has voxels of {spacing[-rank:]} um, {truth.name} of {true_spacing[-rank:]} um; "
                    f"expected the same: resample one, or say what is right with --spacing Z Y X"
                )


def _predictions(
    truth: Path, paths: list[Path], names: list[str] | None, reading: _Reading, *, quiet: bool
) -> dict[str, list[ImagePair]]:
    from napari_aprcnn.cli.inputs import result_stems
    from napari_aprcnn.io.read import is_image_path

    if names and len(names) != len(paths):
        raise ConfigError(f"got {len(names)} names for {len(paths)} predictions; expected --name once for each")
    names = names or result_stems([path.expanduser() for path in paths])
    if len(set(names)) != len(names):
        raise ConfigError(f"got the names {', '.join(names)}; expected one of its own for each prediction")
    truth = truth.expanduser()
    folders = [p.expanduser().is_dir() and not is_image_path(p.expanduser()) for p in (truth, *paths)]
    if len(set(folders)) > 1:
        raise ConfigError("got files and folders; expected a file of truth and files, or a folder of truth and folders")
    if not folders[0]:
        if not truth.exists():
            raise FileFormatError(f"there is no file {truth}; check the path")
        return {
            name: reading.pairs(_key(truth), truth, path.expanduser(), reading.mask)
            for name, path in zip(names, paths, strict=True)
        }
    trues = _entries(truth, tables=True)
    masks = {} if reading.mask is None else _entries(reading.mask) if reading.mask.is_dir() else None
    found = {}
    for name, folder in zip(names, paths, strict=True):
        labels = _entries(folder.expanduser())
        missing = sorted(set(trues) - set(labels))
        if missing:
            raise FileFormatError(
                f"{folder} has no prediction for {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}; expected one "
                f"of the same name for each of the {len(trues)} files of {truth}"
            )
        if set(labels) - set(trues) and not quiet:
            say(f"note: {name}: {len(set(labels) - set(trues))} predictions without a truth are passed over")
        found[name] = [
            pair
            for key in sorted(trues)
            for pair in reading.pairs(key, trues[key], labels[key], reading.mask if masks is None else masks.get(key))
        ]
    return found


def _key(path: Path) -> str:
    """Name of the image that a file of labels or points belongs to."""
    from napari_aprcnn.cli.inputs import stem_of

    stem = stem_of(path).removesuffix(".csv")
    return stem.removesuffix(next((e for e in _ENDINGS if stem.endswith(e) and len(stem) > len(e)), ""))


def _entries(folder: Path, *, tables: bool = False) -> dict[str, Path]:
    """Label files (and tables of points) of a folder by the name of their image."""
    from napari_aprcnn.io.read import is_image_path

    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (is_image_path(path) or (tables and path.suffix.lower() == ".csv")):
            continue
        key = _key(path)
        # Of an image and its labels beside each other the labels are meant: their name is the longer one.
        if key not in found or len(path.name) > len(found[key].name):
            found[key] = path
    if not found:
        raise FileFormatError(f"the folder {folder} holds no labels{' or points' * tables}; check the path")
    return found


# --- what is shown ----------------------------------------------------------------------------------------------------


@contextmanager
def _bar(*, shown: bool) -> Iterator[Callable[[float], None]]:
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _show(comparison: Comparison) -> None:
    rows = [[e.name, *(f"{m.accuracy:.3f}" for m in e.curve)] for e in comparison.evaluations]
    _print(comparison.columns(), comparison.rows(), title=comparison.basis)
    if comparison.against == "labels":
        _print(["accuracy at IoU", *(f"{t:g}" for t in comparison.config.thresholds)], rows)
    images = [
        [e.name, image, m.true_positives, m.false_positives, m.false_negatives, f"{m.precision:.3f}",
         f"{m.recall:.3f}", f"{m.f1:.3f}"]
        for e in comparison.evaluations
        for image, m in e.parts.items()
    ]  # fmt: skip
    if len(images) > len(comparison.evaluations):
        _print(["prediction", "image", "TP", "FP", "FN", "precision", "recall", "F1"], images)
    for note in comparison.notes:
        say(f"note: {note}")


def _print(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or column == "image" else "right")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # a name is no markup
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 200, soft_wrap=not terminal).print(table)
