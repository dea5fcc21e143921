"""Flows to masks and back: what a user of the two functions relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from napari_aprcnn.bench.fields import disturbed_field, ellipsoids
from napari_aprcnn.bench.masks import agreement
from napari_aprcnn.config import FlowConfig
from napari_aprcnn.errors import CancelledError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.segment.flow_resize import enlarge, reduce
from napari_aprcnn.segment.flows import flows_from_masks, masks_from_flows

SHAPES = [(120, 140), (24, 48, 52)]


def field_of(labels, noise=0.0, seed=0):
    if noise:
        return disturbed_field(labels, noise=noise, seed=seed)
    return 5 * flows_from_masks(labels), np.where(labels > 0, 6, -6).astype(np.float32)


def consecutive(labels):
    return np.unique(labels).tolist() == list(range(int(labels.max()) + 1))


@given(shape=st.sampled_from(SHAPES), diameter=st.floats(11, 22), seed=st.integers(0, 100))
@settings(max_examples=12, deadline=None)
def test_labels_to_flows_to_labels(shape, diameter, seed):
    labels = ellipsoids(shape, 12, diameter=diameter, seed=seed)
    masks = masks_from_flows(*field_of(labels), config=FlowConfig(min_size_vox=1))
    large = np.flatnonzero(np.bincount(labels.ravel()) >= 30)[1:]  # slivers at the border do not gather
    n, _, iou = agreement(masks, np.where(np.isin(labels, large), labels, 0))
    assert consecutive(masks)
    assert n >= len(large)
    assert iou > 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_threads_do_not_change_a_voxel(shape):
    flows, probability = field_of(ellipsoids(shape, 15, diameter=15), noise=1.5)
    results = [masks_from_flows(flows, probability, config=FlowConfig(), threads=threads) for threads in (1, 2, 3, 8)]
    assert results[0].max() > 3
    for result in results[1:]:
        assert_array_equal(result, results[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_moved_field_gives_moved_masks(shape):
    flows, probability = field_of(ellipsoids(shape, 12, diameter=14), noise=0.5)
    masks = masks_from_flows(flows, probability, config=FlowConfig())
    margin = [(5, 3)] * len(shape)
    moved = masks_from_flows(
        np.pad(flows, [(0, 0), *margin]), np.pad(probability, margin, constant_values=-9), config=FlowConfig()
    )
    back = moved[tuple(slice(5, 5 + edge) for edge in shape)]
    n, n_back, iou = agreement(masks, back)
    assert n == n_back
    assert iou > 0.97


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flipped_field_gives_flipped_masks(shape):
    flows, probability = field_of(ellipsoids(shape, 12, diameter=14), noise=0.5)
    masks = masks_from_flows(flows, probability, config=FlowConfig())
    for axis in range(len(shape)):
        flipped = np.flip(flows, axis + 1).copy()
        flipped[axis] *= -1
        other = masks_from_flows(flipped, np.flip(probability, axis), config=FlowConfig())
        n, n_other, iou = agreement(masks, np.flip(other, axis))
        assert n == n_other
        assert iou > 0.97


def test_the_flow_check_drops_objects_whose_flows_disagree():
    labels = ellipsoids((100, 100), 8, diameter=24)
    flows, probability = field_of(labels)
    wrong = labels == 3
    flows[:, wrong] *= 0.3  # the same sink, but an error of 0.7 squared
    kept = masks_from_flows(flows, probability, config=FlowConfig(flow_threshold=0))
    checked = masks_from_flows(flows, probability, config=FlowConfig())
    assert checked.max() == kept.max() - 1
    assert (kept[wrong] > 0).all()
    assert not checked[wrong].any()
    assert consecutive(checked)


def test_the_flow_check_in_3d_can_be_switched_off():
    labels = ellipsoids((24, 40, 40), 6, diameter=15)
    flows, probability = field_of(labels)
    flows += np.random.default_rng(0).normal(scale=6, size=flows.shape).astype(np.float32)
    free = masks_from_flows(flows, probability, config=FlowConfig(flow_threshold_3d=0))
    checked = masks_from_flows(flows, probability, config=FlowConfig(flow_threshold_3d=0.4))
    assert free.max() > checked.max()


def test_thresholds_and_sizes():
    labels = ellipsoids((100, 100), 12, diameter=16)
    flows, probability = field_of(labels, noise=0.3)
    normal = masks_from_flows(flows, probability, config=FlowConfig())
    low = masks_from_flows(flows, probability, config=FlowConfig(probability_threshold=-3))
    assert (low > 0).sum() > (normal > 0).sum()
    sizes = np.bincount(normal.ravel())[1:]
    middle = int(np.median(sizes))
    few = masks_from_flows(flows, probability, config=FlowConfig(min_size_vox=middle))
    assert few.max() == (sizes >= middle).sum()
    assert masks_from_flows(flows, probability, config=FlowConfig(max_size_fraction=1e-4)).max() == 0


@pytest.mark.parametrize("shape", [(160, 150), (32, 64, 61)])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_resize_factor_finds_the_same_objects_with_full_outlines(shape, factor):
    labels = ellipsoids(shape, 8, diameter=26)
    flows, probability = field_of(labels, noise=0.3)
    fine = masks_from_flows(flows, probability, config=FlowConfig())
    coarse = masks_from_flows(flows, probability, config=FlowConfig(resize_factor=factor))
    n, n_coarse, iou = agreement(fine, coarse)
    assert n == n_coarse
    assert iou > 0.93
    assert coarse.shape == shape


def test_reduce_averages_inside_voxels_and_enlarge_goes_back():
    flows = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    inside = np.ones((4, 5), bool)
    inside[0, 0] = False
    coarse, coarse_inside = reduce(flows, inside, 2)
    assert coarse.shape == (2, 2, 3)
    assert coarse_inside.all()
    assert coarse[0, 0, 0] == flows[0, :2, :2].sum() / 3
    assert coarse[1, 1, 2] == flows[1, 2:, 4].mean()
    labels = np.arange(6, dtype=np.uint32).reshape(2, 3)
    back = enlarge(labels, inside, 2)
    assert back.shape == inside.shape
    assert back[0, 0] == 0
    assert back[3, 4] == 5


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 0, 2), (1, 1, 1), (1, 7), (1, 20, 20)])
def test_tiny_and_empty_arrays(shape):
    for value in (-6.0, 6.0):
        masks = masks_from_flows(np.zeros((len(shape), *shape)), np.full(shape, value), config=FlowConfig())
        assert masks.shape == shape
        assert masks.dtype == np.uint32
    assert flows_from_masks(np.ones(shape, int)).shape == (len(shape), *shape)


def test_a_thin_volume_keeps_its_objects():
    labels = ellipsoids((40, 40), 4, diameter=15)[None]
    masks = masks_from_flows(*field_of(labels), config=FlowConfig())
    assert agreement(masks, labels)[2] > 0.95


def test_nothing_above_the_threshold_is_no_object_whatever_the_flows():
    masks = masks_from_flows(np.full((2, 9, 9), np.nan), np.full((9, 9), -1.0), config=FlowConfig())
    assert not masks.any()


@pytest.mark.parametrize(
    ("flows", "probability", "error", "words"),
    [
        (np.zeros((2, 4, 4)), np.zeros(4), ImageError, "axes"),
        (np.zeros((3, 4, 4)), np.zeros((4, 4)), ImageError, "expected"),
        (np.zeros((2, 4, 5)), np.zeros((4, 4)), ImageError, "expected"),
        (np.zeros((2, 4, 4), complex), np.zeros((4, 4)), ImageDtypeError, "real"),
        (np.zeros((2, 4, 4)), np.full((4, 4), "a"), ImageDtypeError, "real"),
        (np.full((2, 4, 4), np.nan), np.ones((4, 4)), ImageValueError, "finite"),
        (np.full((2, 4, 4), np.inf), np.ones((4, 4)), ImageValueError, "finite"),
        (np.zeros((2, 4, 4)), np.full((4, 4), np.nan), ImageValueError, "NaN"),
    ],
)
def test_bad_fields_are_refused_in_words(flows, probability, error, words):
    with pytest.raises(error, match=words):
        masks_from_flows(flows, probability, config=FlowConfig())


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (np.zeros(3, int), ImageError),
        (np.zeros((2, 2, 2, 2), int), ImageError),
        (np.zeros((3, 3)), ImageDtypeError),
        (np.full((3, 3), -2), ImageValueError),
    ],
)
def test_bad_labels_are_refused(labels, error):
    with pytest.raises(error):
        flows_from_masks(labels)


def test_cancel():
    flows, probability = field_of(ellipsoids((64, 64), 6, diameter=15))
    with pytest.raises(CancelledError):
        # Asked at least once a stage, however short the stages are.
        masks_from_flows(flows, probability, config=FlowConfig(), should_cancel=lambda: True)
    with pytest.raises(CancelledError):
        flows_from_masks(np.ones((9, 9), int), should_cancel=lambda: True)


def test_progress_rises_from_zero_to_one():
    seen = []
    flows, probability = field_of(ellipsoids((64, 64), 6, diameter=15))
    masks_from_flows(flows, probability, config=FlowConfig(), progress=seen.append)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert {step.stage for step in seen} == {"masks"}


def test_input_is_left_alone_and_any_layout_works():
    flows, probability = field_of(ellipsoids((60, 50), 6, diameter=15), noise=0.5)
    before = flows.copy(), probability.copy()
    masks = masks_from_flows(flows, probability, config=FlowConfig())
    assert_array_equal(flows, before[0])
    assert_array_equal(probability, before[1])
    strange = masks_from_flows(
        np.asfortranarray(flows).astype(np.float64), np.asfortranarray(probability), config=FlowConfig()
    )
    assert_array_equal(strange, masks)
    assert strange.flags.c_contiguous
