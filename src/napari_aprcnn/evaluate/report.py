"""The report as one HTML file, and the plot in it."""

from __future__ import annotations

import io
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from napari_aprcnn.errors import MissingDependencyError

if TYPE_CHECKING:
    from napari_aprcnn.evaluate.comparison import Comparison

__all__ = ["LINE_COLOURS", "draw", "html_report"]

# The palette of Okabe and Ito, dark ones first; lines differ in their marks as well.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "os^Dv<>"
_MOST_ERRORS = 500
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; } .note { color: #555; }
details { margin: 1rem 0; }
"""


def html_report(comparison: Comparison, *, title: str = "Evaluation") -> str:
    """Return the report: the table, the plot, every image and the errors.

    Parameters
    ----------
    comparison
        What is reported.
    title
        Heading.

    Returns
    -------
    str
        An HTML page without references to anything outside of it. Without matplotlib the plot is left out.
    """
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(comparison.basis)}; ± half the 95 % interval. {made}</p>',
        _table(list(comparison.columns()), comparison.rows()),
        *(f'<p class="note">{escape(note)}</p>' for note in comparison.notes),
        _plot(comparison),
        *_curves(comparison),
        *_images(comparison),
        *_errors(comparison),
        f"<details><summary>Parameters</summary><pre>{escape(comparison.config.model_dump_json(indent=2))}</pre>"
        f"</details>",
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _plot(comparison: Comparison) -> str:
    try:
        figure = comparison.figure()
    except MissingDependencyError as error:
        return f'<p class="note">{escape(str(error))}</p>'
    text = io.StringIO()
    # No date and no creator: the same evaluation gives the same picture.
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}</figure>"


def _curves(comparison: Comparison) -> list[str]:
    if comparison.against == "points":
        return []
    thresholds = [f"{m.threshold:g}" for m in comparison.evaluations[0].curve]
    rows = [[e.name, *(f"{m.accuracy:.3f}" for m in e.curve)] for e in comparison.evaluations]
    return ["<h2>Accuracy at IoU</h2>", _table(["prediction", *thresholds], rows)]


def _images(comparison: Comparison) -> list[str]:
    rows = []
    for e in comparison.evaluations:
        for image, m in e.parts.items():
            counts = [m.true_positives, m.false_positives, m.false_negatives]
            rows.append([e.name, image, *counts, f"{m.precision:.3f}", f"{m.recall:.3f}", f"{m.f1:.3f}"])
    if len(rows) == len(comparison.evaluations):
        return []
    columns = ["prediction", "image", "TP", "FP", "FN", "precision", "recall", "F1"]
    what = "images" if comparison.config.slices is None else "slices"
    summary = f"{len(comparison.evaluations[0].parts)} {what}"
    return [f"<details open><summary>{summary}</summary>{_table(columns, rows)}</details>"]


def _errors(comparison: Comparison) -> list[str]:
    parts = []
    for e in comparison.evaluations:
        rows = [
            [
                m.kind.words, m.image, ", ".join(f"{value:.1f}" for value in m.centroid),
                " ".join(map(str, m.label_ids)), " ".join(map(str, m.truth_ids)), m.size_voxels, f"{m.iou:.2f}",
            ]
            for m in e.mistakes[:_MOST_ERRORS]
        ]  # fmt: skip
        columns = ["error", "image", "place (voxels)", "predicted", "true", "voxels", "IoU"]
        more = f", the first {_MOST_ERRORS}" if len(e.mistakes) > _MOST_ERRORS else ""
        summary = escape(f"{e.name}: {len(e.mistakes)} errors{more}")
        parts.append(f"<details><summary>{summary}</summary>{_table(columns, rows)}</details>")
    return parts


def draw(comparison: Comparison) -> Any:
    """Plot a comparison; see `Comparison.figure`."""
    from matplotlib.figure import Figure  # no pyplot: it belongs to the main thread

    if comparison.against == "points":
        return _bars(comparison, Figure)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, score, label in zip(figure.subplots(1, 2), ("accuracy", "f1"), ("accuracy", "F1"), strict=True):
        for number, e in enumerate(comparison.evaluations):
            axes.plot(
                [m.threshold for m in e.curve], [getattr(m, score) for m in e.curve],
                color=LINE_COLOURS[number % len(LINE_COLOURS)], marker=_MARKS[number % len(_MARKS)], label=e.name,
            )  # fmt: skip
        axes.set(xlabel="IoU threshold", ylabel=label, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right center")
    return figure


def _bars(comparison: Comparison, figure_class: Any) -> Any:
    figure = figure_class(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    n, names = len(comparison.evaluations), ("precision", "recall", "f1")
    for number, e in enumerate(comparison.evaluations):
        heights = [getattr(e.headline, name) for name in names]
        spans = [e.intervals.get(name) for name in names]
        ends = [
            [max(0.0, h - s.low) if s else 0.0 for h, s in zip(heights, spans, strict=True)],
            [max(0.0, s.high - h) if s else 0.0 for h, s in zip(heights, spans, strict=True)],
        ]
        places = [i + (number - (n - 1) / 2) * 0.8 / n for i in range(len(names))]
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        axes.bar(places, heights, 0.75 / n, yerr=ends, color=colour, label=e.name, capsize=3)
    axes.set(xticks=range(len(names)), xticklabels=["precision", "recall", "F1"], ylim=(0, 1.02))
    figure.legend(frameon=False, loc="outside right center")
    return figure
