"""Images of a tree that are painted where they are sliced: as numpy would, from many threads, at powers of two."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_aprcnn.apr.pyramid import TreeArray, plane_cells, tree_pyramid
from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.errors import ParticleTreeError


def noisy(shape, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    image = np.full(shape, 100.0)
    for _ in range(6):
        centre = [rng.uniform(0, n) for n in shape]
        image += 800 * np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / 18)
    return (image + rng.normal(0, 4, shape)).astype(np.uint16)


@pytest.fixture(scope="module")
def tree():
    made = to_apr(noisy((21, 50, 37)), threads=1)
    assert len(set(made.levels.tolist())) >= 3
    return made


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        np.int64(7),
        (3,),
        (slice(None), 4),
        (Ellipsis, 5),
        (slice(2, 9), slice(None, None, 3), slice(30, 4, -2)),
        (slice(5, 5), slice(None)),
        (slice(-4, None), -1, slice(100)),
        (4, 10, 11),
        ([3, 1, 1], slice(3, 9)),
        (np.array([0, 20]), np.array([5, -1]), np.array([0, 36])),
        (slice(None), np.arange(50) % 7 == 0, 3),
        (None, 3, Ellipsis),
        Ellipsis,
        (),
    ],
)
def test_slices_are_numpys(tree, index):
    whole = tree.reconstruct()
    got, expected = tree_pyramid(tree)[0][index], whole[index]
    assert np.array_equal(got, expected)
    assert np.shape(got) == np.shape(expected)
    assert got.dtype == whole.dtype


def test_a_mask_of_the_whole_shape(tree):
    whole = tree.reconstruct()
    assert np.array_equal(tree_pyramid(tree)[0][whole > 300], whole[whole > 300])


@pytest.mark.parametrize("index", [21, (0, 50), (0, 0, 0, 0), ([0, 21],), (Ellipsis, Ellipsis), 1.5, "z"])
def test_indices_outside_are_refused_as_numpy_does(tree, index):
    with pytest.raises((IndexError, TypeError)):
        tree_pyramid(tree)[0][index]


def test_coarser_images_hold_the_values_of_the_nodes(tree):
    images = tree_pyramid(tree, smallest=8)
    assert [image.shape for image in images] == [(21, 50, 37), (11, 25, 19), (6, 13, 10)]
    flat = tree.with_intensities(np.full(len(tree), 777, np.uint16))
    assert all((np.asarray(image) == 777).all() for image in tree_pyramid(flat, smallest=8))
    # Of a fully resolved cell of eight voxels it is their mean.
    whole = tree.reconstruct()
    fine = np.argwhere(tree.half_levels()[:10, :25, :18] == tree.level_max)
    for z, y, x in fine[:: max(1, len(fine) // 50)]:
        box = whole[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert images[1][z, y, x] == np.rint(box.astype(float).mean())
    # Where the particles are coarser than the voxels of an image it shows them.
    coarse = np.argwhere(tree.half_levels() < tree.level_max)
    z, y, x = coarse[len(coarse) // 2]
    assert images[1][z, y, x] == whole[2 * z, 2 * y, 2 * x]


def test_other_axes(tree):
    images = tree_pyramid(tree, axes="XCZY")
    whole = tree.reconstruct().transpose(2, 0, 1)[:, None]
    assert images[0].shape == whole.shape
    assert np.array_equal(np.asarray(images[0]), whole)
    assert np.array_equal(images[0][3, 0], whole[3, 0])
    assert images[0][:, 1:].shape == whole[:, 1:].shape


def test_many_threads_get_what_one_gets(tree):
    image = tree_pyramid(tree)[0]
    whole = tree.reconstruct()
    planes = list(range(21)) * 8
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda z: image[z], planes))
    assert all(np.array_equal(plane, whole[z]) for z, plane in zip(planes, got, strict=True))


def test_what_cannot_be_shown(tree):
    with pytest.raises(ParticleTreeError):
        tree_pyramid(tree.with_intensities(None))
    with pytest.raises(ParticleTreeError):
        tree_pyramid(tree, np.zeros(3))
    with pytest.raises(ParticleTreeError, match="axes"):
        TreeArray(tree, tree.intensities, np.zeros(0), axes="YX")
    with pytest.raises(ParticleTreeError, match="reduction"):
        TreeArray(tree, tree.intensities, np.zeros(0), reduced=99)
    with pytest.raises(ValueError, match="copy"):
        np.array(tree_pyramid(tree)[0], copy=False)


@pytest.mark.parametrize(("axis", "at"), [(0, 7), (1, 30), (2, 36), (0, -5), (0, 99)])
def test_cells_of_a_plane(tree, axis, at):
    index, centres, sizes = plane_cells(tree, at, axis=axis)
    cells = tree.cells()
    inside = min(max(at, 0), tree.shape[axis] - 1)
    expected = np.flatnonzero(cells[:, axis] == inside >> cells[:, 3])
    assert np.array_equal(np.sort(index), expected)
    assert np.allclose(centres, tree.coordinates()[index])
    assert np.array_equal(sizes, (1 << cells[index, 3]).astype(float))
