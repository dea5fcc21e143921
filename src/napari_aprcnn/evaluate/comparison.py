"""Several predictions against one truth, side by side: a table, a plot, files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_aprcnn.errors import ConfigError, MissingDependencyError
from napari_aprcnn.evaluate.config import EvaluateConfig
from napari_aprcnn.evaluate.scores import Evaluation, ImagePair, evaluate_images
from napari_aprcnn.io.atomic import write_text

if TYPE_CHECKING:
    from napari_aprcnn.evaluate.bootstrap import Interval
    from napari_aprcnn.evaluate.matching import Matching

__all__ = ["COLUMNS", "Comparison", "compare"]

COLUMNS = (
    "prediction", "precision", "recall", "F1", "accuracy", "panoptic quality", "splits", "merges", "misses",
    "false positives",
)  # fmt: skip
_SCORES = ("precision", "recall", "f1", "accuracy", "panoptic_quality", "mean_true_score", "mean_matched_score")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations of named predictions of the same images.

    Attributes
    ----------
    evaluations
        One for each prediction, in order.

    Raises
    ------
    ConfigError
        If there is none, two have the same name, or they were evaluated against different things.
    """

    evaluations: tuple[Evaluation, ...]

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise ConfigError("got no prediction to compare; expected at least one")
        twice = [name for name, n in Counter(e.name for e in self.evaluations).items() if n > 1]
        if twice:
            raise ConfigError(f"two predictions are named {twice[0]!r}; give each a name of its own")
        first = self.evaluations[0]
        for other in self.evaluations[1:]:
            if (other.against, other.config) != (first.against, first.config):
                raise ConfigError(
                    f"{other.name} was evaluated against {other.against}, {first.name} against {first.against}, or "
                    f"with other parameters; evaluate them in the same way to compare them"
                )

    @property
    def against(self) -> str:
        """``labels`` or ``points``."""
        return self.evaluations[0].against

    @property
    def config(self) -> EvaluateConfig:
        """How they were evaluated."""
        return self.evaluations[0].config

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know, once each."""
        several = len(self.evaluations) > 1
        notes = (f"{e.name}: {note}" if several else note for e in self.evaluations for note in e.notes)
        return tuple(dict.fromkeys(notes))

    @property
    def basis(self) -> str:
        """What the scores are of, in words: ``against labels at IoU 0.5, 2 images``."""
        units = self.evaluations[0].units
        images = len({unit.image for unit in units})
        words = "against points" if self.against == "points" else f"against labels at IoU {self.config.iou:g}"
        words += f", {images} image{'s' * (images != 1)}"
        if self.config.slices is not None:
            words += f", {len(units)} slice{'s' * (len(units) != 1)}"
        smallest = self.config.min_size
        if smallest:
            words += f", objects of at least {smallest:g} {self.config.min_size_unit}"
        return words

    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `rows`; points have no panoptic quality and no splits."""
        return tuple(c for c in COLUMNS if self.against == "labels" or c not in ("panoptic quality", "splits"))

    def rows(self) -> list[list[str]]:
        """One row for each prediction, scores with half the width of their 95 % interval."""
        found = []
        for e in self.evaluations:
            match, counts, spans = e.headline, list(e.counts.values()), e.intervals
            cells = [
                e.name,
                _score(match.precision, spans.get("precision")),
                _score(match.recall, spans.get("recall")),
                _score(match.f1, spans.get("f1")),
                _score(match.accuracy, spans.get("accuracy")),
                f"{match.panoptic_quality:.3f}",
                *(str(n) for n in counts),
            ]
            shown = set(self.columns())
            found.append([cell for name, cell in zip(COLUMNS, cells, strict=True) if name in shown])
        return found

    def markdown(self) -> str:
        """The table, and what it is of, as Markdown."""
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows()]
        lines = [self.columns(), ["---"] + ["---:"] * (len(self.columns()) - 1), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n".join([table, "", f"{self.basis}; ± half the 95 % interval", *(f"- {note}" for note in self.notes)])

    # --- tables of numbers -------------------------------------------------------------------------------------------

    def records(self) -> Iterator[dict[str, Any]]:
        """Every score as a row of numbers: pooled, by image, by slice, at every threshold."""
        for e in self.evaluations:
            for matching in e.pooled:
                at_headline = matching is e.headline
                yield _record(e.name, "all", "", "", matching, e.intervals if at_headline else {})
            for image, matching in e.images.items():
                yield _record(e.name, "image", image, "", matching, {})
            for unit in e.units:
                if unit.slice_index is not None:
                    yield _record(e.name, "slice", unit.image, unit.slice_index, e.headline_of(unit), {})

    def mistake_records(self) -> Iterator[dict[str, Any]]:
        """Every error as a row."""
        for e in self.evaluations:
            for m in e.mistakes:
                places = dict(zip(("t", "z", "y", "x")[-len(m.centroid) :], m.centroid, strict=True))
                yield {
                    "prediction": e.name, "image": m.image, "kind": m.kind.words,
                    "label_ids": " ".join(map(str, m.label_ids)), "truth_ids": " ".join(map(str, m.truth_ids)),
                    **{axis: round(place, 2) for axis, place in places.items()}, "size_voxels": m.size_voxels,
                    "iou": round(m.iou, 4),
                }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "against": self.against,
            "config": self.config.model_dump(mode="json"),
            "notes": list(self.notes),
            "scores": list(self.records()),
            "errors": list(self.mistake_records()),
        }

    # --- files -------------------------------------------------------------------------------------------------------

    def write_csv(self, path: Path | str, *, overwrite: bool = False) -> tuple[Path, Path]:
        """Write the scores to ``NAME.csv`` and the errors to ``NAME_errors.csv``.

        Raises
        ------
        OutputError
            If a file cannot be written, or exists and `overwrite` is off.
        """
        path = Path(path)
        errors = path.with_name(f"{path.stem}_errors{path.suffix}")
        write_text(_csv(list(self.mistake_records())), errors, overwrite=overwrite)
        write_text(_csv(list(self.records())), path, overwrite=overwrite)
        return path, errors

    def write_html(self, path: Path | str, *, title: str = "Evaluation", overwrite: bool = False) -> Path:
        """Write a report that needs no other file and no network.

        Raises
        ------
        OutputError
            If it cannot be written, or exists and `overwrite` is off.
        """
        from napari_aprcnn.evaluate.report import html_report

        return write_text(html_report(self, title=title), path, overwrite=overwrite)

    def figure(self) -> Any:
        """Plot accuracy and F1 over IoU, or of points precision, recall and F1 with their intervals.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        try:
            import matplotlib  # noqa: F401, ICN001 - only whether it is there
        except ImportError as error:
            raise MissingDependencyError("the plot needs matplotlib: pip install matplotlib") from error
        from napari_aprcnn.evaluate.report import draw

        return draw(self)


def compare(
    predictions: Mapping[str, Sequence[ImagePair]],
    *,
    config: EvaluateConfig | None = None,
    progress: Callable[[float], None] = lambda _fraction: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Evaluate several predictions in the same way.

    Parameters
    ----------
    predictions
        By name: predictions of every image with what is true.
    config
        ``None``: the defaults.
    progress
        Called with the share that is done, 0..1.
    should_cancel
        Asked between slabs.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfigError, ImageError, ImageDtypeError, CancelledError
        As `evaluate_images` does.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[1, 1, 0, 2]])
    >>> pairs = {"mine": [ImagePair(name="a", labels=truth, truth=truth)]}
    >>> compare(pairs, config=EvaluateConfig(bootstrap=0)).rows()[0][:4]
    ['mine', '1.000', '1.000', '1.000']
    """
    found = []
    for done, (name, images) in enumerate(predictions.items()):

        def tell(share: float, done: int = done) -> None:
            progress((done + share) / len(predictions))

        found.append(evaluate_images(images, config=config, name=name, progress=tell, should_cancel=should_cancel))
    return Comparison(tuple(found))


def _score(value: float, interval: Interval | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ± {interval.half_width:.3f}"


def _record(
    name: str, scope: str, image: str, slice_index: int | str, m: Matching, intervals: Mapping[str, Interval]
) -> dict[str, Any]:
    ends = {
        f"{score}_{end}": round(getattr(intervals[score], end), 6) if score in intervals else ""
        for score in ("precision", "recall", "f1", "accuracy")
        for end in ("low", "high")
    }
    return {
        "prediction": name, "scope": scope, "image": image, "slice": slice_index, "iou": m.threshold,
        "true_positives": m.true_positives, "false_positives": m.false_positives, "false_negatives": m.false_negatives,
        **{score: round(getattr(m, score), 6) for score in _SCORES}, **ends,
    }  # fmt: skip


def _csv(records: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names or ["prediction", "image", "kind"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
