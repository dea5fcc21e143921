import weakref

import numpy as np
import pytest
import torch
from fakes import FakeNetwork, blobs, cut_in_blocks, matched_f1, same_partition

from napari_aprcnn.config import AxisMapping, FlowConfig, NormaliseConfig, SegmentConfig, TileConfig
from napari_aprcnn.errors import (
    CancelledError,
    ImageValueError,
    NotEnoughMemoryError,
)
from napari_aprcnn.segment import run
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.segment.result import write_run_file


def _run(image, **overrides):
    overrides = {"model": FakeNetwork(), "diameter_px": 25.0, "threads": 1, **overrides}
    return segment(image, **overrides)


@pytest.fixture(scope="module")
def plane():
    return blobs((200, 230))


@pytest.fixture(scope="module")
def stack():
    return blobs((40, 90, 100))


def test_2d(plane):
    image, truth = plane
    result = _run(image)
    assert matched_f1(result.labels, truth, iou=0.8) == 1.0
    assert result.labels.dtype == np.uint16
    assert result.labels.shape == result.probability.shape == result.flows.shape[1:] == image.shape
    assert result.flows.dtype == result.probability.dtype == np.float32
    assert result.axes == "YX"
    assert set(np.unique(result.labels)) == set(range(truth.max() + 1))


def test_nuclei_cut_by_the_border_are_found():
    image, truth = blobs((120, 120))
    cut, half = image[18:, 18:], truth[18:, 18:]
    assert matched_f1(_run(cut).labels, half) == 1.0


@pytest.mark.parametrize("diameter", [8, 50, 120])
def test_other_sizes_are_rescaled(diameter):
    image, truth = blobs((int(4.2 * diameter), int(4.2 * diameter)), diameter=diameter)
    assert matched_f1(_run(image, diameter_px=float(diameter)).labels, truth, iou=0.7) == 1.0


def test_tiny_nuclei_are_not_dropped_as_debris():
    image, truth = blobs((80, 80), diameter=4.5, spacing=9)
    assert np.bincount(truth.ravel())[1:].min() < FlowConfig().min_size_vox
    assert matched_f1(_run(image, diameter_px=4.5).labels, truth) == 1.0


def test_a_smallest_size_that_was_chosen_is_kept():
    image, truth = blobs((80, 80), diameter=12, spacing=20)
    smallest = int(np.bincount(truth.ravel())[1:].min())
    assert _run(image, diameter_px=12.0, flows=FlowConfig(min_size_vox=smallest // 2)).labels.max() == truth.max()
    assert _run(image, diameter_px=12.0, flows=FlowConfig(min_size_vox=10 * smallest)).labels.max() == 0


def test_3d_by_three_planes(stack):
    image, truth = stack
    result = _run(image)
    assert result.readout.dimensionality == "planes"
    assert result.flows.shape == (3, *image.shape)
    assert matched_f1(result.labels, truth, iou=0.7) == 1.0


def test_three_planes_average_the_components(stack):
    """Each component comes from the two orientations that hold it, the probability from all three."""
    image, _ = stack
    image = image[:24, :48, :40]
    noise = np.random.default_rng(0).random(image.shape)  # no plane is without anything to see
    image = ((image + noise) / 1000).astype(np.float32)
    result = _run(image, normalise=NormaliseConfig(mode="none"), tiles=TileConfig(border_px=16))
    network, values = FakeNetwork(), image.astype(np.float32)

    def planes(axis):
        padded = np.pad(np.moveaxis(values, axis, 0), ((0, 0), (16, 16), (16, 16)))
        padded = np.pad(padded, ((0, 0), (0, -padded.shape[1] % 16), (0, -padded.shape[2] % 16)))
        moved = np.moveaxis(values, axis, 0).shape
        return np.moveaxis(
            network.predict(torch.from_numpy(padded))[:, :, 16 : 16 + moved[1], 16 : 16 + moved[2]], 0, axis + 1
        )

    xy, zx, zy = planes(0), planes(1), planes(2)
    expected = np.stack([(zy[0] + zx[0]) / 2, (xy[0] + zy[1]) / 2, (xy[1] + zx[1]) / 2])
    np.testing.assert_allclose(result.flows, expected, atol=1e-4)
    np.testing.assert_allclose(result.probability, (xy[2] + zy[2] + zx[2]) / 3, rtol=1e-4, atol=1e-3)


def test_anisotropic_voxels():
    image, truth = blobs((14, 90, 100), ratio=3.0)
    result = _run(image, spacing_um=(0.6, 0.2, 0.2))
    assert matched_f1(result.labels, truth, iou=0.6) == 1.0
    # Flows are in voxels: a step along the coarse axis covers fewer of them.
    assert 0 < np.abs(result.flows[0]).max() <= 5.01 / 3


def test_3d_by_stitching(stack):
    image, truth = stack
    result = _run(image, dimensionality="stitch")
    assert matched_f1(result.labels, truth, iou=0.6) == 1.0
    assert result.readout.n_objects == truth.max()
    assert result.flows.shape == (2, *image.shape)


def test_planes_of_a_stack_on_their_own(stack):
    image, _ = stack
    axes = AxisMapping(order="ZYX")
    result = _run(image[18:21], dimensionality="2d", axes=axes)
    for z in range(3):
        alone = _run(image[18 + z : 19 + z], axes=axes, normalise=NormaliseConfig(mode="none")).labels[0]
        assert alone.shape == result.labels[z].shape
        assert result.labels[z].max() > 0
    assert result.readout.n_objects == sum(int(p.max()) for p in result.labels)


def test_time_points_on_their_own(plane):
    image, _ = plane
    series = np.stack([image, image[::-1], image // 3])
    result = _run(series, axes=AxisMapping(order="TYX"))
    for t in range(3):
        np.testing.assert_array_equal(result.labels[t], _run(series[t]).labels)
    assert result.axes == "TYX"


def test_any_order_of_axes(stack):
    image, _ = stack
    full = np.zeros((2, 3, *image.shape), np.uint16)
    full[0, 1], full[1, 1] = image, image[:, ::-1]
    plain = _run(full, axes=AxisMapping(order="TCZYX", channel=1), spacing_um=(1, 1, 1))
    order = "XZCYT"
    mixed = full.transpose(["TCZYX".index(letter) for letter in order])
    result = _run(mixed, axes=AxisMapping(order=order, channel=1), spacing_um=(1, 1, 1))
    assert result.axes == "XZYT"
    back = ["XZYT".index(letter) for letter in "TZYX"]
    np.testing.assert_array_equal(result.labels.transpose(back), plain.labels)
    np.testing.assert_array_equal(result.probability.transpose(back), plain.probability)
    np.testing.assert_array_equal(result.flows.transpose([0, *(1 + i for i in back)]), plain.flows)


def test_tiles_leave_no_seams(plane):
    image, truth = blobs((420, 380), seed=3)
    whole, tiled = _run(image), _run(image, tiles=TileConfig(tile_px=256))
    assert tiled.readout.n_tiles > whole.readout.n_tiles == 1
    np.testing.assert_array_equal(whole.labels > 0, tiled.labels > 0)
    assert matched_f1(whole.labels, tiled.labels, iou=0.98) == 1.0
    assert matched_f1(tiled.labels, truth, iou=0.8) == 1.0


@pytest.mark.parametrize(
    ("mode", "shape", "parts"), [("2d", (300, 320), (1, 2, 2)), ("planes", (40, 60, 230), (1, 1, 2))]
)
def test_blocks_leave_no_seams(monkeypatch, mode, shape, parts):
    image, truth = blobs(shape, seed=2)
    whole = _run(image)
    cut_in_blocks(monkeypatch, parts)
    blocked = _run(image)
    assert blocked.readout.n_blocks == np.prod(parts)
    assert blocked.flows is None
    assert same_partition(whole.labels, blocked.labels)
    assert blocked.readout.n_objects == truth.max() == blocked.labels.max()


def test_a_small_budget_cuts_by_itself_and_is_replayed(tmp_path):
    image, truth = blobs((900, 900), seed=1)
    result = _run(image, tiles=TileConfig(memory_gb=0.05))
    assert result.readout.n_blocks > 1
    assert matched_f1(result.labels, truth, iou=0.8) == 1.0
    assert result.readout.memory_added_bytes < 0.3e9
    write_run_file(result, tmp_path / "run.json")
    again = segment(image, config=SegmentConfig.from_file(tmp_path / "run.json"), model=FakeNetwork())
    np.testing.assert_array_equal(again.labels, result.labels)
    with pytest.raises(NotEnoughMemoryError, match="needs at least"):
        _run(image, tiles=TileConfig(memory_gb=0.01))


def test_results_are_bitwise_reproducible_and_replay(tmp_path, stack):
    image, _ = stack
    first = segment(image, model=FakeNetwork(), flows=FlowConfig(n_steps=150))
    path = tmp_path / "run.json"
    first.save_run(path)
    again = segment(image, config=SegmentConfig.from_file(path), model=FakeNetwork())
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.flows, again.flows)
    np.testing.assert_array_equal(first.probability, again.probability)
    assert again.config == first.config


def test_more_than_65535_nuclei_take_32_bits(monkeypatch):
    from napari_aprcnn.segment import flows

    def masks(flows, probability, *, config, **_kwargs):
        return np.arange(1, probability.size + 1, dtype=np.uint32).reshape(probability.shape)

    monkeypatch.setattr(flows, "masks_from_flows", masks)
    image = np.random.default_rng(0).integers(0, 99, (2, 260, 260), dtype=np.uint8)
    assert _run(image[0]).labels.dtype == np.uint32
    series = _run(image, axes=AxisMapping(order="TYX"))
    assert series.labels.dtype == np.uint32
    assert series.labels[0].max() == 260 * 260


def test_without_flows(plane):
    result = _run(plane[0], keep_flows=False)
    assert result.flows is None
    assert result.probability is None
    assert result.labels.any()


def test_threads_of_torch_are_put_back(plane):
    before = torch.get_num_threads()
    _run(plane[0], threads=3)
    assert torch.get_num_threads() == before
    with pytest.raises(ImageValueError):
        _run(np.full((8, 8), np.nan), threads=3)
    assert torch.get_num_threads() == before


# --- progress, cancel, partial labels ------------------------------------------------------------------------------


def test_progress_and_readout(plane):
    seen = []
    result = _run(plane[0], progress=seen.append, tiles=TileConfig(tile_px=128), diameter_px=None)
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {"diameter", "network", "masks", "done"} <= {p.stage for p in seen}
    network = [p for p in seen if p.stage == "network"]
    done = [p.done for p in network]
    assert done == sorted(set(done))
    assert done[-1] == network[-1].total == result.readout.n_tiles > 1
    readout = result.readout
    assert {"network", "masks", "diameter", "read", "normalise"} <= set(readout.stages)
    assert 0 < sum(readout.stages.values()) <= readout.seconds
    assert readout.voxels == plane[0].size
    assert readout.model_sha256 == "f" * 64
    assert readout.device == "CPU, 1 thread"
    assert readout.peak_memory_bytes > readout.memory_added_bytes >= 0
    assert not readout.diameter_given
    assert "| nuclei |" in readout.markdown()


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_cancel_stops_at_the_next_tile(monkeypatch, plane, after):
    monkeypatch.setattr("napari_aprcnn.segment.plan.PASS_PX", 1)  # a batch is a tile
    network, calls = FakeNetwork(), []

    def should_cancel():
        calls.append(len(network.shapes))
        return len(network.shapes) >= after

    with pytest.raises(CancelledError):
        _run(plane[0], model=network, should_cancel=should_cancel, tiles=TileConfig(tile_px=64))
    assert len(network.shapes) <= max(after, 0)


def test_partial_labels_of_tiles(plane):
    image, _ = blobs((420, 380), seed=3)
    canvas, parts = np.zeros(image.shape, np.uint32), []

    def take(part):
        parts.append(part)
        canvas[part.region] = part.labels

    result = _run(image, on_partial=take, tiles=TileConfig(tile_px=128))
    assert len(parts) >= 1
    assert not any(part.final for part in parts)
    assert all(part.labels.dtype == np.uint32 for part in parts)
    seen = canvas > 0
    assert (seen & (result.labels == 0)).mean() < 0.02
    without = _run(image, tiles=TileConfig(tile_px=128))
    np.testing.assert_array_equal(without.labels, result.labels)


def test_partial_labels_of_planes_and_times(stack):
    image, _ = stack
    series = np.stack([image[:, :60, :60], image[::-1, :60, :60]], axis=-1)
    parts = []
    result = _run(series, axes=AxisMapping(order="ZYXT"), on_partial=parts.append)
    finals = [part for part in parts if part.final]
    assert len(finals) == 2
    assert len(parts) > 2
    for part in finals:
        np.testing.assert_array_equal(result.labels[part.region], part.labels)
    for part in parts:
        assert result.labels[part.region].shape == part.labels.shape


@pytest.mark.parametrize(("mode", "function"), [("planes", "predict_volume"), ("2d", "predict_plane")])
def test_a_block_is_gone_before_the_next_one_is_computed(monkeypatch, mode, function):
    alive: list[weakref.ref] = []
    counts: list[int] = []
    usual = getattr(run, function)

    def watched(*args, **kwargs):
        counts.append(sum(reference() is not None for reference in alive))
        found = usual(*args, **kwargs)
        alive.extend(weakref.ref(array) for array in (found if isinstance(found, tuple) else (found,)))
        return found

    monkeypatch.setattr(run, function, watched)
    cut_in_blocks(monkeypatch, (1, 2, 2))
    image, _ = blobs((1, 200, 220) if mode == "2d" else (24, 120, 130), seed=2)
    result = _run(image, dimensionality=mode)
    assert result.readout.n_blocks == len(counts) == 4
    assert counts == [0, 0, 0, 0]


def test_augmented_runs(stack):
    image, truth = stack
    result = _run(image, tiles=TileConfig(augment=True))
    assert matched_f1(result.labels, truth) == 1.0
    assert result.config.tiles.augment
