"""The command line: a network that needs no weights, real files, real exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import roifile
import tifffile
import torch
from scipy import ndimage
from typer.testing import CliRunner

from napari_aprcnn.cli import app
from napari_aprcnn.cli.inputs import find_images, result_stems, split_output
from napari_aprcnn.cli.settings import Settings, parse_spacing
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import (
    AxesError,
    CancelledError,
    ConfigError,
    DeviceError,
    FileFormatError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    OutputError,
)
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.samples import sample_path
from napari_aprcnn.segment import pipeline

SPACING = (1.0, 0.5, 0.5)


class _Network:
    """Flows that climb the smoothed image, and a logit that is a threshold on it."""

    def __init__(self):
        self.card = SimpleNamespace(
            name="fake", architecture="faster_v3", diameter_px=25.0, border_px=24, second_channel="zero"
        )
        self.device, self.precision, self.name, self.sha256 = torch.device("cpu"), "float32", "fake", "f" * 64

    def predict(self, planes, *, check=None):
        array = np.asarray(planes, np.float32)
        smooth = ndimage.gaussian_filter(array, (0, 4, 4))
        flows = np.stack(np.gradient(smooth, axis=(1, 2)), 1)
        logit = 20 * (ndimage.gaussian_filter(array, (0, 1, 1)) - 0.35)[:, None]
        flows = 5 * flows / (np.linalg.norm(flows, axis=1, keepdims=True) + 1e-6) * (logit > -2)
        return np.concatenate([flows, logit], 1).astype(np.float32)


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(pipeline, "_load", lambda config: _Network())


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


def _blobs(shape=(80, 90)):
    image = np.zeros(shape, np.float32)
    for y, x in ((20, 20), (25, 60), (60, 30), (55, 70)):
        image[..., y, x] = 1000
    image = ndimage.gaussian_filter(image, (*(0,) * (len(shape) - 2), 5, 5))
    return (image / image.max() * 3000 + 100).astype(np.uint16)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, _blobs(), imagej=True, resolution=(2, 2), metadata={"axes": "YX", "unit": "um"})
    return path


FAST = ("--diameter", "20", "--threads", "1")


def test_everything_is_written_and_recorded(run, network, image, tmp_path):
    out = tmp_path / "out"
    result = run(
        "segment", image, "-o", out, *FAST, "--rois", "--geojson", "--csv", "--overlay", "--probability", "--flows"
    )
    assert result.exit_code == 0, result.stderr
    assert "4 nuclei" in result.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "cells_flows.tif", "cells_labels.tif", "cells_measurements.csv", "cells_outlines.geojson", "cells_overlay.png",
        "cells_probability.tif", "cells_rois.zip", "cells_run.json",
    ]  # fmt: skip
    labels = open_image(out / "cells_labels.tif")
    assert labels.spacing_um == pytest.approx((0.5, 0.5, 0.5))
    assert len(np.unique(np.asarray(labels.data))) == 5
    assert len(roifile.roiread(out / "cells_rois.zip")) == 4
    assert len((out / "cells_measurements.csv").read_text().splitlines()) == 5
    record = json.loads((out / "cells_run.json").read_text())
    assert record["input"]["path"] == str(image)
    assert record["readout"]["n_objects"] == 4
    assert set(record["outputs"]) == {"labels", "run", "rois", "geojson", "csv", "overlay", "probability", "flows"}
    assert SegmentConfig.from_file(out / "cells_run.json").diameter_px == 20


def test_a_volume_with_channels_keeps_its_voxel_size(run, network, tmp_path):
    stack = np.stack([np.zeros((4, 80, 90), np.uint16), np.repeat(_blobs()[None], 4, 0)], 1)
    tifffile.imwrite(
        tmp_path / "v.tif",
        stack,
        imagej=True,
        resolution=(2, 2),
        metadata={"axes": "ZCYX", "unit": "um", "spacing": 1.0},
    )
    result = run(
        "segment", tmp_path / "v.tif", "-o", tmp_path / "v_seg.zarr", *FAST, "--mode", "stitch", "--channel", 1
    )
    assert result.exit_code == 0, result.stderr
    labels = open_image(tmp_path / "v_seg.zarr")
    assert (labels.axes, labels.spacing_um) == ("ZYX", SPACING)
    assert len(np.unique(np.asarray(labels.data))) == 5
    assert (tmp_path / "v_seg_run.json").exists()


def test_replay_gives_the_same_labels(run, network, image, tmp_path):
    assert run("segment", image, "-o", tmp_path / "a", *FAST, "--csv", "--min-size", "20").exit_code == 0
    result = run("replay", tmp_path / "a" / "cells_run.json", "-o", tmp_path / "b")
    assert result.exit_code == 0, result.stderr
    first, second = (tifffile.imread(tmp_path / name / "cells_labels.tif") for name in "ab")
    np.testing.assert_array_equal(first, second)
    assert (tmp_path / "b" / "cells_measurements.csv").exists()
    again = json.loads((tmp_path / "b" / "cells_run.json").read_text())
    assert again["config"] == json.loads((tmp_path / "a" / "cells_run.json").read_text())["config"]


def test_replay_needs_a_run_file(run, tmp_path):
    (tmp_path / "c.json").write_text(SegmentConfig().to_json())
    result = run("replay", tmp_path / "c.json", "-o", tmp_path)
    assert result.exit_code == 2
    assert "--config" in result.stderr


def test_a_bad_file_does_not_stop_the_others(run, network, image, tmp_path):
    (tmp_path / "broken.tif").write_bytes(image.read_bytes()[:300])
    result = run("segment", tmp_path, "-o", tmp_path / "out", *FAST, "--json")
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record.get("exit_code", 0) for record in records] == [3, 0]
    assert "broken.tif" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "out" / "cells_labels.tif").exists()
    assert not list((tmp_path / "out").glob("broken*"))


def test_patterns_may_be_quoted(run, network, image, tmp_path):
    result = run("segment", tmp_path / "c*.tif", "-o", tmp_path / "out", *FAST, "--quiet")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert (tmp_path / "out" / "cells_labels.tif").exists()


def test_results_are_replaced_only_when_asked(run, network, image, tmp_path):
    assert run("segment", image, "-o", tmp_path / "out", *FAST).exit_code == 0
    before = (tmp_path / "out" / "cells_labels.tif").stat().st_mtime_ns
    result = run("segment", image, "-o", tmp_path / "out", *FAST)
    assert result.exit_code == 6
    assert "--overwrite" in result.stderr
    assert (tmp_path / "out" / "cells_labels.tif").stat().st_mtime_ns == before
    assert run("segment", image, "-o", tmp_path / "out", *FAST, "--overwrite").exit_code == 0


def test_a_preview_segments_the_middle_and_says_what_the_whole_takes(run, network, tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.repeat(_blobs()[None], 4, 0), imagej=True, metadata={"axes": "ZYX"})
    result = run("segment", tmp_path / "v.tif", "-o", tmp_path / "out", "--preview", *FAST)
    assert result.exit_code == 0, result.stderr
    assert "4 nuclei" in result.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v_preview.png"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2), (AxesError("x"), 2), (DeviceError("x"), 2), (FileFormatError("x"), 3),
        (ModelNotFoundError("x"), 4), (NotEnoughMemoryError("x"), 5), (MemoryError(), 5), (OutputError("x"), 6),
        (CancelledError("x"), 130), (KeyboardInterrupt(), 130), (ZeroDivisionError("x"), 70),
    ],
)  # fmt: skip
def test_exit_codes_and_one_line_messages(run, image, tmp_path, monkeypatch, error, code):
    def failing(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(pipeline, "segment", failing)
    result = run("segment", image, "-o", tmp_path / "out", *FAST)
    assert result.exit_code == code
    assert len(result.stderr.strip().splitlines()) == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_broken_model_stops_the_batch(run, image, tmp_path, monkeypatch):
    calls = []

    def failing(*_args, **_kwargs):
        calls.append(1)
        raise ModelNotFoundError("no model")

    monkeypatch.setattr(pipeline, "segment", failing)
    (tmp_path / "more.tif").write_bytes(image.read_bytes())
    assert run("segment", tmp_path, "-o", tmp_path / "out").exit_code == 4
    assert len(calls) == 1


def test_tracebacks_on_request(image, tmp_path, monkeypatch):
    monkeypatch.setenv("APRCNN_DEBUG", "1")
    result = CliRunner().invoke(app, ["segment", str(tmp_path / "none.tif"), "-o", str(tmp_path)])
    assert isinstance(result.exception, FileFormatError)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["segment", "none.tif", "-o", "out"], 3, "no file"),
        (["segment", "none*.tif", "-o", "out"], 3, "no file matches"),
        (["segment", "{image}"], 6, "-o FOLDER"),
        (["segment", "{image}", "-o", "out", "--spacing", "a,b"], 2, "--spacing"),
        (["segment", "{image}", "-o", "out", "--axes", "ZZ"], 2, "letters"),
        (["segment", "{image}", "-o", "out", "--axes", "ZYX"], 2, "axes"),
        (["segment", "{image}", "-o", "out", "--channel", "3"], 2, "channel"),
        (["segment", "{image}", "-o", "out", "--diameter", "-3"], 2, "diameter"),
        (["segment", "{image}", "-o", "out", "--config", "none.json"], 2, "none.json"),
        (["segment", "{image}", "-o", "out", "--model", "no-such-model"], 4, "no-such-model"),
        (["segment", "{image}", "-o", "out", "--series", "4"], 3, "series 4"),
        (["segment", "{image}", "-o", "{image}/out"], 6, "cannot write"),
        (["segment", "--no-such-option"], 2, "no-such-option"),
        (["estimate", "none.tif"], 3, "no file"),
        (["sample", "moon"], 3, "moon"),
    ],
)
def test_mistakes(run, image, tmp_path, monkeypatch, words, code, says):
    monkeypatch.chdir(tmp_path)
    result = run(*[word.format(image=image) for word in words])
    assert result.exit_code == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_options_come_before_the_file_and_that_before_the_image(image):
    source = open_image(image)
    base = SegmentConfig(spacing_um=(3, 1, 1), diameter_px=9, stitch_iou=0.5)
    settings = Settings(base=base, changes={"diameter_px": 7.0})
    config, notes = settings.config_for(source)
    assert (config.diameter_px, config.stitch_iou, config.spacing_um) == (7, 0.5, (3, 1, 1))
    assert any("not that of the file" in note for note in notes)
    assert Settings(spacing_um=(1, 2, 3)).config_for(source)[0].spacing_um == (1, 2, 3)
    assert Settings().config_for(source)[0].spacing_um == pytest.approx((0.5, 0.5, 0.5))
    assert Settings().config_for(source)[0].axes.order == "YX"


def test_nested_parameters_keep_what_the_file_says(tmp_path):
    base = SegmentConfig()
    (tmp_path / "c.json").write_text(base.replace(flows=base.flows.replace(n_steps=77)).to_json())
    settings = Settings.from_options({"config": tmp_path / "c.json", "min_size": 3, "tile": 256, "flow_threshold": 0.6})
    config = settings.base.replace(**settings.changes)
    assert (config.flows.n_steps, config.flows.min_size_vox, config.flows.flow_threshold) == (77, 3, 0.6)
    assert config.tiles.tile_px == 256


def test_spacing_is_read_in_any_common_way():
    assert parse_spacing("0.5, 0.2, 0.1") == (0.5, 0.2, 0.1)
    assert parse_spacing("0.5x0.2") == (0.5, 0.5, 0.2)
    assert parse_spacing("1e-1") == (0.1, 0.1, 0.1)
    for text in ("", "0", "-1", "1,2,3,4", "nan", "inf", "a"):
        with pytest.raises(ConfigError):
            parse_spacing(text)


def test_inputs_and_names(tmp_path):
    for name in ("b.tif", "a.ome.tif", "a_labels.tif", "notes.txt", ".hidden.tif"):
        (tmp_path / name).touch()
    (tmp_path / "c.zarr").mkdir()
    assert [path.name for path in find_images([str(tmp_path)])] == ["a.ome.tif", "b.tif", "c.zarr"]
    assert [path.name for path in find_images([str(tmp_path / "*"), str(tmp_path / "b.tif")])][-1] == "c.zarr"
    assert [path.name for path in find_images([str(tmp_path / "a_labels.tif")])] == ["a_labels.tif"]
    paths = [tmp_path / "d" / "x.tif", tmp_path / "e" / "x.tif", tmp_path / "e" / "X.ome.tif"]
    assert result_stems(paths) == ["d_x", "e_x", "e_X-2"]
    with pytest.raises(FileFormatError):
        find_images([str(tmp_path / "c.zarr" / "..") + "/none*"])
    with pytest.raises(OutputError, match="give a folder"):
        split_output(tmp_path / "x.tif", n_images=2)
    with pytest.raises(OutputError, match="is a file"):
        split_output(tmp_path / "notes.txt", n_images=1)


def test_samples_are_listed_and_copied(run, tmp_path):
    assert "ovule-3d" in run("sample").stdout
    result = run("sample", "culture", "-o", tmp_path / "new", "--labels")
    assert result.exit_code == 0
    assert (tmp_path / "new" / "culture.tif").read_bytes() == sample_path("culture").read_bytes()
    assert (tmp_path / "new" / "culture_labels.tif").exists()
    assert run("sample", "culture", "-o", tmp_path / "new").exit_code == 6


def test_estimate_info_models(run):
    result = run("estimate", sample_path("ovule-3d"), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["memory_bytes"] > 0
    assert "Z 100 x Y 100 x X 100" in run("estimate", sample_path("ovule-3d")).stdout
    record = json.loads(run("info", "--json").stdout)
    assert record["threads"] >= 1
    assert "torch" in record["versions"]
    assert run("info").stdout.count("\n") > 8
    assert run("models").exit_code == 0
    assert isinstance(json.loads(run("models", "--json").stdout), list)


def test_the_table_of_the_family(run, monkeypatch):
    from napari_aprcnn.models import counting

    rows = [counting.family_row("faster_v3")]
    monkeypatch.setattr(counting, "family_table", lambda: rows)
    result = run("models", "--table")
    assert result.exit_code == 0
    assert "4,971,329,536" in result.stdout
    assert "115,969" in result.stdout
    assert json.loads(run("models", "--table", "--json").stdout)[0]["name"] == "faster_v3"


def test_help_imports_nothing_heavy():
    script = (
        "import sys, napari_aprcnn.cli\n"
        "heavy = {'torch', 'numpy', 'zarr', 'dask', 'tifffile', 'pydantic', 'skimage'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    for words in ([], ["segment"], ["estimate"], ["models"], ["replay"]):
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0
    assert "0." in CliRunner().invoke(app, ["--version"]).stdout


_SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from test_cli import _Network
from napari_aprcnn.segment import pipeline
from napari_aprcnn.cli import main

class Slow(_Network):
    def predict(self, planes, *, check=None):
        print("started", flush=True)
        time.sleep(0.3)
        return super().predict(planes)

pipeline._load = lambda config: Slow()
sys.argv = ["aprcnn", "segment", {image!r}, "-o", {out!r}, "--tile", "64", "--diameter", "25", "--mode", "planes"]
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of Windows differ")
def test_ctrl_c_cancels_and_leaves_nothing(tmp_path):
    tifffile.imwrite(
        tmp_path / "v.tif", np.repeat(_blobs((300, 300))[None], 60, 0), imagej=True, metadata={"axes": "ZYX"}
    )
    script = _SLOW.format(tests=str(Path(__file__).parent), image=str(tmp_path / "v.tif"), out=str(tmp_path / "out"))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert "started" in process.stdout.readline()
        asked = time.perf_counter()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert time.perf_counter() - asked < 10
    assert "cancel" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f'"{sys.executable}" -m napari_aprcnn.cli models | head -c 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert "bug" not in done.stderr
    assert "BrokenPipe" not in done.stderr
