"""A Segment model on a viewer model, driven by hand."""

import threading
import time

from napari_fakes import fake_backend

from napari_aprcnn._napari.segment_model import SegmentModel


def in_place(job):
    job()


def in_thread(job):
    threading.Thread(target=job, daemon=True).start()


def make(viewer, segment=None, *, launch=in_place, **options):
    model = SegmentModel(viewer, launch=launch, backend=fake_backend(segment), **options)
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence, error)))
    settle(model)
    return model


def settle(model, *, timeout=10):
    until = time.time() + timeout
    while model.pending and time.time() < until:
        model.poll()
        time.sleep(0.002)
    assert not model.pending


def wait(model, condition, *, timeout=10):
    until = time.time() + timeout
    while not condition():
        assert time.time() < until, "waited in vain"
        model.poll()
        time.sleep(0.002)


def names(viewer):
    return [layer.name for layer in viewer.layers]
