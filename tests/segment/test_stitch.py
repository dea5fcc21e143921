import numpy as np
from fakes import blobs, matched_f1

from napari_aprcnn.segment.stitch import Stitcher


def _stack(planes, iou=0.25):
    stitcher = Stitcher(iou=iou)
    return np.stack([stitcher.add(np.array(p, np.uint32)) for p in planes]), stitcher.n_objects


def test_balls_keep_their_number():
    _, truth = blobs((40, 80, 80), diameter=20)
    planes = []
    for plane in truth:
        names, local = np.unique(plane, return_inverse=True)
        planes.append(local.reshape(plane.shape) + (0 if names[0] == 0 else 1))
    labels, n = _stack(planes)
    assert n == truth.max()
    assert matched_f1(labels, truth, iou=0.95) == 1.0


def test_one_to_one_and_the_largest_overlap_first():
    labels, n = _stack([[[1, 1, 1, 1, 2, 2]], [[1, 1, 2, 2, 2, 2]]])
    # 1 keeps its left half (IoU 1/2), the rest meets 2 (1/2); never both with one.
    assert labels[1].tolist() == [[1, 1, 2, 2, 2, 2]]
    assert n == 2


def test_too_little_overlap_is_another_nucleus():
    labels, n = _stack([[[1, 1, 1, 1, 0, 0]], [[0, 0, 0, 1, 1, 1]]], iou=0.25)
    assert n == 2
    assert labels[1].max() == 2


def test_an_empty_plane_ends_every_nucleus():
    labels, n = _stack([[[1, 1]], [[0, 0]], [[1, 1]]])
    assert labels[:, 0, 0].tolist() == [1, 0, 2]
    assert n == 2


def test_caps_belong_to_their_nucleus():
    cap, body = np.zeros((9, 20), int), np.zeros((9, 20), int)
    cap[4, 4:6] = 1
    body[2:7, 2:8] = 1
    body[2:7, 10:16] = 2
    labels, n = _stack([cap, body, body, cap])
    assert n == 2
    assert labels[0, 4, 4] == labels[1, 4, 4] == labels[3, 4, 4] == 1
