"""The guide of the Segment dock: three steps, done one by one."""

from __future__ import annotations

from napari.layers import Image, Labels
from segment_tools import make, settle

from napari_aprcnn._napari.first_run import EVALUATE_DOCK, FirstRun
from napari_aprcnn._napari.settings import Settings, load_settings


def _states(guide: FirstRun) -> list[str]:
    return [step.state for step in guide.steps()]


def test_three_steps_from_nothing_to_a_score(viewer):
    opened: list[str] = []
    model = make(viewer)
    guide = FirstRun(viewer, model, open_dock=opened.append)
    told: list[list[str]] = []
    guide.changed.connect(lambda: told.append(_states(guide)))
    assert guide.visible
    assert _states(guide) == ["next", "later", "later"]
    guide.act("2D sample")
    assert [type(layer) for layer in viewer.layers] == [Image, Labels]
    assert not viewer.layers[1].visible
    assert viewer.layers[1].data.shape == viewer.layers[0].data.shape
    assert (viewer.layers[1].scale == viewer.layers[0].scale).all()
    assert model.images.layer is viewer.layers[0]
    assert _states(guide) == ["done", "next", "later"]
    guide.act("Segment")
    settle(model)
    assert _states(guide) == ["done", "done", "next"]
    guide.act("Evaluate")
    assert opened == [EVALUATE_DOCK]
    assert not guide.visible
    assert told[-1] == ["done", "done", "done"]
    assert not load_settings().guide


def test_a_volume_keeps_its_voxel_size(viewer):
    guide = FirstRun(viewer, make(viewer), open_dock=lambda name: None)
    guide.act("3D sample")
    assert viewer.layers[1].ndim == 3
    assert (viewer.layers[1].scale == viewer.layers[0].scale).all()
    assert viewer.layers[1].scale[0] < 0.5


def test_it_is_skipped_for_good(viewer):
    model = make(viewer)
    guide = FirstRun(viewer, model, open_dock=lambda name: None)
    guide.skip()
    assert not guide.visible
    again = make(viewer, settings=load_settings())
    assert not FirstRun(viewer, again, open_dock=lambda name: None).visible
    assert FirstRun(viewer, make(viewer, settings=Settings()), open_dock=lambda name: None).visible
