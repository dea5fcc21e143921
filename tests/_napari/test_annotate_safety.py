"""The Annotate dock without Qt: huge images, files that cannot be written, layers that go, settings."""

from __future__ import annotations

import threading
import time

import dask.array as da
import numpy as np
from annotate_tools import begin, click, make, paint, saved
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy

from napari_aprcnn._napari.annotate_results import centres
from napari_aprcnn._napari.annotate_saver import Saver
from napari_aprcnn._napari.annotate_settings import AnnotateSettings, annotate_settings_path, load_annotate_settings
from napari_aprcnn.errors import OutputError


def test_a_huge_lazy_image_is_never_read(viewer, tmp_path):
    """2000 x 4096 x 4096: nothing is computed but what is shown, and painting takes one slice of memory."""
    read = []

    def block(block_id):
        read.append(block_id[0])
        return np.zeros((1, 4096, 4096), np.uint16)

    image = da.map_blocks(block, chunks=((1,) * 2000, 4096, 4096), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    viewer.add_image(image, name="brain", contrast_limits=(0, 1))
    for mode in ("points", "labels"):
        model = make(viewer, tmp_path, mode=mode, method="random", n_slices=20)
        read.clear()
        start = time.perf_counter()
        assert model.begin()
        assert time.perf_counter() - start < 3
        if mode == "labels":
            assert model.editing.labels.layer.data.nbytes == 2 * 4096**2
            paint(model, 2000, 2000, 1)
            assert [p.name[:7] for p in (model.session.folder / "labels_ann").iterdir()] == ["slice_z"]
        assert set(read) <= {*(z for (z,) in model.session.slices), 1000}
        assert len(read) <= 4
        model.leave()


def test_what_cannot_be_written_is_told_and_kept(viewer, tmp_path, monkeypatch):
    model = begin(viewer, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            "napari_aprcnn.evaluate.annotations.write_points",
            lambda *_a, **_k: (_ for _ in ()).throw(OutputError("cannot write: the disk is full")),
        )
        click(model, 5, 6)
        model.poll()
    assert model.told[-1] == ("error", "Cannot write: the disk is full")
    assert model.saved_words.startswith("NOT saved")
    model.next()  # any step tries again
    model.poll()
    assert saved(model).points_on((2,)).tolist() == [[5, 6]]
    assert model.saved_words.startswith("Saved in")


def test_writing_in_a_thread_keeps_the_newest():
    written, gate = [], threading.Event()
    threads = []

    def launch(run):
        threads.append(threading.Thread(target=run))
        threads[-1].start()

    saver = Saver(launch)
    saver.put("a", lambda: gate.wait(5))
    for i in range(50):
        saver.put("points", lambda i=i: written.append(i))
    assert saver.busy
    gate.set()
    saver.flush()
    threads[0].join(5)
    assert written[-1] == 49
    assert len(written) <= 2
    assert not saver.busy


def test_layers_that_go_and_a_closed_viewer(tmp_path):
    viewer = ViewerModel()
    model = begin(viewer, tmp_path)
    click(model, 5, 6)
    viewer.layers.remove(model.editing.points.layer)
    assert model.state == "ready"
    assert "they are saved" in model.told[-1][1]
    assert model.go_on()
    assert len(model.editing.points.layer.data) == 1
    viewer.layers.remove("organoid")
    assert model.state == "ready"
    assert len(viewer.layers) == 0
    assert model.problem.startswith("Open an image")
    assert not model.go_on()
    model.close()
    model.close()


def test_keys_belong_to_the_layer_alone(viewer, tmp_path):
    from napari.utils.key_bindings import KeymapHandler

    model = begin(viewer, tmp_path)
    handler = KeymapHandler()
    handler.keymap_providers = [model.editing.points.layer]
    for key, here in (("N", (7,)), ("D", (12,)), ("P", (7,))):
        assert handler.press_key(key)
        assert model.editing.here == here
    click(model, 1, 1)
    assert handler.press_key("Control-Z")
    assert len(model.editing.points.layer.data) == 0
    assert "N" not in {str(key) for key in type(model.editing.points.layer).class_keymap}
    assert not viewer.keymap


def test_settings_are_kept_and_damaged_ones_are_not_in_the_way(viewer, tmp_path):
    model = make(viewer, tmp_path)
    assert model.set(annotator="Bob", n_slices=7)
    assert load_annotate_settings().n_slices == 7
    assert not model.set(n_slices=0)
    assert model.settings.n_slices == 7
    annotate_settings_path().write_text("{")
    assert load_annotate_settings().n_slices == AnnotateSettings().n_slices
    model.set(annotator="")
    viewer.add_image(np.zeros((4, 8, 8)))
    assert "name or initials" in model.problem


def test_it_works_with_what_napari_gives_to_plugins(tmp_path):
    model = begin(ViewerModel(), tmp_path)
    model.close()
    viewer = ViewerModel()
    viewer.add_image(np.zeros((20, 32, 24), np.uint8), name="organoid")
    proxied = make(PublicOnlyProxy(viewer), tmp_path)
    assert proxied.begin()
    proxied.next()
    assert proxied.editing.here == (7,)
    proxied.leave()


def test_centres_lie_in_their_objects():
    bent = np.zeros((9, 9), int)
    bent[0, :], bent[:, 0], bent[:, 8] = 3, 3, 3
    ((y, x),) = centres(bent)
    assert bent[int(y), int(x)] == 3
    assert centres(np.zeros((3, 3), int)).shape == (0, 2)
