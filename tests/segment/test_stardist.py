"""Star-convex predictions to instances."""

from __future__ import annotations

import builtins
import io
import json
import warnings
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from napari_aprcnn import to_apr
from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.errors import CancelledError, ConfigError, ImageError, ImageValueError, MissingDependencyError
from napari_aprcnn.evaluate.matching import iou_matrix
from napari_aprcnn.segment import stardist as decoder
from napari_aprcnn.segment.star_prune import local_best, recentred
from napari_aprcnn.segment.star_rays import anisotropy_of, golden_spiral
from napari_aprcnn.segment.star_targets import cell_centres, particle_cells, star_targets, voxel_cells
from napari_aprcnn.segment.stardist import StarDistSettings, stardist_instances

RAYS = golden_spiral(96)
LABELS = ellipsoids((28, 60, 64), 16, diameter=14, seed=5)


def prediction(labels, cells, rays=RAYS, noise=0.0, seed=0):
    targets = star_targets(labels, cells, rays)
    rng = np.random.default_rng(seed)
    probability = targets.probability + noise * rng.normal(size=len(cells)) * (targets.probability > 0)
    distances = targets.distances * (1 + noise * rng.normal(size=targets.distances.shape))
    return np.clip(probability, 0, 1), distances, cell_centres(cells), labels.shape


def mean_iou(labels, truth, smallest=1):
    sizes = np.unique(truth, return_counts=True)[1][1:]
    iou = iou_matrix(labels, truth)
    return float(iou.max(0, initial=0.0)[sizes >= smallest].mean())


def brute_best(points, scores, radii):
    rank = np.empty(len(points), int)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(points))
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    beaten = (rank[None] < rank[:, None]) & (apart <= np.minimum(radii[:, None], radii))
    return np.flatnonzero(~beaten.any(1))


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_pruning_keeps_the_local_maxima(n):
    rng = np.random.default_rng(n)
    # Whole numbers, so that positions and scores are often equal.
    points, scores = rng.integers(0, 14, (n, 3)).astype(float), rng.integers(0, 9, n) / 9
    for radii in (np.zeros(n), rng.uniform(0, 6, n), np.full(n, 99.0)):
        assert_array_equal(local_best(points, scores, radii), brute_best(points, scores, radii))
    assert len(local_best(points, scores, np.full(n, 99.0))) == 1
    assert len(local_best(points[:0], scores[:0], scores[:0])) == 0


def test_recentring_moves_to_the_middle_and_not_to_another_object():
    rays = golden_spiral(64)

    def sphere(at, centre, radius):
        along = rays.vertices @ (at - centre)
        return -along + np.sqrt(along**2 + radius**2 - (at - centre) @ (at - centre))

    points = np.array([[10.0, 10, 14], [10, 10, 10.5], [10, 10, 22], [10, 11, 21]])
    centres = np.array([[10.0, 10, 10]] * 2 + [[10, 10, 22]] * 2)
    distances = np.stack([sphere(p, c, 6.0) for p, c in zip(points, centres, strict=True)])
    assert recentred(np.array([0, 2]), points, distances, rays).tolist() == [1, 2]
    # Both stand for one object: one may move, and never two to the same point.
    assert len(set(recentred(np.array([0, 1]), points, distances, rays).tolist())) == 2


class TestWithThePackage:
    @pytest.fixture(autouse=True)
    def _package(self):
        pytest.importorskip("stardist")

    @pytest.mark.parametrize("noise", [0.0, 0.05])
    def test_targets_give_the_truth_back(self, noise):
        cells = voxel_cells(LABELS.shape)
        labels, objects = stardist_instances(
            *prediction(LABELS, cells, noise=noise), RAYS, StarDistSettings(probability_threshold=0.3)
        )
        assert mean_iou(labels, LABELS, smallest=200) > 0.85
        assert len(objects.rows) == labels.max() == len(np.unique(labels)) - 1
        assert objects.candidates > 5 * objects.pruned >= objects.pruned >= len(objects.rows)
        first = [np.flatnonzero(labels.ravel() == label)[0] for label in range(1, labels.max() + 1)]
        assert first == sorted(first)
        # Row i speaks of label i + 1.
        inside = labels[tuple(np.floor(objects.points + 0.5).astype(int).clip(0, np.array(labels.shape) - 1).T)]
        assert (inside == np.arange(1, labels.max() + 1)).mean() > 0.9

    def test_pruning_changes_the_time_and_not_the_result(self):
        given = prediction(LABELS, voxel_cells(LABELS.shape), noise=0.03)
        settings = StarDistSettings(probability_threshold=0.55, recentre=False)
        pruned, _ = stardist_instances(*given, RAYS, settings)
        every, objects = stardist_instances(*given, RAYS, settings.replace(prune_share=0))
        assert objects.pruned == objects.candidates
        assert pruned.max() == every.max()
        assert mean_iou(pruned, every) > 0.97

    def test_recentring_sees_more_of_cut_objects(self):
        labels = np.zeros((16, 40, 40), np.uint8)
        z, y, x = np.indices(labels.shape)
        labels[(z + 3) ** 2 / 9 + (y - 20) ** 2 / 9 + (x - 20) ** 2 / 9 < 16] = 1  # highest at the image's border
        given = prediction(labels, voxel_cells(labels.shape))
        scores = [
            mean_iou(stardist_instances(*given, RAYS, StarDistSettings(recentre=recentre))[0], labels)
            for recentre in (False, True)
        ]
        assert scores[1] > max(scores[0], 0.85)

    def test_the_same_every_time(self):
        given = prediction(LABELS, voxel_cells(LABELS.shape), noise=0.05)
        results = [stardist_instances(*given, RAYS, StarDistSettings(probability_threshold=0.4))[0] for _ in range(3)]
        assert_array_equal(results[0], results[1])
        assert_array_equal(results[0], results[2])

    def test_nothing_found(self):
        labels, objects = stardist_instances(np.zeros(3), np.ones((3, 96)), np.zeros((3, 3)), (8, 8, 8), RAYS)
        assert labels.shape == (8, 8, 8)
        assert not labels.any()
        assert len(objects.rows) == objects.candidates == 0

    def test_bad_input(self):
        points, distances = np.full((2, 3), 4.0), np.full((2, 96), 3.0)
        with pytest.raises(ImageError, match="for volumes"):
            stardist_instances([0.9, 0.8], distances, points, (1, 8, 8), RAYS)
        with pytest.raises(ImageError, match=r"\[n, 96\]"):
            stardist_instances([0.9, 0.8], distances[:, :32], points, (8, 8, 8), RAYS)
        with pytest.raises(ImageValueError, match="NaN"):
            stardist_instances([0.9, np.nan], distances, points, (8, 8, 8), RAYS)
        with pytest.raises(ImageValueError, match="not finite"):
            stardist_instances([0.9, 0.8], distances * np.inf, points, (8, 8, 8), RAYS)
        with pytest.raises(ConfigError, match="overlap_threshold"):
            StarDistSettings(overlap_threshold=2)
        with pytest.raises(CancelledError):
            stardist_instances([0.9, 0.8], distances, points, (8, 8, 8), RAYS, should_cancel=lambda: True)

    def test_progress_comes_to_its_end(self):
        seen = []
        stardist_instances([0.9], np.full((1, 96), 3.0), [[4, 4, 4]], (9, 9, 9), RAYS, progress=seen.append)
        fractions = [step.fraction for step in seen]
        assert fractions == sorted(fractions)
        assert seen[-1].stage == "done"

    def test_the_package_is_left_without_side_effects(self):
        import subprocess
        import sys

        code = (
            "import sys, warnings; before = warnings.formatwarning\n"
            "from napari_aprcnn.segment import stardist\n"
            "assert 'stardist' not in sys.modules\n"
            "stardist._package()\n"
            "assert warnings.formatwarning is before\n"
            "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.shared
    @pytest.mark.parametrize(
        ("archive", "items"), [("stardist_sample_3d", 1), ("gonuclear_mini_dev", 1), ("bbbc050_train", 4)]
    )
    def test_real_labels_come_back_from_their_particles(self, shared_data, archive, items):
        scores = []
        for image, truth in read(shared_data / f"{archive}.zip", items):
            rays, cells = golden_spiral(96, anisotropy_of(truth)), particle_cells(to_apr(image))
            settings = StarDistSettings(probability_threshold=0.3)
            labels, _ = stardist_instances(*prediction(truth, cells, rays), rays, settings)
            scores.append(mean_iou(labels, truth, smallest=50))
        assert np.mean(scores) > 0.85


def read(path, items):
    import tifffile

    with zipfile.ZipFile(path) as archive:
        names = [entry["name"] for entry in json.loads(archive.read("index.json"))]
        both = [name for name in names if f"images/{name}.tif" in archive.namelist()]
        for name in both[:: max(1, len(both) // items)][:items]:
            yield tuple(
                tifffile.imread(io.BytesIO(archive.read(f"{kind}/{name}.tif"))) for kind in ("images", "labels")
            )


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("stardist"):
            raise ImportError("No module named 'stardist'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    formatter = warnings.formatwarning
    with pytest.raises(MissingDependencyError, match=r"napari-aprcnn\[stardist\]"):
        decoder.stardist_instances([0.9], np.ones((1, 96)), [[4, 4, 4]], (8, 8, 8), RAYS)
    assert warnings.formatwarning is formatter
