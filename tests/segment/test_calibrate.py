"""A calibration finds the speeds of a machine, and estimates follow it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import CancelledError
from napari_aprcnn.models.zoo import list_models
from napari_aprcnn.segment import plan, speeds, volume_run
from napari_aprcnn.segment.calibrate import _work, calibrate, made_up_nuclei
from napari_aprcnn.segment.estimate import estimate
from napari_aprcnn.segment.speeds import MachineSpeeds, load_speeds, machine_key, save_speeds, speeds_path

PX, PASS, MASK_2D, MASK_3D, FIRST, STACK = 3e-7, 2e-3, 4e-8, 9e-8, 0.25, 1e-7
STITCH, STITCH_PX = 3e-3, 2e-7


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("APRCNN_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(plan, "_MEASURED", {})
    monkeypatch.setattr(volume_run, "_PACE", {})
    speeds.forget_speeds()
    yield
    speeds.forget_speeds()


def _machine(calls: list[SegmentConfig]):
    """A machine whose runs take exactly what the model of time says, each fourth one twice as long."""
    cards = {card.name: card for card in list_models()}

    def segment(image, *, config, should_cancel=None):
        calls.append(config)
        if should_cancel is not None and should_cancel():
            raise CancelledError("stop")
        card, slow = cards[config.model], 2.0 if len(calls) % 4 == 1 else 1.0
        if card.volume is not None:
            stages = {"network": 2.0 * slow, "masks": 0.5 * slow}
        else:
            stitched = config.dimensionality == "stitch"
            px, voxels = _work(image.shape, card, stitched=stitched)
            flat = image.ndim == 2 or stitched
            stages = {
                "network": px * (PX if flat else PX + STACK) + PASS * (len(image) if stitched else 1),
                "masks": voxels * (MASK_2D if flat else MASK_3D),
            }
            if stitched:
                stages["stitch"] = len(image) * STITCH + image.size * STITCH_PX
            if config.diameter_px is None:
                stages["diameter"] = FIRST + px * PX
        stages = {name: seconds * slow for name, seconds in stages.items()}
        return SimpleNamespace(config=config, readout=SimpleNamespace(stages=stages, prr=4.0))

    return segment


def test_a_calibration_finds_the_speeds_of_the_machine():
    calls: list[SegmentConfig] = []
    told: list[float] = []
    found = calibrate(progress=lambda share, words: told.append(share), segment=_machine(calls), threads=3)
    planes = {"faster_v1", "faster_v2", "faster_v3", "faster_wide", "fastcellpose"}
    assert set(found.network_s_per_px) == planes
    assert found.network_s_per_px["faster_v1"] == pytest.approx(PX)
    assert (found.pass_s, found.masks_s_per_px) == (pytest.approx(PASS), pytest.approx(MASK_2D))
    assert found.stack_s_per_px == pytest.approx(STACK)
    assert (found.stitch_s, found.stitch_s_per_px) == (pytest.approx(STITCH), pytest.approx(STITCH_PX))
    assert (found.masks_s_per_voxel, found.diameter_s) == (pytest.approx(MASK_3D), pytest.approx(FIRST))
    assert set(found.volume_pace) == {card.name for card in list_models() if card.volume is not None}
    assert found.machine == machine_key(3)
    assert found.threads == 3
    assert all(config.threads == 3 and config.device == "cpu" for config in calls)
    assert told == sorted(told)
    assert told[0] == 0.0
    assert told[-1] < 1.0


def test_estimates_follow_the_calibration():
    config = SegmentConfig(diameter_px=25.0)
    before = estimate((1024, 1024), np.uint16, config).seconds
    save_speeds(calibrate(segment=_machine([])))
    found = estimate((1024, 1024), np.uint16, config)
    px, voxels = _work((1024, 1024), list_models()[0])
    assert found.seconds == pytest.approx(px * PX + PASS + voxels * MASK_2D)
    assert found.seconds != before
    # The first pass is looked for where no diameter is given.
    assert estimate((1024, 1024), np.uint16, SegmentConfig()).seconds > found.seconds + FIRST


def test_estimates_for_volumes_follow_the_calibration():
    name = next(card.name for card in list_models() if card.volume is not None)
    config = SegmentConfig(model=name)
    before = estimate((64, 96, 96), np.uint16, config, prr=4.0).seconds
    save_speeds(MachineSpeeds(machine=machine_key(speeds_threads()), volume_pace={name: 3.0}))
    assert estimate((64, 96, 96), np.uint16, config, prr=4.0).seconds == pytest.approx(3 * before)


def speeds_threads() -> int:
    from napari_aprcnn.models.devices import usable_threads

    return usable_threads()


def test_speeds_of_another_machine_are_not_used():
    save_speeds(MachineSpeeds(machine="a supercomputer", masks_s_per_voxel=1e-12))
    assert speeds.speeds() == MachineSpeeds()
    assert load_speeds().machine == "a supercomputer"


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"pass_s": "slow"}', '{"unknown": 1}'])
def test_a_damaged_file_is_as_none(content):
    speeds_path().write_text(content, encoding="utf-8")
    assert load_speeds() is None
    assert speeds.speeds() == MachineSpeeds()


def test_a_cancelled_calibration_leaves_the_last_one():
    save_speeds(MachineSpeeds(machine="kept"))
    with pytest.raises(CancelledError):
        calibrate(segment=_machine([]), should_cancel=lambda: True)
    assert load_speeds().machine == "kept"


def test_real_runs_are_measured():
    card = list_models()[0]
    found = calibrate([card], threads=1)
    assert 1e-9 < found.network_s_per_px[card.architecture] < 1e-4
    assert found.seconds > 0


def test_made_up_nuclei_are_found():
    from napari_aprcnn.segment.pipeline import segment

    image = made_up_nuclei((140, 175))
    assert segment(image, diameter_px=25.0).readout.n_objects == pytest.approx(4 * 5, abs=2)
    assert np.array_equal(image, made_up_nuclei((140, 175)))
    assert made_up_nuclei((8, 40, 40)).max() > 500
