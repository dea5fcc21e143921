"""Masks to flows: the kernel against the reference, and against what the flows must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from napari_aprcnn import _kernels
from napari_aprcnn._kernels import reference
from napari_aprcnn.bench.fields import ellipsoids

small_labels = st.one_of(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(0, 3)),
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6), elements=st.integers(0, 3)),
)


def in_numpy(labels: np.ndarray) -> np.ndarray:
    compact, n = reference.compact_labels(labels)
    flows = np.zeros((labels.ndim, *labels.shape), np.float32)
    reference.flows_from_labels(compact, n, flows)
    return flows


# Two voxels are equally near to the mean: rounding decides, and must decide alike.
@example(np.array([[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0]], np.uint8))
@given(small_labels)
@settings(max_examples=60, deadline=None)
def test_any_labels_give_the_bits_of_the_reference(labels):
    assert_array_equal(_kernels.flows_from_labels(labels, threads=2), in_numpy(labels))


@given(small_labels)
@settings(max_examples=40, deadline=None)
def test_vectors_have_length_one_or_zero_and_stay_inside(labels):
    flows = _kernels.flows_from_labels(labels, threads=1)
    length = np.sqrt((flows.astype(float) ** 2).sum(0))
    assert ((abs(length - 1) < 1e-5) | (length == 0)).all()
    assert (length[labels == 0] == 0).all()


@pytest.mark.parametrize("shape", [(90, 70), (16, 40, 30)])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(shape, every_kernel):
    labels = ellipsoids(shape, 20, diameter=11)
    with every_kernel() as names:
        results = [
            _kernels.flows_from_labels(labels, threads=threads).tobytes() for _ in names for threads in (1, 2, 5)
        ]
    assert len(set(results)) == 1


def test_flows_point_to_the_centre_of_a_disc():
    y, x = np.mgrid[-10:11, -10:11]
    disc = y * y + x * x < 80
    flows = _kernels.flows_from_labels(disc)
    far = disc & (y * y + x * x > 9)
    toward = -np.stack([y, x])[:, far] / np.hypot(y, x)[far]
    assert (flows[:, far] * toward).sum(0).min() > 0.97


def test_flows_of_a_ball_point_to_its_centre_in_3d():
    z, y, x = np.mgrid[-6:7, -6:7, -6:7]
    ball = z * z + y * y + x * x < 36
    flows = _kernels.flows_from_labels(ball)
    far = ball & (z * z + y * y + x * x > 4)
    toward = -np.stack([z, y, x])[:, far] / np.sqrt(z * z + y * y + x * x)[far]
    assert (flows[:, far] * toward).sum(0).min() > 0.93


@pytest.mark.parametrize("kind", ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4"])
def test_every_integer_type_gives_the_same_flows(kind):
    labels = np.zeros((12, 9), kind)
    labels[2:9, 3:8] = 1
    expected = _kernels.flows_from_labels(labels.astype(np.uint32))
    assert expected.any()
    assert_array_equal(_kernels.flows_from_labels(labels), expected)


def test_ids_do_not_matter():
    labels = ellipsoids((60, 60), 12, diameter=12).astype(np.uint64)
    expected = _kernels.flows_from_labels(labels)
    strange = labels * np.uint64(2**59 + 12345)
    strange[labels == 3] = 2**64 - 1
    assert_array_equal(_kernels.flows_from_labels(strange), expected)
    assert_array_equal(_kernels.flows_from_labels(labels[::-1, ::-1].copy()[::-1, ::-1]), expected)


def test_compact_labels_number_in_the_order_of_first_voxels():
    compact, n = _kernels.compact_labels(np.array([[0, 10**12], [5, 10**12]]))
    assert n == 2
    assert compact.tolist() == [[0, 1], [2, 1]]


def test_each_piece_of_an_object_gets_its_own_centre():
    labels = np.zeros((20, 40), np.int32)
    labels[2:17, 2:17] = 7
    labels[4:13, 25:34] = 7
    flows = _kernels.flows_from_labels(labels)
    alone = _kernels.flows_from_labels(np.where(np.arange(40) > 20, labels, 0))
    middle = (8, 29)
    assert flows[0, 4, 29] == 1.0
    assert flows[0, 12, 29] == -1.0
    assert_array_equal(flows[:, middle[0], middle[1]], [0, 0])
    assert (flows[:, 4:13, 25:34] * alone[:, 4:13, 25:34]).sum(0)[0].min() > 0.9


def test_a_single_pixel_and_an_object_of_the_whole_image():
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 2] = 1
    assert not _kernels.flows_from_labels(labels).any()
    whole = _kernels.flows_from_labels(np.ones((9, 9), np.uint8))
    assert whole[0, 0, 4] == 1.0
    assert whole[1, 4, 8] == -1.0


def test_bad_labels_are_refused():
    with pytest.raises(ValueError, match="negative"):
        _kernels.flows_from_labels(np.full((3, 3), -1))
    with pytest.raises(ValueError, match="axes"):
        _kernels.flows_from_labels(np.ones(3, int))
    with pytest.raises(TypeError, match="float64"):
        _kernels.flows_from_labels(np.ones((3, 3)))


def test_flow_errors_are_those_of_the_reference_and_tell_good_from_bad():
    labels = ellipsoids((80, 80), 14, diameter=13)
    n = int(labels.max())
    flows = 5 * _kernels.flows_from_labels(labels)
    random = np.random.default_rng(0)
    noisy = flows + random.normal(size=flows.shape).astype(np.float32)
    got = _kernels.flow_errors(labels, n, noisy, threads=2)
    expected = np.zeros(n)
    reference.flow_errors(labels, n, noisy, expected)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert _kernels.flow_errors(labels, n, flows).max() < 1e-12
    assert _kernels.flow_errors(labels, n, -flows).min() > 3


def test_flow_errors_in_3d_compare_directions_only():
    labels = ellipsoids((20, 40, 40), 10, diameter=11)
    n = int(labels.max())
    flows = _kernels.flows_from_labels(labels)
    errors = _kernels.flow_errors(labels, n, 0.3 * flows)
    assert errors.max() < 0.005
    expected = np.zeros(n)
    reference.flow_errors(labels, n, 0.3 * flows, expected)
    np.testing.assert_allclose(errors, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.shared
def test_nothing_is_lost_on_real_labels(shared_data, read_labels):
    labels = read_labels(shared_data / "bbbc039_test.zip", 0)
    assert_array_equal(_kernels.flows_from_labels(labels), in_numpy(labels))
