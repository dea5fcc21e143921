"""The command line with models for volumes: options, what is listed, what is estimated, what is written."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_aprcnn.cli import app
from napari_aprcnn.cli.batch import _why_missing
from napari_aprcnn.cli.ignored import ignored_options
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models import zoo
from napari_aprcnn.models.zoo import card_of, is_for_volumes
from napari_aprcnn.segment import pipeline
from napari_aprcnn.segment.estimate import estimate
from volume_fakes import NET, BallNetwork, balls, save_tiny_model, volume_card

pytest.importorskip("h5py")


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", folder)
    save_tiny_model(folder)
    return "apr-tiny-3d"


@pytest.fixture
def network(monkeypatch):
    net = BallNetwork()
    monkeypatch.setattr(pipeline, "_load", lambda config: net)
    return net


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "embryo.tif"
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 0.5}
    tifffile.imwrite(path, balls(), imagej=True, resolution=(4, 4), metadata=metadata)
    return path


def test_options_reach_the_run_and_particles_are_written(run, tiny, network, image, tmp_path):
    from napari_aprcnn.apr.files import read_apr

    out = tmp_path / "out"
    options = ("--apr-error", "0.2", "--outline", "0.4", "--grow", "1", "--zoom", "1", "--particle-stages", "2")
    result = run("segment", image, "-o", out, "-m", tiny, "--mode", "volume", *options, "--save-particles")
    assert result.exit_code == 0, result.stderr
    assert "12 nuclei" in result.stdout
    record = json.loads((out / "embryo_run.json").read_text())
    wanted = {"relative_error": 0.2, "outline": 0.4, "grow_vox": 1, "zoom": 1.0, "particle_stages": 2}
    assert record["config"]["volume"] == wanted
    assert record["readout"]["dimensionality"] == "volume"
    assert record["outputs"]["particles"].endswith("embryo_particles.apr")
    tree = read_apr(out / "embryo_particles.apr")
    assert tree.shape == (32, 40, 48)
    assert tree.prr == pytest.approx(record["readout"]["prr"])
    assert SegmentConfig.from_file(out / "embryo_run.json").volume.outline == 0.4
    again = run("replay", out / "embryo_run.json", "-o", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "again" / "embryo_particles.apr").exists()


@pytest.mark.parametrize("zoom", ["1", "1.5"])
def test_particles_know_the_size_of_their_voxels(run, tiny, network, image, tmp_path, zoom):
    from napari_aprcnn.apr.files import read_apr

    result = run("segment", image, "-o", tmp_path / "out", "-m", tiny, "--zoom", zoom, "--save-particles")
    assert result.exit_code == 0, result.stderr
    tree = read_apr(tmp_path / "out" / "embryo_particles.apr")
    expected = [edge / float(zoom) for edge in (0.5, 0.25, 0.25)]
    assert tree.conversion["spacing_um"] == pytest.approx(expected)


def test_why_there_are_no_particles(run, tiny, network, image, tmp_path):
    result = run("segment", image, "-o", tmp_path / "o", "-m", tiny, "--particle-stages", "0", "--save-particles")
    assert result.exit_code == 0
    assert "no particles were written" in result.stderr
    assert not list((tmp_path / "o").glob("*.apr"))


def test_options_for_planes_are_said_to_be_ignored(run, tiny, network, image, tmp_path):
    planes = ("--diameter", "20", "--normalise", "tile", "--stitch-iou", "0.3", "--tile", "512", "--augment")
    flows = ("--steps", "50", "--min-size", "5")
    result = run("segment", image, "-o", tmp_path / "o", "-m", tiny, *planes, *flows, "--outline", "0.4")
    assert result.exit_code == 0
    for option in planes[::2]:
        assert f"{option} is ignored: apr-tiny-3d is a model for volumes" in result.stderr
    assert result.stderr.count("is ignored") == 5
    assert "--tile is ignored" in run("estimate", image, "-m", tiny, "--tile", "512").stderr


def test_what_a_model_is_for_is_read_from_the_file_where_there_is_no_card(tmp_path):
    path = save_tiny_model(tmp_path)
    path.with_suffix(".json").unlink()
    (note,) = ignored_options(["diameter", "zoom"], SegmentConfig(model=str(path)))
    assert note.startswith("--diameter is ignored")
    assert card_of(path).volume == NET
    assert is_for_volumes(path)
    assert estimate((16, 32, 32), "uint16", SegmentConfig(model=str(path))).n_blocks == 1
    with pytest.raises(ConfigError, match="is for volumes"):
        estimate((16, 32, 32), "uint16", SegmentConfig(model=str(path), dimensionality="stitch"))
    star = volume_card(net=NET.replace(head="stardist"))
    path.with_suffix(".json").write_text(star.to_json())
    assert ignored_options(["steps", "grow"], SegmentConfig(model=str(path))) == [
        "--steps is ignored: apr-tiny-3d.safetensors has no flows"
    ]
    path.with_suffix(".json").unlink()
    path.write_bytes(b"no weights")
    assert len(ignored_options(["diameter", "zoom"], SegmentConfig(model=str(path)))) == 1
    assert ignored_options(["zoom"], SegmentConfig(model="no-such")) == []


def test_why_there_are_no_flows():
    readout = SimpleNamespace(model="apr-stardist-nuclei-3d", dimensionality="volume")
    result = SimpleNamespace(readout=readout, flows=None, probability=np.zeros((2, 2, 2)))
    assert _why_missing("flows", result) == "no flows were written: apr-stardist-nuclei-3d has none"
    result.probability = None
    assert "did not fit the memory" in _why_missing("flows", result)


def test_planes_and_modes_that_do_not_fit(run, tiny, image, tmp_path):
    plane = tmp_path / "plane.tif"
    tifffile.imwrite(plane, np.zeros((40, 40), np.uint8))
    result = run("segment", plane, "-o", tmp_path / "o", "-m", tiny)
    assert result.exit_code == 2
    assert "is for volumes" in result.stderr
    result = run("segment", image, "-o", tmp_path / "o", "-m", tiny, "--mode", "planes")
    assert result.exit_code == 2
    assert run("segment", image, "-o", tmp_path / "o", "-m", tiny, "--outline", "1.5").exit_code == 2


def test_estimate_measures_the_reduction(run, tiny, image):
    result = run("estimate", image, "-m", tiny)
    assert result.exit_code == 0, result.stderr
    assert "PRR" in result.stdout
    few = json.loads(run("estimate", image, "-m", tiny, "--apr-error", "0.5", "--json").stdout)
    many = json.loads(run("estimate", image, "-m", tiny, "--apr-error", "0.02", "--json").stdout)
    assert few["prr"] > many["prr"]
    assert few["seconds"] < many["seconds"]
    assert "prr" not in json.loads(run("estimate", image, "-m", tiny, "--particle-stages", "0", "--json").stdout)


def test_models_say_what_they_are_for(run, tiny):
    result = run("models")
    assert "apr-tiny-3d" in result.stdout
    assert "for volumes, head flows, 3 of 3 stages on particles, APR error 0.1" in result.stdout
    (card,) = json.loads(run("models", "--json").stdout)
    assert card["volume"]["head"] == "flows"


def test_preview_of_a_volume(run, tiny, network, image, tmp_path):
    result = run("segment", image, "-o", tmp_path / "o", "-m", tiny, "--preview")
    assert result.exit_code == 0, result.stderr
    assert "the middle 32 x 40 x 48 px: 12 nuclei, PRR" in result.stdout
    assert (tmp_path / "o" / "embryo_preview.png").exists()
