"""The planes of the orthogonal views without Qt: what they show and where, and what they read."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from inspect_tools import scene

from napari_aprcnn._napari.inspect_ortho import OrthoModel, arrange


def test_planes_follow_the_sliders_and_move_them(viewer, opened):
    model = opened()
    ortho = OrthoModel(viewer, model, lambda job: job())
    viewer.dims.set_point(0, 6.0)
    assert ortho.cursor[0] == 3
    ortho.move({1: 20, 2: 30})
    assert ortho.cursor == (3, 20, 30)
    assert {name: p.shape for name, p in ortho.pictures.items()} == {
        "xy": (30, 40, 3), "zy": (30, 8, 3), "xz": (8, 40, 3),
    }  # fmt: skip
    assert "object 3  intensity 307" in ortho.words
    assert "(6, 10, 15 µm)" in ortho.words
    ortho.move({0: 99})
    assert ortho.cursor[0] == 7
    assert viewer.dims.point[0] == pytest.approx(14.0)
    ortho.move({0: 4})
    ortho.pick()
    assert model.sheet.selected == ((None, 3),)
    assert (ortho.pictures["zy"][20, 1] == 255).all()  # the outline of the selected object
    ortho.look_at(np.array([2.2, 5.0, 6.0]))
    assert ortho.cursor == (2, 5, 6)
    model.layers.labels.visible = False
    assert (ortho.pictures["xy"][..., 0] == ortho.pictures["xy"][..., 1]).all()
    ortho.close()
    viewer.dims.set_point(0, 0.0)
    assert ortho.cursor == (2, 5, 6)


def test_only_three_planes_of_lazy_arrays_are_read(viewer, opened):
    labels, image = scene()
    read = []

    class Counting:
        shape, dtype, ndim = image.shape, image.dtype, image.ndim

        def __getitem__(self, where):
            read.append(image[where].size)
            return image[where]

    lazy = da.from_array(Counting(), chunks=(1, 10, 10), meta=np.empty((0, 0, 0), image.dtype))
    model = opened(labels, lazy)
    ortho = OrthoModel(viewer, model, lambda job: job())
    assert ortho.pending
    read.clear()
    while ortho.pending:
        ortho.poll()
    assert sum(read) <= 30 * 40 + 8 * 30 * 10 + 8 * 40 * 10  # chunks of one plane, one column and one row of chunks
    assert set(ortho.pictures) == {"xy", "zy", "xz"}
    ortho.close()


def test_planes_of_a_plane_say_why_not(viewer, opened):
    labels, image = scene()
    model = opened(labels[3], image[3], scale=(0.5, 0.5))
    ortho = OrthoModel(viewer, model, lambda job: job())
    assert "need a volume" in ortho.problem
    assert ortho.panels(300, 300) == []
    ortho.move({0: 1})
    ortho.close()


@pytest.mark.parametrize("size", [(300, 300), (900, 200), (200, 900)])
def test_panels_have_the_true_proportions(size):
    shape, spacing = (20, 100, 150), (3.0, 0.5, 0.5)
    for zoom in (1.0, 4.0):
        panels = {p.name: p for p in arrange(shape, spacing, size, zoom=zoom, cursor=(10, 40, 60))}
        xy, zy, xz = panels["xy"], panels["zy"], panels["xz"]
        assert xy.width / xy.height == pytest.approx(75 / 50)
        assert zy.width / zy.height == pytest.approx(60 / 50)
        assert xz.height == pytest.approx(zy.width)
        for p in panels.values():
            assert p.left + p.width <= size[0] + 1e-6
            assert p.top + p.height <= size[1] + 1e-6
            right, down = p.pixel((10, 40, 60))
            assert p.holds(right, down)
            assert set(p.voxel(right, down).items()) < {(0, 10), (1, 40), (2, 60)}
