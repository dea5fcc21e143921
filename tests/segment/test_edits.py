import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_aprcnn.errors import AprcnnError
from napari_aprcnn.segment import edits
from napari_aprcnn.segment.edits import (
    EditError,
    EditHistory,
    FullLabelsError,
    SeedError,
    UnknownObjectError,
)

SPACING = (2.0, 1.0, 1.0)


def balls(*centres, shape=(24, 40, 40), radius=7, spacing=(1, 1, 1), dtype=np.uint16):
    """One object of overlapping balls."""
    grid = np.mgrid[tuple(slice(0, n) for n in shape)]
    labels = np.zeros(shape, dtype)
    for centre in centres:
        far = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing[-len(shape) :], strict=True))
        labels[far <= radius**2] = 5
    return labels


def squares():
    """Two squares that touch, one apart, one in a corner."""
    labels = np.zeros((20, 30), np.uint16)
    labels[5:11, 5:11], labels[5:11, 11:15], labels[14:18, 20:26], labels[0:3, 0:3] = 2, 3, 7, 9
    return labels


def random_labels(seed, shape):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    return ndimage.label(noise > np.quantile(noise, 0.6))[0].astype(np.uint8)


# --- every edit can be taken back ------------------------------------------------------------------------------------
WORKS = {
    "merge": lambda a, i: edits.merge_objects(a, i),
    "delete": lambda a, i: edits.delete_objects(a, i),
    "grow": lambda a, i: edits.grow_objects(a, i, 2, spacing_um=SPACING),
    "shrink": lambda a, i: edits.shrink_objects(a, i, 1, spacing_um=SPACING),
    "fill": lambda a, i: edits.fill_holes(a, i),
    "smooth": lambda a, i: edits.smooth_objects(a, i, 1.0, spacing_um=SPACING),
    "relabel": lambda a, _: edits.relabel_objects(a),
    "small": lambda a, _: edits.remove_small_objects(a, 9),
    "border": lambda a, _: edits.remove_border_objects(a),
    "parts": lambda a, i: edits.split_into_parts(a, i[0], 2, spacing_um=SPACING),
    # Without the object there are no points for the next two, which is an IndexError of the test itself.
    "plane": lambda a, i: edits.split_by_plane(a, i[0], np.argwhere(a == i[0])[[0, -1]]),
    "seeds": lambda a, i: edits.split_at_seeds(a, i[0], np.argwhere(a == i[0])[[0, -1]]),
}


@given(
    st.integers(0, 10_000),
    st.sampled_from([(12, 14), (5, 9, 10)]),
    st.lists(st.sampled_from(sorted(WORKS)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_undo_and_redo_are_exact(seed, shape, works):
    labels = random_labels(seed, shape)
    history, states = EditHistory(), [labels.copy()]
    for work in works:
        before = labels.copy()
        ids = np.unique(labels)[1:][:3].tolist() or [1]
        try:
            edit = WORKS[work](labels, ids)
        except (AprcnnError, IndexError):
            np.testing.assert_array_equal(labels, before)  # nothing half done
            continue
        changed = np.argwhere(labels != before)
        assert len(edit.places) == len(changed)
        assert [s.start for s in edit.box] == changed.min(0).tolist()
        assert [s.stop for s in edit.box] == (changed.max(0) + 1).tolist()
        assert edit.words
        history.push(edit)
        states.append(labels.copy())
    for state in states[-2::-1]:
        assert history.undo(labels) is not None
        np.testing.assert_array_equal(labels, state)
    assert history.undo(labels) is None
    for state in states[1:]:
        assert history.redo(labels) is not None
        np.testing.assert_array_equal(labels, state)
    assert history.redo(labels) is None


# --- each of them ----------------------------------------------------------------------------------------------------
def test_merge_keeps_the_id_of_the_largest():
    labels = squares()
    edit = edits.merge_objects(labels, [3, 2])
    assert edit.objects == (2,)
    assert edit.touched == (2, 3)
    assert np.unique(labels).tolist() == [0, 2, 7, 9]
    assert (labels == 2).sum() == 60
    assert edit.box == (slice(5, 11), slice(11, 15))  # only what has changed
    edits.merge_objects(labels, [2, 7], within=(slice(0, 20), slice(0, 30)))
    assert (labels == 2).sum() == 84


def test_a_wrong_region_is_no_wrong_result():
    labels = squares()
    edits.delete_objects(labels, [7], within=(slice(0, 4), slice(0, 4)))
    assert 7 not in labels


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 1)])
def test_split_finds_the_neck(spacing):
    shape = (24, 40, 40) if spacing[0] == 1 else (8, 40, 40)
    z = shape[0] // 2
    labels = balls((z, 20, 13), (z, 20, 25), shape=shape, spacing=spacing)
    labels[0, 0, 0] = 11
    edit = edits.split_into_parts(labels, 5, 2, spacing_um=spacing)
    assert edit.objects == (5, 12)
    middles = sorted(ndimage.center_of_mass(labels == i)[2] for i in edit.objects)
    assert middles == pytest.approx([13, 25], abs=1)
    sizes = [(labels == i).sum() for i in edit.objects]
    assert sizes[0] >= sizes[1] > 0.8 * sizes[0]
    assert labels[z, 20, 18] != labels[z, 20, 20]


def test_split_into_three_and_of_a_plane():
    labels = balls((12, 20), (12, 30), (22, 25), shape=(35, 50), radius=6)
    edit = edits.split_into_parts(labels, 5, 3)
    assert edit.objects == (5, 6, 7)
    assert len({labels[12, 19], labels[12, 31], labels[23, 25]}) == 3


def test_split_without_a_neck_is_even():
    labels = np.zeros((4, 6, 30), np.uint16)
    labels[:, 1:5, 2:28] = 1
    edits.split_into_parts(labels, 1, 3)
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) == 3
    assert sizes.min() > 0.7 * sizes.max()
    assert sizes[0] == sizes.max()


def test_split_of_separate_pieces():
    labels = balls((10, 8), (10, 30), shape=(20, 40), radius=5)
    labels[10, 19:21] = 5
    edits.split_into_parts(labels, 5, 2)
    assert labels[10, 8] != labels[10, 30]


def test_seeds_decide_where_the_parts_are():
    labels = balls((12, 20, 13), (12, 20, 25))
    edit = edits.split_at_seeds(labels, 5, [(12, 20, 12.4), (12, 20, 26)])
    assert labels[12, 20, 13] != labels[12, 20, 25]
    assert (labels[12, 20, 13] == 5) is not (labels[12, 20, 25] == 5)
    edit.undo(labels)
    labels[0, 0, 0:2] = 5  # a piece that no seed reaches
    edits.split_at_seeds(labels, 5, [(12, 20, 12), (12, 20, 26)])
    assert labels[0, 0, 0] == labels[12, 20, 13]


def test_a_plane_cuts_along_the_slider():
    labels = balls((12, 20, 20), radius=8)
    edits.split_by_plane(labels, 5, [(3, 0, 20.5), (3, 39, 20.5)])
    left, right = np.unique(labels[:, :, 20]).tolist(), np.unique(labels[:, :, 21]).tolist()
    assert len(left) == len(right) == 2
    assert left != right
    flat = balls((10, 10), shape=(20, 20), radius=6)
    edits.split_by_plane(flat, 5, [(9.5, 0), (9.5, 1)])
    assert flat[9, 10] != flat[10, 10]
    with pytest.raises(SeedError, match="misses"):
        edits.split_by_plane(flat, 5, [(0, 0), (0, 5)])
    with pytest.raises(SeedError, match="same place"):
        edits.split_by_plane(flat, 5, [(3, 3), (3, 3)])


def test_growing_stops_at_neighbours_and_respects_the_voxels():
    labels = squares()
    before = labels.copy()
    edits.grow_objects(labels, [2], 2)
    for other in (3, 7, 9):
        np.testing.assert_array_equal(labels == other, before == other)
    assert (labels == 2)[3, 5:11].all()
    assert labels[2, 7] == 0
    volume = np.zeros((9, 9, 9), np.uint8)
    volume[4, 4, 4] = 1
    edits.grow_objects(volume, [1], 2, spacing_um=SPACING)
    line = [volume[:, 4, 4].sum(), volume[4, :, 4].sum(), volume[4, 4, :].sum()]
    assert line == [3, 5, 5]


def test_growing_does_not_jump_over_a_neighbour():
    labels = np.zeros((9, 9), np.uint8)
    labels[:, 2], labels[:, 3] = 1, 2
    edits.grow_objects(labels, [1], 3)
    assert not (labels[:, 4:] == 1).any()
    assert (labels[:, :2] == 1).all()


def test_shrinking():
    labels = squares()
    edits.shrink_objects(labels, [2], 1)
    assert np.argwhere(labels == 2).min(0).tolist() == [6, 6]
    assert (labels == 2).sum() == 16
    edits.shrink_objects(labels, [9], 1)
    assert (labels == 9).sum() == 4  # the image's border is no outline
    with pytest.raises(EditError, match="would vanish"):
        edits.shrink_objects(labels, [3], 5)


def test_holes_and_smoothing():
    labels = squares()
    labels[7, 7] = labels[15, 22] = 0
    labels[8, 8] = 3
    edits.fill_holes(labels, [2, 7])
    assert (labels[7, 7], labels[8, 8], labels[15, 22]) == (2, 3, 7)
    with pytest.raises(EditError, match="no voxel would change"):
        edits.fill_holes(labels, [2])
    rough = balls((20, 20), shape=(40, 40), radius=9)
    rough[20, 29:34] = 5
    rough[14, 19:21] = 8
    edits.smooth_objects(rough, [5], 2)
    assert rough[20, 33] == 0
    assert (rough == 8).sum() == 2
    assert (rough == 5).sum() > 220


def test_cleaning_up():
    labels = squares()
    edits.remove_small_objects(labels, 24)
    assert np.unique(labels).tolist() == [0, 2, 3, 7]
    labels = squares()
    edits.remove_border_objects(labels)
    assert np.unique(labels).tolist() == [0, 2, 3, 7]
    edits.relabel_objects(labels)
    assert np.unique(labels).tolist() == [0, 1, 2, 3]
    for work in (edits.relabel_objects, edits.remove_border_objects, lambda a: edits.remove_small_objects(a, 2)):
        with pytest.raises(EditError):
            work(labels)
    plane = np.zeros((1, 9, 9), int)
    plane[0, 3:5, 3:5] = 4
    with pytest.raises(EditError, match="no object touches"):
        edits.remove_border_objects(plane)


# --- what is refused -------------------------------------------------------------------------------------------------
def test_errors_are_typed_and_say_what_to_do():
    labels = squares()
    before = labels.copy()
    with pytest.raises(EditError, match="expected two objects"):
        edits.merge_objects(labels, [2])
    for unknown in (4, 0, -1, 10**9):
        with pytest.raises(UnknownObjectError, match=f"no object {unknown}"):
            edits.merge_objects(labels, [2, unknown])
    with pytest.raises(LookupError):
        edits.delete_objects(labels, [4])
    with pytest.raises(EditError, match="no object is selected"):
        edits.delete_objects(labels, [])
    with pytest.raises(SeedError, match="in the background"):
        edits.split_at_seeds(labels, 2, [(6, 6), (19, 19)])
    with pytest.raises(SeedError, match="in object 3"):
        edits.split_at_seeds(labels, 2, [(6, 6), (6, 12)])
    with pytest.raises(SeedError, match="outside the image"):
        edits.split_at_seeds(labels, 2, [(6, 6), (60, 6)])
    with pytest.raises(SeedError, match="different voxels"):
        edits.split_at_seeds(labels, 2, [(6, 6), (6.2, 6)])
    with pytest.raises(EditError, match="cannot be split"):
        edits.split_into_parts(labels, 9, 10)
    with pytest.raises(EditError, match="2 or more"):
        edits.split_into_parts(labels, 2, 1)
    with pytest.raises(EditError, match="more than 0"):
        edits.grow_objects(labels, [2], 0)
    with pytest.raises(EditError, match="voxel size"):
        edits.grow_objects(labels, [2], 1, spacing_um=(1, 0, 1))
    np.testing.assert_array_equal(labels, before)
    with pytest.raises(EditError, match="read-only"):
        edits.delete_objects(np.broadcast_to(labels, labels.shape), [2])
    with pytest.raises(EditError, match="expected integers"):
        edits.delete_objects(labels.astype(float), [2])
    with pytest.raises(EditError, match="load them into memory"):
        edits.delete_objects([[1, 2]], [2])


def test_a_full_type_is_told():
    labels = balls((10, 10), shape=(20, 20), radius=6, dtype=np.uint8)
    labels[0, 0] = 255
    with pytest.raises(FullLabelsError, match="uint8 labels hold ids up to 255"):
        edits.split_into_parts(labels, 5, 2)
    with pytest.raises(FullLabelsError):
        edits.split_into_parts(balls((10, 10), shape=(20, 20), dtype=np.uint8), 5, 2, above=255)
    assert np.unique(labels).tolist() == [0, 5, 255]


# --- history ---------------------------------------------------------------------------------------------------------
def test_memory_is_limited_and_the_newest_edit_stays():
    labels = balls((12, 20, 20), radius=9)
    history = EditHistory(limit_bytes=1)
    for _ in range(3):
        history.push(edits.shrink_objects(labels, [5], 1))
    assert history.undo_words == "Shrink 5"
    assert history.undo(labels) is not None
    assert history.undo(labels) is None
    assert history.redo_words == "Shrink 5"
    history.push(edits.grow_objects(labels, [5], 1))
    assert history.redo_words == ""
    history.clear()
    assert (history.undo_words, history.nbytes) == ("", 0)


def test_undo_refuses_voxels_that_something_else_has_changed():
    labels = squares()
    history = EditHistory()
    history.push(edits.delete_objects(labels, [2]))
    labels[6, 6] = 3
    before = labels.copy()
    with pytest.raises(EditError, match="changed since"):
        history.undo(labels)
    np.testing.assert_array_equal(labels, before)
    labels[6, 6] = 0
    assert history.undo(labels) is not None
    np.testing.assert_array_equal(labels, squares())


def test_edits_of_a_time_point():
    series = np.stack([squares(), squares()])
    history = EditHistory()
    history.push(edits.merge_objects(series[1], [2, 3]).at_time(1))
    assert 3 in series[0]
    assert 3 not in series[1]
    history.undo(series)
    np.testing.assert_array_equal(series[1], squares())
