"""What a training starts from."""

from __future__ import annotations

import pytest
import torch

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train.starts import first_state


def test_nothing_given_means_random_weights():
    assert first_state(None, "faster_v3") is None


def test_a_shipped_network_grows_into_the_one_that_is_trained():
    small = load_model("fastercellpose-v1", device="cpu").module.eval()
    teacher = CellposeFamily("cellpose").eval()
    teacher.load_state_dict(first_state("fastercellpose-v1", "cellpose", seed=5))
    x = torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        expected, got = small(x)[0], teacher(x)[0]
    assert (got - expected).abs().max() <= 1e-4 * expected.std()
    other = first_state("fastercellpose-v1", "cellpose", seed=6)
    assert not torch.equal(other["output.2.weight"], teacher.state_dict()["output.2.weight"])


def test_networks_for_volumes_and_strangers_are_refused():
    with pytest.raises(ConfigError, match="network for volumes"):
        first_state("apr-unet-nuclei-3d", "faster_v3")
    with pytest.raises(ConfigError, match="share"):
        first_state("fastcellpose", "faster_v2")
