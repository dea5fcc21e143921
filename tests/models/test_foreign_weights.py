"""Weights of other networks: what is said of them."""

from __future__ import annotations

import pytest
import torch
from model_helpers import random_weights
from safetensors.torch import save_file

from napari_aprcnn.errors import WeightsError
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.models.checkpoints import sha256_of
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.models.zoo import load_model


def test_foreign_weights_name_what_differs_first(tmp_path):
    weights = random_weights("faster_v3").state_dict()
    del weights["output.0.weight"]
    weights["output.2.1.bias"] = torch.zeros(4)
    weights["extra"] = torch.zeros(2)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"nearest is faster_v3, but output\.0\.weight \(16,\) is missing; output\.2\.1\.bias has shape \(4,\), "
        r"expected \(3,\); extra \(2,\) is not expected",
    ):
        load_model(tmp_path / "a.safetensors", device="cpu")
    save_file({"linear.weight": torch.zeros(3, 3)}, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"not of a network of the family.*and \d+ more"):
        load_model(tmp_path / "b.safetensors", device="cpu")


def test_weights_of_another_network_for_volumes_name_what_differs(tmp_path):
    config = VolumeNetConfig(channels=2, depth=2, in_channels=2)
    card = ModelCard(name="m", architecture="unet", title="", data="", licence="", volume=config)
    other = VolumeNet(config.replace(head="stardist", rays=16)).state_dict()
    save_file(other, tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text(card.replace(sha256=sha256_of(tmp_path / "m.safetensors")).to_json())
    with pytest.raises(WeightsError, match=r"for volumes that the card describes .*head three_class") as told:
        load_model(tmp_path / "m.safetensors", device="cpu")
    assert "faster_v3" not in str(told.value)
