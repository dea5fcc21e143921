"""Splits, merges, misses and false positives, of labels and of points, and their picture."""

from __future__ import annotations

import numpy as np
import pytest
from evaluate_tools import squares

from napari_aprcnn import errors
from napari_aprcnn.evaluate.assign import matched_pairs
from napari_aprcnn.evaluate.config import EvaluateConfig
from napari_aprcnn.evaluate.detections import match_points, values_at, voxels_of
from napari_aprcnn.evaluate.mistakes import Kind, find_mistakes
from napari_aprcnn.evaluate.overlap import overlap_table
from napari_aprcnn.evaluate.paint import COLOURS, paint_errors
from napari_aprcnn.evaluate.scores import ImagePair, evaluate_images
from napari_aprcnn.io.points import Points

# Truth: 1 found, 2 split into two, 3 and 4 merged, 5 missed. Prediction: 1; 2, 3; 4; and 5 where nothing is.
TRUTH = squares((0, 10, 0, 10), (0, 10, 20, 30), (20, 25, 0, 10), (25, 30, 0, 10), (20, 30, 20, 30))
LABELS = squares((0, 10, 0, 10), (0, 5, 20, 30), (5, 10, 20, 30), (20, 30, 0, 10), (35, 38, 35, 38))


def found_at(iou=0.5, **options):
    table = overlap_table(LABELS, TRUTH)
    return find_mistakes(table, matched_pairs(table, iou), **options)


def test_every_error_is_listed_once():
    found = found_at(0.6)
    assert [(m.kind.words, m.label_ids, m.truth_ids) for m in found.mistakes] == [
        ("split", (2, 3), (2,)),
        ("merge", (4,), (3, 4)),
        ("miss", (), (5,)),
        ("false positive", (5,), ()),
    ]
    split, merge, miss, made_up = found.mistakes
    assert (split.centroid, split.size_voxels, split.iou) == ((4.5, 24.5), 100, 0.5)
    assert (merge.centroid, merge.size_voxels, merge.iou) == ((24.5, 4.5), 100, 0.5)
    assert (miss.centroid, miss.size_voxels, miss.iou) == ((24.5, 24.5), 100, 0.0)
    assert (made_up.centroid, made_up.size_voxels) == ((36.0, 36.0), 9)
    assert [Kind(k).words for k in found.label_kinds] == ["hit", "split", "split", "merge", "false positive"]
    assert [Kind(k).words for k in found.truth_kinds] == ["hit", "split", "merge", "merge", "miss"]


def test_a_matched_part_leaves_the_object_split():
    # A large part that is a hit at .5, and a small one beside it.
    table = overlap_table(squares((0, 10, 0, 7), (0, 10, 7, 10)), squares((0, 10, 0, 10)))
    found = find_mistakes(table, matched_pairs(table, 0.5))
    assert [m.kind for m in found.mistakes] == [Kind.SPLIT]
    assert found.mistakes[0].iou == pytest.approx(0.7)
    # Debris of less than a tenth is no part: it is a false positive of its own.
    debris = overlap_table(squares((0, 10, 0, 9), (0, 3, 9, 10)), squares((0, 10, 0, 10)))
    found = find_mistakes(debris, matched_pairs(debris, 0.5))
    assert [m.kind for m in found.mistakes] == [Kind.FALSE_POSITIVE]
    assert [m.kind for m in find_mistakes(debris, matched_pairs(debris, 0.5), min_share=0.01).mistakes] == [Kind.SPLIT]


def test_an_outline_that_is_too_far_off_is_a_miss_and_a_false_positive():
    table = overlap_table(squares((0, 10, 4, 14)), squares((0, 10, 0, 10)))
    found = find_mistakes(table, matched_pairs(table, 0.5))
    assert [(m.kind, round(m.iou, 3)) for m in found.mistakes] == [(Kind.MISS, 0.429), (Kind.FALSE_POSITIVE, 0.429)]


def test_words():
    assert [kind.plural for kind in Kind] == ["hits", "misses", "merges", "splits", "false positives"]
    assert len(set(COLOURS.values())) == len(Kind)


# --- points ----------------------------------------------------------------------------------------------------------
def points_of(*places):
    return Points(np.array(places, float).reshape(-1, 2), axes="YX")


def test_points_hit_merge_miss_and_are_missing():
    # Two in object 1 (a merge), one in 2, one in the background, none in 3.
    labels = squares((0, 10, 0, 10), (20, 30, 0, 10), (20, 30, 20, 30))
    pair = ImagePair(name="a", labels=labels, truth=points_of((2, 2), (7, 7), (25, 5), (35, 35)))
    found = evaluate_images([pair])
    match = found.headline
    assert (match.true_positives, match.false_positives, match.false_negatives) == (2, 1, 2)
    assert (match.precision, match.recall) == (2 / 3, 0.5)
    assert match.f1 == pytest.approx(4 / 7)
    assert [(m.kind.words, m.label_ids, m.truth_ids) for m in found.mistakes] == [
        ("merge", (1,), (0, 1)),
        ("miss", (), (3,)),
        ("false positive", (3,), ()),
    ]
    assert found.mistakes[1].centroid == (35.0, 35.0)
    assert found.curve == ()


def test_points_round_to_the_middle_of_voxels():
    labels = squares((0, 10, 0, 10))
    inside, outside = voxels_of(np.array([[9.49, 0.0]]), (40, 40)), voxels_of(np.array([[9.51, 0.0]]), (40, 40))
    table = overlap_table(labels)
    assert match_points(table, inside, values_at(labels, inside.indices))[0].recall == 1.0
    assert match_points(table, outside, values_at(labels, outside.indices))[0].recall == 0.0


def test_points_that_cannot_be():
    labels = squares((0, 10, 0, 10))
    with pytest.raises(errors.ImageError, match=r"1 of 2 points lie outside of a .* point 1 at \(3.0, 39.5\)"):
        evaluate_images([ImagePair(name="a", labels=labels, truth=points_of((3, 39.49), (3, 39.5)))])
    with pytest.raises(errors.ImageError, match="2 axes"):
        evaluate_images([ImagePair(name="a", labels=labels, truth=Points(np.zeros((1, 3))))])
    twice = evaluate_images([ImagePair(name="a", labels=labels, truth=points_of((3, 3), (3.2, 2.9)))])
    assert twice.headline.f1 == 1.0
    assert "count once" in twice.notes[0]
    none = evaluate_images([ImagePair(name="a", labels=labels, truth=points_of())])
    assert (none.headline.precision, none.headline.recall, none.headline.f1) == (0.0, 0.0, 0.0)
    nothing = evaluate_images([ImagePair(name="a", labels=0 * labels, truth=points_of((3, 3)))])
    assert (nothing.headline.precision, nothing.headline.recall) == (0.0, 0.0)
    with pytest.raises(errors.ConfigError, match="mask"):
        evaluate_images(
            [ImagePair(name="a", labels=labels, truth=points_of((3, 3)))], config=EvaluateConfig(ignore_label=-1)
        )


def test_points_in_slices_and_in_ignored_regions():
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[0:3, 2:8, 2:8] = 1
    labels[1:3, 12:18, 12:18] = 2
    # One point in each section of 1 that was annotated (0 and 2); 2 was overlooked in slice 2; slice 1 was not done.
    points = Points(np.array([[0, 5, 5], [2, 5, 5], [1, 5, 5], [1, 6, 6.0]]))
    pair = ImagePair(name="a", labels=labels, truth=points)
    found = evaluate_images([pair], config=EvaluateConfig(slices=(0, 2)))
    match = found.headline
    assert (match.true_positives, match.false_positives, match.false_negatives) == (2, 1, 0)
    assert [(m.kind, m.slice_index, m.centroid) for m in found.mistakes] == [
        (Kind.FALSE_POSITIVE, 2, (2.0, 14.5, 14.5))
    ]
    # As one volume the four points of object 1 are a merge.
    whole = evaluate_images([pair])
    assert whole.headline.false_negatives == 3
    ignore = np.zeros(labels.shape, bool)
    ignore[:, :, 10:] = True
    assert (
        evaluate_images(
            [ImagePair(name="a", labels=labels, truth=points, ignore=ignore)], config=EvaluateConfig(slices=(0, 2))
        ).headline.f1
        == 1.0
    )
    covered = ImagePair(name="a", labels=0 * labels, truth=Points([[0, 5, 15]]), ignore=ignore)
    assert evaluate_images([covered]).headline.f1 == 1.0


# --- the picture -----------------------------------------------------------------------------------------------------
def test_the_picture_shows_what_became_of_every_object():
    config = EvaluateConfig(iou=0.6)
    found = evaluate_images([ImagePair(name="a", labels=LABELS, truth=TRUTH)], config=config)
    picture = paint_errors(LABELS, TRUTH, found.units)
    assert picture.dtype == np.uint8
    wanted = np.select(
        [LABELS == 1, (LABELS == 2) | (LABELS == 3), LABELS == 4, LABELS == 5, TRUTH == 5],
        [Kind.HIT, Kind.SPLIT, Kind.MERGE, Kind.FALSE_POSITIVE, Kind.MISS],
    )
    np.testing.assert_array_equal(picture, wanted)
    large = LABELS.astype(np.int64) * 10_000_000
    found = evaluate_images([ImagePair(name="a", labels=large, truth=TRUTH)], config=config)
    np.testing.assert_array_equal(paint_errors(large, TRUTH, found.units), wanted)


def test_the_picture_of_slices_and_points():
    labels = np.stack([LABELS, LABELS, 0 * LABELS])
    truth = np.stack([TRUTH, TRUTH, TRUTH])
    found = evaluate_images([ImagePair(name="a", labels=labels, truth=truth)], config=EvaluateConfig(slices=(0, 2)))
    picture = paint_errors(labels, truth, found.units)
    assert not picture[1].any()
    assert picture[0].max() == Kind.FALSE_POSITIVE
    assert np.unique(picture[2]).tolist() == [0, Kind.MISS]
    points = Points([[0, 5, 5], [1, 38, 15]])
    found = evaluate_images([ImagePair(name="a", labels=labels, truth=points)])
    picture = paint_errors(labels, None, found.units)
    assert picture[0, 5, 5] == Kind.HIT
    assert picture[1, 38, 15] == picture[2, 38, 16] == Kind.MISS
    assert picture[1, 38, 19] == 0
