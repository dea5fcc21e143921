"""Labels to three classes and back, and the layers of voxels that both count in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure

from napari_aprcnn._kernels.grids import paint_cells
from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.errors import CancelledError, ConfigError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.evaluate.matching import evaluate
from napari_aprcnn.segment.grow import drop_small, grow_labels, inner_voxels, shrink_labels
from napari_aprcnn.segment.three_class import (
    ThreeClassSettings,
    class_shares,
    three_class_instances,
    three_class_targets,
)
from trees import random_tree

SHAPES = [(60, 70), (20, 44, 48)]


def certain(classes):
    return np.stack([classes == kind for kind in range(3)]).astype(np.float32)


def touching(shape):
    """Two boxes that share a face."""
    labels = np.zeros(shape, np.uint32)
    middle = shape[-1] // 2
    labels[..., 3:-3, 4:middle], labels[..., 3:-3, middle:-4] = 1, 2
    return labels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 2])
def test_the_interior_is_the_erosion_of_each_object(shape, width):
    labels = ellipsoids(shape, 10, diameter=15, seed=1)
    classes = three_class_targets(labels, width=width)
    assert_array_equal(classes > 0, labels > 0)
    cross = generate_binary_structure(labels.ndim, 1)
    for label in range(1, labels.max() + 1):
        # Beyond the image the object goes on.
        eroded = binary_erosion(labels == label, cross, iterations=width, border_value=1)
        if eroded.any():
            assert_array_equal((classes == 1) & (labels == label), eroded)


def test_interiors_of_touching_objects_never_share_a_face():
    labels = touching((12, 20, 24))
    classes = three_class_targets(labels)
    assert not ((classes[..., 1:] == 1) & (classes[..., :-1] == 1) & (labels[..., 1:] != labels[..., :-1])).any()
    assert three_class_instances(certain(classes)).max() == 2


def test_a_thin_object_gets_a_thinner_boundary():
    labels = np.zeros((11, 11, 11), np.uint16)
    labels[4:7, 3:8, 3:8] = 1  # three voxels thick: one layer is left after one step, none after two
    assert (three_class_targets(labels, width=2) == 1).sum() == (three_class_targets(labels, width=1) == 1).sum() == 9
    # Fewer layers along z keep the interior of flat nuclei.
    flat = np.zeros((4, 12, 12), np.uint16)
    flat[1:3, 2:10, 2:10] = 1
    assert not (three_class_targets(flat, width=1) == 1).any()
    assert (three_class_targets(flat, width=(0, 1, 1)) == 1).sum() == 2 * 36


@pytest.mark.parametrize("shape", SHAPES)
def test_targets_give_the_labels_back(shape):
    labels = ellipsoids(shape, 12, diameter=14, seed=2)
    found = three_class_instances(certain(three_class_targets(labels)), ThreeClassSettings(min_interior_vox=1))
    large = np.flatnonzero(np.bincount(labels.ravel()) >= 60)[1:]
    matching = evaluate(found, np.where(np.isin(labels, large), labels, 0), thresholds=[0.8])[0]
    assert matching.false_negatives == 0
    assert found.dtype == np.uint32
    assert not found[labels == 0].any()


def test_the_threshold_splits_and_the_smallest_interior_drops():
    probabilities = np.zeros((3, 9, 9, 21), np.float32)
    probabilities[1, 2:7, 2:7, 2:9] = probabilities[1, 2:7, 2:7, 10:17] = 0.9
    probabilities[1, 4, 4, 9] = 0.6  # a bridge
    probabilities[1, 4, 4, 19] = 0.9  # debris
    probabilities[0] = 1 - probabilities[1]

    def count(**changes):
        return three_class_instances(probabilities, ThreeClassSettings(dilation_vox=0, **changes)).max()

    assert count(interior_threshold=0.5, min_interior_vox=1) == 2
    assert count(interior_threshold=0.7, min_interior_vox=1) == 3
    assert count(interior_threshold=0.7, min_interior_vox=10) == 2


def test_growth_stays_in_the_foreground():
    probabilities = np.zeros((3, 9, 9, 9), np.float32)
    probabilities[1, 4, 4, 4] = 1
    probabilities[2, 4, 4, 5:8] = 0.8
    probabilities[0] = 1 - probabilities[1:].sum(0)
    grown = three_class_instances(probabilities, ThreeClassSettings(min_interior_vox=1, dilation_vox=2))
    assert np.argwhere(grown).tolist() == [[4, 4, 4], [4, 4, 5], [4, 4, 6]]
    everywhere = ThreeClassSettings(min_interior_vox=1, dilation_vox=1, foreground_threshold=0.7)
    assert (three_class_instances(probabilities, everywhere) > 0).sum() == 2


@given(seed=st.integers(0, 200), steps=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_growing_never_merges_and_is_a_dilation_where_there_is_room(seed, steps):
    rng = np.random.default_rng(seed)
    labels = np.zeros((10, 12, 14), np.uint32)
    labels.flat[rng.choice(labels.size, 6, replace=False)] = np.arange(1, 7)
    grown = grow_labels(labels, steps)
    assert_array_equal(grown[labels > 0], labels[labels > 0])
    cross = generate_binary_structure(3, 1)
    assert_array_equal(grown > 0, binary_dilation(labels > 0, cross, iterations=steps))
    for label in range(1, 7):
        assert not (grown == label)[~binary_dilation(labels == label, cross, iterations=steps)].any()


def test_a_tie_goes_to_the_smallest_label():
    labels = np.array([[5, 0, 2, 0, 0, 7]], np.uint32)
    assert grow_labels(labels, 1).tolist() == [[5, 2, 2, 2, 7, 7]]
    assert grow_labels(labels, (0, 1)).tolist() == [[5, 2, 2, 2, 7, 7]]
    assert grow_labels(labels, (1, 0)).tolist() == labels.tolist()


def test_shrinking_keeps_what_would_vanish():
    labels = np.zeros((8, 8, 12), np.uint32)
    labels[1:7, 1:7, 1:7], labels[3, 3, 9] = 1, 2
    smaller = shrink_labels(labels, 1)
    assert (smaller == 1).sum() == 4**3
    assert (smaller == 2).sum() == 1
    assert_array_equal(inner_voxels(labels, 0), labels > 0)


def test_drop_small_numbers_the_rest():
    assert drop_small(np.array([1, 2, 2, 0, 3, 3, 3], np.uint32), 2).tolist() == [0, 1, 1, 0, 2, 2, 2]
    assert drop_small(np.zeros(3, np.uint32), 2).tolist() == [0, 0, 0]


def test_shares_are_means_over_cells():
    labels = ellipsoids((20, 24, 28), 6, diameter=12)
    classes, tree = three_class_targets(labels), random_tree((20, 24, 28), share=0.1)
    shares = class_shares(classes, tree.cells())
    assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert_allclose(shares[:, 2], tree.sample((classes == 2).astype(np.float32)), atol=1e-6)
    # Painted back, particles of single voxels hold the classes.
    single = paint_cells(np.ascontiguousarray(shares[:, 1]), tree.cells(), tree.shape)[tree.level_image() == 5]
    assert set(np.unique(single)) <= {0.0, 1.0}


def test_bad_input():
    with pytest.raises(ImageError, match="4 axes"):
        three_class_targets(np.zeros((2, 3, 4, 5), int))
    with pytest.raises(ImageError, match="width"):
        three_class_targets(np.zeros((3, 4), int), width=-1)
    with pytest.raises(ImageDtypeError, match="float"):
        three_class_targets(np.zeros((3, 4)))
    with pytest.raises(ImageValueError, match="negative"):
        three_class_targets(np.full((3, 4), -2))
    with pytest.raises(ImageError, match="background, interior, boundary"):
        three_class_instances(np.zeros((2, 4, 4, 4)))
    with pytest.raises(ImageValueError, match="finite"):
        three_class_instances(np.full((3, 4, 4, 4), np.nan))
    with pytest.raises(ConfigError, match="dilation_vox"):
        ThreeClassSettings(dilation_vox=-1)
    with pytest.raises(CancelledError):
        three_class_instances(np.zeros((3, 4, 4, 4)), should_cancel=lambda: True)
