"""Figures of labelled volumes, and the command that writes and compares them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import ImageDtypeError, ImageError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.train.data import read_pairs
from napari_aprcnn.train.simulation import simulate_volume, statistics, summary_table


def balls(*centres, radius=6.0, z_scale=1.0, shape=(32, 48, 48)):
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for number, (cz, cy, cx) in enumerate(centres, 1):
        labels[((z - cz) / z_scale) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


def test_a_ball_has_its_diameter_and_a_flat_one_its_elongation():
    ball, flat = balls((16, 24, 24), radius=8), balls((16, 24, 24), radius=10, z_scale=0.5)
    assert statistics(ball * 100, ball).diameter_px == pytest.approx(16, rel=0.03)
    assert statistics(ball * 100, ball).elongation == pytest.approx(1, rel=0.03)
    assert statistics(flat * 100, flat).elongation == pytest.approx(0.5, rel=0.06)


def test_touching_fraction_and_spread():
    labels = balls((16, 12, 12), (16, 12, 24), (16, 38, 38))
    grey = np.array([100, 200, 200, 500], np.uint16)[labels]
    found = statistics(grey, labels)
    assert found.nuclei == 3
    assert found.touching == pytest.approx(2 / 3)
    assert found.volume_fraction == pytest.approx((labels > 0).mean())
    assert found.intensity_cv == pytest.approx(np.std([100, 100, 400]) / 200, rel=0.01)


def test_contrast_over_noise():
    labels = balls((16, 24, 24), radius=9)
    noise = np.random.default_rng(0).normal(0, 20, labels.shape)
    found = statistics((np.where(labels, 700, 500) + noise).astype(np.uint16), labels)
    assert found.contrast_to_noise == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("level", [0.2, 0.35, 0.55])
def test_the_outline_level_is_found_again(level):
    z, y, x = np.indices((32, 48, 48))
    radius = np.sqrt((z - 16) ** 2 + (y - 24) ** 2 + (x - 24) ** 2)
    light = 1 / (1 + np.exp((radius - 10) / 1.2))
    found = statistics((100 + 1000 * light).astype(np.uint16), (light > level).astype(np.uint16))
    assert found.outline_level == pytest.approx(level, abs=0.04)


def test_without_nuclei_there_is_nothing_to_measure():
    found = statistics(np.full((16, 16, 16), 7, np.uint16), np.zeros((16, 16, 16), np.uint16))
    assert found.nuclei == 0
    assert math.isnan(found.diameter_px)
    assert found.prr > 1


def test_labels_need_not_be_consecutive_nor_have_background():
    labels = balls((16, 24, 24))
    assert statistics(labels * 9, labels * 40) == statistics(labels * 9, labels)
    assert statistics(np.ones((8, 8, 8), np.uint8), np.full((8, 8, 8), 5)).volume_fraction == 1


def test_other_shapes_are_refused():
    with pytest.raises(ImageError, match="shape"):
        statistics(np.zeros((8, 8)), np.zeros((8, 8), int))
    with pytest.raises(ImageError, match="shape"):
        statistics(np.zeros((8, 8, 8)), np.zeros((8, 8, 9), int))
    with pytest.raises(ImageDtypeError, match="float64"):
        statistics(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)))


def test_the_table_has_a_line_for_each_set():
    labels = balls((16, 24, 24))
    found = statistics(labels * 100, labels)
    lines = summary_table([("one", [found, found]), ("none", [])]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| one | 2 | 2 |")
    assert len({line.count("|") for line in lines}) == 1


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_writes_pairs_that_training_reads(run, tmp_path):
    out = tmp_path / "sim"
    words = ["--shape", 16, 32, 32, "--diameter", 8, 10, "--scene", "compact", "--seed", 4, "--outline-level", 0.3]
    result = run("simulate", out, "-n", 2, *words)
    assert result.exit_code == 0, result.output
    pairs = {name: load() for name, _, load in read_pairs(out)}
    assert list(pairs) == ["simulated_000004", "simulated_000005"]
    for seed in (4, 5):
        made = simulate_volume(seed=seed, shape=(16, 32, 32), diameter_px=(8, 10), scene="compact", outline_level=0.3)
        image, labels = pairs[f"simulated_{seed:06d}"]
        np.testing.assert_array_equal(image, made.image)
        np.testing.assert_array_equal(labels, made.labels)
        source = open_image(out / "images" / f"simulated_{seed:06d}.tif")
        assert source.spacing_um == pytest.approx(made.spacing_um, rel=1e-4)
    index = json.loads((out / "index.json").read_text())
    assert [entry["kind"] for entry in index] == ["compact", "compact"]
    assert not list(out.rglob("*.part*"))
    assert run("simulate", out, "-n", 1, *words).exit_code == 6  # exists
    assert run("simulate", out, "-n", 1, "--overwrite", *words).exit_code == 0
    assert len(json.loads((out / "index.json").read_text())) == 2


def test_a_cancelled_simulation_goes_on(run, tmp_path, monkeypatch):
    """The index knows what is there; of other settings nothing is passed over."""
    out, made = tmp_path / "sim", []
    words = ["-n", 3, "--shape", 16, 32, 32, "--diameter", 8, 10, "--scene", "compact"]
    monkeypatch.setattr("napari_aprcnn.cli.simulate.Interrupt.wanted", lambda _self: len(made) == 2)

    def watched(config, *, seed):
        made.append(seed)
        return simulate_volume(config, seed=seed)

    monkeypatch.setattr("napari_aprcnn.train.simulation.simulate_volume", watched)
    cancelled = run("simulate", out, *words)
    assert cancelled.exit_code == 130
    assert "the same command goes on" in cancelled.output
    assert [entry["name"] for entry in json.loads((out / "index.json").read_text())] == [
        "simulated_000000", "simulated_000001"
    ]  # fmt: skip
    assert run("simulate", out, *words, "--outline-level", 0.4).exit_code == 130  # cancelled at once
    assert run("simulate", out, *words).exit_code == 130
    assert made == [0, 1]
    made.append(None)
    assert run("simulate", out, *words, "--outline-level", 0.4).exit_code == 6  # of other settings
    (out / "images" / "simulated_000001.tif").unlink()
    (out / "labels" / "simulated_000001.tif").unlink()
    made[:] = [None] * 3
    result = run("simulate", out, *words)
    assert result.exit_code == 0, result.output
    assert made[3:] == [1, 2]
    assert "2 volumes" in result.output
    assert "1 were there already" in result.output
    assert [entry["name"][-1] for entry in json.loads((out / "index.json").read_text())] == ["0", "1", "2"]
    again = run("simulate", out, *words)
    assert again.exit_code == 6
    assert "holds all 3 volumes already" in again.output
    made[:] = [None] * 3
    assert run("simulate", out, *words, "--overwrite").exit_code == 0
    assert made[3:] == [0, 1, 2]


def test_light_that_is_lost_is_bounded(run, tmp_path):
    path = tmp_path / "sim.json"
    path.write_text('{"optics": {"attenuation": [0, 1000]}}')
    result = run("simulate", "--statistics", "--config", path)
    assert result.exit_code == 2
    assert "within 0 .. 20" in result.output


def test_the_command_compares_with_other_sets(run, tmp_path):
    words = ["--shape", 16, 32, 32, "--diameter", 8, 10]
    assert run("simulate", tmp_path / "real", "-n", 2, "-q", *words).exit_code == 0
    result = run("simulate", "--statistics", "--compare", tmp_path / "real", *words)
    assert result.exit_code == 0, result.output
    assert [line.split("|")[1].strip() for line in result.stdout.splitlines()[2:]] == ["simulated, mixed", "real"]
    several = run("simulate", "--statistics", "-n", 4, "--seed", 1, *words).stdout.splitlines()[2:]
    counts = [int(line.split("|")[2]) for line in several]
    assert len(several) > 2
    assert counts[0] == sum(counts[1:]) == 4
    records = json.loads(run("simulate", "--statistics", "--json", "--scene", "empty", *words).stdout)
    assert records[0]["volumes"][0]["nuclei"] == 0
    assert records[0]["volumes"][0]["diameter_px"] is None


def test_the_command_reads_a_configuration(run, tmp_path):
    path = tmp_path / "sim.json"
    path.write_text(json.dumps({"scene": "empty", "shape": [16, 32, 32]}))
    records = json.loads(run("simulate", "--statistics", "--json", "--config", path).stdout)
    assert records[0]["set"] == "simulated, empty"
    path.write_text("[1]")
    assert run("simulate", "--statistics", "--config", path).exit_code == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "--statistics"),
        (["out", "--compare", "x"], 2, "--statistics"),
        (["out", "--shape", "2", "64", "64"], 2, "shape"),
        (["--statistics", "--shape", "16", "32", "32", "--compare", "nowhere"], 3, "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_a_code(run, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    result = run("simulate", *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
