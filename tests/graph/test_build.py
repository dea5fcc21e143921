"""Graphs of label images whose neighbours are known, and of random ones against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import napari_aprcnn.graph.scan as scan_module
from napari_aprcnn.errors import AxesError, CancelledError, ConfigError, ImageDtypeError, ImageError
from napari_aprcnn.graph.build import nuclei_graph
from napari_aprcnn.graph.scan import crossing_areas, scan_labels

SPACING = (2.0, 0.5, 0.5)


def cubes(*corners, shape=(12, 12, 12), edge=3):
    labels = np.zeros(shape, np.uint16)
    for number, corner in enumerate(corners, start=1):
        labels[tuple(slice(c, c + edge) for c in corner)] = number
    return labels


def ball(radius_um, spacing, margin=2):
    half = [int(np.ceil(radius_um / s)) + margin for s in spacing]
    grid = np.meshgrid(*[np.arange(-h, h + 1) * s for h, s in zip(half, spacing, strict=True)], indexing="ij")
    return (sum(axis**2 for axis in grid) <= radius_um**2).astype(np.uint8)


def box_distance(one, other, spacing):
    """Distance of two sets of voxels, as boxes, by looking at all pairs."""
    gaps = np.maximum(np.abs(one[:, None] - other[None]) - 1, 0) * spacing
    return float(np.sqrt((gaps**2).sum(-1)).min())


def brute_force(labels, spacing, gap):
    ids = [i for i in np.unique(labels) if i]
    voxels = {i: np.argwhere(labels == i) for i in ids}
    found = {}
    for (a, one), (b, other) in combinations(enumerate(ids), 2):
        distance = box_distance(voxels[one], voxels[other], np.array(spacing))
        if distance <= gap * (1 + 1e-9):
            found[a, b] = distance
    return found


# --- known graphs ----------------------------------------------------------------------------------------------------
def test_two_cubes_side_by_side():
    graph = nuclei_graph(cubes((2, 2, 2), (2, 2, 5), (8, 8, 8)), spacing_um=SPACING)
    assert graph.edges.tolist() == [[0, 1]]
    assert graph.edges.dtype == np.int64
    assert graph.column("distance").tolist() == [1.5]
    assert graph.column("surface_distance").tolist() == [0.0]
    assert graph.column("contact").tolist() == [3 * 2 * 3 * 0.5]
    assert graph.column("volume").tolist() == [27 * 0.5] * 3
    assert graph.column("neighbours").tolist() == [1, 1, 0]
    assert graph.nodes["centroid_z_px"].tolist() == [3, 3, 9]
    assert graph.nodes["centroid_z_um"].tolist() == [6, 6, 18]
    assert not graph.nodes["at_border"].any()


@pytest.mark.parametrize("step", [(3, 3, 3), (3, -3, 3), (3, 3, -3), (3, -3, -3), (0, 3, -3), (3, 0, 3), (3, -3, 0)])
def test_edges_and_corners_touch(step):
    other = tuple(4 + s for s in step)
    graph = nuclei_graph(cubes((4, 4, 4), other))
    assert len(graph.edges) == 1
    assert graph.column("surface_distance").tolist() == [0.0]
    away = tuple(c + (1 if s > 0 else -1 if s < 0 else 0) for c, s in zip(other, step, strict=True))
    assert not len(nuclei_graph(cubes((4, 4, 4), away)).edges)


def test_gaps_are_in_micrometres():
    labels = cubes((2, 2, 2), (2, 2, 7), (7, 2, 2))  # two voxels apart along x and along z
    assert nuclei_graph(labels, spacing_um=SPACING, gap_um=0.9).edges.tolist() == []
    near = nuclei_graph(labels, spacing_um=SPACING, gap_um=1.0)
    assert near.edges.tolist() == [[0, 1]]
    assert near.column("surface_distance").tolist() == [1.0]
    assert near.column("contact").tolist() == [0.0]
    far = nuclei_graph(labels, spacing_um=SPACING, gap_um=4.2)
    assert far.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert np.allclose(far.column("surface_distance"), [1.0, 4.0, np.hypot(1, 4)])
    assert nuclei_graph(labels, gap_um=2).edges.tolist() == [[0, 1], [0, 2]]  # in voxels without a voxel size


def test_distance_and_nearest_respect_the_voxel_size():
    labels = cubes((0, 0, 0), (0, 0, 5), (5, 0, 0), edge=1)
    assert nuclei_graph(labels, spacing_um=SPACING, edges="distance", radius_um=2.5).edges.tolist() == [[0, 1]]
    assert nuclei_graph(labels, edges="distance", radius_um=5).edges.tolist() == [[0, 1], [0, 2]]
    assert nuclei_graph(labels, spacing_um=SPACING, edges="knn", k=1).edges.tolist() == [[0, 1], [0, 2]]
    limited = nuclei_graph(labels, spacing_um=SPACING, edges="knn", k=2, radius_um=5)
    assert limited.edges.tolist() == [[0, 1]]
    assert limited.parameters == {"k": 2, "radius_um": 5.0}


def test_planes():
    labels = np.zeros((9, 9), np.int32)
    labels[1:4, 1:4], labels[1:4, 4:7], labels[4:7, 7:9] = 4, 2, 9
    graph = nuclei_graph(labels, labels * 10, spacing_um=(0.5, 0.2, 0.4))
    assert graph.labels.tolist() == [2, 4, 9]
    assert graph.edges.tolist() == [[0, 1], [0, 2]]
    assert graph.nodes["area_um2"].tolist() == pytest.approx([9 * 0.08] * 2 + [6 * 0.08])
    assert {"perimeter_um", "circularity", "major_axis_um", "minor_axis_um"} <= set(graph.nodes)
    assert "contact_um" in graph.edge_columns
    assert graph.nodes["intensity_mean"].tolist() == [20, 40, 90]
    assert np.allclose(graph.nodes["intensity_std"], 0)
    assert graph.nodes["at_border"].tolist() == [False, False, True]


@pytest.mark.parametrize("edges", ["touching", "distance", "delaunay", "knn"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_nuclei(edges, count):
    labels = cubes(*[(0, 0, 3 * i) for i in range(count)])
    graph = nuclei_graph(labels, labels, spacing_um=(1, 1, 1), edges=edges, gap_um=0.5)
    assert len(graph) == count
    # Of three in a row the first and the last are neighbours where only distances count.
    assert len(graph.edges) == max(0, count - 1) + (edges in ("knn", "distance") and count == 3)
    assert graph.edges.shape == (len(graph.edges), 2)
    assert graph.degrees().sum() == 2 * len(graph.edges)
    assert all(len(column) == len(graph.edges) for column in graph.edge_columns.values())


def test_ellipsoids_and_surfaces():
    for spacing in ((1.0, 1.0, 1.0), (1.0, 0.5, 0.5), (0.5, 0.25, 0.4)):
        graph = nuclei_graph(ball(8, spacing), spacing_um=spacing)
        assert graph.column("surface")[0] == pytest.approx(4 * np.pi * 64, rel=0.04)
        assert graph.column("sphericity")[0] > 0.96
        for axis in ("major_axis", "middle_axis", "minor_axis", "equivalent_diameter"):
            assert graph.column(axis)[0] == pytest.approx(16, rel=0.04)
    z, y, x = np.mgrid[-6:7, -20:21, -10:11]
    long = ((z / 5) ** 2 + (y / 19) ** 2 + (x / 9) ** 2 <= 1).astype(np.uint8)
    graph = nuclei_graph(long)
    assert [graph.column(f"{name}_axis")[0] for name in ("major", "middle", "minor")] == pytest.approx(
        [38, 18, 10], rel=0.05
    )
    assert np.allclose(graph.major_directions, [[0, 1, 0]], atol=1e-6)
    disc = nuclei_graph(ball(20, (1.0, 1.0)))
    assert disc.column("perimeter_px")[0] == pytest.approx(2 * np.pi * 20, rel=0.03)


def test_the_common_surface_of_a_tilted_plane():
    """Halves of a ball touch in a disc, however it is tilted."""
    z, y, x = np.mgrid[-14:15, -14:15, -14:15]
    inside = z**2 + y**2 + x**2 <= 144
    for normal in ((1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 2, 3), (1, -1, 1)):
        side = normal[0] * z + normal[1] * y + normal[2] * x > 0
        contact = nuclei_graph((inside * (1 + side)).astype(np.uint8)).column("contact")
        assert contact[0] == pytest.approx(np.pi * 144, rel=0.08)


def test_crossings_of_equal_voxels_are_those_of_the_literature():
    areas = np.array(crossing_areas((1.0, 1.0, 1.0)))
    # Voronoi shares of the 26 directions on the sphere: 0.04577789, 0.03698063, 0.03519564.
    assert np.allclose(
        np.unique(areas.round(8)),
        np.unique(
            (4 * np.array([0.04577789120476, 0.03698062787608 / np.sqrt(2), 0.03519563978232 / np.sqrt(3)])).round(8)
        ),
    )


# --- against brute force ---------------------------------------------------------------------------------------------
label_images = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 0, 0, 1, 2, 3, 7]))


@settings(max_examples=60, deadline=None)
@given(labels=label_images, gap=st.sampled_from([0.0, 0.4, 1.0, 1.5]), data=st.data())
def test_touching_is_brute_force(labels, gap, data):
    spacing = data.draw(st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.5, 0.7)]))
    graph = nuclei_graph(labels, spacing_um=spacing, gap_um=gap)
    expected = brute_force(labels, spacing, gap)
    assert [tuple(edge) for edge in graph.edges.tolist()] == sorted(expected)
    assert np.allclose(graph.column("surface_distance"), [expected[key] for key in sorted(expected)])
    assert (graph.column("surface_distance")[graph.column("contact") > 0] == 0).all()
    assert (graph.column("volume") == [np.count_nonzero(labels == i) * np.prod(spacing) for i in graph.labels]).all()
    for index, label in enumerate(graph.labels):
        assert np.allclose(graph.positions_px[index], np.argwhere(labels == label).mean(axis=0))


@settings(max_examples=30, deadline=None)
@given(labels=arrays(np.uint8, st.tuples(*[st.integers(1, 8)] * 2), elements=st.sampled_from([0, 0, 1, 2, 5])))
def test_touching_is_brute_force_in_planes(labels):
    graph = nuclei_graph(labels, spacing_um=(0.5, 0.3), gap_um=0.5)
    assert [tuple(edge) for edge in graph.edges.tolist()] == sorted(brute_force(labels, (0.5, 0.3), 0.5))


@settings(max_examples=30, deadline=None)
@given(
    points=arrays(np.int64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(0, 8)),
    radius=st.floats(0.5, 8.0),
    k=st.integers(1, 4),
)
def test_distance_and_nearest_are_brute_force(points, radius, k):
    points = np.unique(points, axis=0)
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[tuple(points.T)] = np.arange(1, len(points) + 1)
    spacing = np.array([1.5, 0.5, 1.0])
    apart = np.linalg.norm((points[:, None] - points[None]) * spacing, axis=-1)
    graph = nuclei_graph(labels, spacing_um=spacing, edges="distance", radius_um=radius)
    pairs = [(i, j) for i, j in combinations(range(len(points)), 2) if apart[i, j] <= radius]
    assert [tuple(edge) for edge in graph.edges.tolist()] == pairs
    near = nuclei_graph(labels, spacing_um=spacing, edges="knn", k=k)
    np.fill_diagonal(apart, np.inf)
    least = min(k, len(points) - 1)
    assert (near.degrees() >= least).all()
    # Each edge is as short as the k-th nearest of one of its ends; which of equal ones is taken is open.
    reach = np.sort(apart, axis=1)[:, max(least - 1, 0)] if len(points) > 1 else np.zeros(1)
    assert all(apart[i, j] <= max(reach[i], reach[j]) + 1e-9 for i, j in near.edges)


@settings(max_examples=20, deadline=None)
@given(labels=label_images)
def test_slabs_change_nothing(labels):
    whole = scan_labels(labels, labels, spacing=SPACING)
    old, scan_module._SLAB_VOXELS = scan_module._SLAB_VOXELS, 1
    try:
        planes = scan_labels(labels, labels, spacing=SPACING)
    finally:
        scan_module._SLAB_VOXELS = old
    for name, value in vars(whole).items():
        assert np.allclose(value, getattr(planes, name)), name


# --- what is refused -------------------------------------------------------------------------------------------------
def test_what_cannot_be_used_is_said():
    good = cubes((2, 2, 2))
    for labels, options, error, words in (
        (good.astype(float), {}, ImageDtypeError, "integers"),
        (-good.astype(int), {}, ImageError, "-1"),
        (good[None], {}, AxesError, "time point"),
        (good[:0], {}, ImageError, "no voxel"),
        (good, {"image": good[1:]}, AxesError, "expected the same"),
        (good, {"image": good.astype(complex)}, ImageDtypeError, "real"),
        (good, {"spacing_um": (1, 1)}, ConfigError, "3 numbers"),
        (good, {"spacing_um": (1, 1, 0)}, ConfigError, "above 0"),
        (good, {"edges": "near"}, ConfigError, "touching"),
        (good, {"gap_um": -1}, ConfigError, "gap"),
        (good, {"edges": "knn", "k": 0}, ConfigError, "at least 1"),
        (good, {"edges": "distance", "radius_um": 0}, ConfigError, "radius"),
    ):
        with pytest.raises(error, match=words):
            nuclei_graph(labels, **options)
    with pytest.raises(ConfigError, match="volume_um3"):
        nuclei_graph(good, spacing_um=(1, 1, 1)).column("size")


def test_it_can_be_cancelled_and_tells_how_far_it_is():
    labels = cubes((2, 2, 2), (2, 2, 6))
    with pytest.raises(CancelledError):
        nuclei_graph(labels, should_cancel=lambda: True)
    seen = []
    nuclei_graph(labels, edges="distance", radius_um=9, progress=lambda share, words: seen.append((share, words)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_large_and_sparse_labels():
    labels = np.zeros((4, 6, 6), np.uint64)
    labels[1, 1:3, 1:3], labels[1, 3:5, 3:5] = 2**40, 7
    graph = nuclei_graph(labels)
    assert graph.labels.tolist() == [7, 2**40]
    assert graph.edges.tolist() == [[0, 1]]
    assert len(nuclei_graph(np.ones((2, 2), bool))) == 1
