"""Descriptors of organoids whose shape is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from organoids import cyst, lobes, paint, solid, sphere_points

from napari_aprcnn.errors import AxesError, ImageError
from napari_aprcnn.graph.build import nuclei_graph
from napari_aprcnn.graph.descriptors import clustering, describe
from napari_aprcnn.graph.ellipsoid import fit_ellipsoid
from napari_aprcnn.graph.envelope import envelope_of

SPACING = (2.0, 1.0, 1.0)


def described(labels, **options):
    graph = nuclei_graph(labels, spacing_um=SPACING, **{"edges": "delaunay", "surface_distance": False, **options})
    return graph, describe(graph, labels)


def test_a_hollow_sphere():
    graph, found = described(cyst())
    outer, inner = 36.0, 24.0
    assert found.n_nuclei == 90
    assert found.n_components == 1
    assert found.organoid_volume == pytest.approx(4 / 3 * np.pi * outer**3, rel=0.2)  # it is bumpy
    assert found.lumen_fraction == pytest.approx((inner / outer) ** 3, abs=0.12)
    assert found.n_lumens == 1
    assert found.sphericity > 0.9
    assert found.asphericity == 1 - found.sphericity
    assert found.solidity > 0.9
    assert found.shape_anisotropy < 0.01
    assert found.radial_mean > 0.97
    assert found.radial_cv < 0.03
    assert found.radial_histogram[-1] > 0.95
    assert found.depth_mean == pytest.approx(0.5, abs=0.2)
    assert found.hull_emptiness > 0.2
    assert found.nuclei_per_volume == pytest.approx(1000 * 90 / found.organoid_volume)
    assert sum(found.degree_histogram) == pytest.approx(1)
    model = fit_ellipsoid(graph)
    assert model.semi_axes == pytest.approx([30] * 3, rel=0.04)
    assert model.thickness < 0.12
    assert model.residual < 0.05


def test_a_solid_ball():
    graph, found = described(solid())
    assert found.lumen_fraction == 0
    assert found.n_lumens == 0
    assert found.sphericity > 0.9
    assert found.radial_cv == pytest.approx(0.26, abs=0.08)
    assert found.depth_relative == pytest.approx(0.3, abs=0.1)
    assert found.hull_emptiness < 0.05
    assert found.nuclear_fraction > 0.3
    assert fit_ellipsoid(graph).thickness == pytest.approx(0.62, abs=0.12)


def test_lobes():
    _, found = described(lobes())
    _, ball = described(solid())
    assert found.sphericity < ball.sphericity - 0.1
    assert found.solidity < ball.solidity - 0.1
    assert found.openness > ball.openness + 0.2
    assert found.connectivity < ball.connectivity / 2


def test_it_does_not_depend_on_place_turn_and_unit():
    points = np.random.default_rng(0).permutation(sphere_points(60, 22.0))
    one = paint(points, 5.0)
    other = paint(points[:, [0, 2, 1]] * [1, -1, 1], 5.0, margin_um=9.0)
    _, first = described(one)
    _, second = described(other)
    large = nuclei_graph(one, spacing_um=(4.0, 2.0, 2.0), edges="delaunay")
    third = describe(large, one)
    for name in ("lumen_fraction", "sphericity", "radial_cv", "depth_mean", "neighbour_distance", "clustering"):
        assert second.number(name) == pytest.approx(first.number(name), rel=0.05, abs=0.02)
        assert third.number(name) == pytest.approx(first.number(name), rel=1e-6)
    assert third.organoid_volume == pytest.approx(8 * first.organoid_volume)


def test_polarity_and_order():
    centres = sphere_points(40, 26.0)
    outward = centres / 26.0
    grid = np.stack(np.meshgrid(*[np.arange(-36, 37, 1.0)] * 3, indexing="ij"), axis=-1)
    radial, across = (np.zeros(grid.shape[:3], np.uint16) for _ in range(2))
    for number, (centre, normal) in enumerate(zip(centres, outward, strict=True), start=1):
        away = grid - centre
        along = (away @ normal) ** 2
        rest = (away**2).sum(-1) - along
        radial[along / 49 + rest / 9 <= 1] = number
        across[along / 9 + rest / 36 <= 1] = number
    assert describe(nuclei_graph(radial), radial).polarity > 0.9
    assert describe(nuclei_graph(across), across).polarity < -0.3
    assert describe(nuclei_graph(radial), radial).orientation_order < 0.15
    rods = np.zeros((20, 20, 40), np.uint8)
    for number in range(9):
        rods[2 + 6 * (number // 3) : 5 + 6 * (number // 3), 2 + 6 * (number % 3) : 5 + 6 * (number % 3), 5:35] = (
            number + 1
        )
    assert describe(nuclei_graph(rods), rods).orientation_order == pytest.approx(1.0)


def test_few_nuclei_are_described():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:5, 2:5, 2:5] = 4
    graph = nuclei_graph(labels)
    found = describe(graph, labels)
    assert found.n_nuclei == 1
    assert math.isnan(found.clustering)
    assert found.lumen_fraction == 0
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["clustering"] is None
    for bad in (lambda: fit_ellipsoid(graph), lambda: describe(nuclei_graph(labels * 0), labels * 0)):
        with pytest.raises(ImageError):
            bad()
    with pytest.raises(AxesError):
        describe(graph, labels[1:])
    flat = np.zeros((3, 40, 40), np.uint8)
    for number in range(9):
        flat[1, 4 + 12 * (number // 3), 4 + 12 * (number % 3)] = number + 1
    with pytest.raises(ImageError, match="plane"):
        fit_ellipsoid(nuclei_graph(flat))
    assert describe(nuclei_graph(flat, edges="delaunay"), flat).hull_volume == 0


def test_planes_are_described():
    y, x = np.mgrid[-30:31, -30:31]
    angle = ((np.arctan2(y, x) + np.pi) / (2 * np.pi) * 20).astype(int) % 20
    ring = np.where(np.abs(np.hypot(y, x) - 22) < 4, angle + 1, 0)
    graph = nuclei_graph(ring, spacing_um=(0.5, 0.5))
    found = describe(graph, ring)
    assert set(graph.degrees()) == {2}
    assert found.clustering == 0
    assert found.lumen_fraction == pytest.approx((18 / 26) ** 2, rel=0.2)
    assert found.sphericity > 0.9
    assert fit_ellipsoid(graph).semi_axes == pytest.approx([11, 11], rel=0.1)


def test_clustering_is_that_of_networkx():
    import networkx as nx

    from napari_aprcnn.graph.export import to_networkx

    labels = np.random.default_rng(3).integers(0, 30, (5, 6, 6))
    graph = nuclei_graph(labels, edges="knn", k=3)
    made = to_networkx(graph)
    expected = [value for node, value in nx.clustering(made).items() if made.degree[node] > 1]
    assert clustering(graph) == pytest.approx(np.mean(expected))


def test_a_sphere_that_the_border_cuts_encloses_nothing():
    labels = cyst()[:, :, 30:]
    graph = nuclei_graph(labels, spacing_um=SPACING)
    assert envelope_of(graph, labels).lumen_volume == 0
    assert describe(graph, labels).hull_emptiness > 0.2
