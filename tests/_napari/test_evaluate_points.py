"""Tables of points, opened in the Evaluate dock, without Qt."""

from __future__ import annotations

import numpy as np
from evaluate_layers_tools import CENTRES, PREDICTED, SPACING, add_layers, finish, make


def evaluate(model):
    assert model.evaluate(), model.told
    finish(model)
    return model.evaluation


def test_a_table_of_points_with_columns_of_its_own(viewer, tmp_path):
    nuclei = viewer.add_labels(PREDICTED, name="nuclei", scale=SPACING, translate=(10, 20, 30), units=("um",) * 3)
    model = make(viewer)
    voxels, microns = tmp_path / "clicked.csv", tmp_path / "microns.csv"
    lines = [f"{z},{y},{x},{2 * z},{y / 2},{x / 2}" for z, y, x in CENTRES]
    voxels.write_text("\n".join(["slice,Row,Col,a,b,c", *lines]))
    assert model.open_points(voxels, "z=slice, y=Row,x=Col"), model.told
    assert model.truth.name == "clicked"
    np.testing.assert_allclose(model.truth.data_to_world(CENTRES[1]), nuclei.data_to_world(CENTRES[1]))
    first = evaluate(model).headline
    assert (first.true_positives, first.false_positives) == (3, 2)
    # The same in micrometres: the voxel size is that of the labels.
    assert model.open_points(voxels.rename(microns), "z_um=a,y_um=b,x_um=c"), model.told
    assert evaluate(model).headline == first


def test_tables_that_do_not_fit_are_told_and_change_nothing(viewer, tmp_path):
    table = tmp_path / "clicked.csv"
    table.write_text("Row,Col\n3,4\n")
    model = make(viewer)
    assert not model.open_points(table, "y=Row,x=Col")
    add_layers(viewer)
    before = model.truth
    for columns in ("", "y=Row,x=Col", "z=slice,y=Row,x=Col", "y,x"):
        assert not model.open_points(table, columns)
    assert not model.open_points(tmp_path / "nowhere.csv")
    said = [sentence for severity, sentence in model.told if severity == "error"]
    assert len(said) == 6
    for words, sentence in zip(
        ("choose the labels first", "column", "axes YX", "slice", "axis=column", "cannot be opened"), said, strict=True
    ):
        assert words in sentence, sentence
    assert model.truth is before
    assert [layer.name for layer in viewer.layers] == ["truth", "nuclei"]
