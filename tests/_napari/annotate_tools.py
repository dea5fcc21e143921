"""The model of the Annotate dock on an image, and what a user does in it."""

from __future__ import annotations

import numpy as np

from napari_aprcnn._napari.annotate_model import AnnotateModel
from napari_aprcnn._napari.annotate_settings import AnnotateSettings
from napari_aprcnn.evaluate.annotations import AnnotationSession


def make(viewer, tmp_path, **changes):
    values = {"annotator": "Ann", "folder": str(tmp_path / "a"), "n_slices": 4, "method": "even", "min_distance": 1}
    model = AnnotateModel(viewer, launch=lambda run: run(), settings=AnnotateSettings(**{**values, **changes}))
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence)))
    return model


def begin(viewer, tmp_path, shape=(20, 32, 24), **changes):
    viewer.add_image(
        np.zeros(shape, np.uint8), name="organoid", scale=(2, 0.5, 0.5)[-len(shape) :] if len(shape) < 4 else None
    )
    model = make(viewer, tmp_path, **changes)
    assert model.begin(), model.told
    model.poll()
    return model


def click(model, y, x):
    """What napari does when the user clicks in the points layer."""
    layer = model.editing.points.layer
    world = np.array(model._viewer.dims.point)
    world[-2:] = np.array([y, x]) * np.array(layer.scale)[-2:]
    layer.add(layer.world_to_data(world))


def paint(model, y, x, label):
    layer = model.editing.labels.layer
    layer.selected_label = label
    with layer.block_history():
        layer.paint((0,) * (layer.ndim - 2) + (y, x), label)


def saved(model):
    return AnnotationSession.open(model.session.folder, annotator=model.settings.annotator)
