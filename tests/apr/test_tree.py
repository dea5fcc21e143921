"""`ParticleTree`: made from levels, rows and images; reconstruction, sampling, errors."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_aprcnn as aprcnn
from napari_aprcnn._kernels import use_kernels
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.errors import CancelledError, ConfigError, ImageError, ParticleTreeError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import sample_path
from trees import finest_tree, random_tree

SHAPES = [(1, 1, 1), (2, 1), (1, 300, 7), (33, 2, 65), (17, 16, 15), (40, 50), (20, 21, 5)]
sides = st.integers(1, 24)


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(sides, sides, sides), seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_cells_tile_the_image_and_everything_comes_back(shape, seed, share):
    tree = random_tree(shape, seed, share)
    owners = np.zeros(tree.shape, int)
    for z, y, x, shift in tree.cells():
        owners[z << shift : (z + 1) << shift, y << shift : (y + 1) << shift, x << shift : (x + 1) << shift] += 1
    assert (owners == 1).all()
    assert tree.prr == tree.voxels / len(tree)
    values = np.random.default_rng(seed).random(len(tree)).astype(np.float32)
    tree = tree.with_intensities(values)
    image = tree.reconstruct()
    np.testing.assert_allclose(tree.sample(image), values, rtol=1e-6)
    same = [
        ParticleTree.from_levels(tree.level_image(), intensities=values),
        ParticleTree.from_levels(tree.half_levels(), shape=tree.shape, intensities=values),
        ParticleTree.from_rows(tree.shape, tree.particles.x, tree.particles.offsets, intensities=values),
        ParticleTree.from_numpy(tree.to_numpy()),
        pickle.loads(pickle.dumps(tree)),  # noqa: S301
    ]
    assert all(other == tree for other in same)
    assert all(np.array_equal(other.nodes.x, tree.nodes.x) for other in same)


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_and_reference_agree(shape):
    def everything():
        tree = random_tree(shape, 3, 0.05)
        values = np.arange(len(tree), dtype=np.uint16)
        return [
            *tree.particles, *tree.nodes, tree.cells(), tree.reconstruct(values), tree.node_means(values),
            tree.sample(np.arange(tree.voxels).reshape(tree.shape)), tree.half_levels(), tree.level_image(),
        ]  # fmt: skip

    found = everything()
    before = use_kernels("reference")
    try:
        for got, expected in zip(found, everything(), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12)
    finally:
        use_kernels(before)


def test_coordinates_are_centres_and_smooth_is_smoother():
    tree = random_tree((32, 32, 32), 1, 0.001)
    z, y, x = (grid.astype(float) for grid in np.indices(tree.shape))
    at = tree.coordinates()
    np.testing.assert_allclose(at, np.stack([tree.sample(grid) for grid in (z, y, x)], axis=1))
    ramp = z + 2 * y + 3 * x
    values = tree.sample(ramp)
    assert (
        np.abs(tree.reconstruct(values, smooth=True) - ramp).mean()
        < 0.5 * np.abs(tree.reconstruct(values) - ramp).mean()
    )
    np.testing.assert_allclose(tree.reconstruct(np.full(len(tree), 7.0), smooth=True), 7, rtol=1e-6)


def test_it_is_immutable_and_survives_a_file(tmp_path):
    tree = random_tree((16, 16, 16), 2).with_intensities(None)
    with pytest.raises(AttributeError, match="immutable"):
        tree.shape = (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        tree.particles.x[0] = 1
    np.savez(tmp_path / "tree.npz", **tree.to_numpy())
    with np.load(tmp_path / "tree.npz") as file:
        assert ParticleTree.from_numpy(file) == tree
    assert "PRR" in repr(tree)
    assert tree != tree.with_intensities(np.zeros(len(tree)))


def test_bad_levels_and_rows_are_refused():
    tree = random_tree((16, 16, 16), 2, 0.02)
    x, offsets = tree.particles.x.copy(), tree.particles.offsets.copy()
    for wrong in (x[::-1], x + 16, x[:-1]):
        with pytest.raises(ParticleTreeError):
            ParticleTree.from_rows(tree.shape, wrong, offsets)
    with pytest.raises(ParticleTreeError, match="row offsets"):
        ParticleTree.from_rows((16, 15, 16), x, offsets)
    hole = np.full((8, 8, 8), 3, np.uint8)
    hole[0, 0, 0] = 2
    with pytest.raises(ParticleTreeError, match="tile"):
        ParticleTree.from_levels(hole, shape=(16, 16, 16))
    jump = np.full((8, 8, 8), 2, np.uint8)
    jump[0, 0, 0] = 4
    jump[:4, :4, :4] = 4
    with pytest.raises(ParticleTreeError, match="one level"):
        ParticleTree.from_levels(jump, shape=(16, 16, 16))
    with pytest.raises(ParticleTreeError, match="integers 1 to 4"):
        ParticleTree.from_levels(np.full((16, 16, 16), 9))
    with pytest.raises(ParticleTreeError, match="one for each"):
        tree.with_intensities(np.zeros(3))
    with pytest.raises(ParticleTreeError, match="without intensities"):
        tree.reconstruct()
    with pytest.raises(ImageError):
        tree.sample(np.zeros((3, 3, 3)))
    with pytest.raises(ImageError):
        ParticleTree.from_levels(np.ones((2, 2, 2, 2), int))


@pytest.mark.parametrize("name", ["stardist-3d", "u2os", "ovule-3d"])
def test_real_images(name):
    image = np.asarray(open_image(sample_path(name)).data)
    shares = []
    tree = aprcnn.to_apr(image, relative_error=0.2, progress=shares.append)
    assert tree.prr > 1
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert tree.intensities.dtype == image.dtype
    report = tree.error()
    assert report.bound.maximum <= 1
    assert report.over_bound == 0
    assert aprcnn.to_apr(image, relative_error=0.2, threads=1) == tree
    del image
    with pytest.raises(ParticleTreeError, match="give it"):
        tree.error()
    with pytest.raises(ParticleTreeError, match="not known"):
        random_tree((8, 8)).error(np.zeros((8, 8)))


def test_to_apr_can_be_cancelled_and_checks_its_parameters():
    image = np.random.default_rng(0).integers(0, 1000, (200, 300, 300)).astype(np.uint16)
    with pytest.raises(CancelledError):
        aprcnn.to_apr(image, should_cancel=lambda: True)
    with pytest.raises(ConfigError):
        aprcnn.to_apr(image[:9], relative_error=-1)
    with pytest.raises(ConfigError, match="own"):
        aprcnn.to_apr(image[:9], converter="other")
    with pytest.raises(ConfigError, match="pyapr"):
        aprcnn.to_apr(image[:9], ConversionConfig(bound="original"), converter="pyapr")
    assert finest_tree((3, 3)) == aprcnn.to_apr(np.eye(3)).with_intensities(None)


def test_pyapr_is_a_second_opinion():
    pytest.importorskip("_pyaprwrapper")
    image = np.asarray(open_image(sample_path("stardist-3d")).data)
    theirs = aprcnn.to_apr(image, converter="pyapr")
    ours = aprcnn.to_apr(image, mode="compatible")
    assert abs(len(ours) / len(theirs) - 1) < 1e-3
    assert (ours.level_image() == theirs.level_image()).mean() >= 0.999
