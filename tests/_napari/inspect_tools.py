"""Labels to inspect, and a viewer model with them."""

from __future__ import annotations

import time

import numpy as np

from napari_aprcnn._napari.inspect_model import InspectModel

SCALE = (2.0, 0.5, 0.5)


def scene():
    """Four boxes, two of them touching; the image is brighter in those with larger ids."""
    labels = np.zeros((8, 30, 40), np.uint16)
    labels[2:6, 4:12, 4:12], labels[2:6, 4:12, 12:20], labels[1:7, 16:26, 24:36], labels[0:3, 20:24, 2:6] = 1, 2, 3, 4
    return labels, (labels * 100 + 7).astype(np.uint16)


def put(viewer, labels, image, **options):
    viewer.add_image(image, name="organoid", **options)
    return viewer.add_labels(labels, name="organoid nuclei", **options)


def wait(model):
    end = time.monotonic() + 20
    while model.pending and time.monotonic() < end:
        model.poll()


def open_model(viewer, models, labels=None, image=None, *, scale=SCALE, launch=lambda job: job(), **options):
    """The model of a viewer with labels and image, measured; its messages are in `told`."""
    if labels is None:
        labels, image = scene()
    put(viewer, labels, image, scale=scale, units=("um",) * len(scale), **options)
    model = InspectModel(viewer, launch=launch)
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence, error)))
    wait(model)
    models.append(model)
    return model


def labels_of(model, rows):
    return [model.sheet.key(row)[1] for row in rows]
