"""Nuclei as boxes in layers: one found, one split, two merged, one missed, one made up."""

from __future__ import annotations

import time

import numpy as np

from napari_aprcnn._napari.evaluate_model import EvaluateModel
from napari_aprcnn._napari.evaluate_settings import EvaluateSettings

SHAPE = (12, 40, 40)
SPACING = (2.0, 0.5, 0.5)


def boxes(*edges, shape=SHAPE):
    labels = np.zeros(shape, np.uint16)
    for number, (y0, y1, x0, x1) in enumerate(edges, 1):
        labels[2:8, y0:y1, x0:x1] = number
    return labels


TRUTH = boxes((0, 10, 0, 10), (0, 10, 20, 30), (20, 25, 0, 10), (25, 30, 0, 10), (20, 30, 20, 30))
PREDICTED = boxes((0, 10, 0, 10), (0, 5, 20, 30), (5, 10, 20, 30), (20, 30, 0, 10), (35, 38, 35, 38))
CENTRES = [[4, 5, 5], [4, 5, 25], [4, 22, 5], [4, 27, 5], [4, 25, 25]]


def add_layers(viewer, *, scale=SPACING):
    """A prediction above a truth."""
    truth = viewer.add_labels(TRUTH.copy(), name="truth", scale=scale)
    return viewer.add_labels(PREDICTED.copy(), name="nuclei", scale=scale), truth


def make(viewer, *, launch=lambda f: f(), **changes):
    """A model whose thread is the test's own; what it tells is in `told`."""
    model = EvaluateModel(viewer, launch=launch, settings=EvaluateSettings(**{"iou": 0.6, **changes}))
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence)))
    return model


def finish(model, timeout=30):
    until = time.time() + timeout
    while model.pending:
        assert time.time() < until
        model.poll()
        time.sleep(0.005)
