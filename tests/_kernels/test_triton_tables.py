"""The transposed tables against their definition, and the trees that the GPU tests are made of. Needs no triton."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from napari_aprcnn._kernels.triton.tables import conv_tables, depth_runs, fine_positions, fine_selection, row_tiles

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from synthetic_trees import Stage, batch, nested_spheres, scattered_boxes, stage, tree_from_fine_cells

KERNELS = [(3, 3, 3), (1, 3, 3), (5, 5, 5), (1, 1, 1)]


def ragged(depth: int, kernel: tuple[int, int, int]) -> Stage:
    fine = torch.zeros(11, 10, 9, dtype=torch.bool)
    fine[4, 5, 3] = fine[10, 9, 8] = True
    return batch(
        [
            stage(tree_from_fine_cells((21, 19, 17), fine), depth, kernel),
            stage(scattered_boxes((9, 7, 5), 0.05), depth, kernel),
        ]
    )


def readers(s: Stage) -> dict[int, list[tuple[int, int]]]:
    """For each extended index who reads it, (row, tap): the scatter that the tables replace."""
    found: dict[int, list[tuple[int, int]]] = {}
    for row, sources in enumerate(s.neighbours.tolist()):
        for tap, source in enumerate(sources):
            found.setdefault(source, []).append((row, tap))
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_three_gathers_find_every_reader_once(kernel: tuple[int, int, int], depth: int) -> None:
    s = ragged(depth, kernel)
    tables = conv_tables(s.neighbours, s.cells, s.tree_rows, kernel)
    taps = s.neighbours.shape[1]
    found: dict[int, list[tuple[int, int]]] = {}
    depth_of = s.cells[:, 3].tolist()
    for first, last, of_run in depth_runs(s.segments):
        for row in range(first, last):
            assert depth_of[row] == of_run
            for tap, source in enumerate(s.neighbours[row].tolist()):
                if first <= source < last:
                    found.setdefault(row, []).append((source, taps - 1 - tap))
    selection = fine_selection(kernel)
    for first, last, of_run, variant in tables.fine_segments.tolist():
        for place in range(first, last):
            row = int(tables.fine_rows[place])
            for slot, reader in enumerate(tables.fine_table[place].tolist()):
                if reader < s.rows:
                    assert depth_of[reader] == of_run == depth_of[row] - 1
                    by = selection[variant, slot].nonzero().flatten().tolist()
                    assert by
                    found.setdefault(row, []).extend((reader, tap) for tap in by)
    for first, last, of_run in tables.tree_segments.tolist():
        for place in range(first, last):
            node = s.rows + int(tables.tree_rows[place])
            for tap, reader in enumerate(tables.tree_table[place].tolist()):
                if reader < s.rows:
                    assert depth_of[reader] == of_run
                    found.setdefault(node, []).append((reader, taps - 1 - tap))
    expected = readers(s)
    expected.pop(s.rows + s.tree_rows, None)
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in expected.items()}


def test_number_of_fine_positions_and_of_pairs_that_they_stand_for() -> None:
    for kernel, positions, pairs in [
        ((3, 3, 3), 56, 152),
        ((1, 3, 3), 24, 40),
        ((5, 5, 5), 208, None),
        ((1, 1, 1), 0, 0),
    ]:
        assert len(fine_positions(kernel)) == positions
        if pairs is not None:
            assert int(fine_selection(kernel)[7].sum()) == pairs


def test_all_variants_of_clipped_blocks_occur() -> None:
    s = ragged(0, (3, 3, 3))
    variants = conv_tables(s.neighbours, s.cells, s.tree_rows, (3, 3, 3)).fine_segments[:, 3]
    assert set(variants.tolist()) >= {1, 2, 3, 4, 5, 6, 7}


def test_built_in_batches_of_rows_they_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    s = ragged(0, (3, 3, 3))
    whole = conv_tables(s.neighbours, s.cells, s.tree_rows, (3, 3, 3))
    monkeypatch.setattr("napari_aprcnn._kernels.triton.tables._BATCH", 50)
    pieces = conv_tables(s.neighbours, s.cells, s.tree_rows, (3, 3, 3))
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_tables_of_no_tree_are_refused() -> None:
    s = ragged(0, (3, 3, 3))
    cells = s.cells.clone()
    cells[0, 3] += 1
    with pytest.raises(ValueError, match="well-formed"):
        conv_tables(s.neighbours, cells, s.tree_rows, (3, 3, 3))
    cells = s.cells.clone()
    cells[:, 2] += 2 * (cells[:, 3] == 1)
    with pytest.raises(ValueError, match="well-formed"):
        conv_tables(s.neighbours, cells, s.tree_rows, (3, 3, 3))
    with pytest.raises(ValueError, match="kernel"):
        conv_tables(s.neighbours, s.cells, s.tree_rows, (3, 3, 1))
    with pytest.raises(ValueError, match="cells"):
        conv_tables(s.neighbours, s.cells[1:], s.tree_rows, (3, 3, 3))


def test_tiles_cover_each_run_once_and_never_cross_it() -> None:
    runs = depth_runs(torch.tensor([[0, 0, 3], [0, 5, 2], [5, 300, 1], [300, 310, 1], [310, 400, 0]]))
    assert runs == [(0, 5, 2), (5, 310, 1), (310, 400, 0)]
    tiles = row_tiles(runs, 128, None).tolist()
    assert [t[:3] for t in tiles] == [[0, 5, 2], [5, 133, 1], [133, 261, 1], [261, 310, 1], [310, 400, 0]]
    assert [t[3:] for t in tiles] == [[0, 5], [5, 310], [5, 310], [5, 310], [310, 400]]
    assert row_tiles(runs, 512, (0, 7))[:, 3:].tolist() == [[0, 7]] * 3
    assert row_tiles([], 128, None).shape == (0, 5)


@pytest.mark.parametrize("shape", [(9, 7, 5), (1, 12, 13), (21, 19, 17)])
def test_synthetic_trees_are_well_formed(shape: tuple[int, int, int]) -> None:
    tree = scattered_boxes(shape, 0.02)
    level = torch.zeros(shape, dtype=torch.long)
    for at in range(1, tree.level_max + 1):
        edge = 1 << (tree.level_max - at)
        leaf = tree.exists[at] & ~tree.node[at]
        for z, y, x in leaf.nonzero().tolist():
            block = level[z * edge : (z + 1) * edge, y * edge : (y + 1) * edge, x * edge : (x + 1) * edge]
            assert not block.any()
            block[:] = at
    assert int(level.min()) >= 1
    grown = torch.nn.functional.max_pool3d(level[None, None].double(), 3, 1, 1)[0, 0]
    assert int((grown - level).max()) <= 1
    assert tree.prr == pytest.approx(level.numel() / tree.particles)


def test_nested_spheres_come_near_the_sparsity_that_is_asked_for() -> None:
    for prr in (2.0, 10.0, 40.0):
        assert nested_spheres((64, 64, 64), prr).prr == pytest.approx(prr, rel=0.35)
