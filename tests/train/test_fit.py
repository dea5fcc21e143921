import pytest
import torch

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.errors import CancelledError, TrainingDataError
from napari_aprcnn.train.data import read_training_data
from napari_aprcnn.train.fit import fit, learning_rate
from napari_aprcnn.train.losses import flow_loss
from napari_aprcnn.train.sampling import CropSampler

CONFIG = TrainConfig(architecture="faster_v3", n_steps=6, batch_size=2, crop_px=64, warmup_steps=2, precision="float32")


@pytest.fixture(scope="module")
def sampler(archive):
    return CropSampler(read_training_data(archive), crop_px=64, collage=0.0, tissue=0.0)


def states_equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_resumed_training_ends_like_one_that_never_stopped(sampler, tmp_path):
    whole = fit(sampler, config=CONFIG, run_dir=tmp_path / "whole", report_every=3)
    asked = iter([False, False, True])
    with pytest.raises(CancelledError, match="step 3"):
        fit(sampler, config=CONFIG, run_dir=tmp_path / "cut", should_cancel=lambda: next(asked))
    resumed = fit(sampler, config=CONFIG, run_dir=tmp_path / "cut")
    assert states_equal(whole, resumed)
    assert (tmp_path / "whole" / "log.csv").read_text().count("\n") == 3


def steps_of(log):
    return [line.split(",")[0] for line in log.read_text().splitlines()]


def test_a_log_holds_every_step_once(sampler, tmp_path):
    """A kill leaves lines of steps beyond the checkpoint, which are made again, and may cut one off."""
    log, config = tmp_path / "log.csv", CONFIG.replace(n_steps=2, batch_size=1)
    with pytest.raises(CancelledError, match="step 1"):
        fit(sampler, config=config, run_dir=tmp_path, report_every=1, should_cancel=lambda: True)
    before = log.read_bytes()
    log.write_bytes(before + before.splitlines(keepends=True)[-1].replace(b"1,", b"2,", 1) + b"3,0.1")
    fit(sampler, config=config, run_dir=tmp_path, report_every=1)
    assert steps_of(log) == ["step", "1", "2"]
    assert log.read_bytes().startswith(before)
    whole = log.read_bytes()
    fit(sampler, config=config, run_dir=tmp_path, report_every=1)  # a finished training leaves it as it is
    assert log.read_bytes() == whole
    (tmp_path / "checkpoint.pt").unlink()
    fit(sampler, config=config, run_dir=tmp_path, report_every=2)
    assert steps_of(log) == ["step", "2"]
    assert [path.name for path in tmp_path.glob("*log*")] == ["log.csv"]


def test_a_checkpoint_with_another_key_is_refused(sampler, tmp_path):
    config = CONFIG.replace(n_steps=1)
    fit(sampler, config=config, run_dir=tmp_path, key={"images": "a"})
    with pytest.raises(TrainingDataError, match=r"\(images was a, is b\)"):
        fit(sampler, config=config, run_dir=tmp_path, key={"images": "b"})


def test_training_lowers_the_loss(sampler, tmp_path):
    config = CONFIG.replace(n_steps=30, learning_rate=5e-3, warmup_steps=3)
    reports = []
    fit(sampler, config=config, run_dir=tmp_path, report_every=5, progress=reports.append)
    assert reports[-1].step == 30
    assert reports[-1].flow_loss + reports[-1].probability_loss < 0.8 * (
        reports[0].flow_loss + reports[0].probability_loss
    )


def test_a_checkpoint_of_another_training_is_refused(sampler, tmp_path):
    fit(sampler, config=CONFIG.replace(n_steps=1), run_dir=tmp_path)
    with pytest.raises(TrainingDataError, match="another configuration"):
        fit(sampler, config=CONFIG, run_dir=tmp_path)


def test_learning_rate_rises_and_falls():
    config = TrainConfig(n_steps=1000, warmup_steps=100, learning_rate=1.0)
    assert learning_rate(0, config) == pytest.approx(0.01, rel=0.01)
    assert learning_rate(99, config) == pytest.approx(0.976, abs=0.01)
    assert learning_rate(999, config) == pytest.approx(0.01, rel=0.01)


def test_the_loss_ignores_what_is_outside_the_image():
    output, target = torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4, 4)
    assert sum(flow_loss(output, target)) == 0
    target[:, 3] = 1
    perfect = torch.cat([5 * target[:, :2], torch.full((1, 1, 4, 4), -50.0)], 1)
    assert sum(flow_loss(perfect, target)) == pytest.approx(0, abs=1e-6)
    flow, probability = flow_loss(torch.zeros(1, 3, 4, 4), target)
    assert flow == 0
    assert probability == pytest.approx(0.6931, abs=1e-3)
