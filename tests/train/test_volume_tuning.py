"""Thresholds of the decoders, chosen on the validation images at the end of a training, and the card that tells it."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("lightning", reason="lightning is not installed: pip install 'napari-aprcnn[train]'")

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import CancelledError, ConfigError, MissingDependencyError
from napari_aprcnn.models.cards import ModelCard, read_card
from napari_aprcnn.models.volume_network import VolumeNetwork, VolumeOutput
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.segment.star_targets import cell_centres, star_targets, voxel_cells
from napari_aprcnn.segment.stardist import StarDistSettings
from napari_aprcnn.segment.three_class import ThreeClassSettings, three_class_targets
from napari_aprcnn.segment.volume_heads import rays_of, settings_of
from napari_aprcnn.train import volume_tune
from napari_aprcnn.train.tune import StarPrediction, tune_stardist
from napari_aprcnn.train.volume_command import train_volumes
from napari_aprcnn.train.volume_sources import LabelledVolume
from napari_aprcnn.train.volume_tune import tuned_settings

from .volume_balls import NET, balls, training, written

TOUCHING = np.zeros((16, 24, 32), np.uint16)
TOUCHING[3:13, 5:19, 4:15], TOUCHING[3:13, 5:19, 15:27] = 1, 2


def net_of(head):
    return VolumeNet(NET.replace(head=head, rays=32))


def card_of(net):
    return ModelCard(name="m", architecture="a", title="", data="", licence="", volume=net.config)


@pytest.fixture
def says(monkeypatch):
    """Let networks answer with an array for an image of labels, (Z, Y, X, K)."""

    def patch(answer):
        def predict(self, image, **_options):
            dense = answer(image)
            stage = self.module.config.out_stage
            return VolumeOutput(dense.reshape(-1, dense.shape[-1]), dense, None, stage, None)

        monkeypatch.setattr(VolumeNetwork, "predict", predict)

    return patch


def unsure_classes(labels):
    """Logits of a network that takes boundaries for interior with 0.62, and sees a speck."""
    classes = three_class_targets(labels)
    interior = np.where(classes == 1, 0.9, np.where(classes == 2, 0.62, 0.02))
    background = np.where(labels > 0, 0.03, 0.95)
    interior[0, 0, :3], background[0, 0, :3] = 0.9, 0.03
    return np.log(np.stack([background, interior, 1 - background - interior], axis=-1)).astype(np.float32)


def test_three_classes_get_the_thresholds_that_part_the_nuclei(says):
    says(unsure_classes)
    net = net_of("three_class")
    images = [LabelledVolume("t", "own", TOUCHING, TOUCHING)]
    chosen = tuned_settings(net, card_of(net), images)
    assert chosen == {"interior_threshold": 0.7, "min_interior_vox": 5.0}
    card = card_of(net).replace(settings=chosen)
    assert settings_of("three_class", card.settings) == ThreeClassSettings(interior_threshold=0.7, min_interior_vox=5)


def test_stars_get_the_thresholds_of_the_search_over_all_rows(says):
    pytest.importorskip("stardist")
    net, cells = net_of("stardist"), voxel_cells(TOUCHING.shape, 1)
    targets, rng = star_targets(TOUCHING, cells, rays_of(net.config)), np.random.default_rng(0)
    ghosts = (rng.random(len(cells)) < 0.01) & (targets.objects == 0)
    probability = np.where(ghosts, 0.45, np.clip(0.75 * targets.probability, 0.01, 0.99)).astype(np.float32)
    distances = np.where(ghosts[:, None], 3, targets.distances).astype(np.float32)
    rows = np.concatenate([np.log(probability / (1 - probability))[:, None], distances], axis=1)
    says(lambda _image: rows.reshape(8, 12, 16, -1))
    chosen = tuned_settings(net, card_of(net), [LabelledVolume("t", "own", TOUCHING, TOUCHING)])
    prediction = StarPrediction(probability, distances, cell_centres(cells), TOUCHING.shape)
    tuned = tune_stardist([prediction], [TOUCHING], rays_of(net.config))
    found = settings_of("stardist", chosen)
    assert dict(tuned.tried)[found] == tuned.accuracy > 0.8
    assert found.probability_threshold >= 0.5
    assert set(chosen) == {"probability_threshold", "overlap_threshold"}


@pytest.mark.parametrize(("head", "kind"), [("three_class", ThreeClassSettings), ("stardist", StarDistSettings)])
def test_where_nothing_is_better_the_defaults_stay(says, head, kind):
    if head == "stardist":
        pytest.importorskip("stardist")
    net = net_of(head)
    shape = (8, 12, 16) if head == "stardist" else TOUCHING.shape
    says(lambda _image: np.full((*shape, net.config.out_channels), -9, np.float32))
    chosen = tuned_settings(net, card_of(net), [LabelledVolume("t", "own", TOUCHING, TOUCHING)])
    assert settings_of(head, chosen) == kind()


def test_of_a_large_image_the_middle_is_looked_at(monkeypatch, says):
    seen = []
    says(lambda image: seen.append(image.copy()) or unsure_classes(image))
    monkeypatch.setattr(volume_tune, "_MOST_VOXELS", 16 * 24 * 16)
    net = net_of("three_class")
    tuned_settings(net, card_of(net), [LabelledVolume("t", "own", TOUCHING, TOUCHING)])
    assert np.array_equal(seen[0], TOUCHING[:, :, 8:24])


def test_tuning_is_cancelled():
    net = net_of("three_class")
    with pytest.raises(CancelledError, match="no thresholds"):
        tuned_settings(net, card_of(net), [balls()], should_cancel=lambda: True)


# --- trainings --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "chosen"),
    [
        ("three_class", {"interior_threshold", "min_interior_vox"}),
        ("stardist", {"probability_threshold", "overlap_threshold"}),
        ("flows", set()),
    ],
)
def test_a_training_writes_the_thresholds_into_its_card(tmp_path, monkeypatch, head, chosen):
    if head == "stardist":
        pytest.importorskip("stardist")
    looked_at = []

    def spy(net, card, validation, **options):
        looked_at.extend(item.name for item in validation)
        return dict.fromkeys(tuned_settings(net, card, validation, **options), 1.0)

    monkeypatch.setattr("napari_aprcnn.train.volume_command.tuned_settings", spy)
    folders = [written(tmp_path / part, balls((8, 16, 16), seed=n)) for n, part in enumerate(("set", "held"))]
    wanted = training(network=NET.replace(head=head, rays=16), epochs=1)
    for name, validation in (("with", folders[1:]), ("without", [])):
        train_volumes(output=tmp_path, name=name, config=wanted, labelled=folders[:1], validation=validation)
    assert read_card(tmp_path / "with.json").settings == dict.fromkeys(chosen, 1.0)
    assert looked_at == (["balls"] if chosen else [])
    assert read_card(tmp_path / "without.json").settings == {}


def test_without_the_package_stars_are_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_tune, "find_spec", lambda _name: None)
    folder = written(tmp_path / "set", balls())
    wanted = training(network=NET.replace(head="stardist"), epochs=1)
    with pytest.raises(MissingDependencyError, match=r"napari-aprcnn\[stardist\].*without validation"):
        train_volumes(output=tmp_path, name="m", config=wanted, labelled=[folder], validation=[folder])
    assert not (tmp_path / "m_run").exists()


# --- the command ------------------------------------------------------------------------------------------------------
def test_the_command_of_the_card_repeats_the_training(tmp_path, monkeypatch):
    for number in (1, 2):
        here = tmp_path / str(number)
        written(here / "set", balls())
        written(here / "held", balls(seed=1))
    words = "train-volumes set -o . --name m --head three_class --channels 2 --depth 2 --banks 2 --epochs 2 --steps 1"
    words += " --crop 12 24 24 --simulated 0 --workers 0 --patience 2 --validation held --seed 5"
    monkeypatch.chdir(tmp_path / "1")
    first = CliRunner().invoke(app, words.split())
    assert first.exit_code == 0, first.output
    card = read_card(tmp_path / "1" / "m.json")
    assert "--patience 2" in card.command
    assert "--validation held" in card.command
    monkeypatch.chdir(tmp_path / "2")
    again = CliRunner().invoke(app, shlex.split(card.command)[1:])
    assert again.exit_code == 0, again.output
    assert read_card(tmp_path / "2" / "m.json") == card  # with the SHA-256 of the weights


def test_the_command_refuses_patience_without_validation(tmp_path):
    folder = written(tmp_path / "set", balls())
    words = ["train-volumes", str(folder), "-o", str(tmp_path), "--name", "m", "--simulated", "0", "--patience", "3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError) or "patience of 3" in result.output
