"""The classifier: the regression, and the shipped model on organoids that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from organoids import crowd, cyst, lobes

from napari_aprcnn.errors import ConfigError, ImageError, TrainingDataError
from napari_aprcnn.graph.build import nuclei_graph
from napari_aprcnn.graph.descriptors import describe
from napari_aprcnn.graph.logistic import LogisticModel, cross_validate, fit_logistic, folds
from napari_aprcnn.graph.phenotypes import PHENOTYPES, classify_phenotype, ellipsoid_features, phenotype_model
from napari_aprcnn.train.simulation import SimulationConfig, simulate_volume

SPACING = (2.0, 1.0, 1.0)


def blobs(count=60, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    middle = np.array([[0.0, 0, 5], [300, 0, 5], [0, 0.02, 5]])
    return middle[y] + rng.normal(size=(count, 3)) * [50, 0.003, 0], y


# --- the regression --------------------------------------------------------------------------------------------------
def test_the_gradient_is_zero_where_it_ends():
    x, y = blobs()
    model = fit_logistic(x, y, classes=("a", "b", "c"), features=("f", "g", "constant"), l2=0.1)
    z = (x - np.array(model.mean)) / np.array(model.scale)
    error = (model.probabilities(x) - np.eye(3)[y]) / len(y)
    assert np.allclose(error.T @ z + 0.1 * np.array(model.weights), 0, atol=1e-4)
    assert np.allclose(error.sum(axis=0), 0, atol=1e-4)
    assert np.allclose(np.array(model.weights)[:, 2], 0)  # what is constant says nothing
    assert np.allclose(model.probabilities(x).sum(axis=1), 1)
    assert (model.probabilities(x).argmax(axis=1) == y).mean() > 0.95
    scores = np.log(model.probabilities(x))
    parts = model.contributions(x).sum(axis=2) + np.array(model.bias)
    assert np.allclose(scores - scores[:, :1], parts - parts[:, :1])


def test_stronger_penalties_make_smaller_weights_and_units_do_not_matter():
    x, y = blobs()
    names = {"classes": ("a", "b", "c"), "features": ("f", "g", "h")}
    weak, strong = (np.abs(fit_logistic(x, y, l2=l2, **names).weights).sum() for l2 in (0.01, 1.0))
    assert strong < weak
    other = fit_logistic(x * [1e-3, 1e4, 1], y, **names)
    assert np.allclose(fit_logistic(x, y, **names).weights, other.weights, atol=1e-3)


def test_what_is_not_defined_is_taken_for_the_mean():
    x, y = blobs()
    x[::7, 0] = np.nan
    model = fit_logistic(x, y, classes=("a", "b", "c"), features=("f", "g", "h"))
    known = np.array([[np.nan, 0.0, 5.0], [model.mean[0], 0.0, 5.0]])
    assert np.allclose(*model.probabilities(known))


def test_what_is_far_off_does_not_decide_alone():
    x, y = blobs()
    model = fit_logistic(x, y, classes=("a", "b", "c"), features=("f", "g", "h"))
    far = np.array([[1e9, 0.0, 5.0], [model.mean[0] + 3.5 * model.scale[0], 0.0, 5.0]])
    assert np.allclose(*model.probabilities(far))


def test_it_is_json():
    x, y = blobs()
    model = fit_logistic(x, y, classes=("a", "b", "c"), features=("f", "g", "h"))
    assert LogisticModel.model_validate_json(model.model_dump_json()) == model
    with pytest.raises(ConfigError, match="rows"):
        model.replace(weights=model.weights[:2])
    with pytest.raises(ConfigError, match="scales"):
        model.replace(scale=(0.0, 1.0, 1.0))


def test_samples_are_checked():
    x, y = blobs()
    names = {"classes": ("a", "b", "c"), "features": ("f", "g", "h")}
    for bad_x, bad_y, words in ((x[:, :2], y, "shape"), (x, y * 0, "no sample of b, c"), (x, y + 1, "no sample")):
        with pytest.raises(TrainingDataError, match=words):
            fit_logistic(bad_x, bad_y, **names)


def test_folds_keep_the_classes_together_and_nothing_leaks():
    y = np.repeat([0, 1, 2], 20)
    fold = folds(y, 5, seed=1)
    assert all((np.bincount(fold[y == name]) == 4).all() for name in range(3))
    noise = np.random.default_rng(0).normal(size=(60, 30))
    guess = cross_validate(noise, y, classes=("a", "b", "c"), features=tuple(map(str, range(30))))
    assert (guess == y).mean() < 0.6  # fitted and asked on the same samples it would be 1
    x, y = blobs()
    assert (cross_validate(x, y, classes=("a", "b", "c"), features=("f", "g", "h")) == y).mean() > 0.9


# --- the shipped classifier ------------------------------------------------------------------------------------------
def test_the_card():
    card = phenotype_model()
    assert card.model.classes == PHENOTYPES
    assert "benchmarks/phenotypes.py" in card.command
    assert card.accuracy["graph and envelope"] > card.accuracy["one ellipsoid"]


def test_organoids_of_balls():
    for labels, phenotype in ((cyst(), "cystic"), (crowd(), "compact"), (lobes(), "cauliflower")):
        graph = nuclei_graph(labels, spacing_um=SPACING)  # other edges than the classifier's
        found = classify_phenotype(graph, labels)
        assert sum(found.values()) == pytest.approx(1)
        assert max(found, key=found.get) == phenotype


def test_the_edges_of_the_graph_do_not_matter():
    labels = lobes()
    usual = nuclei_graph(labels, spacing_um=SPACING, edges="delaunay")
    found = classify_phenotype(usual, labels, descriptors=describe(usual, labels))
    other = nuclei_graph(labels, spacing_um=SPACING, edges="delaunay", radius_um=13.0)
    assert classify_phenotype(other, labels, descriptors=describe(other, labels)) == pytest.approx(found)


def test_held_out_simulations():
    """Seeds that the classifier has not seen."""
    baseline = phenotype_model().baseline
    right = right_by_ellipsoid = total = 0
    for phenotype in PHENOTYPES:
        for seed in range(5000, 5003):
            config = SimulationConfig(scene=phenotype, diameter_px=(8, 12), extent=(0.75, 1.0), shape=(48, 80, 80))
            volume = simulate_volume(config, seed=seed)
            graph = nuclei_graph(volume.labels, spacing_um=volume.spacing_um, edges="delaunay", surface_distance=False)
            if len(graph) < 12:
                continue
            found = classify_phenotype(graph, volume.labels)
            right += max(found, key=found.get) == phenotype
            features = ellipsoid_features(graph)
            row = np.array([[features[name] for name in baseline.features]])
            right_by_ellipsoid += PHENOTYPES[int(baseline.probabilities(row).argmax())] == phenotype
            total += 1
    assert total >= 7
    assert right / total > 0.75
    assert right >= right_by_ellipsoid


def test_what_has_no_phenotype():
    labels = cyst()
    with pytest.raises(ImageError, match="plane"):
        classify_phenotype(nuclei_graph(labels[5]), labels[5])
    few = np.where(labels < 8, labels, 0)
    with pytest.raises(ImageError, match="at least 12"):
        classify_phenotype(nuclei_graph(few), few)
