"""Models by name and by file, and every file that is none."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import card, random_weights
from safetensors.torch import save_file

from napari_aprcnn.errors import (
    DeviceError,
    ImageDtypeError,
    ImageError,
    ImageValueError,
    ModelNotFoundError,
    OutputError,
    WeightsError,
)
from napari_aprcnn.models import zoo
from napari_aprcnn.models.checkpoints import find_architecture
from napari_aprcnn.models.family import FAMILY, CellposeFamily
from napari_aprcnn.models.zoo import list_models, load_model, save_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty zoo."""
    place = tmp_path / "weights"
    place.mkdir()
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", place)
    return place


@pytest.fixture
def v3(folder):
    """A zoo with one model in it."""
    path = folder / "fastercellpose-v3.safetensors"
    save_model(random_weights("faster_v3"), path, card("fastercellpose-v3", second_channel="asinh"))
    return path


# --- listing ------------------------------------------------------------------------------------------------------


def test_the_default_comes_first_and_only_models_with_weights_are_listed(folder):
    network = random_weights("faster_v3")
    for name in ("mine", "fastercellpose-v1", "fastcellpose", "fastercellpose-v3"):
        save_model(network, folder / f"{name}.safetensors", card(name))
    (folder / "fastercellpose-v2.json").write_text(card("fastercellpose-v2").to_json())
    assert [c.name for c in list_models()] == ["fastercellpose-v3", "fastcellpose", "fastercellpose-v1", "mine"]


def test_a_broken_card_is_left_out_and_logged(v3, caplog):
    v3.with_suffix(".json").write_text("{")
    assert list_models() == []
    assert "fastercellpose-v3 is left out" in caplog.text


def test_listing_does_not_import_torch():
    code = (
        "import sys; from napari_aprcnn.models.zoo import list_models; list_models(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shipped_models_load_and_match_their_cards():
    for shipped in list_models():
        network = load_model(shipped.name, device="cpu", threads=1)
        assert network.card == shipped
        if shipped.volume is None:
            assert network.predict(np.zeros((1, 16, 16), np.float32)).shape == (1, 3, 16, 16)
        else:
            out = network.predict(np.zeros((9, 16, 16), np.uint16))
            cell = 1 << out.stage
            assert out.dense.shape == (-(-9 // cell), 16 // cell, 16 // cell, shipped.volume.out_channels)


# --- loading ------------------------------------------------------------------------------------------------------


def test_a_saved_model_gives_what_it_gave(v3):
    network = load_model("fastercellpose-v3", device="cpu", threads=1)
    assert network.name == "fastercellpose-v3"
    assert network.device == torch.device("cpu")
    assert network.device_words == "CPU, 1 thread"
    assert network.sha256 == network.card.sha256
    assert len(network.sha256) == 64
    planes = np.random.default_rng(0).random((3, 37, 50), np.float32)
    got = network.predict(planes)
    assert got.shape == (3, 3, 37, 50)
    assert got.dtype == np.float32
    x = torch.zeros(3, 2, 48, 64)
    x[:, 0, :37, :50] = torch.from_numpy(planes)
    x[:, 1] = torch.asinh(20 * x[:, 0]) / np.arcsinh(20.0)
    with torch.no_grad():
        expected = random_weights("faster_v3")(x)[0][:, :, :37, :50].numpy()
    assert np.abs(got - expected).max() < 1e-5 * expected.std()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 33), (1, 600, 600)])
def test_any_size(v3, shape):
    network = load_model(v3, device="cpu", threads=1)
    planes = np.random.default_rng(0).random(shape, np.float32)
    got = network.predict(planes)
    assert got.shape == (shape[0], 3, *shape[1:])
    assert np.isfinite(got).all()
    assert np.array_equal(got[-1], network.predict(torch.from_numpy(planes[-1:]))[0])


def test_bfloat16_is_near(v3):
    planes = np.random.default_rng(0).random((1, 64, 64), np.float32)
    exact = load_model(v3, device="cpu").predict(planes)
    half = load_model(v3, device="cpu", precision="bfloat16").predict(planes)
    assert half.dtype == np.float32
    assert 0 < np.sqrt(np.mean((half - exact) ** 2)) < 0.03 * exact.std()


def test_threads_of_the_caller_are_left_as_they_were(v3):
    before = torch.get_num_threads()
    load_model(v3, device="cpu", threads=before + 1).predict(np.zeros((1, 8, 8), np.float32))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("planes", "error"),
    [
        (np.zeros((4, 4), np.float32), ImageError),
        (np.zeros((0, 4, 4), np.float32), ImageError),
        (np.zeros((1, 0, 4), np.float32), ImageError),
        (np.full((1, 4, 4), np.nan, np.float32), ImageValueError),
        (np.full((1, 4, 4), np.inf, np.float32), ImageValueError),
        (np.zeros((1, 4, 4), np.complex64), ImageDtypeError),
        (np.full((1, 4, 4), "a", object), ImageDtypeError),
        (torch.zeros(1, 4, 4, dtype=torch.complex64), ImageDtypeError),
    ],
)
def test_planes_that_cannot_be_run(v3, planes, error):
    with pytest.raises(error):
        load_model(v3, device="cpu").predict(planes)


@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.bool_, ">f4"])
def test_other_real_dtypes_are_taken(v3, dtype):
    planes = (np.random.default_rng(0).random((1, 20, 20)) > 0.5).astype(dtype)
    network = load_model(v3, device="cpu")
    assert np.array_equal(network.predict(planes), network.predict(planes.astype(np.float32)))


# --- official files -----------------------------------------------------------------------------------------------


def test_an_official_checkpoint(tmp_path):
    name = "cyto9"  # as official files are called: no suffix
    network = random_weights("cellpose")
    network.diam_mean.data.fill_(17.0)
    network.diam_labels.data.fill_(21.5)
    torch.save(network.state_dict(), tmp_path / name)
    loaded = load_model(tmp_path / name, device="cpu", threads=1)
    assert loaded.card.architecture == "cellpose"
    assert loaded.card.diameter_px == 17.0
    assert loaded.card.second_channel == "zero"
    assert float(loaded.module.diam_labels.detach()) == 21.5
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[key], value)


def test_checkpoints_in_wrappers_half_precision_and_without_diameters(tmp_path):
    weights = {
        f"module.{key}": value.half() if value.is_floating_point() else value
        for key, value in random_weights("faster_v3").state_dict().items()
        if not key.startswith("diam")
    }
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "a.pt")
    loaded = load_model(tmp_path / "a.pt", device="cpu")
    assert loaded.card.architecture == "faster_v3"
    assert loaded.card.diameter_px == 30.0
    assert all(p.dtype == torch.float32 for p in loaded.module.parameters())


def test_the_authors_fastcellpose_runs_with_its_style_off(tmp_path):
    torch.save(random_weights("fastcellpose").state_dict(), tmp_path / "glomeruli.pth")
    assert load_model(tmp_path / "glomeruli.pth", device="cpu").module.config.style is False


def test_a_safetensors_file_without_a_card(tmp_path, v3):
    bare = tmp_path / "bare.safetensors"
    save_file(random_weights("fastcellpose").state_dict(), bare)
    loaded = load_model(bare, device="cpu")
    assert loaded.card.architecture == "fastcellpose"
    assert loaded.module.config.style is True
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(v3.read_bytes())
    assert load_model(moved, device="cpu").card.second_channel == "asinh", "the card in the header was not read"


@pytest.mark.parametrize("name", FAMILY)
def test_each_architecture_is_recognised(name):
    assert find_architecture(CellposeFamily(name).state_dict()) == name


# --- what is not there or not right -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fastercelpose-v3", "FasterCellpose-V3", "fastercellpose_v3"])
def test_a_missing_model_names_near_ones(v3, name):
    with pytest.raises(ModelNotFoundError, match=r"did you mean fastercellpose-v3\?"):
        load_model(name)


def test_a_missing_model_names_those_that_exist(v3):
    with pytest.raises(ModelNotFoundError, match="the models here are fastercellpose-v3"):
        load_model("zzz")


def test_an_empty_zoo_says_so(folder):
    with pytest.raises(ModelNotFoundError, match="no models are installed"):
        load_model("fastercellpose-v3")


@pytest.mark.parametrize("name", ["", "a" * 5000, "null\0byte"])
def test_names_that_are_no_path(folder, name):
    with pytest.raises(ModelNotFoundError):
        load_model(name)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no weights file"):
        load_model(tmp_path / "none.pth")
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        load_model(str(tmp_path))


def test_a_missing_card(v3):
    v3.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="is missing"):
        load_model("fastercellpose-v3")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3}', "\x00", "[" * 100_000])
def test_a_card_that_is_none(v3, text):
    v3.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match="model card"):
        load_model("fastercellpose-v3")


def test_half_of_the_bytes(tmp_path):
    network = random_weights("faster_v3")
    save_model(network, tmp_path / "whole.safetensors", card("a"))
    save_model(network, tmp_path / "half.safetensors", card("a"), half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load_model(tmp_path / "half.safetensors", device="cpu")
    for key, value in loaded.module.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.allclose(value, network.state_dict()[key], rtol=6e-4, atol=1e-7)


def test_a_card_of_other_weights(v3):
    other = save_model(random_weights("faster_v3", seed=1), v3.with_name("b.safetensors"), card("b"))
    values = json.loads(v3.with_suffix(".json").read_text())
    v3.with_suffix(".json").write_text(json.dumps({**values, "sha256": other.sha256}))
    with pytest.raises(WeightsError, match=rf"{other.sha256[:12]}.*restore the pair"):
        load_model("fastercellpose-v3")


@pytest.mark.parametrize("keep", [0, 4, 9, 100, 5_000, -1])
def test_a_truncated_safetensors_file(tmp_path, v3, keep):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(v3.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        load_model(path, device="cpu")


@pytest.mark.parametrize("keep", [0, 3, 2_000, -100])
def test_a_truncated_torch_file(tmp_path, keep):
    whole = tmp_path / "whole.pth"
    torch.save(random_weights("faster_v3").state_dict(), whole)
    path = tmp_path / "cut.pth"
    path.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"cut\.pth"):
        load_model(path, device="cpu")


class Evil:
    """Unpickling it writes a file."""

    def __reduce__(self):
        return Path.write_text, (Path("evil_was_run"), "x")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, "zipped.pth")
    for name in ("plain.pth", "zipped.pth"):
        with pytest.raises(WeightsError, match="weights only"):
            load_model(tmp_path / name, device="cpu")
    assert not Path("evil_was_run").exists()


def test_files_that_are_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("data.txt", "hello")
    (tmp_path / "b.pth").write_bytes(b"II*\0 an image, perhaps")
    torch.save([1, 2], tmp_path / "c.pth")
    torch.save({}, tmp_path / "d.pth")
    torch.save({"x": "text"}, tmp_path / "e.pth")
    torch.save({"x": torch.zeros(3, dtype=torch.int32)}, tmp_path / "f.pth")
    torch.save({"x": torch.zeros(3).to_sparse()}, tmp_path / "g.pth")
    for name in "abcdefg":
        with pytest.raises(WeightsError, match=rf"{name}\.pth"):
            load_model(tmp_path / f"{name}.pth", device="cpu")


def test_a_header_that_lies_about_the_architecture(tmp_path):
    weights = random_weights("faster_v3").state_dict()
    save_file(weights, tmp_path / "a.safetensors", metadata={"architecture": "fastcellpose"})
    with pytest.raises(WeightsError, match="expected fastcellpose, but"):
        load_model(tmp_path / "a.safetensors", device="cpu")
    save_file(weights, tmp_path / "b.safetensors", metadata={"architecture": "resnet"})
    with pytest.raises(WeightsError, match="'resnet', expected one of cellpose"):
        load_model(tmp_path / "b.safetensors", device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    network = random_weights("faster_v3")
    network.output[0].weight.data[0] = value
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"output\.0\.weight holds NaN or infinite"):
        load_model(tmp_path / "a.pth", device="cpu")
    with pytest.raises(WeightsError, match="NaN"):
        save_model(network, tmp_path / "b.safetensors", card("b"))
    assert not (tmp_path / "b.safetensors").exists()


def test_an_absurd_diameter(tmp_path):
    network = random_weights("faster_v3")
    network.diam_mean.data.fill_(-3)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="diam_mean is -3"):
        load_model(tmp_path / "a.pth", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(v3):
    with pytest.raises(DeviceError, match="choose auto or cpu"):
        load_model(v3, device="cuda")


# --- saving -------------------------------------------------------------------------------------------------------


def test_saving_over_a_file_that_cannot_be_replaced_leaves_no_rubbish(tmp_path):
    target = tmp_path / "a.safetensors"
    (target / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot write"):
        save_model(random_weights("faster_v3"), target, card("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_saving_under_a_wrong_card_or_suffix(tmp_path):
    with pytest.raises(WeightsError, match="expected faster_v2"):
        save_model(random_weights("faster_v3"), tmp_path / "a.safetensors", card("a", "faster_v2"))
    with pytest.raises(WeightsError, match=r"ends in \.safetensors"):
        save_model(random_weights("faster_v3"), tmp_path / "a.pth", card("a"))
    assert list(tmp_path.iterdir()) == []


def test_saving_twice_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        save_model(random_weights("faster_v3"), tmp_path / name / "x.safetensors", card("x"))
    assert (tmp_path / "a/x.safetensors").read_bytes() == (tmp_path / "b/x.safetensors").read_bytes()
