"""Delaunay, also where it is not defined."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from napari_aprcnn.graph.neighbours import delaunay_pairs, nearest_pairs, ordered


def test_points_in_general_position():
    points = np.random.default_rng(0).uniform(0, 10, (40, 3))
    from scipy.spatial import Delaunay

    expected = set()
    for simplex in Delaunay(points).simplices:
        expected |= {tuple(sorted(pair)) for pair in combinations(simplex.tolist(), 2)}
    assert {tuple(pair) for pair in delaunay_pairs(points).tolist()} == expected
    short = delaunay_pairs(points, 3.0)
    assert 0 < len(short) < len(expected)
    assert (np.linalg.norm(points[short[:, 0]] - points[short[:, 1]], axis=1) <= 3).all()


@pytest.mark.parametrize("rank", [2, 3])
def test_few_points_are_all_joined(rank):
    points = np.eye(rank + 1, rank)
    assert len(delaunay_pairs(points)) == (rank + 1) * rank / 2
    assert delaunay_pairs(points[:1]).shape == (0, 2)
    assert delaunay_pairs(points[:0]).shape == (0, 2)
    assert delaunay_pairs(points[:2]).tolist() == [[0, 1]]


def test_points_in_a_plane_and_on_a_line():
    square = np.array([[5.0, 0, 0], [5, 0, 1], [5, 1, 0], [5, 1.2, 1.1]])
    flat, plane = delaunay_pairs(square), delaunay_pairs(square[:, 1:])
    assert flat.tolist() == plane.tolist()
    tilted = square @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    assert delaunay_pairs(tilted).tolist() == plane.tolist()
    line = np.outer([3.0, 1.0, 2.0, 7.0], [1, 2, 3])
    assert delaunay_pairs(line).tolist() == [[0, 2], [0, 3], [1, 2]]


def test_points_at_one_place():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    pairs = {tuple(pair) for pair in delaunay_pairs(points).tolist()}
    assert {(0, 2), (0, 5)} <= pairs
    assert (2, 3) not in pairs
    assert delaunay_pairs(np.zeros((3, 3))).tolist() == [[0, 1], [0, 2]]
    assert nearest_pairs(np.zeros((3, 3)), 2).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_pairs_are_put_in_order():
    assert ordered(np.array([[3, 1], [1, 3], [2, 2], [0, 5]])).tolist() == [[0, 5], [1, 3]]
    assert ordered(np.zeros((0, 2), int)).shape == (0, 2)
