"""The table of times and memory."""

from __future__ import annotations

import numpy as np

from napari_aprcnn.bench.evaluation import shifted_balls, table


def test_the_simulated_predictions_are_of_the_same_nuclei():
    one, other = (shifted_balls((32, 64, 64), seed=seed) for seed in (0, 1))
    assert len(np.unique(one)) == len(np.unique(other)) == 5
    assert (one != other).any()
    assert ((one > 0) & (other > 0)).sum() > 0.3 * (one > 0).sum()
    assert (shifted_balls((32, 64, 64), seed=0) == one).all()


def test_the_table_runs_and_agrees():
    (row,) = table(quick=True).rows
    assert row[1] == 25
    assert row[2] < 20
    assert row[7] in (True, None)
