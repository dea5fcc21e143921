import numpy as np

from napari_aprcnn.segment.sizes import drop_small


def test_debris_goes_and_numbers_stay_consecutive():
    labels = np.zeros((6, 20, 20), np.uint16)
    for number in range(1, 6):
        labels[1:5, 4 * number - 4 : 4 * number - 1, :10] = number
    labels[3, 8:11, :10] = 0
    labels[2:5, 8:11, :10] = 0
    labels[1, 8:11, 1:10] = 0  # the third is 3 voxels
    assert drop_small(labels, share=0.25) == 4
    assert set(np.unique(labels)) == set(range(5))
    assert not labels[1, 8:11, 0].any()


def test_nothing_to_do():
    empty = np.zeros((2, 3, 3), np.uint32)
    assert drop_small(empty, share=0.25) == 0
    labels = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    before = labels.copy()
    assert drop_small(labels, share=0.0) == 7
    np.testing.assert_array_equal(labels, before)
