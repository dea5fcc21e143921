"""What Annotate takes from the chosen image, how many slices fit, and whose layers it replaces."""

from __future__ import annotations

import numpy as np
import pytest
from annotate_tools import begin, click, make
from graph_tools import Later

from napari_aprcnn._napari.annotate_plan import room
from napari_aprcnn._napari.annotate_settings import AnnotateSettings
from napari_aprcnn.evaluate.slice_choice import choose_slices

IMAGE = np.zeros((20, 32, 24), np.uint8)


def test_the_voxel_size_is_that_of_the_image_whose_slices_were_looked_at(viewer, tmp_path):
    one = viewer.add_image(IMAGE, name="one", scale=(2, 0.5, 0.5), units=("um",) * 3)
    other = viewer.add_image(IMAGE, name="other", scale=(9, 0.1, 0.1), units=("um",) * 3)
    model = make(viewer, tmp_path, method="density")
    later = model._launch = Later()
    model.images.select(one)
    assert model.begin()
    model.images.select(other)
    later.run()
    model.poll()
    assert model.session.info.image_name == "one"
    assert model.session.info.spacing_um == (2.0, 0.5, 0.5)


def test_layers_of_the_user_are_not_replaced_by_results(viewer, tmp_path):
    model = begin(viewer, tmp_path, shape=(20, 32, 24))
    own = viewer.add_points([[1, 2, 3]], name="organoid annotated points")
    truth = {"aprcnn": {"kind": "annotation truth", "folder": "another", "annotator": "Ann"}}
    foreign = viewer.add_points([[1, 2, 3]], name="organoid annotated points", metadata=truth)
    for _ in range(3):
        click(model, 5, 6)
        model.done()
        assert model.evaluate()
        model.poll()
    assert own in viewer.layers
    assert foreign in viewer.layers
    results = [layer for layer in viewer.layers if "annotated" in layer.name and layer not in (own, foreign)]
    assert len(results) == 1
    assert len(results[0].data) == 3
    assert f"{results[0].name!r}" in model.told[-1][1]


def test_a_result_that_was_renamed_stays(viewer, tmp_path):
    model = begin(viewer, tmp_path)
    model.done()
    model.evaluate()
    model.poll()
    viewer.layers["organoid annotated points"].name = "yesterday"
    model.evaluate()
    model.poll()
    assert {"yesterday", "organoid annotated points"} <= {layer.name for layer in viewer.layers}


def test_as_many_slices_as_fit_are_chosen_and_told(viewer, tmp_path):
    viewer.add_image(IMAGE, name="organoid")
    n, distance = AnnotateSettings().n_slices, AnnotateSettings().min_distance
    model = make(viewer, tmp_path, method="random", n_slices=n, min_distance=distance)
    assert model.plan_words.startswith("7 of 20 slices at random, at least 3 apart; 20 do not fit. ")
    assert model.begin()
    assert len(model.session.slices) == 7
    assert model.told == [("info", "7 slices are chosen: 20 do not fit at a distance of 3")]
    assert not model.choose_more()
    assert "do not fit" in model.told[-1][1]
    model.set(min_distance=1)
    assert model.choose_more()
    assert len(model.session.slices) == 20


@pytest.mark.parametrize("sizes", [(20,), (3, 7), (1,), (2, 1)])
@pytest.mark.parametrize("distance", [1, 3, 50])
@pytest.mark.parametrize("taken", [False, True])
def test_room_is_what_can_be_chosen(sizes, distance, taken):
    there = [tuple(n // 2 for n in sizes)] if taken else []
    n = room(sizes, distance, taken=there)
    for asked in (n, n + 1):
        try:
            fits = len(choose_slices(asked, shape=sizes, min_distance=distance, taken=there)) == asked
        except ValueError:
            fits = False
        assert fits == (0 < asked <= n)
