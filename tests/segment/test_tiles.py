import numpy as np
import pytest
import torch
from fakes import FakeNetwork, blobs
from hypothesis import given
from hypothesis import strategies as st

from napari_aprcnn.errors import NotEnoughMemoryError
from napari_aprcnn.segment.planes import predict_volume
from napari_aprcnn.segment.scale import Scale
from napari_aprcnn.segment.tiles import Tiler, plan_tiles


def _tiler(network, **values):
    settings = {"tile_px": 1024, "overlap": 0.1, "border_px": 24, "batch_px": 1 << 20}
    return Tiler(network, **{**settings, **values}, on_tile=lambda pixels, tiles: None)


def _plane(shape=(330, 410)):
    image, _ = blobs(shape)
    return torch.from_numpy(((image - 100.0) / 900.0).astype(np.float32))[None]


@given(st.integers(1, 400), st.integers(1, 400), st.integers(64, 512), st.floats(0, 0.5))
def test_tiles_cover_the_plane(height, width, tile_px, overlap):
    height, width = 16 * height, 16 * width
    grid = plan_tiles(height, width, tile_px=tile_px, overlap=overlap)
    for starts, size, length in zip(grid.starts, grid.size, (height, width), strict=True):
        assert size % 16 == 0
        assert size <= tile_px * 1.125 + 16
        assert starts[0] == 0
        assert starts[-1] + size == length
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (steps <= size).all()


def test_overlap_is_at_least_what_was_asked():
    grid = plan_tiles(4096, 4096, tile_px=512, overlap=0.25)
    assert max(np.diff(grid.starts[0])) <= grid.size[0] - 128 + 1


def test_tiled_equals_whole():
    plane, network = _plane(), FakeNetwork()
    whole = _tiler(network).run(plane)
    tiled = _tiler(network, tile_px=256).run(plane)
    assert max(shape[-1] for shape in network.shapes[1:]) <= 288
    assert len(network.shapes) > 1
    np.testing.assert_allclose(tiled.numpy(), whole.numpy(), atol=1e-2)


def test_batches_are_bounded_and_change_nothing():
    planes = torch.cat([_plane((100, 120)), _plane((100, 120)).flip(1), _plane((100, 120)) * 0.8] * 3)
    network = FakeNetwork()
    all_at_once = _tiler(network).run(planes)
    one_by_one = _tiler(network, batch_px=1).run(planes)
    np.testing.assert_array_equal(all_at_once.numpy(), one_by_one.numpy())
    bounded = FakeNetwork()
    _tiler(bounded, batch_px=70_000).run(planes)
    assert max(np.prod(shape) for shape in bounded.shapes) <= 70_000
    assert len(bounded.shapes) == 5


def test_small_tiles_side_by_side_give_the_same():
    planes = torch.cat([_plane((100, 120)), _plane((100, 120)).flip(1)] * 4)
    before = torch.get_num_threads()
    network = FakeNetwork()
    together = _tiler(network, threads=3).run(planes)
    assert len(network.shapes) > 1
    np.testing.assert_array_equal(together.numpy(), _tiler(FakeNetwork()).run(planes).numpy())
    torch.set_num_threads(before)


def test_border_of_zeros_is_added_and_removed():
    network = FakeNetwork()
    outputs = _tiler(network, border_px=24).run(torch.rand((1, 32, 50)))
    assert outputs.shape == (1, 3, 32, 50)
    assert network.shapes == [(1, 80, 112)]


def test_tiles_shrink_when_memory_runs_out():
    plane = _plane()
    network = FakeNetwork(fail_above=300)
    tiler = _tiler(network, tile_px=512)
    outputs = tiler.run(plane)
    assert tiler.tile_px == 256
    np.testing.assert_allclose(outputs.numpy(), _tiler(FakeNetwork()).run(plane).numpy(), atol=1e-2)
    with pytest.raises(NotEnoughMemoryError, match=r"128 px does not fit.*smaller network"):
        _tiler(FakeNetwork(fail_above=10)).run(plane)


def test_other_errors_of_the_network_pass():
    class Broken(FakeNetwork):
        def predict(self, planes, *, check=None):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        _tiler(Broken()).run(_plane())


def test_every_tile_is_handed_out_in_its_place():
    plane, seen = _plane(), np.zeros((330, 410), int)
    tiler = _tiler(FakeNetwork(), tile_px=160)
    whole = _tiler(FakeNetwork()).run(plane)[0].numpy()

    def take(place, output):
        seen[place] += 1
        inner = tuple(slice(p.start + 20, p.stop - 20) for p in place)
        np.testing.assert_allclose(output[2, 20:-20, 20:-20].numpy(), whole[2][inner], atol=1e-3)

    tiler.run(plane, on_output=take)
    assert (seen > 0).all()


def test_what_was_never_imaged_is_not_computed():
    """A mosaic: nuclei in one corner, one value elsewhere."""
    image, _ = blobs((256, 256))
    plane = torch.full((1, 1024, 1024), -0.11)
    plane[:, :256, :256] = torch.from_numpy(((image - 100.0) / 900.0).astype(np.float32))
    network, told = FakeNetwork(), []
    tiler = _tiler(network, tile_px=256)
    tiler.on_tile = lambda pixels, tiles: told.append(tiles)
    out = tiler.run(plane)
    computed = sum(shape[0] for shape in network.shapes)
    assert 1 <= computed <= 4
    assert sum(told) > 3 * computed, "progress counts them all"
    np.testing.assert_allclose(out[0, 2, 400:, 400:].numpy(), -20, rtol=1e-5)
    assert (out[0, :2, 400:, 400:] == 0).all()
    whole = _tiler(FakeNetwork()).run(plane)
    np.testing.assert_allclose(out[0, :, :200, :200].numpy(), whole[0, :, :200, :200].numpy(), atol=1e-2)


def test_empty_planes_of_a_stack_are_not_computed():
    planes = torch.cat([_plane((96, 96)), torch.full((3, 96, 96), 0.2), _plane((96, 96)).flip(1)])
    network = FakeNetwork()
    out = _tiler(network).run(planes)
    assert sum(shape[0] for shape in network.shapes) == 2
    assert (out[1:4, 2] == -20).all()
    np.testing.assert_array_equal(out[4].numpy(), _tiler(FakeNetwork()).run(planes[4:])[0].numpy())


def test_a_run_without_anything_to_see_can_still_be_cancelled():
    class Stop(Exception):  # noqa: N818
        pass

    def stop():
        raise Stop

    tiler = _tiler(FakeNetwork())
    tiler.check = stop
    with pytest.raises(Stop):
        tiler.run(torch.zeros(2, 64, 64))


def test_planes_that_hold_z_get_a_narrow_border():
    volume = np.random.default_rng(0).random((20, 100, 120), np.float32)
    network = FakeNetwork()
    flows, probability = predict_volume(volume, _tiler(network), Scale(1.0, (1.0, 1.0, 1.0)))
    assert flows.shape == (3, *volume.shape)
    assert np.isfinite(probability).all()
    # 100 x 120 with 24 rows and columns; then z with 8 rows and y or x with 24.
    assert {shape[1:] for shape in network.shapes} == {(160, 176), (48, 160), (48, 176)}
    plane = _plane((40, 200))
    narrow, wide = _tiler(network).run(plane, border=(8, 24)), _tiler(network).run(plane)
    assert narrow.shape == wide.shape
    np.testing.assert_allclose(narrow.numpy(), wide.numpy(), atol=1e-2)


@pytest.mark.parametrize("tile_px", [1024, 192])
def test_mirror_images_are_turned_back(tile_px):
    # The network is the same in a mirror, so the mean over four is what one gives, if flows are turned round right.
    plane, network = _plane(), FakeNetwork()
    once = _tiler(network, tile_px=tile_px).run(plane)
    n_once = len(network.shapes)
    augmented = _tiler(network, tile_px=tile_px, augment=True).run(plane)
    assert len(network.shapes) == 5 * n_once
    torch.testing.assert_close(augmented, once, atol=2e-3, rtol=0)
    assert float(once[:, :2].abs().max()) > 4


def test_the_mean_of_what_mirrors_show():
    class Ramp(FakeNetwork):
        def predict(self, planes, *, check=None):
            ramp = torch.arange(planes.shape[2], dtype=torch.float32).expand(len(planes), 3, *planes.shape[1:])
            return ramp.clone().numpy()

    plane = _plane((64, 96))
    y, x, logit = _tiler(Ramp(), border_px=0, augment=True).run(plane)[0]
    assert logit.unique().tolist() == [47.5]  # of each column and its mirror image
    assert y.abs().max() == 0  # the same both ways round
    torch.testing.assert_close(x[0], torch.arange(96) - 47.5)
