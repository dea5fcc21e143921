"""Images and slices together, intervals, comparisons, and the files of them."""

from __future__ import annotations

import csv
import json
import re
import sys

import numpy as np
import pytest
from evaluate_tools import random_boxes, squares

from napari_aprcnn import errors
from napari_aprcnn.evaluate.bootstrap import bootstrap_intervals
from napari_aprcnn.evaluate.comparison import Comparison, compare
from napari_aprcnn.evaluate.config import EvaluateConfig
from napari_aprcnn.evaluate.matching import Matching, evaluate
from napari_aprcnn.evaluate.mistakes import Kind
from napari_aprcnn.evaluate.report import html_report
from napari_aprcnn.evaluate.scores import ImagePair, evaluate_images
from napari_aprcnn.io.points import Points

TWO = squares((0, 10, 0, 10), (20, 30, 20, 30))
ONE = squares((0, 10, 0, 10))


def counts(tp, fp, fn):
    return Matching(threshold=0.5, true_positives=tp, false_positives=fp, false_negatives=fn)


def test_images_are_pooled_over_objects_and_listed():
    pairs = [ImagePair(name="a", labels=ONE, truth=TWO), ImagePair(name="b", labels=TWO, truth=TWO)]
    found = evaluate_images(pairs, config=EvaluateConfig(thresholds=(0.5, 0.9), iou=0.7))
    assert [m.threshold for m in found.pooled] == [0.5, 0.7, 0.9]
    assert [m.threshold for m in found.curve] == [0.5, 0.9]
    assert found.headline.threshold == 0.7
    assert found.headline.recall == 0.75
    assert {name: m.recall for name, m in found.images.items()} == {"a": 0.5, "b": 1.0}
    assert found.counts == {Kind.SPLIT: 0, Kind.MERGE: 0, Kind.MISS: 1, Kind.FALSE_POSITIVE: 0}
    assert found.mistakes[0].image == "a"


def test_slices_are_images_of_their_own():
    rng = np.random.default_rng(0)
    labels, truth = random_boxes(rng, (6, 20, 20), 30), random_boxes(rng, (6, 20, 20), 30)
    pair = ImagePair(name="a", labels=labels, truth=truth)
    found = evaluate_images([pair], config=EvaluateConfig(slices="all", bootstrap=0))
    assert [unit.slice_index for unit in found.units] == list(range(6))
    for z, unit in enumerate(found.units):
        assert unit.matchings == evaluate(labels[z], truth[z], thresholds=found.config.thresholds)
    assert all(m.centroid[0] == m.slice_index for m in found.mistakes)
    assert list(found.parts)[3] == "a, slice 3"
    assert list(found.images) == ["a"]
    assert "6 slices" in html_report(Comparison((found,)))
    with pytest.raises(errors.ConfigError, match="0 to 5"):
        evaluate_images([pair], config=EvaluateConfig(slices=(1, 6)))
    with pytest.raises(errors.ConfigError, match="volume"):
        evaluate_images([ImagePair(name="a", labels=ONE, truth=ONE)], config=EvaluateConfig(slices=(1,)))


def test_minimum_size_in_micrometres():
    pair = ImagePair(name="a", labels=TWO, truth=TWO, spacing_um=(0.5, 0.2))
    config = EvaluateConfig(min_size=10.5, min_size_unit="um")
    kept = evaluate_images([pair], config=EvaluateConfig(min_size=10.0, min_size_unit="um"))
    gone = evaluate_images([pair], config=config)
    assert (kept.headline.true_positives, gone.headline.true_positives) == (2, 0)
    assert "2 predicted and 2 true" in gone.notes[0]
    with pytest.raises(errors.ConfigError, match="voxel size is not known"):
        evaluate_images([ImagePair(name="a", labels=TWO, truth=TWO)], config=config)


def test_what_cannot_be_evaluated():
    with pytest.raises(errors.ConfigError, match="no image"):
        evaluate_images([])
    points = ImagePair(name="b", labels=ONE, truth=Points([[1, 1]], axes="YX"))
    with pytest.raises(errors.ConfigError, match="one after the other"):
        evaluate_images([ImagePair(name="a", labels=ONE, truth=ONE), points])
    with pytest.raises(errors.ImageError, match="equal shapes"):
        evaluate_images([ImagePair(name="a", labels=ONE, truth=ONE[:3])])
    for bad in ({"iou": 0}, {"slices": ()}, {"slices": (-1,)}, {"ignore_label": 0}, {"thresholds": (2,)}):
        with pytest.raises(errors.ConfigError):
            EvaluateConfig(**bad)
    with pytest.raises(errors.CancelledError):
        evaluate_images([ImagePair(name="a", labels=ONE, truth=ONE)], should_cancel=lambda: True)


# --- intervals -------------------------------------------------------------------------------------------------------
def test_intervals_within_an_image_are_binomial():
    # 95 % of a recall of .9 from 1,000 true objects: .9 +- 1.96 sqrt(.9 * .1 / 1000) = +- .0186.
    interval = bootstrap_intervals([counts(900, 0, 100)], n_resamples=4000)["recall"]
    assert interval.low == pytest.approx(0.8814, abs=0.002)
    assert interval.high == pytest.approx(0.9186, abs=0.002)
    assert bootstrap_intervals([counts(50, 0, 0)])["f1"].half_width == 0.0


def test_intervals_over_images_are_those_of_images():
    # Ten images, half of them perfect, half of them missed altogether: objects alone would hide that.
    images = [counts(100, 0, 0) if i % 2 else counts(0, 0, 100) for i in range(10)]
    over_images = bootstrap_intervals(images)["recall"]
    within = bootstrap_intervals([counts(500, 0, 500)])["recall"]
    assert over_images.half_width > 5 * within.half_width
    assert bootstrap_intervals(images) == bootstrap_intervals(images)
    single = [counts(700, 130, 170)]
    assert bootstrap_intervals(single) == bootstrap_intervals(single)
    assert bootstrap_intervals(single) != bootstrap_intervals(single, seed=1)
    brute = np.random.default_rng(3)
    draws = [np.mean([i % 2 for i in brute.integers(0, 10, 10)]) for _ in range(4000)]
    assert over_images.low == pytest.approx(np.percentile(draws, 2.5), abs=0.06)


def test_no_interval_where_there_is_nothing():
    assert bootstrap_intervals([counts(0, 0, 0)]) == {}
    assert bootstrap_intervals([counts(1, 0, 0)], n_resamples=0) == {}
    assert bootstrap_intervals([]) == {}
    with pytest.raises(errors.ConfigError):
        bootstrap_intervals([counts(1, 0, 0)], n_resamples=-1)
    some = bootstrap_intervals([counts(0, 0, 0), counts(1, 0, 0)])["f1"]
    assert (some.low, some.high) == (1.0, 1.0)


# --- side by side ----------------------------------------------------------------------------------------------------
@pytest.fixture
def comparison():
    predictions = {
        "good | best": [ImagePair(name="a", labels=TWO, truth=TWO), ImagePair(name="<b>", labels=ONE, truth=ONE)],
        "half": [ImagePair(name="a", labels=ONE, truth=TWO), ImagePair(name="<b>", labels=0 * ONE, truth=ONE)],
    }
    return compare(predictions, config=EvaluateConfig(thresholds=(0.5, 0.9)))


def test_the_table(comparison):
    rows = comparison.rows()
    assert [row[0] for row in rows] == ["good | best", "half"]
    assert rows[0][1] == "1.000 ± 0.000"
    assert rows[1][2].startswith("0.333 ± ")
    assert rows[1][-4:] == ["0", "0", "2", "0"]
    assert comparison.basis == "against labels at IoU 0.5, 2 images"
    lines = comparison.markdown().splitlines()
    assert lines[0].startswith("| prediction | precision | recall | F1 |")
    assert lines[2].startswith("| good \\| best | 1.000")
    assert len({line.replace("\\|", "").count("|") for line in lines[:4]}) == 1


def test_csv_and_json(comparison, tmp_path):
    scores, mistakes = comparison.write_csv(tmp_path / "scores.csv")
    with scores.open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    pooled = [r for r in records if r["scope"] == "all" and r["prediction"] == "half" and r["iou"] == "0.5"]
    assert [(r["true_positives"], r["false_negatives"], r["recall"]) for r in pooled] == [("1", "2", "0.333333")]
    assert float(pooled[0]["recall_low"]) <= 1 / 3 <= float(pooled[0]["recall_high"])
    assert [r["image"] for r in records if r["scope"] == "image"] == ["a", "<b>", "a", "<b>"]
    with mistakes.open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [(r["image"], r["kind"], r["truth_ids"], r["y"]) for r in listed] == [
        ("a", "miss", "2", "24.5"),
        ("<b>", "miss", "1", "4.5"),
    ]
    with pytest.raises(errors.OutputError, match="exists already"):
        comparison.write_csv(scores)
    comparison.write_csv(scores, overwrite=True)
    assert json.loads(json.dumps(comparison.to_dict()))["scores"][0]["prediction"] == "good | best"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores_errors.csv"]


def test_html_needs_nothing_from_outside(comparison, tmp_path):
    page = comparison.write_html(tmp_path / "report.html", title="A & B").read_text(encoding="utf-8")
    assert "A &amp; B" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<svg" in page
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", page)
    assert "<link" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "Accuracy at IoU" in page


def test_without_matplotlib_the_report_is_there_and_the_plot_says_why(comparison, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(errors.MissingDependencyError, match="pip install"):
        comparison.figure()
    assert "pip install" in html_report(comparison)


def test_points_side_by_side():
    truth = Points([[5, 5], [25, 25]], axes="YX")
    found = compare({"a": [ImagePair(name="x", labels=TWO, truth=truth)]})
    assert "panoptic quality" not in found.columns()
    assert len(found.rows()[0]) == len(found.columns())
    assert found.basis == "against points, 1 image"
    assert len(found.figure().axes[0].patches) == 3


def test_unlike_things_are_not_compared():
    one = evaluate_images([ImagePair(name="a", labels=ONE, truth=ONE)], name="one")
    other = evaluate_images([ImagePair(name="a", labels=ONE, truth=ONE)], name="two", config=EvaluateConfig(iou=0.7))
    with pytest.raises(errors.ConfigError, match="in the same way"):
        Comparison((one, other))
    with pytest.raises(errors.ConfigError, match="name of its own"):
        Comparison((one, one))
    with pytest.raises(errors.ConfigError, match="at least one"):
        Comparison(())
