"""Thresholds that are best on validation images."""

from __future__ import annotations

import numpy as np
import pytest

from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.errors import CancelledError, TrainingDataError
from napari_aprcnn.evaluate.matching import evaluate
from napari_aprcnn.segment.star_rays import golden_spiral
from napari_aprcnn.segment.star_targets import cell_centres, star_targets, voxel_cells
from napari_aprcnn.segment.stardist import StarDistSettings, stardist_instances
from napari_aprcnn.segment.three_class import ThreeClassSettings, three_class_targets
from napari_aprcnn.train.tune import StarPrediction, mean_accuracy, tune_stardist, tune_three_class

SHAPE = (20, 48, 52)
TRUTHS = [ellipsoids(SHAPE, 9, diameter=13, seed=seed) for seed in (1, 2)]


def blurred_classes(labels, seed):
    """Probabilities of a network that is unsure between touching nuclei and sees specks."""
    classes = three_class_targets(labels)
    interior = np.where(classes == 1, 0.9, np.where(classes == 2, 0.62, 0.02))
    rng = np.random.default_rng(seed)
    specks = (rng.random(labels.shape) < 0.002) & (labels == 0)
    interior = np.where(specks, 0.9, interior)
    background = np.where((labels > 0) | specks, 0.05, 0.95)
    return np.stack([background, interior, np.clip(1 - background - interior, 0, 1)]).astype(np.float32)


def test_mean_accuracy_is_the_mean_over_thresholds():
    pairs = [(truth, truth) for truth in TRUTHS]
    assert mean_accuracy(pairs) == 1
    moved = np.roll(TRUTHS[0], 3, axis=2)
    expected = np.mean([m.accuracy for m in evaluate(moved, TRUTHS[0], thresholds=[0.3, 0.5, 0.7])])
    assert mean_accuracy([(moved, TRUTHS[0])]) == pytest.approx(expected)


def test_three_classes_find_what_separates_nuclei_and_drops_specks():
    predictions = [blurred_classes(truth, seed) for seed, truth in enumerate(TRUTHS)]
    seen = []
    tuned = tune_three_class(
        predictions,
        TRUTHS,
        base=ThreeClassSettings(dilation_vox=(1, 1, 1)),
        interior_thresholds=(0.5, 0.7, 0.95),
        min_interior_vox=(1, 8),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert tuned.settings == ThreeClassSettings(dilation_vox=(1, 1, 1), interior_threshold=0.7, min_interior_vox=8)
    assert tuned.accuracy == max(accuracy for _, accuracy in tuned.tried) > 0.85
    assert len(tuned.tried) == 6
    assert seen[-1] == (6, 6)


def test_star_thresholds_are_those_of_single_runs():
    pytest.importorskip("stardist")
    rays, cells = golden_spiral(48), voxel_cells(SHAPE)
    predictions = []
    for seed, truth in enumerate(TRUTHS):
        targets, rng = star_targets(truth, cells, rays), np.random.default_rng(seed)
        probability = np.clip(targets.probability + 0.05 * rng.normal(size=len(cells)), 0, 1)
        ghosts = (rng.random(len(cells)) < 0.002) & (targets.objects == 0)  # weak objects where there is none
        distances = np.where(ghosts[:, None], 4, targets.distances).astype(np.float32)
        probability = np.where(ghosts, 0.45, probability)
        predictions.append(StarPrediction(probability, distances, cell_centres(cells), SHAPE))
    tuned = tune_stardist(
        predictions, TRUTHS, rays, probability_thresholds=(0.4, 0.5, 0.97), overlap_thresholds=(0.3, 0.5)
    )
    assert tuned.settings.probability_threshold == 0.5
    assert tuned.accuracy > 0.85
    for settings, accuracy in tuned.tried:
        alone = [stardist_instances(*prediction, rays, settings)[0] for prediction in predictions]
        assert accuracy == pytest.approx(mean_accuracy(zip(alone, TRUTHS, strict=True)))
    assert isinstance(tuned.settings, StarDistSettings)


def test_bad_input():
    with pytest.raises(TrainingDataError, match="at least one"):
        tune_three_class([], [])
    with pytest.raises(TrainingDataError, match="1 predictions and 2 truths"):
        tune_three_class([np.zeros((3, 4, 4, 4))], [np.zeros((4, 4, 4), int)] * 2)
    with pytest.raises(TrainingDataError, match="no settings"):
        tune_three_class([np.zeros((3, 4, 4, 4))], [np.zeros((4, 4, 4), int)], interior_thresholds=())
    with pytest.raises(CancelledError):
        tune_three_class([np.zeros((3, 4, 4, 4))], [np.zeros((4, 4, 4), int)], should_cancel=lambda: True)
