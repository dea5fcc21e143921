import numpy as np
import pytest

from napari_aprcnn import errors
from napari_aprcnn.evaluate.matching import evaluate, evaluate_pooled, iou_matrix


def squares(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    labels = np.zeros((40, 40), np.uint16)
    for number, (y0, y1, x0, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return labels


def test_identical_labels_score_one_and_ids_do_not_matter():
    truth = squares((0, 10, 0, 10), (20, 30, 20, 30))
    shuffled = np.where(truth == 1, 900, np.where(truth == 2, 7, 0))
    for match in evaluate(shuffled, truth, thresholds=(0.3, 0.5, 0.9, 1.0)):
        assert (match.true_positives, match.false_positives, match.false_negatives) == (2, 0, 0)
        assert match.f1 == match.accuracy == match.precision == match.recall == match.panoptic_quality == 1.0


def test_iou_is_counted_in_pixels():
    # 10 x 10 against 10 x 10 moved by 2: intersection 80, union 120.
    iou = iou_matrix(squares((0, 10, 2, 12)), squares((0, 10, 0, 10)))
    assert iou.shape == (1, 1)
    assert iou[0, 0] == pytest.approx(80 / 120)
    hit, miss = evaluate(squares((0, 10, 2, 12)), squares((0, 10, 0, 10)), thresholds=(0.66, 0.67))
    assert (hit.true_positives, miss.true_positives) == (1, 0)
    assert (miss.false_positives, miss.false_negatives) == (1, 1)


def test_one_true_object_is_matched_once_below_one_half():
    # Both halves overlap the true object with IoU .5 (kept at .4): one is a hit, the other a false positive.
    halves, whole = squares((0, 10, 0, 5), (0, 10, 5, 10)), squares((0, 10, 0, 10))
    for threshold in (0.4, 0.5):
        (match,) = evaluate(halves, whole, thresholds=(threshold,))
        assert (match.true_positives, match.false_positives, match.false_negatives) == (1, 1, 0)


def test_assignment_maximises_the_number_of_pairs():
    # The greedy choice (the pair of largest IoU first) would leave the second prediction without a partner.
    truth = squares((0, 10, 0, 10), (0, 10, 10, 20))
    labels = squares((0, 10, 0, 6), (0, 10, 6, 16))
    (match,) = evaluate(labels, truth, thresholds=(0.2,))
    assert match.true_positives == 2


def test_empty_images():
    empty, one = squares(), squares((0, 5, 0, 5))
    assert evaluate(empty, empty)[0].f1 == 1.0
    assert evaluate(one, empty)[0].f1 == 0.0
    assert evaluate(empty, one)[0].recall == 0.0


def test_pooling_adds_objects_not_images():
    good = squares((0, 5, 0, 5), (10, 15, 0, 5), (20, 25, 0, 5))
    (match,) = evaluate_pooled([(good, good), (squares(), squares((0, 5, 0, 5)))], thresholds=(0.5,))
    assert match.f1 == pytest.approx(6 / 7)


def test_bad_input_is_told():
    with pytest.raises(errors.ImageError, match="expected equal shapes"):
        evaluate(np.zeros((3, 3), int), np.zeros((3, 4), int))
    with pytest.raises(errors.ImageDtypeError, match="expected integers"):
        evaluate(np.zeros((3, 3), float), np.zeros((3, 3), int))


def test_the_package_attribute_can_be_called_after_the_room_was_imported():
    import napari_aprcnn

    assert napari_aprcnn.evaluate.matching is napari_aprcnn.evaluate.matching
    truth = squares((0, 5, 0, 5))
    assert napari_aprcnn.evaluate(truth, truth)[0].f1 == 1.0


def test_lists_of_images_are_told_where_to_go():
    truth = squares((0, 5, 0, 5))
    with pytest.raises(errors.ImageDtypeError, match="evaluate_pooled"):
        evaluate([truth, truth], [truth, truth])
    with pytest.raises(errors.ImageDtypeError, match="list of 2 arrays"):
        evaluate([truth, truth[:3]], truth)
    assert evaluate([[1, 0], [1, 0]], [[1, 0], [1, 0]])[0].f1 == 1.0
    assert evaluate_pooled(zip([truth] * 2, [truth] * 2, strict=True))[0].true_positives == 2


def test_a_single_threshold():
    truth = squares((0, 5, 0, 5))
    assert [match.threshold for match in evaluate(truth, truth, thresholds=0.75)] == [0.75]
