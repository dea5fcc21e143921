"""The table of the particle layers, small."""

import numpy as np
import pytest

from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.bench.particle_worker import main
from napari_aprcnn.bench.particles import CONV_COLUMNS, conv_rows
from napari_aprcnn.bench.trees import synthetic_tree


@pytest.mark.parametrize("prr", [2.5, 8])
def test_a_synthetic_tree_has_the_wanted_prr_and_is_one(prr):
    tree = synthetic_tree(64, prr)
    assert tree.prr == pytest.approx(prr, rel=0.15)
    assert ParticleTree.from_levels(tree.half_levels(), shape=tree.shape) == tree


def test_the_worker_measures_everything():
    common = {"edge": 32, "repeats": 1, "threads": 2}
    order = {"what": "convolutions", "channels_in": 2, "channels_out": 3, "dense_edge": 16, "prr": [4.0], **common}
    (one,) = main(order)
    assert all(np.isfinite(value) and value > 0 for value in one.values())
    (row,) = conv_rows("2 -> 3", 0.8, [one])
    assert len(row) == len(CONV_COLUMNS)
    neighbours, around = main({"what": "index_tables", "prr": 4.0, **common})
    assert neighbours["bytes"] == 108 * neighbours["particles"]
    assert 14 * around["particles"] <= around["bytes"] <= 30 * around["particles"]
    passes = main({"what": "passes", "prr": 4.0, "channels": 4, **common})
    layers = ["tree of means", "max pool", "upsample", "reconstruct", "sample", "group norm, ReLU"]
    assert [one["layer"] for one in passes] == layers
    norms = main({"what": "norms", "edge": 9, "channels": 16, "repeats": 1, "threads": 2})
    assert norms["rows"] == 729
    assert all(np.isfinite(value) and value > 0 for value in norms.values())


def test_goals_are_judged():
    one = {
        "prr": 10.0, "particles": 1, "dense_forward_s": 9.5, "forward_s": 1.0, "bfloat16_s": 0.5,
        "dense_backward_s": 17.0, "backward_s": 2.0, "learning_s": 1.0,
    }  # fmt: skip
    (row,) = conv_rows("16 -> 16", 0.9, [one])
    assert row[4:8] == (9.5, 0.95, 0.9, True)
    assert row[8:13] == (1.0, 2.0, 2.0, pytest.approx(0.85), True)
    (row,) = conv_rows("16 -> 16", 0.9, [{**one, "forward_s": 1.2, "learning_s": 1.3, "backward_s": 3.0}])
    assert (row[7], row[12]) == (False, False)
