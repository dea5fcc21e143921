import time

import pytest

from napari_aprcnn.errors import CancelledError
from napari_aprcnn.segment.progress import Reporter


def test_fraction_grows_and_time_left_is_told(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    seen = []
    reporter = Reporter(seen.append)
    reporter.advance("diameter", 0.0, done=0, total=1, what="looking")
    reporter.plan(8.0)
    for i in range(4):
        clock[0] += 3.0
        reporter.advance("network", 2.0, done=i + 1, total=4, what=f"tile {i + 1} of 4")
    reporter.finish()
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert seen[0].seconds_left is None
    assert seen[1].seconds_left == pytest.approx(9.0)
    assert seen[1].message == "tile 1 of 4, 9 s left"
    assert (seen[2].done, seen[2].total, seen[2].stage) == (2, 4, "network")
    assert seen[-1].stage == "done"


def test_more_work_than_planned_stays_below_one():
    seen = []
    reporter = Reporter(seen.append)
    reporter.plan(1.0)
    for _ in range(5):
        reporter.advance("network", 1.0, done=1, total=1, what="tile")
    assert seen[-1].fraction <= 1.0
    assert seen[-1].seconds_left == 0.0


def test_cancel_is_seen_at_every_step():
    stop = []
    reporter = Reporter(None, lambda: bool(stop))
    reporter.advance("network", 1.0, done=1, total=2, what="tile")
    stop.append(1)
    with pytest.raises(CancelledError):
        reporter.advance("network", 1.0, done=2, total=2, what="tile")
    with pytest.raises(CancelledError), reporter.stage("masks"):
        pytest.fail("a stage was entered after the cancel")


def test_stages_add_up_without_counting_twice(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    reporter = Reporter()
    with reporter.stage("network"):
        clock[0] += 5.0
        with reporter.stage("read"):
            clock[0] += 2.0
        clock[0] += 1.0
    with reporter.stage("network"):
        clock[0] += 1.0
    assert reporter.seconds == {"read": 2.0, "network": 7.0}
