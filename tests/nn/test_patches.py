"""Convolution by patches of blocks, of one stage or two: inference computes what training does, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_tools import assert_close, random_features

from napari_aprcnn import nn
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.operators import array
from napari_aprcnn._kernels.particle_layer import patch_conv
from napari_aprcnn._kernels.particles import fill_tree
from napari_aprcnn._kernels.reference_particles import patch_taps
from napari_aprcnn._kernels.reference_tree import around as expected_around
from napari_aprcnn.errors import StageError
from trees import finest_tree, random_tree

pytestmark = pytest.mark.usefixtures("kernels")

CHANNELS = [(16, 16), (48, 16), (24, 40), (72, 17), (40, 100)]


@pytest.fixture
def stages():
    """Full blocks and sparse ones, odd borders, levels with too few blocks, nodes that are rows."""
    trees = [random_tree((30, 26, 37), 7, 0.3), random_tree((24, 41, 33), 8, 0.7), finest_tree((9, 10, 11))]
    forest = nn.Forest(trees)
    return [forest.stage(0), forest.stage(1)]


def both_ways(conv, x):
    with torch.no_grad():
        filtered = conv(x).features
    return filtered, conv(x).features.detach()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("bias", [True, False])
def test_inference_is_training_to_rounding(stages, channels, bias):
    torch.manual_seed(0)
    conv = nn.APRConv(*channels, filter_banks=2, bias=bias)
    for stage in stages:
        filtered, direct = both_ways(conv, nn.ParticleTensor(random_features(stage, channels[0]), stage))
        assert torch.isfinite(filtered).all()
        assert_close(filtered, direct)


def test_blocks_are_used(kernels, stages):
    """Other roundings show that they are; few channels, other kernels and other dtypes stay as they were."""
    torch.manual_seed(0)
    stage = stages[0]
    compiled = kernels not in ("python", "reference")
    for channels, size, uses in [
        ((16, 16), 3, compiled),
        ((8, 8), 3, False),
        ((16, 16), 5, False),
        ((16, 16), 1, False),
    ]:
        conv = nn.APRConv(*channels, size)
        filtered, direct = both_ways(conv, nn.ParticleTensor(random_features(stage, channels[0]), stage))
        assert torch.equal(filtered, direct) != uses, (channels, size)
    conv = nn.APRConv(16, 16).double()
    x = nn.ParticleTensor(random_features(stage, 16, dtype=torch.float64), stage)
    assert torch.equal(*both_ways(conv, x))


def test_same_bits_for_any_threads_and_batch(kernels, stages):
    """A block does not know its neighbours; a tree does not know the others of its batch."""
    torch.manual_seed(0)
    conv, stage = nn.APRConv(32, 32).eval(), stages[0]
    x = random_features(stage, 32)
    before, found = torch.get_num_threads(), []
    compiled = kernels not in ("python", "reference")  # torch shares the reference's products as it likes
    try:
        for count in (1, 2, 3) if compiled else (2, 2, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(conv(nn.ParticleTensor(x, stage)).features)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    for item, tree in enumerate(stage.forest.trees):
        rows = slice(stage.starts[item], stage.starts[item + 1])
        alone = nn.Forest(tree).stage(0)
        with torch.inference_mode():
            single = conv(nn.ParticleTensor(x[rows].clone(), alone)).features
        assert torch.equal(single, found[0][rows]) or not compiled


def test_positions_that_no_row_needs_are_not_read(kernels, stages):
    """Beside a cube with rows missing lie cells that are none of its neighbours: infinite values there do no harm."""
    if kernels in ("python", "reference"):
        pytest.skip("the reference knows no blocks")
    stage = stages[0]
    torch.manual_seed(0)
    conv = nn.APRConv(16, 16)
    x = random_features(stage, 16)
    table = stage.neighbours((3, 3, 3)).numpy()
    children = stage.children().numpy()
    full = children[(children < stage.rows).all(1)]
    bad = int(full[len(full) // 2, 3])
    x[bad] = torch.inf
    touched = (table == bad).any(1)
    node = stage.rows + np.flatnonzero((children == bad).any(1))
    while len(node):  # its means are infinite, too
        touched |= np.isin(table, node).any(1)
        node = stage.rows + np.flatnonzero(np.isin(children, node).any(1))
    with torch.no_grad():
        found = conv(nn.ParticleTensor(x, stage)).features.numpy()
    together = np.zeros(stage.rows + stage.tree_rows + 1, bool)
    blocks = children[stage.blocks().numpy()]
    for group in [*stage.cubes().numpy(), *stage.singles().numpy()[:, None]]:
        rows = blocks[group[group >= 0]]
        if touched[rows[rows < stage.rows]].any():
            together[rows] = True
    assert np.isfinite(found[~together[: stage.rows]]).all()
    assert not np.isfinite(found[bad]).any()


def test_patches_hold_the_neighbours(stages):
    """Every tap of every row is at its place in the patch of the row's block; what lies around is the reference's."""
    for stage in [*stages, stages[1].coarser()]:
        neighbours, children, around = stage.neighbours((3, 3, 3)), stage.children(), stage.around()
        assert torch.equal(patch_taps(around, children, stage.rows), neighbours)
        outside, first, parts = stage.rows + stage.tree_rows, (0, stage.rows), []
        for tree, finest, rows, nodes in zip(
            stage.forest.trees, stage.finest, stage.item_rows, stage.item_tree_rows, strict=True
        ):
            trees = (tree.particles, tree.nodes)
            parts.append(expected_around(tree.shape, tree.level_max, trees, finest, (*first, outside)))
            first = (first[0] + rows, first[1] + nodes)
        assert np.array_equal(np.concatenate(parts)[stage.blocks().numpy()], around.numpy())


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (2, 3, 1), (5, 1, 9), (1, 17, 33), (3, 2, 2), (9, 8, 31)])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_every_row_lies_in_a_block(shape, share):
    """Thin and tiny images, all stages: blocks hold the rows of their segment, each once; patches hold their taps."""
    forest = nn.Forest([random_tree(shape, 1, share), random_tree(shape, 2, share / 2)])
    for depth in range(forest.deepest + 1):
        stage = forest.stage(depth)
        blocks, ranges, segments = (t().numpy() for t in (stage.blocks, stage.block_ranges, stage.segments))
        below = stage.children().numpy()[blocks]
        assert sorted(below[below < stage.rows]) == list(range(stage.rows))
        assert ranges[0, 0] == 0
        assert ranges[-1, 1] == len(blocks)
        cubes, singles = stage.cubes().numpy(), stage.singles().numpy()
        assert sorted([*cubes[cubes >= 0], *singles]) == list(range(len(blocks)))
        assert ((cubes >= 0).sum(axis=1) >= 5).all()
        for (first, last, rows, cube, cubes_end, single, singles_end), (start, end, _) in zip(
            ranges, segments, strict=True
        ):
            own = below[first:last]
            assert sorted(own[own < stage.rows]) == list(range(start, end))
            assert rows == end - start
            held = cubes[cube:cubes_end]
            assert sorted([*held[held >= 0], *singles[single:singles_end]]) == list(range(first, last))
        assert torch.equal(patch_taps(stage.around(), stage.children(), stage.rows), stage.neighbours((3, 3, 3)))


def test_blocks_of_a_cube_are_children_of_one_node(stages):
    """In the order of its children, so that the cube's rows lie as its products expect them."""
    for stage in stages:
        blocks, children, cubes = (t().numpy() for t in (stage.blocks, stage.children, stage.cubes))
        assert len(cubes) > 32
        nodes = np.where(cubes >= 0, stage.rows + blocks[cubes], -1)
        assert stage.depth or (cubes < 0).any()
        parents = {tuple(row) for row in np.where(np.isin(children, stage.rows + blocks), children, -1)}
        assert all(tuple(row) in parents for row in nodes)


def test_cubes_give_what_their_blocks_give(kernels, stages):
    """Without cubes every block is single: other products, the same convolution."""
    if kernels in ("python", "reference"):
        pytest.skip("the reference knows no blocks")
    torch.manual_seed(0)
    for stage in stages:
        weight, x = torch.randn(stage.depths, 32, 24, 3, 3, 3) / 25, random_features(stage, 24)
        tree = (stage.children(), stage.node_ranges(), stage.blocks())
        ranges = stage.block_ranges().clone()
        ranges[:, 3:5], ranges[:, 5:7] = 0, ranges[:, 0:2]
        alone = (torch.empty((0, 8), dtype=torch.int32), torch.arange(len(stage.blocks()), dtype=torch.int32))
        cubes = patch_conv(x, weight, None, *stage.patch_tables())
        blocks = patch_conv(x, weight, None, *tree, ranges, stage.around(), *alone, stage.segments(), stage.cuts())
        assert not torch.equal(cubes, blocks)
        assert_close(cubes, blocks)


def test_blocks_that_are_no_rows_of_the_tree_are_refused(kernels):
    if kernels in ("python", "reference") or extension() is None:
        pytest.skip("no compiled kernels")
    stage = nn.Forest(random_tree((9, 8, 31), 1, 0.2)).stage(0)
    tables, blocks = stage.forest.trees[0].tables, stage.blocks().numpy()
    places = (0, stage.rows, stage.rows + stage.tree_rows)
    for wrong in (blocks[::-1].copy(), blocks - 1 - stage.tree_rows, blocks + np.int32(stage.tree_rows)):
        with pytest.raises(ValueError, match="ascending tree rows"):
            tables.around(stage.finest[0], places, wrong, np.empty((len(wrong), 27), np.int32))
    with pytest.raises(ValueError, match="does not fit the blocks"):
        tables.around(stage.finest[0], places, blocks, np.empty((len(blocks), 26), np.int32))


def test_places_lead_to_the_upsampled_features(stages):
    """What lies at a row's place is what upsampling gives the row, and its means give the tree's."""
    for stage in stages:
        coarse = nn.ParticleTensor(random_features(stage.coarser(), 3), stage.coarser())
        means = fill_tree(coarse.features, coarse.stage.children(), coarse.stage.node_ranges())
        found = torch.cat([coarse.features, means])[stage.places_in_coarser().long()]
        fine = nn.APRUpsample()(coarse).features
        assert torch.equal(found[: stage.rows], fine)
        assert_close(found[stage.rows :], fill_tree(fine, stage.children(), stage.node_ranges()), 1e-6)


@pytest.mark.parametrize("channels", [(16, 16, 16), (8, 40, 24), (3, 5, 8), (32, 40, 17), (1, 1, 2)])
def test_a_pair_is_its_concatenation(stages, channels):
    torch.manual_seed(0)
    first, second, outside = channels
    conv = nn.APRConv(first + second, outside, filter_banks=2)
    for stage in stages:
        fine = nn.ParticleTensor(random_features(stage, first), stage)
        coarse = nn.ParticleTensor(random_features(stage.coarser(), second, 1), stage.coarser())
        pair = nn.SkipPair(fine, coarse)
        assert pair.channels == first + second
        expected = conv(pair.joined()).features.detach()
        with torch.no_grad():
            assert_close(conv(pair).features, expected)
        assert torch.equal(conv(pair).features.detach(), expected)  # a training joins


def test_the_gradient_of_a_pair_is_that_of_its_concatenation(stages):
    torch.manual_seed(0)
    stage, conv = stages[0], nn.APRConv(5, 4)
    found = []
    for joined in (True, False):
        fine, coarse = (random_features(s, c).requires_grad_() for s, c in ((stage, 2), (stage.coarser(), 3)))
        pair = nn.SkipPair(nn.ParticleTensor(fine, stage), nn.ParticleTensor(coarse, stage.coarser()))
        conv(pair.joined() if joined else pair).features.square().sum().backward()
        found.append((fine.grad, coarse.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_pairs_of_other_stages_are_refused(stages):
    fine = nn.ParticleTensor(random_features(stages[0], 2), stages[0])
    with pytest.raises(StageError, match="next coarser"):
        nn.SkipPair(fine, fine)


def test_inference_without_a_compiler_takes_the_same_tables(kernels, stages):
    """The operator in plain torch, which other dtypes get."""
    torch.manual_seed(0)
    stage = stages[0]
    coarse = stage.coarser()
    x, below = random_features(stage, 8, dtype=torch.float64), random_features(coarse, 8, 1, dtype=torch.float64)
    weight = torch.randn(stage.depths, 16, 16, 3, 3, 3, dtype=torch.float64)
    tables = stage.patch_tables()
    more = (coarse.children(), coarse.node_ranges(), stage.places_in_coarser())
    expected = patch_conv(x, weight, None, *tables, below, *more)
    found = patch_conv(x.float(), weight.float(), None, *tables, below.float(), *more)
    assert_close(found, expected)


def test_tables_that_do_not_fit_are_refused(kernels, stages):
    module = extension()
    if kernels in ("python", "reference") or module is None:
        pytest.skip("no compiled kernels")
    stage = stages[0]
    x = random_features(stage, 16)
    tree = fill_tree(x, stage.children(), stage.node_ranges())
    weight, out = torch.zeros(stage.depths, 16, 16, 3, 3, 3), torch.empty(stage.rows, 16)
    given = [*(array(t) for t in (x, tree, weight)), None]
    tables = {
        "children": array(stage.children()),
        "blocks": array(stage.blocks()),
        "ranges": array(stage.block_ranges()),
        "around": array(stage.around()),
        "cubes": array(stage.cubes()),
        "singles": array(stage.singles()),
        "segments": array(stage.segments()),
        "cuts": array(stage.cuts()),
    }

    def run(*, more=(), weight=weight, **changed):
        arrays = list(given)
        arrays[2] = array(weight)
        module.conv_patches(*arrays, *(tables | changed).values(), out.numpy(), 1, *more)

    def changed(name, place, by):
        other = tables[name].copy()
        other[place] += by
        return {name: other}

    for match, wrong in [
        ("children do not fit", {"children": tables["children"][:-1].copy()}),
        ("around is not that", {"around": tables["around"][:-1].copy()}),
        ("ranges are not those", {"ranges": tables["ranges"][:-1].copy()}),
        ("no tree row", changed("blocks", 0, -stage.rows)),
        ("no tree row", changed("blocks", -1, stage.tree_rows)),
        ("follow one another", changed("ranges", (1, 0), 1)),
        ("belongs to no segment", {"segments": tables["segments"][:-1].copy(), "ranges": tables["ranges"][:-1].copy()}),
        ("rows of a segment", changed("ranges", (0, 2), 1)),
        ("single blocks of the segments do not follow", changed("ranges", (1, 3), 1)),
        ("single blocks of the segments do not follow", changed("ranges", (-1, 4), 1)),
        ("single blocks of the segments do not follow", changed("ranges", (1, 5), 1)),
        ("in no cube and not single", changed("ranges", (-1, 6), -1)),
        ("of another segment or there twice", changed("cubes", (-1, np.argmax(tables["cubes"][-1] >= 0)), -1)),
        ("of another segment or there twice", changed("singles", -1, len(tables["blocks"]))),
        ("of another segment or there twice", changed("singles", -1, -len(tables["blocks"]))),
        ("rows of a segment", changed("segments", (0, 1), 1)),
        ("deeper than the weights", changed("segments", (0, 2), 100)),
    ]:
        with pytest.raises(ValueError, match=match):
            run(**wrong)
    run(**changed("children", (0, 0), -(stage.rows + stage.tree_rows + 5)))  # a child below zero is none
    with pytest.raises(ValueError, match="3, 3, 3"):
        run(weight=torch.zeros(stage.depths, 16, 16, 1, 3, 3))
    coarse = stage.coarser()
    below = random_features(coarse, 4)
    means = fill_tree(below, coarse.children(), coarse.node_ranges())
    places = array(stage.places_in_coarser())
    with pytest.raises(ValueError, match="features do not fit"):
        run(more=(array(below), array(means), places))
    wider = torch.zeros(stage.depths, 16, 20, 3, 3, 3)
    with pytest.raises(ValueError, match="places are not those"):
        run(more=(array(below), array(means), places[:-1].copy()), weight=wider)
    far = places.copy()
    far[3] = coarse.rows + coarse.tree_rows + 1
    with pytest.raises(ValueError, match="none of the second source"):
        run(more=(array(below), array(means), far), weight=wider)
    run(more=(array(below), array(means), places), weight=wider)
    run()
