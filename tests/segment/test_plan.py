import numpy as np
import pytest

from napari_aprcnn.config import SegmentConfig, TileConfig
from napari_aprcnn.errors import AprcnnError, NotEnoughMemoryError
from napari_aprcnn.segment.estimate import estimate
from napari_aprcnn.segment.plan import Task, make_plan
from napari_aprcnn.segment.scale import scale_for


def _task(shape, *, mode="planes", diameter=25.0, n_times=1, architecture="faster_v3", spacing=None):
    return Task(mode, n_times, shape, scale_for(diameter, 25.0, spacing), diameter, architecture)


def test_a_plenty_of_memory_leaves_everything_whole():
    plan = make_plan(_task((1, 1024, 1024), mode="2d"), TileConfig(), budget=10**10)
    assert (plan.n_tiles, len(plan.blocks), plan.keep_flows, plan.reduced) == (1, 1, True, False)


def test_less_memory_means_smaller_tiles_then_blocks():
    task = _task((200, 1000, 1000))
    plans = [make_plan(task, TileConfig(), budget=int(gb * 1e9)) for gb in (40, 8, 5, 1.5)]
    assert [len(plan.blocks) > 1 for plan in plans] == [False, True, True, True]
    assert plans[0].keep_flows
    assert not plans[2].keep_flows
    assert len(plans[3].blocks) > len(plans[2].blocks)
    assert [plan.reduced for plan in plans] == [False, True, True, True]
    for plan, gb in zip(plans, (40, 8, 5, 1.5), strict=True):
        assert plan.memory_bytes <= gb * 1e9
        cores = np.zeros(task.shape, bool)
        for block in plan.blocks:
            cores[block.core] = True
        assert cores.all()


def test_small_nuclei_need_more_memory():
    small, large = (
        make_plan(_task((1, 4000, 4000), mode="2d", diameter=d), TileConfig(), budget=10**11) for d in (6, 60)
    )
    assert small.memory_bytes > 2 * large.memory_bytes
    assert small.network_px > 50 * large.network_px
    assert small.seconds > large.seconds


def test_wide_networks_take_smaller_tiles():
    plan = make_plan(_task((1, 1024, 1024), mode="2d", architecture="cellpose"), TileConfig(), budget=10**10)
    assert plan.tile_px == 448
    assert not plan.reduced


@pytest.mark.parametrize("shape", [(10**6, 10**6, 10**6), (1, 10**9, 10**9)])
def test_absurd_sizes_are_refused_before_anything_is_read(shape):
    with pytest.raises(NotEnoughMemoryError, match=r"needs at least .* TB") as caught:
        make_plan(_task(shape), TileConfig(), budget=10**10)
    assert isinstance(caught.value, MemoryError)


def test_too_small_a_budget_says_what_would_do():
    with pytest.raises(NotEnoughMemoryError, match=r"needs at least .* MB.*memory_gb"):
        make_plan(_task((50, 500, 500)), TileConfig(), budget=10**6)


def test_estimate_in_words():
    two_d = estimate((1024, 1024), np.uint16, SegmentConfig())
    assert two_d.words.startswith("about ")
    assert two_d.words.endswith("on this machine")
    assert two_d.seconds > 0
    volume = estimate((3, 64, 512, 512), ">u2", SegmentConfig(diameter_px=25))
    assert volume.seconds > 10 * two_d.seconds
    blocks = estimate((100, 1000, 1000), "u1", SegmentConfig(tiles=TileConfig(memory_gb=1.5)))
    assert blocks.n_blocks > 1
    assert f"in {blocks.n_blocks} blocks" in blocks.words
    assert blocks.memory_bytes < 1.5e9


@pytest.mark.parametrize(("shape", "dtype"), [((0, 4), "u1"), ((4,), "u1"), ((8, 8), "complex64")])
def test_estimate_refuses_what_the_run_would(shape, dtype):
    with pytest.raises(AprcnnError):
        estimate(shape, dtype, SegmentConfig())


@pytest.mark.parametrize("budget_mb", [300, 400, 700])
@pytest.mark.parametrize(("mode", "shape"), [("2d", (1, 4096, 4096)), ("planes", (96, 700, 700))])
def test_no_block_takes_more_than_was_planned(mode, shape, budget_mb):
    """A block at the corner may fit one large tile, where the largest block is cut into small ones."""
    from napari_aprcnn.segment import plan as module

    task = Task(mode, 1, shape, scale_for(25.0, 25.0, None), 25.0, "faster_v3")
    made = make_plan(task, TileConfig(), budget=budget_mb * 1_000_000, keep_flows=False)
    needed = {
        block.outer_shape: module._memory(task, TileConfig(), made.tile_px, block.outer_shape, keep=False)
        for block in made.blocks
    }
    assert len(made.blocks) > 1 or budget_mb == 700
    assert max(needed.values()) <= made.memory_bytes + 1 <= budget_mb * 1_000_000 + 1


def test_mirror_images_take_their_time():
    once, four = (
        make_plan(_task((1, 1024, 1024), mode="2d"), TileConfig(augment=augment), budget=10**10)
        for augment in (False, True)
    )
    assert (once.n_tiles, once.memory_bytes) == (four.n_tiles, four.memory_bytes)
    assert 2 < (four.seconds - once.masks_seconds) / (once.seconds - once.masks_seconds) <= 4
