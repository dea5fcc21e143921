import numpy as np
from fakes import blobs, same_partition

from napari_aprcnn.segment.blocks import adopt, cut_blocks


def _cut(labels, block):
    """What a block would find: the labels of its outer region, numbered anew."""
    _, found = np.unique(labels[block.outer], return_inverse=True)
    found = found.reshape(block.outer_shape)
    return (found if (labels[block.outer] == 0).any() else found + 1).astype(np.uint32)


def test_cores_tile_the_volume():
    count = np.zeros((20, 31, 17), int)
    for block in cut_blocks(count.shape, parts=(2, 3, 4), halo=(2, 3, 4)):
        count[block.core] += 1
        assert all(o.start <= c.start and c.stop <= o.stop for c, o in zip(block.core, block.outer, strict=True))
    assert (count == 1).all()


def test_every_object_is_written_once_and_whole():
    _, labels = blobs((60, 90, 90), diameter=14)
    target, n = np.zeros(labels.shape, np.uint32), 0
    for block in cut_blocks(labels.shape, parts=(2, 3, 3), halo=(20, 20, 20)):
        n = adopt(target, _cut(labels, block), block, n_objects=n)
    assert n == labels.max()
    assert same_partition(target, labels)
    assert set(np.unique(target)) == set(range(n + 1))


def test_blocks_that_disagree_about_a_seam_neither_lose_nor_double():
    """The second block sees the object a voxel further left or right than the first."""
    for shift in (-1, 0, 1):
        target = np.zeros((1, 20, 40), np.uint32)
        first, second = cut_blocks(target.shape, parts=(1, 1, 2), halo=(0, 0, 20))
        n = 0
        for block, move in ((first, 0), (second, shift)):
            found = np.zeros(block.outer_shape, np.uint32)
            left = 16 + move - block.outer[2].start
            found[0, 8:13, max(left, 0) : left + 8] = 1  # its centre is column 19.5: on the seam
            n = adopt(target, found, block, n_objects=n)
        assert n == 1, shift
        assert (target > 0).sum() == 40


def test_nothing_found():
    target = np.zeros((1, 8, 8), np.uint32)
    (block,) = cut_blocks(target.shape, parts=(1, 1, 1), halo=(0, 0, 0))
    assert adopt(target, np.zeros((1, 8, 8), np.uint32), block, n_objects=3) == 3
