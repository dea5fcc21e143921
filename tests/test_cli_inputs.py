"""The command line and its inputs: never replaced, no masks among them, with colours and voxel sizes of their own."""

import hashlib
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from napari_aprcnn.cli import app
from napari_aprcnn.cli.channels import choose_channel
from napari_aprcnn.cli.inputs import find_images, keep_inputs
from napari_aprcnn.cli.settings import Settings, model_path
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import OutputError
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.write import write_image
from napari_aprcnn.models import zoo
from napari_aprcnn.segment import pipeline
from test_cli import FAST, _blobs, _Network

LINKS = pytest.mark.skipif(os.name == "nt", reason="links of Windows need rights")


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """Models that were asked for, in the order of the runs."""
    asked = []

    def load(config):
        asked.append(config.model)
        return _Network()

    monkeypatch.setattr(pipeline, "_load", load)
    return asked


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "mine.tif"
    tifffile.imwrite(path, _blobs(), imagej=True, resolution=(2, 2), metadata={"axes": "YX", "unit": "um"})
    return path


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("mine.tif", "mine.tif"),
        pytest.param("mine.tif", "link.tif", marks=LINKS),
        pytest.param("link.tif", "mine.tif", marks=LINKS),
        pytest.param("twin.tif", "mine.tif", marks=LINKS),
    ],
)
def test_an_image_is_never_replaced_by_its_labels(run, networks, image, tmp_path, given, output):
    before = image.read_bytes()
    if os.name != "nt":
        (tmp_path / "link.tif").symlink_to(image)
        os.link(image, tmp_path / "twin.tif")
    result = run("segment", tmp_path / given, "-o", tmp_path / output, "--overwrite", *FAST)
    assert result.exit_code == 6
    assert "would replace the input" in result.stderr
    assert image.read_bytes() == before
    assert not networks
    assert not (tmp_path / "mine_run.json").exists()


def test_one_input_is_not_replaced_by_the_labels_of_another(run, networks, image, tmp_path):
    labels = tmp_path / "mine_labels.tif"
    shutil.copy(image, labels)
    assert run("segment", image, labels, "-o", tmp_path, "--overwrite", *FAST).exit_code == 6
    assert labels.read_bytes() == image.read_bytes()
    assert not networks
    assert run("segment", image, "-o", tmp_path, "--overwrite", *FAST).exit_code == 0


def test_a_zarr_is_not_replaced_nor_what_holds_it(run, networks, tmp_path):
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w")
    inner = plate / "a.zarr"
    write_image(_blobs(), inner, axes="YX")
    write_image(_blobs(), tmp_path / "img.zarr", axes="YX")
    for given, output in ((inner, inner), (inner, plate), (tmp_path / "img.zarr", tmp_path / "img.zarr")):
        result = run("segment", given, "-o", output, "--overwrite", *FAST)
        assert result.exit_code == 6, result.stderr
        assert "would replace the input" in result.stderr
        assert open_image(given).shape == (80, 90)
    assert not networks
    with pytest.raises(OutputError, match="a part of it"):
        keep_inputs([inner / next(p.name for p in inner.iterdir())], [inner])
    keep_inputs([tmp_path / "img_labels.zarr", inner / "new.tif"], [tmp_path / "img.zarr", inner])


def test_a_voxel_size_of_one_file_does_not_stop_the_others(run, tmp_path):
    for name, z in (("a", 100.0), ("b", 2.0)):
        metadata = {"axes": "ZYX", "unit": "um", "spacing": z}
        tifffile.imwrite(
            tmp_path / f"{name}.tif", np.repeat(_blobs()[None], 3, 0), imagej=True, resolution=(1, 1), metadata=metadata
        )
    words = ("segment", tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "out", *FAST, "--mode", "stitch")
    result = run(*words)
    assert result.exit_code == 1, result.stderr
    assert "--spacing" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tif")) == ["b_labels.tif"]
    # What the options say would fail for every file.
    result = run(*words, "--overwrite", "--spacing", "100,1,1")
    assert result.exit_code == 2
    assert result.stderr.count("error:") == 1


def test_replay_finds_a_model_file_from_anywhere_and_sees_that_it_has_changed(
    run, networks, image, tmp_path, monkeypatch
):
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(b"old")
    monkeypatch.chdir(tmp_path)
    assert run("segment", image, "-o", "out", "-m", "own.safetensors", *FAST).exit_code == 0
    record = json.loads((tmp_path / "out" / "mine_run.json").read_text())
    assert record["config"]["model"] == str(weights)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run("replay", tmp_path / "out" / "mine_run.json", "-o", "again")
    assert result.exit_code == 0, result.stderr
    assert networks == [str(weights)] * 2
    assert "are not those of the recorded run" in result.stderr
    # The same weights, moved together with the run file.
    record["readout"]["model_sha256"] = hashlib.sha256(b"old").hexdigest()
    (tmp_path / "out" / "mine_run.json").write_text(json.dumps(record))
    weights.rename(tmp_path / "out" / "own.safetensors")
    result = run("replay", tmp_path / "out" / "mine_run.json", "-o", "moved")
    assert result.exit_code == 0, result.stderr
    assert networks[-1] == str(tmp_path / "out" / "own.safetensors")
    assert "recorded run" not in result.stderr


def test_names_of_models_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = zoo.list_models()[0].name
    (tmp_path / name).touch()
    (tmp_path / "own").touch()
    assert model_path(name) == name
    assert model_path("own") == str(tmp_path / "own")
    assert model_path("no\0such") == "no\0such"
    base = SegmentConfig(model="own")
    (tmp_path / "c.json").write_text(base.to_json())
    assert Settings.from_options({"config": tmp_path / "c.json"}).base.model == str(tmp_path / "own")


@pytest.mark.parametrize("words", [("--format", "zarr", "-o", "x.tif"), ("--format", "tif", "-o", "x.zarr")])
def test_a_format_and_a_name_that_contradict_each_other(run, networks, image, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = run("segment", image, *words, *FAST)
    assert result.exit_code == 2
    assert f"got --format {words[1]} and -o {words[3]}" in result.stderr
    assert not networks
    assert run("segment", image, "--format", "ome-tif", "-o", "x.ome.tif", *FAST).exit_code == 0


def test_options_for_volumes_are_said_to_be_ignored_by_models_for_planes(run, image, tmp_path):
    options = ("--outline", "0.4", "--grow", "1", "--zoom", "2", "--apr-error", "0.2", "--particle-stages", "1")
    result = run("segment", image, "-o", tmp_path / "out", *FAST, *options, "--stitch-iou", "0.3")
    assert result.exit_code == 0
    for option in ("--outline", "--grow", "--zoom", "--apr-error", "--particle-stages", "--stitch-iou"):
        assert result.stderr.count(f"{option} is ignored") == 1
    assert "--diameter" not in result.stderr
    result = run("segment", image, "-o", tmp_path / "quiet", *FAST, *options, "-q")
    assert (result.exit_code, result.stderr) == (0, "")


def test_of_colours_the_one_with_the_nuclei_is_segmented(run, tmp_path):
    blue = np.zeros((80, 90, 3), np.uint8)
    blue[..., 2] = _blobs() // 16
    tifffile.imwrite(tmp_path / "blue.tif", blue, photometric="rgb")
    result = run("segment", tmp_path / "blue.tif", "-o", tmp_path / "out", *FAST)
    assert "4 nuclei" in result.stdout
    assert "blue (channel 2)" in result.stderr
    assert "--channel" in result.stderr
    record = json.loads((tmp_path / "out" / "blue_run.json").read_text())
    assert record["config"]["axes"] == {"order": "YXC", "channel": 2}
    again = run("replay", tmp_path / "out" / "blue_run.json", "-o", tmp_path / "again")
    assert "4 nuclei" in again.stdout
    assert "colours" not in again.stderr
    red = run("segment", tmp_path / "blue.tif", "-o", tmp_path / "red", *FAST, "--channel", "0")
    assert "0 nuclei" in red.stdout
    assert "colours" not in red.stderr


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_colours_that_lie_plane_by_plane_are_colours(run, tmp_path, planar):
    green = np.minimum(_blobs() // 8, 255).astype(np.uint8)
    pixels = np.stack([np.full_like(green, 7), green, np.zeros_like(green)])
    if planar == "contig":
        pixels = np.moveaxis(pixels, 0, -1)
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig=planar)
    source = open_image(path)
    assert (source.axes, source.shape) == ("YXC", (80, 90, 3))
    assert np.array_equal(np.asarray(source.data)[..., 1], green)
    result = run("segment", path, "-o", tmp_path / "out", *FAST)
    assert "green (channel 1), that of the largest contrast, is segmented" in " ".join(result.stderr.split())


def test_channels_that_nobody_chose(run, tmp_path):
    stack = np.stack([_blobs(), np.zeros((80, 90), np.uint16)])
    write_image(stack, tmp_path / "c.ome.tif", axes="CYX", channel_names=("DAPI", "actin"))
    result = run("segment", tmp_path / "c.ome.tif", "-o", tmp_path / "out", *FAST)
    assert "the image has 2 channels; channel 0 (DAPI) is segmented" in result.stderr
    assert "channels" not in run("segment", tmp_path / "c.ome.tif", "-o", tmp_path / "o", *FAST, "--channel", 1).stderr


def test_an_alpha_is_no_colour_and_a_16_bit_array_has_none():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[::2, :, 1], pixels[:4, :, 3] = 10, 255
    source = SimpleNamespace(data=pixels, shape=pixels.shape, multiscale=(), kind="npy", channel_names=())
    assert choose_channel(source, "YXC")[0] == 1
    source.data = pixels.astype(np.uint16)
    assert choose_channel(source, "YXC")[0] == 0
    source.kind = "TIFF"
    assert choose_channel(source, "YXC")[0] == 1
    assert choose_channel(source, "YXZ") == (0, None)


def test_masks_in_a_folder_are_no_images(tmp_path):
    left_out = ("a_masks.tif", "a_cp_masks.tif", "a_masks.ome.tif", "a_cp_masks.npy", "a_masks.svs", "a_seg.npy")
    for name in ("a.tif", "masks.tif", "b_seg.tif", *left_out):
        (tmp_path / name).touch()
    (tmp_path / "b_masks.zarr").mkdir()
    taken = ["a.tif", "b_seg.tif", "masks.tif"]
    assert [path.name for path in find_images([str(tmp_path)])] == taken
    assert [path.name for path in find_images([str(tmp_path / "*")])] == taken
    for name in left_out:
        assert [path.name for path in find_images([str(tmp_path / name)])] == [name]
    assert [path.name for path in find_images([str(tmp_path / "*_masks.tif")])] == ["a_cp_masks.tif", "a_masks.tif"]


def test_mirror_images_by_option_and_by_file(tmp_path):
    (tmp_path / "run.json").write_text(SegmentConfig(tiles={"augment": True}).to_json())
    for given, wanted in (({}, False), ({"augment": True}, True), ({"config": tmp_path / "run.json"}, True)):
        settings = Settings.from_options(given)
        assert settings.base.replace(**settings.changes).tiles.augment is wanted
    settings = Settings.from_options({"config": tmp_path / "run.json", "augment": False})
    assert not settings.changes["tiles"].augment
