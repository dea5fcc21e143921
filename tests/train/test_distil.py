"""Distillation: what the teacher says is kept, turned rightly and learnt; runs stop, go on and end the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from napari_aprcnn._kernels import planes
from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import CancelledError, ConfigError, TrainingDataError
from napari_aprcnn.models.cards import read_card
from napari_aprcnn.models.configs import FAMILY
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train import distil_command
from napari_aprcnn.train.distil import (
    PatchSampler,
    _Judge,
    distil_on,
    foreground_iou,
    split,
    target_of,
    teacher_for,
    turned,
)
from napari_aprcnn.train.distil_command import distil
from napari_aprcnn.train.distil_images import read_images
from napari_aprcnn.train.losses import flow_loss
from napari_aprcnn.train.teacher import TeacherPatches

from .conftest import TEACHER
from .conftest import distil_settings as settings


def test_images_without_labels_are_read(quarters):
    items = read_images([quarters])
    assert len(items) == 4
    assert not items[0].labels.any()
    assert items[0].diameter_px == 0
    with pytest.raises(TrainingDataError, match="kinds"):
        read_images([quarters], kinds=["20x"])


def test_patches_hold_what_the_teacher_says(patches, teacher):
    assert len(patches) == 8
    patch = patches.patch(3)
    said = teacher.predict(patch[None, 0])[0]
    np.testing.assert_allclose(patch[1:3] * 5, said[:2], atol=0.03)
    np.testing.assert_allclose(patch[3], said[2], atol=0.05)
    assert patches.entries[3].foreground == pytest.approx((said[2] > 0)[patch[4] > 0].mean(), abs=2e-3)


def test_patches_are_made_once(quarters, teacher, patches, monkeypatch):
    monkeypatch.setattr(type(teacher), "predict", lambda *_a, **_k: pytest.fail("the teacher was asked again"))
    again = TeacherPatches(read_images([quarters]), teacher, settings(), folder=patches.folder.parent)
    np.testing.assert_array_equal(again.patch(0), patches.patch(0))


def test_a_cancelled_teacher_leaves_nothing_half(quarters, teacher, tmp_path):
    with pytest.raises(CancelledError, match="kept in"):
        TeacherPatches(read_images([quarters]), teacher, settings(), folder=tmp_path, should_cancel=lambda: True)
    assert not list(tmp_path.rglob("*.json"))


def test_a_teacher_that_finds_nothing_is_told(quarters, teacher, tmp_path):
    with pytest.raises(TrainingDataError, match="finds nuclei in none of 4 images"):
        TeacherPatches(read_images([quarters]), teacher, settings(foreground=0.99), folder=tmp_path)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_flows_turn_with_the_patch(turns, mirrored):
    """The field that points to the middle is the same, however the patch is turned."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j].astype(np.float32)
    patch = np.zeros((8, 16, 16), np.float32)
    patch[1], patch[2], patch[5], patch[6] = -y, -x, -y, -x
    patch[0] = np.arange(256).reshape(16, 16)
    out = turned(patch, turns, mirrored=mirrored)
    np.testing.assert_allclose(out[1:3], patch[1:3], atol=1e-6)
    np.testing.assert_allclose(out[5:7], patch[5:7], atol=1e-6)
    assert (out[0] == patch[0]).all() == (turns == 0 and not mirrored)


def test_labels_and_teacher_are_mixed():
    patch = np.zeros((8, 4, 4), np.float32)
    patch[1], patch[4], patch[6], patch[7] = 1.0, 1.0, 1.0, 1.0
    assert target_of(patch, 0.25)[:, 0, 0].tolist() == [0.75, 0.25, 0.5 * 0.75 + 0.25, 1.0]
    assert target_of(patch, 0.0)[:, 0, 0].tolist() == [1.0, 0.0, 0.5, 1.0]
    patch[7] = 0  # no labels there
    assert target_of(patch, 0.25)[:, 0, 0].tolist() == [1.0, 0.0, 0.5, 1.0]


def test_parts_share_no_image(patches):
    seen = []
    for part in range(4):
        train, looked_at = split(patches, parts=4, part=part, seed=0)
        assert not {patches.entries[n].image for n in train} & {patches.entries[n].image for n in looked_at}
        seen += looked_at
    assert sorted(seen) == list(range(len(patches)))


def test_a_teacher_agrees_with_itself(patches, teacher):
    config = settings()
    assert foreground_iou(teacher.module, patches, range(8), config) > 0.98
    blank = CellposeFamily("faster_v3").eval()
    for parameter in blank.output.parameters():
        torch.nn.init.constant_(parameter, -1.0)
    assert foreground_iou(blank, patches, range(8), config) == 0.0


def test_the_student_sees_other_noise_every_time(patches):
    sampler = PatchSampler(patches, [0], settings())
    (first, (target, none)), (again, _), (other, _) = sampler.batch(0, 2), sampler.batch(0, 2), sampler.batch(1, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert none is None
    assert target.shape == (2, 4, 64, 64)
    plain = PatchSampler(patches, [0], settings(consistency=False)).batch(0, 1)[0][0]
    assert any(
        torch.equal(plain, torch.from_numpy(turned(patches.patch(0), k, mirrored=m)[0]))
        for k in range(4)
        for m in (False, True)
    )


def test_both_rules_stop(tmp_path):
    def judge(values, **changes):
        looks = iter(values)
        one = _Judge(tmp_path, settings(**changes), lambda _module: next(looks))
        one.seen = []
        module = torch.nn.Linear(1, 1)
        return [one.look(step, module) for step in range(1, len(values) + 1)]

    assert judge([0.5, 0.8, 0.76, 0.74]) == [False, False, False, True]
    assert judge([0.8, 0.8001, 0.8, 0.8002], patience=3) == [False, False, False, True]
    assert judge([0.8, 0.8001, 0.8, 0.8002], patience=0) == [False] * 4
    assert (tmp_path / "best.pt").exists()


@pytest.mark.parametrize("features", [0.0, 0.1])
def test_a_distillation_goes_on_and_ends_the_same(labelled_quarters, teacher, tmp_path, monkeypatch, features):
    config = settings(features=features)
    whole, _ = distil(teacher, [labelled_quarters], output=tmp_path / "a", name="s", config=config)
    steps, began = iter(range(100)), []

    def begin(*args, **options):
        began.append(True)
        return distil_on(*args, **options)

    monkeypatch.setattr(distil_command, "distil_on", begin)
    with pytest.raises(CancelledError, match="step 4"):
        distil(
            teacher, [labelled_quarters], output=tmp_path / "b", name="s", config=config,
            should_cancel=lambda: bool(began) and next(steps) >= 3,
        )  # fmt: skip
    resumed, _ = distil(teacher, [labelled_quarters], output=tmp_path / "b", name="s", config=config)
    first, second = (load_model(str(path)).module.state_dict() for path in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    card = read_card(whole.with_suffix(".json"))
    assert card.architecture == "faster_v3"
    assert 0 <= card.metrics["teacher"]["iou"] <= 1
    with pytest.raises(TrainingDataError, match="another configuration"):
        distil(teacher, [labelled_quarters], output=tmp_path / "b", name="s", config=config.replace(hard=0.5))


def test_a_damaged_checkpoint_is_told(labelled_quarters, teacher, tmp_path):
    (tmp_path / "s_run").mkdir()
    (tmp_path / "s_run" / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingDataError, match="damaged"):
        distil(teacher, [labelled_quarters], output=tmp_path, name="s", config=settings())


def test_a_student_learns(patches, tmp_path):
    config = settings(n_steps=60, validate_every=60, consistency=False)
    config = config.replace(training=config.training.replace(learning_rate=4e-3, ema_decay=0.5, batch_size=4))
    everything = range(len(patches))
    module, _ = distil_on(patches, everything, everything, config=config, teacher_width=128, run_dir=tmp_path)
    part = torch.from_numpy(np.stack([patches.patch(n) for n in everything]))
    target = torch.from_numpy(np.stack([target_of(patches.patch(n), 0.0) for n in everything]))
    blank = CellposeFamily("faster_v3")
    module.train()  # statistics of the batch: the running ones have seen too little
    with torch.inference_mode():
        inputs = network_input(part[:, 0], second_channel="asinh")
        after, before = (sum(map(float, flow_loss(m(inputs)[0], target))) for m in (module, blank))
    assert after < 0.75 * before


def test_every_network_of_the_family_can_be_a_student():
    """Loss and gradients of the features are there for every width."""
    from napari_aprcnn.train.distil import FeatureObjective

    for name in FAMILY:
        module = CellposeFamily(name)
        width = module.config.widths[3]
        objective = FeatureObjective(0.1, width, 256)
        target = torch.zeros(1, 4, 32, 32), torch.rand(1, 256, 2, 2)
        flow, probability = objective(module, torch.rand(1, 2, 32, 32), target)
        (flow + probability).backward()
        assert all(p.grad is not None for p in objective.parameters())


def test_a_teacher_for_volumes_is_refused():
    with pytest.raises(ConfigError, match="network for volumes"):
        teacher_for("apr-unet-nuclei-3d", settings())


def test_the_command(labelled_quarters, tmp_path):
    words = ["distil", TEACHER, "faster_v3", str(labelled_quarters), "--name", "mine", "-o", str(tmp_path)]
    words += ["--steps", "2", "--batch-size", "2", "--patch", "64", "--views", "1", "--validate-every", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "mine.json").read_text())
    assert card["command"].startswith("aprcnn distil fastercellpose-v3 faster_v3")
    assert "--consistency" in card["command"]
    assert bool(card["int8_spans"]) == planes.can_run()
    missing = CliRunner().invoke(
        app, ["distil", TEACHER, "faster_v9", str(labelled_quarters), "--name", "x", "-o", str(tmp_path)]
    )
    assert missing.exit_code != 0
    assert "faster_v9" in missing.output
