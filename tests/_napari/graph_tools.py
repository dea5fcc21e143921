"""Labels and models for the tests of the Graph dock."""

from __future__ import annotations

import numpy as np

from napari_aprcnn._napari.graph_model import GraphModel
from napari_aprcnn._napari.graph_settings import GraphSettings


def boxes():
    """Four nuclei: a row of three that touch, and one alone; labels 3, 5, 7, 20."""
    labels = np.zeros((8, 14, 20), np.uint16)
    for number, corner in ((3, 1), (5, 5), (7, 9)):
        labels[2:5, 2:6, corner : corner + 4] = number
    labels[2:5, 9:12, 14:18] = 20
    return labels


def shell(count=60, radius=20.0):
    """A hollow organoid of little balls."""
    index = np.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - height**2)
    centres = 28 + radius * np.stack([height, across * np.sin(angle), across * np.cos(angle)], axis=1)
    grid = np.stack(np.meshgrid(*[np.arange(56.0)] * 3, indexing="ij"), axis=-1)
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(centres).query(grid)
    return np.where(distance < 5.0, nearest + 1, 0).astype(np.uint16)


class Later:
    """Runs what is launched when it is told to."""

    def __init__(self):
        self.waiting = []

    def __call__(self, function):
        self.waiting.append(function)

    def run(self):
        for function in self.waiting:
            function()
        self.waiting.clear()


def make(viewer, *, launch=None, **settings):
    """A model whose work is done at once, and which keeps what it told."""
    model = GraphModel(viewer, launch=launch or (lambda function: function()), settings=GraphSettings(**settings))
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence, error)))
    return model


def built(model):
    """Build, and take the result."""
    assert model.build()
    model.poll()
    return model
