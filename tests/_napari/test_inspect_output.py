"""The Inspect dock without Qt: colours, and files that it writes."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest
import tifffile
from inspect_tools import scene, wait

from napari_aprcnn._napari.inspect_colours import make_colouring
from napari_aprcnn._napari.inspect_export import write_training_pair
from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.io.object_table import ObjectTable
from napari_aprcnn.train.volume_sources import read_volumes


# --- colours ---------------------------------------------------------------------------------------------------------
def test_colours_by_a_column_and_back(opened):
    model = opened()
    layer = model.layers.labels
    before = layer.colormap
    model.sheet.choose_column("intensity_mean")
    model.sheet.select([(None, 2), (None, 1)])
    model.set_colours(True)
    wait_for_colours(model)
    assert model.painter.colouring.ends == ("107", "407")
    assert layer.colormap is model.painter.colouring.colormap
    dark, light = layer.get_color(1), layer.get_color(4)
    assert light[:3].sum() > dark[:3].sum()
    assert model.sheet.selected == ((None, 2), (None, 1))  # other colours are no other selection
    model.sheet.set_filter("label != 4")
    wait_for_colours(model)
    assert layer.get_color(4)[3] < 0.5
    model.sheet.select([(None, 1)])
    model.edit("delete")
    wait_for_colours(model)
    assert model.painter.colouring.ends[0] == "207"
    model.set_colours(False)
    assert layer.colormap is before
    model.set_colours(True)
    wait_for_colours(model)
    model.close()
    assert layer.colormap is before


def wait_for_colours(model):
    end = time.monotonic() + 20
    while model.pending and time.monotonic() < end:
        time.sleep(0.02)
        model.poll()


def test_a_hundred_thousand_colours():
    n = 100_000
    rng = np.random.default_rng(0)
    values = rng.normal(size=n)
    values[5] = np.nan
    table = ObjectTable({"label": np.arange(1, n + 1), "size_um": values}, (9, 9), "YX")
    start = time.perf_counter()
    colouring = make_colouring(table, "size_um", np.dtype(np.uint32))
    assert time.perf_counter() - start < 15
    assert colouring.ends[0].startswith("≤ ")
    assert colouring.ends[1].endswith(" µm")
    plane = rng.integers(0, n, (256, 256)).astype(np.uint32)
    start = time.perf_counter()
    colouring.colormap._data_to_texture(plane)
    assert time.perf_counter() - start < 1
    assert colouring.colormap.map(np.array([6], np.uint32))[0, :3].tolist() == pytest.approx([0.6] * 3)


# --- files -----------------------------------------------------------------------------------------------------------
def test_the_table_is_saved_as_it_is_shown(opened, tmp_path):
    model = opened()
    model.sheet.sort("volume_um3", descending=True)
    model.sheet.set_filter("label < 4")
    assert model.save_table(tmp_path / "objects.csv")
    wait(model)
    with (tmp_path / "objects.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["3", "1", "2"]
    assert "objects.csv" in model.told[-1][1]
    assert model.save_table(tmp_path / "missing" / "objects.csv")
    wait(model)
    assert "does not exist" in model.told[-1][1]
    assert model.state == "ready"


def test_corrected_labels_become_training_data(opened, tmp_path):
    model = opened()
    for _ in range(2):
        assert model.save_training(tmp_path / "mine")
        wait(model)
    assert sorted(p.name for p in (tmp_path / "mine" / "images").iterdir()) == ["organoid.tif", "organoid_2.tif"]
    volumes = read_volumes([tmp_path / "mine"])
    np.testing.assert_array_equal(volumes[0].labels, model.layers.data)
    np.testing.assert_array_equal(volumes[0].image, scene()[1])
    with tifffile.TiffFile(tmp_path / "mine" / "images" / "organoid.tif") as file:
        assert file.imagej_metadata["spacing"] == 2.0
    model.layers.choose_image(None)
    wait(model)
    assert not model.save_training(tmp_path / "mine")
    assert "needs an image" in model.told[-1][1]


def test_training_data_of_a_series_and_of_nothing(tmp_path):
    labels, image = scene()
    written = write_training_pair(
        np.stack([image] * 3), np.stack([labels, labels * 0, labels]), tmp_path, name="a/b", axes="TZYX"
    )
    assert [p.name for p in written] == ["a_b_t000.tif", "a_b_t002.tif"]
    with pytest.raises(TrainingDataError, match="no object"):
        write_training_pair(image, labels * 0, tmp_path / "none", name="a", axes="ZYX")
    with pytest.raises(TrainingDataError, match="NaN"):
        write_training_pair(np.full(labels.shape, np.nan), labels, tmp_path / "none", name="a", axes="ZYX")
    assert not (tmp_path / "none").exists()
