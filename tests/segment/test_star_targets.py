"""Targets of star-convex networks: what they say of shapes that are known, and of real labels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from napari_aprcnn._kernels import use_kernels
from napari_aprcnn._kernels.stars import ray_distances
from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.errors import CancelledError, ConfigError, ImageDtypeError, ImageError, ImageValueError, StageError
from napari_aprcnn.nn import Forest
from napari_aprcnn.segment.star_rays import anisotropy_of, golden_spiral
from napari_aprcnn.segment.star_targets import (
    cell_centres,
    centre_labels,
    object_probability,
    particle_cells,
    star_targets,
    voxel_cells,
)
from trees import finest_tree, random_tree

LABELS = ellipsoids((24, 40, 44), 14, diameter=13, seed=3)


@pytest.mark.parametrize("anisotropy", [(1, 1, 1), (2.2, 1, 1.1)])
def test_rays_are_those_of_the_package(anisotropy):
    package = pytest.importorskip("stardist.rays3d")
    ours, theirs = golden_spiral(96, anisotropy), package.Rays_GoldenSpiral(96, anisotropy)
    assert_allclose(ours.vertices, theirs.vertices, atol=1e-7)
    # The same triangles, turning the same way: each begins anywhere.
    turned = [
        {tuple(np.roll(face, -int(np.argmin(face)))) for face in np.asarray(rays.faces)} for rays in (ours, theirs)
    ]
    assert turned[0] == turned[1]
    distances = np.random.default_rng(0).uniform(2, 9, (5, 96))
    assert_allclose(ours.volumes(distances), [theirs.volume(row) for row in distances], rtol=1e-5)


def test_radius_does_not_depend_on_where_the_point_lies():
    rays = golden_spiral(96)
    middle, aside = np.zeros(3), np.array([0.0, 3.0, 4.0])

    def sphere(at):  # distances from a point within a sphere of radius 8
        along = rays.vertices @ at
        return -along + np.sqrt(along**2 + 64 - at @ at)

    distances = np.stack([sphere(middle), sphere(aside)])
    assert_allclose(rays.radii(distances), 8, rtol=0.02)
    assert_allclose(rays.centroids(distances), -np.stack([middle, aside]), atol=0.2)
    assert_allclose(rays.volumes(distances * rays.rounding), 4 / 3 * np.pi * 512, rtol=0.04)


def test_bad_rays():
    with pytest.raises(ConfigError, match="at least 4"):
        golden_spiral(3)
    with pytest.raises(ConfigError, match="positive"):
        golden_spiral(96, (1, 0, 1))
    with pytest.raises(ImageError, match="without an object"):
        anisotropy_of(np.zeros((3, 3, 3), int))


def test_anisotropy_is_that_of_the_objects():
    labels = np.zeros((10, 30, 30), np.uint16)
    labels[2:6, 3:15, 4:12] = 9
    assert anisotropy_of(labels) == (3.0, 1.0, 1.5)


def test_distances_of_a_box_are_exact():
    labels = np.zeros((12, 12, 12), np.uint32)
    labels[2:9, 3:10, 1:8] = 1
    axes = np.vstack([np.eye(3), -np.eye(3)])
    # From the middle of voxel (4, 5, 6), and from the corner where (4, 5, 6) and (5, 6, 7) meet.
    found = ray_distances(labels, np.array([[9, 11, 13], [10, 12, 14]]), np.array([1, 1]), axes)
    assert_array_equal(found, [[4.5, 4.5, 1.5, 2.5, 2.5, 5.5], [4, 4, 1, 3, 3, 6]])
    diagonal = ray_distances(labels, np.array([[10, 12, 14]]), np.array([1]), np.ones((1, 3)) / np.sqrt(3))
    assert_allclose(diagonal, [[np.sqrt(3)]], rtol=1e-6)


def test_the_border_of_the_image_ends_a_ray():
    found = ray_distances(np.ones((4, 4, 4), np.uint32), np.array([[3, 3, 3]]), np.array([1]), np.eye(3))
    assert_array_equal(found, [[2.5, 2.5, 2.5]])
    outside = ray_distances(np.ones((4, 4, 4), np.uint32), np.array([[9, 3, 3]]), np.array([1]), np.eye(3))
    assert_array_equal(outside, [[0, 0, 0]])


@pytest.mark.parametrize("depth", [0, 1])
def test_distances_are_those_of_fine_steps(depth):
    rays, cells = golden_spiral(32), voxel_cells(LABELS.shape, depth)
    targets = star_targets(LABELS, cells, rays)
    rows = np.flatnonzero(targets.objects)[:: 400 >> 3 * depth]
    steps = np.arange(0.005, 16, 0.01)
    place = cell_centres(cells)[rows][:, None, None] + steps[:, None] * rays.vertices[:, None]
    voxel = np.floor(place + 0.5).astype(int)
    padded = np.pad(targets_labels(), 1)
    voxel = np.clip(voxel + 1, 0, np.array(padded.shape) - 1)
    same = padded[tuple(np.moveaxis(voxel, -1, 0))] == targets.objects[rows][:, None, None]
    expected = np.where(same.all(-1), np.inf, steps[np.argmin(same, -1)])
    # A corner that a ray cuts by less than a step is not seen by steps.
    assert (np.abs(expected - targets.distances[rows]) < 0.011).mean() > 0.998


def targets_labels():
    from napari_aprcnn._kernels import compact_labels

    return compact_labels(LABELS)[0]


def test_the_reference_and_any_number_of_threads_give_the_same_bits():
    rays, cells = golden_spiral(40), particle_cells(random_tree(LABELS.shape, share=0.3))
    results = [star_targets(LABELS, cells, rays, threads=threads) for threads in (1, 3)]
    before = use_kernels("reference")
    try:
        results.append(star_targets(LABELS, cells, rays))
    finally:
        use_kernels(before)
    assert (results[0].distances > 0).any()
    for result in results[1:]:
        assert_array_equal(result.distances, results[0].distances)
        assert_array_equal(result.objects, results[0].objects)
        assert_allclose(result.probability, results[0].probability, atol=1e-6)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_rows_are_those_of_the_stage(depth):
    tree = random_tree((19, 30, 33), seed=4, share=0.1)
    stage_cells = Forest(tree).stage(depth).cells().numpy()
    cells = particle_cells(tree, depth)
    assert_array_equal(cells[:, :3], stage_cells[:, :3])
    assert_array_equal(cells[:, 3], stage_cells[:, 3] + depth)
    if depth == 0:
        assert_array_equal(cell_centres(cells), tree.coordinates())


def test_a_tree_of_voxels_gives_the_targets_of_a_grid():
    tree, rays = finest_tree(LABELS.shape), golden_spiral(8)
    ours, grid = (star_targets(LABELS, cells, rays) for cells in (particle_cells(tree), voxel_cells(LABELS.shape)))
    assert_array_equal(ours.distances, grid.distances)
    assert_array_equal(ours.probability, grid.probability)


def test_a_tree_has_not_any_stage():
    tree = random_tree((8, 8, 8))
    with pytest.raises(StageError, match="expected 0 to 2"):
        particle_cells(tree, 3)


def test_the_centre_belongs_to_the_most_frequent_object():
    labels = np.zeros((4, 2, 2), np.uint32)
    labels[0, 0] = 5  # two of eight voxels
    labels[1, 0, 0] = 2  # one
    labels[2:, 0, :] = 3
    labels[2:, 1, :] = 1  # four each: the smaller
    assert centre_labels(labels, voxel_cells(labels.shape, 1)).tolist() == [5, 1]
    assert_array_equal(centre_labels(labels, voxel_cells(labels.shape, 0)), labels.ravel())
    # A cell that the border cuts so far that its centre lies outside.
    assert centre_labels(np.ones((5, 8, 8), np.uint32), voxel_cells((5, 8, 8), 2)).tolist() == [1] * 4 + [0] * 4


def test_probability_is_the_normalised_distance_of_each_object():
    from scipy.ndimage import distance_transform_edt

    labels = np.zeros((12, 14, 16), np.int64)
    labels[2:7, 3:9, 4:11], labels[7:10, 3:9, 4:11] = 10**12, 4  # they touch
    found = object_probability(labels, anisotropy=(2, 1, 1))
    for label in (10**12, 4):
        own = distance_transform_edt(labels == label, sampling=(2, 1, 1))
        assert_allclose(found[labels == label], (own / own.max())[labels == label], rtol=1e-6)
    assert not found[labels == 0].any()
    assert object_probability(np.ones((4, 4, 4), bool)).max() == 1  # nothing else bounds it


def test_bad_labels():
    rays, cells = golden_spiral(8), voxel_cells((8, 8, 8))
    with pytest.raises(ImageError, match="for volumes"):
        star_targets(np.zeros((1, 8, 8), int), voxel_cells((1, 8, 8)), rays)
    with pytest.raises(ImageError, match="Z, Y, X"):
        star_targets(np.zeros((8, 8), int), cells, rays)
    with pytest.raises(ImageDtypeError, match="astype"):
        star_targets(np.zeros((8, 8, 8)), cells, rays)
    with pytest.raises(ImageValueError, match="negative"):
        star_targets(np.full((8, 8, 8), -1), cells, rays)
    with pytest.raises(CancelledError):
        star_targets(
            np.ones((96, 128, 128), np.uint8),
            voxel_cells((96, 128, 128)),
            golden_spiral(96),
            should_cancel=lambda: True,
        )
