"""Results of the Graph and Evaluate docks say that their layers were changed, also while they were worked on."""

from __future__ import annotations

import numpy as np
import pytest
from evaluate_layers_tools import add_layers
from evaluate_layers_tools import make as make_evaluate
from graph_tools import Later, boxes, built
from graph_tools import make as make_graph

from napari_aprcnn._napari.edit_watch import EditWatch


def paint(layer):
    layer.data_setitem((np.array([7]), np.array([0]), np.array([0])), 9 if layer.data[7, 0, 0] == 0 else 0)


def replace(layer):
    layer.data = np.zeros_like(layer.data)


def stretch(layer):
    layer.scale = (3, 1, 1)


@pytest.mark.parametrize("change", [paint, replace, stretch])
def test_changes_while_a_graph_is_built(viewer, change):
    layer, later = viewer.add_labels(boxes()), Later()
    model = make_graph(viewer, launch=later)
    assert model.build()
    later.run()
    change(layer)
    assert not model.stale  # there is no graph yet
    model.poll()
    assert model.stale
    assert "have changed" in model.summary
    model.build()
    later.run()
    model.poll()
    assert not model.stale
    change(layer) if change is not stretch else setattr(layer, "scale", (1, 1, 1))
    assert model.stale


def test_a_build_that_was_cancelled_watches_nothing_more(viewer):
    layer, later = viewer.add_labels(boxes()), Later()
    model = make_graph(viewer, launch=later)
    model.build()
    later.run()
    model.poll()
    listening = len(layer.events.paint.callbacks)
    model.build()
    model.cancel()
    later.run()
    model.poll()
    assert len(layer.events.paint.callbacks) == listening
    assert not model.stale
    paint(layer)
    assert model.stale
    model.close()
    assert len(layer.events.paint.callbacks) == listening - 1


@pytest.mark.parametrize("change", [paint, replace, stretch])
@pytest.mark.parametrize("which", [0, 1])
def test_changes_while_layers_are_evaluated(viewer, change, which):
    layers, later = add_layers(viewer), Later()
    model = make_evaluate(viewer, launch=later)
    assert model.evaluate()
    later.run()
    change(layers[which])
    assert not model.outdated
    model.poll()
    assert model.outdated
    assert model.comparison is not None


def test_another_evaluation_is_not_outdated(viewer):
    (prediction, _), later = add_layers(viewer), Later()
    model = make_evaluate(viewer, launch=later)
    for _ in range(2):
        assert model.evaluate()
        later.run()
        model.poll()
        assert not model.outdated
        paint(prediction)
        assert model.outdated
    listening = len(prediction.events.paint.callbacks)
    model.evaluate()
    model.cancel()
    later.run()
    model.poll()
    assert len(prediction.events.paint.callbacks) == listening
    model.close()
    assert len(prediction.events.paint.callbacks) == listening - 1


def test_a_layer_is_watched_once(viewer):
    layer, seen = viewer.add_labels(boxes()), []
    watch = EditWatch([layer, None, layer], lambda: seen.append(1))
    layer.events.data()
    assert watch.edited
    assert seen == [1]
    watch.close()
    layer.events.data()
    assert seen == [1]


def test_edits_of_the_inspect_dock_count(viewer, opened):
    inspect = opened()
    labels = inspect.layers.labels
    graph, evaluation = make_graph(viewer), make_evaluate(viewer)
    evaluation.choose(
        predictions=[labels], truth=viewer.add_labels(labels.data.copy(), name="truth", scale=labels.scale)
    )
    graph.choice.select_labels(labels)
    for step in (lambda: inspect.edit("delete", keys=[(None, 3)]), inspect.undo, inspect.redo):
        built(graph)
        evaluation.evaluate()
        evaluation.poll()
        assert (graph.stale, evaluation.outdated) == (False, False)
        assert step()
        assert (graph.stale, evaluation.outdated) == (True, True)
    graph.close()
    evaluation.close()
    assert inspect.undo()


def test_selecting_still_follows_the_graph(viewer):
    layer = viewer.add_labels(boxes())
    model = built(make_graph(viewer))
    layer.selected_label = 5
    assert model.selected == 1
