"""The flows head of 3D networks: labels to flows to labels, and where outlines lie."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_stardist import read

from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.config import FlowConfig
from napari_aprcnn.errors import CancelledError, ImageError, ImageValueError
from napari_aprcnn.evaluate.matching import evaluate
from napari_aprcnn.segment.flows import flows_from_masks
from napari_aprcnn.segment.volume_flows import VolumeFlowSettings, labels_from_volume_flows, move_outlines


def head(labels):
    """What a perfect network puts out; the logit falls with the distance to the object."""
    from scipy.ndimage import distance_transform_edt

    outside, inside = distance_transform_edt(labels == 0), distance_transform_edt(labels > 0)
    return np.concatenate([5 * flows_from_masks(labels), (inside - outside)[None]]).astype(np.float32)


LABELS = ellipsoids((24, 56, 60), 10, diameter=14, seed=4)


def test_labels_come_back():
    found = labels_from_volume_flows(head(LABELS), VolumeFlowSettings(smallest_share=0))
    large = np.flatnonzero(np.bincount(LABELS.ravel()) >= 100)[1:]
    assert evaluate(found, np.where(np.isin(LABELS, large), LABELS, 0), thresholds=[0.9])[0].false_negatives == 0


def test_the_probability_threshold_moves_outlines():
    sizes = [
        (
            labels_from_volume_flows(head(LABELS), VolumeFlowSettings(flows=FlowConfig(probability_threshold=t))) > 0
        ).sum()
        for t in (-0.5, 1.5, 2.5)
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_outlines_grow_and_shrink_without_merging():
    labels = np.zeros((12, 20, 24), np.uint32)
    labels[3:9, 5:15, 4:12], labels[3:9, 5:15, 12:20] = 1, 2
    grown, shrunk = move_outlines(labels, 2), move_outlines(labels, -1)
    assert_array_equal(grown[labels > 0], labels[labels > 0])
    assert grown.max() == 2
    assert (grown[:, :, 12][grown[:, :, 12] > 0] == 2).all()
    assert (shrunk == 1).sum() == 4 * 8 * 6
    assert_array_equal(move_outlines(labels, 0), labels)
    along_z = move_outlines(labels, (1, 0, -1))
    assert (along_z == 1).sum() == 8 * 10 * 6
    settings = VolumeFlowSettings(outline_vox=1, smallest_share=0)
    plain = labels_from_volume_flows(head(LABELS), settings.replace(outline_vox=0))
    assert_array_equal(labels_from_volume_flows(head(LABELS), settings), move_outlines(plain, 1))


def test_debris_is_dropped_by_the_median_volume():
    labels = np.zeros((12, 16, 80), np.uint8)
    for i in range(5):
        labels[2:10, 4:12, 2 + 12 * i : 10 + 12 * i] = i + 1
    labels[4:8, 4:8, 70:74] = 6  # an eighth of the others
    assert labels_from_volume_flows(head(labels), VolumeFlowSettings(smallest_share=0)).max() == 6
    found = labels_from_volume_flows(head(labels))
    assert found.max() == 5
    assert not found[labels == 6].any()
    # Two objects have no typical volume.
    assert labels_from_volume_flows(head(np.where(np.isin(labels, (1, 6)), labels, 0))).max() == 2


def test_bad_input():
    with pytest.raises(ImageError, match="flow z, y, x"):
        labels_from_volume_flows(np.zeros((3, 8, 8, 8)))
    with pytest.raises(ImageError, match="4, Z, Y, X"):
        labels_from_volume_flows(np.zeros((4, 8, 8)))
    with pytest.raises(ImageValueError, match="NaN"):
        labels_from_volume_flows(np.full((4, 8, 8, 8), np.nan))
    with pytest.raises(CancelledError):
        labels_from_volume_flows(head(LABELS), should_cancel=lambda: True)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("archive", "items"), [("stardist_sample_3d", 1), ("gonuclear_mini_dev", 1), ("bbbc050_train", 3)]
)
def test_real_labels_come_back(shared_data, archive, items):
    for _, truth in read(shared_data / f"{archive}.zip", items):
        output = np.concatenate([5 * flows_from_masks(truth), np.where(truth > 0, 6, -6)[None]]).astype(np.float32)
        found = labels_from_volume_flows(output, VolumeFlowSettings(smallest_share=0))
        assert evaluate(found, truth, thresholds=[0.5])[0].f1 > 0.97
