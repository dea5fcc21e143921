"""Ranges for products of 8 bits, measured on the images of a training."""

import numpy as np
import pytest

from napari_aprcnn._kernels import planes
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.train.data import LabelledImage, median_diameter_px, normalised_half
from napari_aprcnn.train.ranges import at_network_scale, int8_spans

from .conftest import disks


@pytest.fixture(scope="module")
def images():
    image, labels = disks()

    def one(name, labels):
        flows = np.zeros((2, *labels.shape), np.int8)
        diameter = median_diameter_px(labels) if labels.any() else 0.0
        return LabelledImage(
            name=name, kind="kind", source="set", image=normalised_half(image), labels=labels, flows=flows,
            diameter_px=diameter,
        )  # fmt: skip

    return [*(one(name, labels) for name in "abc"), one("empty", labels * 0)]


def test_images_come_as_large_as_the_network_wants_them(images):
    planes_of = list(at_network_scale(images, diameter_px=2 * images[0].diameter_px))
    assert len(planes_of) == 3
    wanted = [min(2 * n, 512) for n in images[0].image.shape]
    assert all(abs(n - m) <= 1 for n, m in zip(planes_of[0].shape, wanted, strict=True))
    assert planes_of[0].max() == pytest.approx(float(images[0].image.max()), rel=0.2)
    assert len(list(at_network_scale(images[:3] * 100, diameter_px=25.0))) <= 120


@pytest.mark.skipif(not planes.can_run(), reason="no compiled kernels")
def test_separable_networks_have_ranges(images):
    seen = list(at_network_scale(images, diameter_px=25.0))
    spans = int8_spans(CellposeFamily("faster_v3").eval(), seen, second_channel="asinh")
    assert {"e0.0.1", "last"} <= set(spans)
    assert all(low <= 0 < high or low < 0 <= high for low, high in spans.values())
    assert int8_spans(CellposeFamily("faster_v3").eval(), []) == {}
    assert int8_spans(CellposeFamily("fastcellpose").eval(), seen) == {}
    odd = int8_spans(CellposeFamily("faster_v3").eval(), [np.random.default_rng(0).random((17, 33), np.float32)])
    assert set(odd) == set(spans)
