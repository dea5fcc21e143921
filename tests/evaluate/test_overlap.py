"""The sparse table against brute force, however the arrays are stored; what is left out; the assignment."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from evaluate_tools import random_boxes, squares

from napari_aprcnn import errors
from napari_aprcnn.evaluate import overlap as overlap_module
from napari_aprcnn.evaluate.assign import matched_pairs
from napari_aprcnn.evaluate.matching import CURVE_THRESHOLDS, evaluate, evaluate_pooled
from napari_aprcnn.evaluate.overlap import overlap_table, planes


def brute(labels, truth):
    """Sizes, centroids and shared voxels, object by object."""
    ids = [[int(i) for i in np.unique(side) if i] for side in (labels, truth)]
    sides = [
        {i: (int((side == i).sum()), np.argwhere(side == i).mean(axis=0)) for i in found}
        for side, found in zip((labels, truth), ids, strict=True)
    ]
    shared = {(a, b): int(((labels == a) & (truth == b)).sum()) for a in ids[0] for b in ids[1]}
    return *sides, {pair: n for pair, n in shared.items() if n}


def check(table, labels, truth):
    of_labels, of_truth, shared = brute(labels, truth)
    for ids, sizes, centroids, wanted in (
        (table.label_ids, table.label_sizes, table.label_centroids, of_labels),
        (table.truth_ids, table.truth_sizes, table.truth_centroids, of_truth),
    ):
        assert ids.tolist() == sorted(wanted)
        for number, size, centroid in zip(ids, sizes, centroids, strict=True):
            assert size == wanted[number][0]
            np.testing.assert_allclose(centroid, wanted[number][1], atol=1e-9)
    pairs = zip(table.label_ids[table.pair_labels], table.truth_ids[table.pair_truths], strict=True)
    assert {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, table.pair_voxels, strict=True)} == shared


@pytest.mark.parametrize("shape", [(60,), (20, 30), (9, 12, 14), (2, 5, 8, 9)])
@pytest.mark.parametrize("piece", [1, 37, 1 << 21])
def test_table_is_what_brute_force_finds(shape, piece, monkeypatch):
    monkeypatch.setattr(overlap_module, "_PIECE_VOXELS", piece)
    monkeypatch.setattr(overlap_module, "_MOST_ROWS", 10)
    rng = np.random.default_rng(len(shape) + piece)
    for n in (0, 1, 9):
        labels, truth = random_boxes(rng, shape, n), random_boxes(rng, shape, 7)
        check(overlap_table(labels, truth), labels, truth)


def test_ids_beyond_32_bits_and_of_any_type():
    labels, truth = squares((0, 4, 0, 4), (5, 9, 5, 9)), squares((0, 4, 1, 5), (5, 9, 5, 9))
    large = labels.astype(np.int64) * (1 << 40)
    assert overlap_table(large, truth).label_ids.tolist() == [1 << 40, 2 << 40]
    check(overlap_table(large, truth), large, truth)
    for dtype in ("uint8", "int16", "uint64"):
        check(overlap_table(labels.astype(dtype), truth), labels, truth)
    assert overlap_table(labels > 0, truth > 0).label_ids.tolist() == [1]
    with pytest.raises(errors.ImageValueError, match="id -"):
        overlap_table(np.full((2, 2), 1 << 63, np.uint64), np.ones((2, 2), int))


def test_lazy_arrays_are_read_once_and_by_chunks(tmp_path):
    rng = np.random.default_rng(1)
    labels, truth = random_boxes(rng, (24, 20, 20), 12), random_boxes(rng, (24, 20, 20), 12)
    read = []

    def block(part, block_info=None):
        if block_info:
            read.append(block_info[0]["chunk-location"])
        return part

    lazy = da.from_array(labels, chunks=(7, 20, 20)).map_blocks(block, dtype=labels.dtype)
    stored = zarr.create_array(tmp_path / "truth.zarr", shape=truth.shape, chunks=(5, 20, 20), dtype=truth.dtype)
    stored[:] = truth
    np.save(tmp_path / "truth.npy", truth)
    check(overlap_table(lazy, stored), labels, truth)
    assert len(read) == len(set(read)) == 4
    check(overlap_table(labels, np.load(tmp_path / "truth.npy", mmap_mode="r")), labels, truth)
    read.clear()
    found = list(planes(lazy, truth, None, indices=[23, 0, 3, 8]))
    assert [index for index, *_ in found] == [0, 3, 8, 23]
    assert all((a == labels[i]).all() and (b == truth[i]).all() and c is None for i, a, b, c in found)
    assert len(read) == 3


def test_cancel_and_progress():
    labels = np.zeros((4, 2, 2), np.uint8)
    with pytest.raises(errors.CancelledError):
        overlap_table(labels, labels, should_cancel=lambda: True)
    seen = []
    overlap_table(labels, labels, progress=seen.append)
    assert seen[-1] == 1.0


# --- what is left out ------------------------------------------------------------------------------------------------
def test_minimum_size_counts_on_both_sides():
    labels = squares((0, 10, 0, 10), (20, 22, 0, 2), (30, 33, 30, 33))
    truth = squares((0, 10, 0, 10), (20, 23, 0, 3), (30, 32, 30, 32))
    table = overlap_table(labels, truth, min_size=9)
    # Label 2 is too small. Truth 3 is too small; label 3 lies on it with 4 of 9 voxels, so it counts.
    assert (table.label_ids.tolist(), table.truth_ids.tolist()) == ([1, 3], [1, 2])
    assert (table.n_excluded_labels, table.n_excluded_truths) == (1, 1)
    # With more than half on what was left out it is left out, too.
    larger = overlap_table(labels, squares((0, 10, 0, 10), (20, 23, 0, 3), (30, 32, 30, 33)), min_size=9)
    assert larger.label_ids.tolist() == [1]
    assert overlap_table(labels, truth, min_size=0).n_excluded_labels == 0


def test_ignored_region_counts_for_nobody():
    labels = squares((0, 10, 0, 10), (20, 30, 0, 10))
    truth = squares((0, 10, 0, 10), (20, 30, 4, 14))
    ignore = np.zeros(labels.shape, bool)
    ignore[:, 6:] = True
    table = overlap_table(labels, truth, ignore=ignore)
    # Label 1 and truth 1 lose four columns; truth 2 has 8 of 10 columns in the region.
    assert (table.label_ids.tolist(), table.truth_ids.tolist()) == ([1, 2], [1])
    assert (table.label_sizes.tolist(), table.truth_sizes.tolist()) == ([60, 60], [60])
    assert table.pair_ious.tolist() == [1.0]
    assert table.label_centroids[0].tolist() == [4.5, 2.5]
    # The same region, marked in the truth: what lies below the mark is nobody's.
    marked = np.where(ignore, -1, truth.astype(np.int16))
    same = overlap_table(labels, marked, ignore_label=-1)
    assert (same.label_ids.tolist(), same.truth_ids.tolist()) == ([1, 2], [1, 2])
    assert same.truth_sizes.tolist() == [60, 20]
    with pytest.raises(errors.ImageValueError, match="ignore_label"):
        overlap_table(labels, marked)
    both = overlap_table(labels, marked, ignore=np.ones(labels.shape, np.uint8), ignore_label=-1)
    assert len(both.label_ids) == len(both.truth_ids) == 0
    assert both.n_excluded_labels == 2


def test_shapes_and_types_are_checked_before_anything_is_read():
    with pytest.raises(errors.ImageError, match="ignore"):
        overlap_table(np.zeros((3, 3), int), np.zeros((3, 3), int), ignore=np.zeros((2, 3)))
    with pytest.raises(errors.ImageDtypeError, match="ignore"):
        overlap_table(np.zeros((3, 3), int), np.zeros((3, 3), int), ignore=np.zeros((3, 3)))
    with pytest.raises(errors.ImageError, match="single number"):
        overlap_table(np.array(3), np.array(3))
    with pytest.raises(errors.ConfigError, match="thresholds"):
        evaluate(np.zeros((3, 3), int), np.zeros((3, 3), int), thresholds=(0.5, 0.0))
    with pytest.raises(errors.ConfigError, match="at least one"):
        evaluate_pooled([], thresholds=())
    assert evaluate(np.zeros((0, 3), int), np.zeros((0, 3), int))[0].f1 == 1.0
    assert evaluate_pooled([])[0].f1 == 1.0


# --- the assignment --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(6))
def test_every_score_is_that_of_the_stardist_package(seed):
    matching = pytest.importorskip("stardist.matching").matching
    rng = np.random.default_rng(seed)
    for trial in range(20):
        shape = (12, 12) if trial % 2 else (4, 6, 8)
        truth = random_boxes(rng, shape, int(rng.integers(0, 12)))
        labels = random_boxes(rng, shape, int(rng.integers(0, 12)))
        if trial % 3 == 0:  # blocks against themselves, shifted: many equal overlaps
            labels = np.roll(truth, 1, axis=int(rng.integers(0, len(shape))))
        found = evaluate(labels, truth, thresholds=CURVE_THRESHOLDS)
        for mine, theirs in zip(found, matching(truth, labels, thresh=CURVE_THRESHOLDS), strict=True):
            counts = (mine.true_positives, mine.false_positives, mine.false_negatives)
            assert counts == (theirs.tp, theirs.fp, theirs.fn)
            if not sum(counts):  # nothing to find and nothing found: 1 here, 0 there
                assert (mine.f1, theirs.f1) == (1.0, 0)
                continue
            names = ("precision", "recall", "f1", "accuracy", "mean_true_score", "mean_matched_score")
            for name in (*names, "panoptic_quality"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), abs=1e-6), (trial, name)


def test_ties_at_one_half_match_once():
    table = overlap_table(squares((0, 10, 0, 5), (0, 10, 5, 10)), squares((0, 10, 0, 10)))
    assert table.pair_ious.tolist() == [0.5, 0.5]
    assert len(matched_pairs(table, 0.5)) == 1


def test_a_long_chain_is_solved_without_a_square_matrix():
    # 6,000 objects, each overlapping two: a dense matrix would take 288 MB, and all are matched.
    n = 6000
    truth = np.repeat(np.arange(1, n + 1), 10)
    labels = np.roll(truth, 4)
    table = overlap_table(labels, truth)
    pairs = matched_pairs(table, 0.2)
    assert len(pairs) == n
    assert table.pair_voxels[pairs].min() == 6
