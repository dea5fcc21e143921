"""Runs of networks for volumes: particles and outputs that are kept, outlines moved afterwards, figures beforehand."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from napari_aprcnn.config import AxisMapping, SegmentConfig, VolumeConfig
from napari_aprcnn.errors import AxesError, CancelledError, ConfigError, ImageValueError
from napari_aprcnn.models import zoo
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.segment import flows, volume_run
from napari_aprcnn.segment.estimate import estimate
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.segment.reduction import measure_reduction
from napari_aprcnn.segment.volume_flows import move_outlines
from napari_aprcnn.segment.volume_masks import nearest, relabel, volume_labels
from napari_aprcnn.segment.volume_plan import FIXED_BYTES, plan_volume, row_bytes
from volume_fakes import BallNetwork, balls, save_tiny_model

IMAGE = balls()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)
    save_tiny_model(tmp_path)
    monkeypatch.setattr(volume_run, "_PACE", {})
    return "apr-tiny-3d"


def test_a_run_keeps_its_particles_and_outputs():
    result = segment(IMAGE, model=BallNetwork(), threads=1)
    assert result.readout.n_objects == int(result.labels.max()) == 12
    assert result.particles.shape == IMAGE.shape
    assert result.particles.prr == pytest.approx(result.readout.prr)
    assert result.outputs.probability.shape == IMAGE.shape
    assert segment(IMAGE, model=BallNetwork(), keep_flows=False, threads=1).outputs is None
    film = segment(np.stack([IMAGE, IMAGE]), model=BallNetwork(), axes={"order": "TZYX"}, threads=1)
    assert film.particles is None
    assert film.outputs is None
    assert film.readout.n_objects == 24


@pytest.mark.parametrize("zoom", [1.0, 1.5])
def test_moved_outlines_are_those_of_a_run(zoom):
    """The live preview and a fresh run with the same parameters give the same labels."""
    net = BallNetwork()
    first = segment(IMAGE, model=net, volume=VolumeConfig(zoom=zoom), threads=1)
    for changes in ({"outline": 0.2}, {"outline": 0.8, "grow_vox": 2}, {"grow_vox": -1}):
        options = first.config.volume.replace(**changes)
        runs = net.runs
        moved = relabel(first, first.config.replace(volume=options), threads=1)
        assert net.runs == runs
        fresh = segment(IMAGE, model=net, volume=options, threads=1)
        assert np.array_equal(moved.labels, fresh.labels)
        assert moved.labels.dtype == fresh.labels.dtype
        assert moved.readout.n_objects == fresh.readout.n_objects
        assert moved.config == fresh.config
        assert not np.array_equal(moved.labels, first.labels)


def test_only_what_makes_labels_is_taken_from_the_new_configuration():
    first = segment(IMAGE, model=BallNetwork(), threads=1)
    other = SegmentConfig(model="another", volume=VolumeConfig(relative_error=0.4, zoom=2.0, outline=0.3))
    moved = relabel(first, other)
    assert moved.config == first.config.replace(volume=first.config.volume.replace(outline=0.3))


def test_moved_outlines_keep_the_axes_of_the_image():
    first = segment(IMAGE.transpose(2, 0, 1)[None], model=BallNetwork(), axes={"order": "CXZY"}, threads=1)
    moved = relabel(first, first.config)
    assert np.array_equal(moved.labels, first.labels)
    assert moved.labels.shape == (48, 32, 40)


def test_relabel_refuses_and_stops():
    first = segment(IMAGE, model=BallNetwork(), keep_flows=False, threads=1)
    with pytest.raises(ConfigError, match="no outputs"):
        relabel(first, first.config)
    kept = segment(IMAGE, model=BallNetwork(), threads=1)
    with pytest.raises(CancelledError):
        relabel(kept, kept.config, should_cancel=lambda: True)


def test_growth_counts_voxels_of_the_image_at_any_zoom():
    plain = segment(IMAGE, model=BallNetwork(), threads=1, volume=VolumeConfig(zoom=2.0))
    grown = segment(IMAGE, model=BallNetwork(), threads=1, volume=VolumeConfig(zoom=2.0, grow_vox=1))
    assert np.array_equal(grown.labels, move_outlines(plain.labels.astype(np.uint32), 1))


def test_the_smallest_size_counts_voxels_of_the_image_at_any_zoom():
    """Balls of radius 5 have 500 voxels: an eighth of that on the network's grid at zoom 0.5, 8 times at 2."""
    sizes = np.bincount(segment(IMAGE, model=BallNetwork(), threads=1).labels.ravel())[1:]
    for zoom in (0.5, 2.0):
        for least, left in ((0.6 * sizes.min(), 12), (1.4 * sizes.max(), 0)):
            sizes_from = {"min_size_vox": round(least)}
            run = segment(IMAGE, model=BallNetwork(), threads=1, flows=sizes_from, volume=VolumeConfig(zoom=zoom))
            assert run.readout.n_objects == left, (zoom, least)


def test_objects_that_no_voxel_of_the_image_is_left_of_are_not_counted(monkeypatch):
    """The image sees one of eight voxels of the network's grid: those at odd places."""
    found = np.zeros((16, 16, 16), np.uint32)
    found[2, 2, 2], found[3, 3, 3], found[8:12, 8:12, 8:12] = 1, 2, 3
    monkeypatch.setattr(flows, "masks_from_flows", lambda *args, **options: found.copy())
    config = SegmentConfig(flows={"min_size_vox": 0}, volume={"zoom": 2.0})
    labels = volume_labels(np.zeros((3, 16, 16, 16), np.float32), found.astype(np.float32), (8, 8, 8), config)
    assert np.bincount(labels.ravel())[1:].tolist() == [1, 8]
    small = config.replace(flows={"min_size_vox": 2})
    labels = volume_labels(np.zeros((3, 16, 16, 16), np.float32), found.astype(np.float32), (8, 8, 8), small)
    assert np.bincount(labels.ravel())[1:].tolist() == [8]
    kept, n = nearest(np.arange(64, dtype=np.uint32).reshape(4, 4, 4), (2, 2, 2))
    assert (n, np.unique(kept).tolist()) == (8, list(range(1, 9)))


# --- before the run --------------------------------------------------------------------------------------------------


def test_reduction_is_that_of_the_run():
    measured = measure_reduction(IMAGE, relative_error=0.1, threads=1)
    run = segment(IMAGE, model=BallNetwork(), threads=1)
    assert measured.whole
    assert measured.prr == pytest.approx(run.readout.prr)
    assert measured.words.startswith(f"PRR {measured.prr:.1f}: ")
    zoomed = measure_reduction(IMAGE, relative_error=0.1, zoom=1.5, threads=1)
    again = segment(IMAGE, model=BallNetwork(), threads=1, volume=VolumeConfig(zoom=1.5))
    assert zoomed.prr == pytest.approx(again.readout.prr)
    coarse = measure_reduction(IMAGE, relative_error=0.4, threads=1)
    assert coarse.prr > measured.prr


def test_of_a_large_image_the_middle_is_measured_and_nothing_else_is_read():
    from fakes import Recorded

    image = np.zeros((2, 150, 140, 200), np.uint8)
    image[0, 11:139, 6:134, 36:164] = np.random.default_rng(0).integers(0, 255, (128, 128, 128))
    lazy = Recorded(image)
    measured = measure_reduction(lazy, AxisMapping(order="TZYX"), relative_error=0.2, threads=1)
    assert measured.shape == (128, 128, 128)
    assert not measured.whole
    assert measured.words.endswith(", measured on the middle 128 x 128 x 128 of the first time point")
    assert lazy.sizes == [128**3]


def test_reduction_refuses_and_stops():
    with pytest.raises(CancelledError):
        measure_reduction(IMAGE, relative_error=0.1, should_cancel=lambda: True)
    with pytest.raises(ImageValueError):
        measure_reduction(np.full((8, 8, 8), np.nan), relative_error=0.1)


def test_estimates_follow_the_particles(tiny):
    config = SegmentConfig(model=tiny)
    shape = (128, 256, 256)
    guess = estimate(shape, "uint16", config)
    few, many = (estimate(shape, "uint16", config, prr=prr) for prr in (20.0, 2.0))
    assert "typical PRR" in guess.words
    assert "typical" not in few.words
    assert few.seconds < guess.seconds < many.seconds
    assert few.memory_bytes == guess.memory_bytes  # masks of all voxels take more than so small a network
    assert few.n_blocks == many.n_blocks
    zoomed = estimate(shape, "uint16", config.replace(volume=VolumeConfig(zoom=2.0)), prr=2.0)
    assert zoomed.seconds > 7 * many.seconds
    voxels = config.replace(volume=VolumeConfig(particle_stages=0))
    assert estimate(shape, "uint16", voxels).seconds == estimate(shape, "uint16", voxels, prr=9.0).seconds
    small = config.replace(tiles=config.tiles.replace(memory_gb=0.7))
    assert "blocks" in estimate((256, 256, 256), "uint16", small).words


def test_memory_is_that_of_the_network_or_of_the_masks():
    config, shape = SegmentConfig(model="apr-unet-nuclei-3d"), (128, 256, 256)
    many, few, fewest = (estimate(shape, "uint16", config, prr=prr).memory_bytes for prr in (1.3, 2.0, 50.0))
    assert many > few > fewest
    assert fewest == estimate(shape, "uint16", config, prr=100.0).memory_bytes
    half = estimate(shape, "uint16", config.replace(precision="bfloat16"), prr=1.3).memory_bytes
    assert fewest < half < many


def test_memory_of_the_images_grid_does_not_shrink_with_the_zoom():
    shape, voxels = (128, 256, 256), 128 * 256 * 256

    def bytes_a_voxel(**changes):
        config = SegmentConfig(model="apr-unet-nuclei-3d").replace(**changes)
        return estimate(shape, "uint16", config, prr=4.0).memory_bytes / voxels

    small = VolumeConfig(zoom=0.25)
    kept, dropped = bytes_a_voxel(volume=small), bytes_a_voxel(volume=small, keep_flows=False)
    assert kept > 4 + 16 + 1  # labels, flows and probability of the image, and something of the network
    assert dropped > 4 + 4  # labels, and the image as float32
    assert bytes_a_voxel(volume=small.replace(grow_vox=1), keep_flows=False) > dropped + 20
    cut = estimate((256, 1024, 1024), "uint16", SegmentConfig(
        model="apr-unet-nuclei-3d", volume=VolumeConfig(zoom=0.5), tiles={"memory_gb": 4.5}))  # fmt: skip
    assert cut.n_blocks > 1


def test_memory_knows_the_head():
    shape = (64, 64, 64)

    def planned(head):
        net = VolumeNetConfig(channels=4, head=head, rays=96, in_channels=2)
        plan = plan_volume(
            shape, n_times=1, margin=(51, 51, 51), budget=10**10, head=head, known_prr=8.0,
            per_row=row_bytes(net, VolumeConfig()),
        )  # fmt: skip
        return (plan.memory_bytes - FIXED_BYTES) / 64**3 - 4

    assert planned("flows") == pytest.approx(48)  # 36 to 40, measured
    assert planned("three_class") > 76  # 71 to 92, measured
    # A prediction on a grid of cells of eight voxels has 97 numbers a cell.
    assert planned("stardist") > 4 * 97 / 8 + 12


def test_masks_do_not_hold_what_the_network_gave(monkeypatch):
    """When flows are followed the network's output is gone: both are as large."""
    kept, alive = [], []
    predict, follow = BallNetwork.predict, volume_run.volume_labels

    def remembering(self, *args, **options):
        out = predict(self, *args, **options)
        kept.append(weakref.ref(out))
        return out

    def looking(*args, **options):
        alive.extend(ref() is not None for ref in kept)
        return follow(*args, **options)

    monkeypatch.setattr(BallNetwork, "predict", remembering)
    monkeypatch.setattr(volume_run, "volume_labels", looking)
    segment(IMAGE, model=BallNetwork(), threads=1)
    assert alive == [False]


def test_estimates_learn_from_a_run(tiny):
    config = SegmentConfig(model=tiny, threads=1)
    before = estimate(IMAGE.shape, IMAGE.dtype, config, prr=2.0).seconds
    result = segment(IMAGE, config=config)
    after = estimate(IMAGE.shape, IMAGE.dtype, config, prr=result.readout.prr).seconds
    took = result.readout.stages["network"] + result.readout.stages["masks"]
    assert after == pytest.approx(took, rel=0.05)
    assert after != before


def test_a_plane_is_refused_before_anything_is_loaded(tiny):
    with pytest.raises(AxesError, match="is for volumes"):
        estimate((64, 64), "uint8", SegmentConfig(model=tiny))
    with pytest.raises(ConfigError, match="for planes"):
        estimate((8, 64, 64), "uint8", SegmentConfig(dimensionality="volume"))
