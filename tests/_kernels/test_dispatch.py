"""Which kernels run, cancelling, threads, and life without the extension."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from napari_aprcnn import _kernels
from napari_aprcnn._kernels import dispatch

needs_extension = pytest.mark.skipif(len(_kernels.instruction_sets()) == 1, reason="no compiled extension")


def in_a_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


WORK = """
import hashlib, numpy as np
from napari_aprcnn import _kernels
from napari_aprcnn.bench.fields import disturbed_field, ellipsoids
from napari_aprcnn.config import FlowConfig
from napari_aprcnn.segment.flows import masks_from_flows
labels = ellipsoids((96, 96), 12, diameter=18)
flows, probability = disturbed_field(labels, noise=0.5)
masks = masks_from_flows(flows, probability, config=FlowConfig())
print(_kernels.instruction_set(), _kernels.compiled(), masks.max(), hashlib.sha256(masks.tobytes()).hexdigest())
"""


@needs_extension
def test_the_environment_forces_the_reference_and_the_masks_stay_the_same():
    forced = in_a_process(WORK, APRCNN_KERNELS="reference")
    usual = in_a_process(WORK, APRCNN_KERNELS="auto")
    assert forced[:2] == ["python", "False"]
    assert usual[:2] == [_kernels.instruction_sets()[0], "True"]
    assert forced[2:] == usual[2:]


def test_without_the_extension_everything_works():
    # As after an installation without a compiler: the module is not there.
    hidden = "import sys; sys.modules['napari_aprcnn._kernels._cpu'] = None\n"
    name, compiled, n, _ = in_a_process(hidden + WORK)
    assert (name, compiled) == ("python", "False")
    assert int(n) > 8


def test_unknown_kernels_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match="expected auto, reference or one of"):
        _kernels.use_kernels("sse9")
    assert _kernels.instruction_set() in _kernels.instruction_sets()


def test_use_kernels_returns_the_choice_before():
    before = _kernels.use_kernels("reference")
    try:
        assert not _kernels.compiled()
        assert _kernels.instruction_set() == "python"
    finally:
        assert _kernels.use_kernels(before) == "python"
    assert _kernels.instruction_set() == before


def test_default_threads():
    assert dispatch.default_threads(3) == 3
    assert dispatch.default_threads(None) >= 1
    with pytest.raises(ValueError, match="at least 1"):
        dispatch.default_threads(0)


def long_work():
    """A whirl: no path ever ends, so that 10,000 steps keep one core busy for a long time."""
    y, x = np.mgrid[-192:192, -192:192].astype(np.float32)
    return np.stack([x, -y]) / np.float32(100), np.hypot(y, x) < 190


@needs_extension
@pytest.mark.parametrize("threads", [1, 2])
def test_cancel_is_heard_within_a_fifth_of_a_second(threads):
    flows, inside = long_work()
    asked = []

    def cancel():
        asked.append(time.perf_counter())
        return len(asked) >= 2

    with pytest.raises(_kernels.Stopped):
        _kernels.follow_flows(flows, inside, threads=threads, n_steps=10_000, should_cancel=cancel)
    # Generous for a busy machine; alone it takes a few milliseconds.
    assert time.perf_counter() - asked[-1] < 1.0
    assert asked[1] - asked[0] < 1.0


@needs_extension
def test_an_error_of_the_callable_reaches_the_caller():
    flows, inside = long_work()

    def fail():
        raise KeyError("from the callable")

    with pytest.raises(KeyError, match="from the callable"):
        _kernels.follow_flows(flows, inside, n_steps=10_000, should_cancel=fail)


def test_never_more_threads_than_torch_was_told_to_use():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert dispatch.default_threads(None) == 1
        assert dispatch.default_threads(3) == 3  # as given
    finally:
        torch.set_num_threads(before)


def test_number_of_threads_without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert dispatch.default_threads(None) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert dispatch.default_threads(None) >= 1


@needs_extension
def test_other_threads_of_python_run_meanwhile():
    flows, inside = long_work()
    stop = threading.Event()
    ticks = []

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    try:
        start = time.perf_counter()
        _kernels.follow_flows(flows, inside, n_steps=200, threads=1)
        end = time.perf_counter()
    finally:
        stop.set()
        other.join()
    during = [tick for tick in ticks if start < tick < end]
    assert len(during) > 3


def test_shares_rise_to_the_end():
    flows, inside = long_work()
    shares = []
    _kernels.follow_flows(flows, inside, n_steps=200, threads=1, on_share=shares.append)
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
