"""The Benchmark dock without its widgets."""

from __future__ import annotations

import pytest

from napari_aprcnn._napari.benchmark_model import BenchmarkModel
from napari_aprcnn._napari.run_records import events, note_run, note_score
from napari_aprcnn.errors import CancelledError, OutputError
from napari_aprcnn.segment.speeds import MachineSpeeds
from readouts import make_readout


def _at_once(function) -> None:
    function()


def _model(**options):
    model = BenchmarkModel(launch=options.pop("launch", _at_once), **options)
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence)))
    return model


def test_nothing_to_show_says_what_to_do():
    model = _model()
    assert "segment an image" in model.words()
    assert model.bars() == []


def test_runs_appear_as_they_are_made():
    model = _model()
    seen = []
    model.changed.connect(seen.append)
    first = note_run(make_readout(model="one"), "embryo")
    second = note_run(make_readout(model="two"), "embryo")
    assert [record.key for record in model.records] == [second, first]
    assert seen == ["runs", "runs"]
    assert model.words() == "2 runs"
    model.close()
    note_run(make_readout(), "embryo")
    assert len(model.records) == 2


def test_bars_of_time_are_stacked_by_stage():
    note_run(make_readout(seconds=1.0, stages={"network": 0.6, "masks": 0.3, "model": 0.0}), "embryo")
    ((words, parts),) = _model().bars()
    assert words == "fastercellpose-v3, embryo"
    assert [name for name, _ in parts] == ["network", "masks", "other"]
    assert sum(value for _, value in parts) == pytest.approx(1.0)


def test_other_figures_leave_out_runs_without_them():
    note_run(make_readout(prr=0.0), "plane")
    note_run(make_readout(prr=12.0), "volume")
    model = _model()
    model.set_metric("prr")
    assert [parts for _, parts in model.bars()] == [[("", 12.0)]]
    model.set_metric("f1")
    assert model.bars() == []
    assert "Evaluate dock" in model.words()
    note_score(model.records[1].key, 0.9, threshold=0.5)
    assert [parts for _, parts in model.bars()] == [[("", 0.9)]]
    with pytest.raises(ValueError, match="'speed'"):
        model.set_metric("speed")


def test_selected_runs_are_compared_copied_and_forgotten(tmp_path):
    keys = [note_run(make_readout(model=name), "embryo") for name in "abc"]
    model = _model()
    model.select([keys[0], keys[2]])
    assert model.words() == "2 of 3 runs"
    assert [words[0] for words, _ in model.bars()] == ["c", "a"]
    assert len(model.markdown().splitlines()) == 4
    assert model.save(tmp_path / "runs.json")
    assert not model.save(tmp_path / "missing" / "runs.json")
    model.remove_selected()
    assert [record.key for record in model.records] == [keys[1]]
    assert model.selected == ()
    model.remove_selected()
    assert model.told[-1][0] == "error"


def test_scores_of_unknown_runs_change_nothing():
    model = _model()
    seen = []
    model.changed.connect(seen.append)
    note_score("", 0.5, threshold=0.5)
    note_score("unknown", 0.5, threshold=0.5)
    assert seen == []


def test_measuring_tells_how_far_it_is_and_makes_estimates_follow():
    waiting, followed = [], []
    speeds = MachineSpeeds(machine="m", created="2026-01-02T03:04:05+00:00", threads=2,
                           network_s_per_px={"faster_v3": 1e-7}, busy=True)  # fmt: skip

    def calibrate(*, progress, should_cancel):
        progress(0.5, "a model")
        assert not should_cancel()
        return speeds

    model = _model(launch=waiting.append, calibrate=calibrate, current=lambda: speeds)

    def follow():
        followed.append(True)

    events.calibrated.connect(follow)
    model.calibrate()
    model.calibrate()
    assert (model.state, len(waiting)) == ("measuring", 1)
    waiting.pop()()
    model.poll()
    assert (model.state, model.share, model.doing) == ("ready", 0.5, "a model")
    assert followed == [True]
    assert "faster_v3 10.0" in model.speeds_words
    assert "busy" in model.speeds_words
    assert "typical machine" in _model(current=MachineSpeeds).speeds_words


def test_measuring_can_be_cancelled_and_may_fail():
    waiting = []

    def calibrate(*, progress, should_cancel):
        if should_cancel():
            raise CancelledError("stop")
        raise OutputError("the disk is full")

    model = _model(launch=waiting.append, calibrate=calibrate)
    model.calibrate()
    model.cancel()
    assert model.state == "cancelling"
    waiting.pop()()
    model.poll()
    assert model.state == "ready"
    assert model.told == []
    model.calibrate()
    waiting.pop()()
    model.poll()
    assert model.told == [("error", "the disk is full")]
    assert model.state == "ready"
