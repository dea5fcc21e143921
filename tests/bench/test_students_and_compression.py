"""The scripts that compare students and compress weights: results are kept once, changes are what they say."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest
import tifffile
import torch

from napari_aprcnn.io.samples import sample_labels_path, sample_path
from napari_aprcnn.models.zoo import load_model

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="a checkout has benchmarks, an installed package has not")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def culture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "culture"
    for part, path in (("images", sample_path("culture")), ("labels", sample_labels_path("culture"))):
        (folder / part).mkdir(parents=True)
        tifffile.imwrite(folder / part / "a.tif", tifffile.imread(path))
    return folder


@pytest.fixture(scope="module")
def network():
    return load_model("fastercellpose-v3", device="cpu")


def test_shipped_models_are_scored_once(culture, tmp_path, monkeypatch):
    script = load("compare_students")
    options = argparse.Namespace(
        teacher="fastercellpose-v3", data=["fastercellpose-v2"], test=[culture], seed=0, results=tmp_path / "r.json"
    )
    script.shipped(options)
    records = script._read(options.results)
    assert [r["network"] for r in records] == ["faster_v2", "faster_v3"]
    scores = records[1]["scores"]["culture"]
    assert 0.8 < scores["f1"]["0.5"] <= 1
    assert scores["accuracy"]["0.5"] == pytest.approx(scores["f1"]["0.5"] / (2 - scores["f1"]["0.5"]), abs=1e-3)
    monkeypatch.setattr(script, "_scores", lambda *_: pytest.fail("scored again"))
    script.shipped(options)
    assert script._read(options.results) == records
    table = script.accuracy_table(records)
    assert f"{scores['precision']:.3f}, {scores['recall']:.3f}; " in table.splitlines()[-1]
    timed = script.table(records[1:], threads=1, size=64).splitlines()
    assert len(timed) == 3
    assert "| faster_v3 | labels, as shipped |  | 0 | 115,967 |" in timed[-1]


def test_eight_bits_are_eight_bits(network, culture):
    script = load("compress_weights")
    plane = torch.from_numpy(tifffile.imread(culture / "images" / "a.tif")[:64, :64] / 255).float()
    x = script.network_input(plane[None], second_channel=network.card.second_channel)
    with torch.inference_mode():
        full = script.separate(network.module)(x)[0]
        weights = script.quantised(network, [plane], activations=False)
        both = script.quantised(network, [plane], activations=True)
        assert 0 < (weights(x)[0] - full).std() < 0.1 * full.std()
        assert 0 < (both(x)[0] - full).std() < 0.2 * full.std()
    for _, layer in script.convolutions(weights):
        axis = 1 if isinstance(layer, torch.nn.ConvTranspose2d) and layer.groups == 1 else 0
        channel = layer.weight.detach().select(axis, 0)
        assert len(channel.unique()) <= 255
    # The network itself is what it was.
    with torch.inference_mode():
        assert torch.equal(script.separate(network.module)(x)[0], full)


def test_pruning_takes_the_share_that_it_says(network):
    script = load("compress_weights")
    pruned = script.pruned(network.module, 0.5)
    weights = torch.cat([layer.weight.flatten() for _, layer in script.convolutions(pruned) if layer.groups == 1])
    assert float((weights == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    module, saved = script.without_channels(network.module, 0.5)
    assert 0 < saved < 0.5
    block = module.downsample.down[3].conv[1][2]
    assert int((block[0].weight.flatten(1) == 0).all(1).sum()) == block[0].out_channels // 2
    same, nothing = script.without_channels(network.module, 0.0)
    assert nothing == 0
    x = torch.rand(1, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(same(x)[0], script.separate(network.module)(x)[0])
