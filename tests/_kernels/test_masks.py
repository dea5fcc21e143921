"""Flows to masks: following, grouping, cleaning; the kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage

from napari_aprcnn import _kernels
from napari_aprcnn._kernels import reference_masks


def random_field(shape, sigma, seed):
    random = np.random.default_rng(seed)
    flows = np.stack([ndimage.gaussian_filter(random.normal(size=shape), sigma) for _ in shape])
    inside = ndimage.gaussian_filter(random.normal(size=shape), sigma) > 0
    return (5 * flows / flows.std()).astype(np.float32), inside


def all_steps(flows, inside, *, threads=2, n_steps=200, min_size=15, fill_holes=True):
    ends, counts = _kernels.follow_flows(flows, inside, n_steps=n_steps, threads=threads)
    parts = [ends.copy(), counts.copy()]
    labels, n = _kernels.group_ends(ends, counts, max_voxels=0.4 * inside.size, threads=threads)
    parts.append(labels.copy())
    labels, n = _kernels.clean_labels(labels, n, min_size=min_size, fill_holes=fill_holes, threads=threads)
    return [*parts, labels, np.array(n)]


@pytest.mark.parametrize(("shape", "sigma"), [((150, 130), 1.5), ((97, 60), 4), ((14, 40, 37), 2), ((1, 30, 30), 2)])
@pytest.mark.parametrize("n_steps", [1, 13, 200])
def test_every_kernel_and_thread_count_gives_the_same_bits(shape, sigma, n_steps, every_kernel):
    flows, inside = random_field(shape, sigma, seed=len(shape))
    with every_kernel() as names:
        results = [
            [part.tobytes() for part in all_steps(flows, inside, threads=threads, n_steps=n_steps)]
            for name in names
            for threads in ((1,) if name == "python" else (1, 2, 7))
        ]
    assert all(result == results[0] for result in results)


@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 24)] * 2), st.tuples(*[st.integers(1, 9)] * 3)),
    sigma=st.floats(0.3, 3),
    n_steps=st.integers(1, 60),
    min_size=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_field_gives_the_masks_of_the_reference(shape, sigma, n_steps, min_size, seed):
    flows, inside = random_field(shape, sigma, seed)
    got = all_steps(flows, inside, n_steps=n_steps, min_size=min_size)
    _kernels.use_kernels("reference")
    try:
        expected = all_steps(flows, inside, n_steps=n_steps, min_size=min_size)
    finally:
        _kernels.use_kernels("auto")
    for a, b in zip(got, expected, strict=True):
        assert_array_equal(a, b)


def exact_paths(flows, inside, n_steps):
    """Ends of plain Euler paths in 2D, with no rounding and no merging."""
    field = np.where(inside, flows, 0).astype(float) / 5
    at = np.argwhere(inside).astype(float)
    for _ in range(n_steps):
        move = [ndimage.map_coordinates(part, at.T, order=1, mode="nearest") for part in field]
        at = np.clip(at + np.stack(move, 1), 0, np.array(inside.shape) - 1)
    return at


@pytest.mark.parametrize("n_steps", [1, 5, 12])
def test_before_paths_merge_ends_are_those_of_exact_paths(n_steps):
    flows, inside = random_field((60, 50), 3, seed=1)
    ends, _ = _kernels.follow_flows(flows, inside, n_steps=n_steps)
    exact = exact_paths(flows, inside, n_steps)
    got = np.stack(np.unravel_index(ends[inside] - 1, inside.shape), 1)
    # Truncated to voxels; a hair's breadth may decide between two.
    assert (np.abs(got + 0.5 - exact).max(1) < 0.51).all()


def test_counts_are_those_of_the_ends():
    flows, inside = random_field((70, 80), 2, seed=2)
    ends, counts = _kernels.follow_flows(flows, inside)
    assert counts.sum() == inside.sum()
    assert_array_equal(np.bincount(ends[inside] - 1, minlength=ends.size).reshape(ends.shape), counts)
    assert (ends[~inside] == 0).all()


def test_flows_beyond_the_fixed_point_range_still_end_inside():
    flows = np.full((2, 30, 30), 1e30, np.float32)
    ends, counts = _kernels.follow_flows(flows, np.ones((30, 30), bool))
    assert (ends == 900).all()
    assert counts[29, 29] == 900


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_flows_must_be_finite_inside_only(bad, every_kernel):
    flows, inside = np.zeros((2, 8, 8), np.float32), np.ones((8, 8), bool)
    flows[1, 3, 3] = bad
    with every_kernel() as names:
        for _ in names:
            with pytest.raises(ValueError, match="finite"):
                _kernels.follow_flows(flows, inside)
            hole = inside.copy()
            hole[3, 3] = False
            _kernels.follow_flows(flows, hole)


def test_shapes_and_steps_are_checked():
    inside = np.ones((4, 4), bool)
    with pytest.raises(ValueError, match="shape"):
        _kernels.follow_flows(np.zeros((3, 4, 4), np.float32), inside)
    with pytest.raises(ValueError, match="steps"):
        _kernels.follow_flows(np.zeros((2, 4, 4), np.float32), inside, n_steps=0)
    with pytest.raises(ValueError, match="axes"):
        _kernels.follow_flows(np.zeros((1, 4), np.float32), np.ones(4, bool))
    with pytest.raises(ValueError, match="threads"):
        _kernels.follow_flows(np.zeros((2, 4, 4), np.float32), inside, threads=0)


def grouped(counts_at, shape=(30, 30)):
    """Labels of voxels that end at given places, so many at each; the k-th voxel belongs to the k-th end."""
    ends = np.zeros(shape, np.uint32)
    counts = np.zeros(shape, np.uint32)
    places = [np.ravel_multi_index(place, shape) for place, n in counts_at for _ in range(n)]
    ends.reshape(-1)[: len(places)] = np.array(places) + 1
    np.add.at(counts.reshape(-1), places, 1)
    labels, n = _kernels.group_ends(ends, counts)
    return labels.reshape(-1)[: len(places)], n


def test_a_seed_needs_more_than_ten_voxels(every_kernel):
    with every_kernel() as names:
        for _ in names:
            assert grouped([((5, 5), 10)])[1] == 0
            assert grouped([((5, 5), 11)])[1] == 1


def test_a_seed_grows_five_places_over_places_with_more_than_two_voxels(every_kernel):
    line = [((10, 10), 12)] + [((10, 10 + k), 3) for k in range(1, 8)] + [((9, 10), 2)]
    with every_kernel() as names:
        for _ in names:
            labels, n = grouped(line)
            assert n == 1
            assert labels.tolist() == [1] * 12 + [1] * 15 + [0] * 6 + [0] * 2


def test_a_smaller_peak_next_to_a_larger_one_is_no_seed_and_the_fullest_wins(every_kernel):
    with every_kernel() as names:
        for _ in names:
            assert grouped([((10, 10), 20), ((10, 12), 15)])[1] == 1
            labels, n = grouped([((10, 10), 20), ((10, 11), 3), ((10, 12), 3), ((10, 13), 15)])
            assert n == 1
            assert set(labels.tolist()) == {1}


def test_objects_above_the_largest_size_are_dropped():
    flows, inside = random_field((40, 40), 3, seed=3)
    ends, counts = _kernels.follow_flows(flows, inside)
    labels, n = _kernels.group_ends(ends.copy(), counts.copy())
    largest = np.bincount(labels[labels > 0]).max()
    fewer, n_fewer = _kernels.group_ends(ends, counts, max_voxels=largest - 1)
    assert n_fewer < n
    assert sorted(np.unique(fewer)) == list(range(n_fewer + 1))


def ring(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[..., low:high, low:high] = True
    mask[..., low + 1 : high - 1, low + 1 : high - 1] = False
    return mask


def test_holes_are_filled_plane_by_plane(every_kernel):
    labels = np.zeros((3, 12, 12), np.uint32)
    labels[ring(labels.shape, 2, 8)] = 1  # a tube, open at both ends
    labels[1, 2, 4] = 0  # a gap in one plane lets the background in
    with every_kernel() as names:
        for _ in names:
            got, n = _kernels.clean_labels(labels.copy(), 1, min_size=0)
            assert n == 1
            assert got[0, 2:8, 2:8].all()
            assert got[2, 2:8, 2:8].all()
            assert not got[1, 3:7, 3:7].any()


def test_diagonal_gaps_do_not_open_a_hole(every_kernel):
    labels = np.zeros((12, 12), np.uint32)
    labels[ring(labels.shape, 2, 8)] = 1
    labels[2, 2] = 0
    with every_kernel() as names:
        for _ in names:
            assert _kernels.clean_labels(labels.copy(), 1, min_size=0)[0][3:7, 3:7].all()


@pytest.mark.parametrize("inner", [1, 2])
def test_an_object_in_a_hole_is_swallowed_whatever_its_number(inner, every_kernel):
    labels = np.zeros((20, 20), np.uint32)
    labels[ring(labels.shape, 2, 14)] = 3 - inner
    labels[5:10, 5:10] = inner
    with every_kernel() as names:
        for _ in names:
            got, n = _kernels.clean_labels(labels.copy(), 2)
            assert n == 1
            assert (got[2:14, 2:14] == 1).all()
            kept, n = _kernels.clean_labels(labels.copy(), 2, fill_holes=False)
            assert n == 2
            assert_array_equal(kept, labels)


def test_small_objects_go_and_numbers_close_up(every_kernel):
    labels = np.zeros((10, 30), np.uint32)
    for k in range(5):
        labels[0 : k + 1, 6 * k : 6 * k + 5] = k + 1
    with every_kernel() as names:
        for _ in names:
            got, n = _kernels.clean_labels(labels.copy(), 5, min_size=15)
            assert n == 3
            assert_array_equal(got, np.where(labels >= 3, labels - 2, 0))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), planes=st.integers(1, 3), min_size=st.integers(0, 10))
@example(seed=149, n=6, planes=3, min_size=7)  # filled in one plane, swallowed in the others
@settings(max_examples=80, deadline=None)
def test_random_nests_are_cleaned_as_in_the_reference(seed, n, planes, min_size):
    random = np.random.default_rng(seed)
    labels = np.zeros((planes, 14, 14), np.uint32)
    for label in random.permutation(n) + 1:  # boxes and frames over each other
        low = random.integers(0, 9, 2)
        high = low + random.integers(2, 8, 2)
        box = (slice(0, random.integers(1, planes + 1)), slice(low[0], high[0]), slice(low[1], high[1]))
        labels[box] = label
        if random.random() < 0.6:
            labels[box][:, 1:-1, 1:-1] = 0
    labels = labels[0] if planes == 1 else labels
    expected = np.ascontiguousarray(labels.copy())
    n_expected = reference_masks.clean_labels(expected, n, min_size, True)
    got, n_got = _kernels.clean_labels(np.ascontiguousarray(labels), n, min_size=min_size, threads=2)
    assert n_got == n_expected
    assert_array_equal(got, expected)


def test_relabel():
    labels = np.array([[0, 1], [2, 3]], np.uint32)
    assert _kernels.relabel(labels, [0, 5, 0, 1]).tolist() == [[0, 5], [0, 1]]
