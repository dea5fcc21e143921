"""What the Evaluate dock shares: slices that were annotated, runs whose labels are scored, files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from napari_aprcnn._napari.result_layers import KEY
from napari_aprcnn._napari.run_records import note_score

if TYPE_CHECKING:
    from pathlib import Path

    from napari_aprcnn.evaluate.comparison import Comparison

__all__ = ["annotated_slices", "note_scores", "write_comparison"]


def _record(layer: Any) -> dict[str, Any]:
    found = getattr(layer, "metadata", {}).get(KEY, {})
    return found if isinstance(found, dict) else {}


def annotated_slices(layer: Any) -> str:
    """Slices of a volume that the Annotate dock finished, as text; empty for any other layer."""
    record = _record(layer)
    if record.get("kind") != "annotation truth":
        return ""
    indices = [index for index in record.get("slices", []) if len(index) == 1]
    return ",".join(str(int(index[0])) for index in indices)


def note_scores(layers: Iterable[tuple[str, Any]], comparison: Comparison) -> None:
    """Note the F1 of labels that a run made, unless they were edited since."""
    scores = {found.name: found for found in comparison.evaluations}
    for name, layer in layers:
        record = _record(layer)
        if name in scores and record.get("run") and not record.get("edited"):
            headline = scores[name].headline
            note_score(str(record["run"]), headline.f1, threshold=headline.threshold)


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the scores and errors (.csv) or the report (any other name), over what is there; the path."""
    if path.suffix.lower() == ".csv":
        return comparison.write_csv(path, overwrite=True)[0]
    return comparison.write_html(path, overwrite=True)
