"""Bands of rows, and the threads that run them."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from napari_aprcnn.models.bands import bands, run_all


@pytest.fixture
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def test_bands_cover_each_row_once_with_even_halos():
    cut = list(bands(50, 12, 3))
    assert [row for start, stop, _, _ in cut for row in range(start, stop)] == list(range(50))
    assert all(low == max(0, start - 4) and high == min(50, stop + 4) for start, stop, low, high in cut)


@pytest.mark.usefixtures("three_threads")
def test_tasks_run_on_threads_of_their_own_with_one_torch_thread_each():
    seen: list[tuple[str, int, bool]] = []
    wait = threading.Barrier(3)

    def task() -> None:
        wait.wait(timeout=20)
        torch.rand(200, 200) @ torch.rand(200, 200)
        seen.append((threading.current_thread().name, torch.get_num_threads(), torch.is_inference_mode_enabled()))

    run_all([task] * 3)
    assert len({name for name, _, _ in seen}) == 3
    assert {(count, inference) for _, count, inference in seen} == {(1, True)}
    assert torch.get_num_threads() == 3
    assert not torch.is_inference_mode_enabled()


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_a_task_comes_out_after_the_others_ended():
    done = []

    def broken() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        run_all([broken, lambda: done.append(1), lambda: done.append(2)])
    assert sorted(done) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.usefixtures("three_threads")
def test_a_forked_child_makes_its_own_threads():
    run_all([lambda: None] * 3)
    child = os.fork()
    if child == 0:
        run_all([lambda: None] * 3)
        os._exit(0)
    deadline = threading.Timer(20, os.kill, (child, 9))
    deadline.start()
    _, status = os.waitpid(child, 0)
    deadline.cancel()
    assert status == 0, "the child hung or failed"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_check_that_raises_leaves_out_the_tasks_that_have_not_begun(threads):
    class StopNowError(Exception):
        pass

    def check():
        if done:
            raise StopNowError

    done: list[int] = []
    torch.set_num_threads(threads)
    try:
        with pytest.raises(StopNowError):
            run_all([lambda: done.append(1)] * 50, check=check)
    finally:
        torch.set_num_threads(1)
    assert 1 <= len(done) <= threads
