"""Choosing slices: spacing, determinism, strata, and arrays that are read one slice at a time."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_aprcnn.errors import AxesError, CancelledError, ConfigError
from napari_aprcnn.evaluate.slice_choice import choose_slices, read_slice, score_slices, slice_shape

METHODS = ["random", "even", "uncertainty", "density"]


class CountedPlanes:
    """An array that notes which planes were read, and refuses to be read whole."""

    def __init__(self, planes) -> None:
        self._planes, self.shape, self.dtype, self.read = planes, planes.shape, planes.dtype, []
        self.ndim = planes.ndim

    def __getitem__(self, key):
        assert sum(isinstance(part, slice) for part in key) == 2
        self.read.append(key[0])
        return self._planes[key]

    def __array__(self, *_args, **_kwargs):
        raise AssertionError("the whole array was read")


def _scores(shape, seed=1):
    return np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("shape", "n", "distance"), [((50,), 10, 5), ((50,), 17, 3), ((3, 9), 15, 2), ((7,), 7, 1)])
def test_distance_count_and_determinism(method, shape, n, distance):
    """Also the fullest packings that there are: 17 at a distance of 3 in 50."""
    options = {"shape": shape, "method": method, "scores": _scores(shape), "min_distance": distance}
    chosen = choose_slices(n, seed=4, **options)
    assert len(set(chosen)) == n
    assert chosen == sorted(chosen)
    for one in chosen:
        for other in chosen:
            assert one == other or one[:-1] != other[:-1] or abs(one[-1] - other[-1]) >= distance
    assert choose_slices(n, seed=4, **options) == chosen
    with pytest.raises(ConfigError, match="do not fit"):
        choose_slices(n + 50, **options)


def test_seeds_differ_and_every_slice_can_be_chosen():
    drawn = {index for seed in range(60) for index in choose_slices(3, shape=(20,), seed=seed)}
    assert drawn == {(z,) for z in range(20)}


def test_even_over_depth_and_time():
    assert choose_slices(4, shape=(40,), method="even") == [(5,), (15,), (25,), (35,)]
    chosen = choose_slices(4, shape=(4, 10), method="even")
    assert [t for t, _ in chosen] == [0, 1, 2, 3]
    assert {z for _, z in chosen} == {5}


def test_uncertainty_takes_the_highest():
    scores = np.arange(20.0)
    scores[19] = np.nan
    assert choose_slices(2, shape=(20,), method="uncertainty", scores=scores, min_distance=4) == [(14,), (18,)]


def test_density_has_one_of_each_stratum():
    scores = np.repeat([0.0, 10.0, 20.0, 30.0], 25) + np.arange(100) / 1000
    for seed in range(5):
        chosen = choose_slices(4, shape=(100,), method="density", scores=scores, seed=seed)
        assert [z // 25 for (z,) in chosen] == [0, 1, 2, 3]


def test_more_slices_keep_away_from_those_that_are_taken():
    first = choose_slices(3, shape=(30,), seed=1, min_distance=3)
    more = choose_slices(4, shape=(30,), seed=1, min_distance=3, taken=first)
    assert all(abs(a - b) >= 3 for (a,) in first for (b,) in more)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "from 1"),
        ({"min_distance": 0}, "from 1"),
        ({"method": "best"}, "expected one of"),
        ({"method": "uncertainty"}, "needs scores"),
        ({"method": "density", "scores": np.zeros(4)}, "same shape"),
        ({"taken": [(99,)]}, "is not one"),
    ],
)
def test_what_does_not_make_sense(options, words):
    with pytest.raises(ConfigError, match=words):
        choose_slices(**{"n": 2, "shape": (5,), **options})


def test_slices_of_any_axes():
    image = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    assert slice_shape(image.shape, "TCZYX") == (2, 4)
    assert np.array_equal(read_slice(image, "TCZYX", (1, 2), channel=1), image[1, 1, 2])
    assert np.array_equal(read_slice(image[0, 0], "ZXY", (3,)), image[0, 0, 3].T)
    assert slice_shape((5, 6), "YX") == ()
    assert choose_slices(1, shape=()) == [()]
    with pytest.raises(AxesError):
        slice_shape((5, 6, 7), "YX")
    with pytest.raises(AxesError):
        slice_shape((5, 6), "ZX")


def test_uncertainty_of_probabilities_logits_and_bytes():
    probability = np.stack([np.full((8, 8), p) for p in (0.01, 0.5, 0.9)])
    entropy = score_slices(probability, axes="ZYX", score="entropy")
    assert entropy[1] == pytest.approx(1.0)
    assert np.argsort(entropy).tolist() == [0, 2, 1]
    assert score_slices(probability, axes="ZYX", score="variance")[1] == pytest.approx(0.25)
    logits = np.log(probability / (1 - probability))
    assert np.allclose(score_slices(logits, axes="ZYX", score="entropy"), entropy)
    in_bytes = np.round(probability * 255).astype(np.uint8)
    assert np.allclose(score_slices(in_bytes, axes="ZYX", score="entropy"), entropy, atol=0.02)


def test_density_of_labels_and_images():
    labels = np.zeros((4, 32, 32), np.uint16)
    for z in range(4):
        for i in range(z):
            labels[z, 4:10, 2 + 10 * i : 8 + 10 * i] = i + 1
    assert score_slices(labels, axes="ZYX", score="objects").tolist() == [0, 1, 2, 3]
    assert np.allclose(score_slices(labels, axes="ZYX", score="foreground"), np.arange(4) * 36 / 1024)
    noise = np.random.default_rng(0).normal(100, 5, labels.shape)
    image = (noise + 300 * (labels > 0)).astype(np.uint16)
    for kind in (np.uint16, np.float32):
        found = score_slices(image.astype(kind), axes="ZYX", score="bright")
        assert np.allclose(found, np.arange(4) * 36 / 1024, atol=0.01)


def test_lazy_arrays_are_read_slice_by_slice():
    array = CountedPlanes(np.zeros((9, 8, 8), np.float32))
    steps = []
    score_slices(array, axes="ZYX", score="entropy", progress=lambda done, total: steps.append((done, total)))
    assert array.read == list(range(9))
    assert steps[-1] == (9, 9)
    huge = da.zeros((2000, 4096, 4096), chunks=(1, 4096, 4096), dtype=np.float32)
    scores = score_slices(huge, axes="ZYX", score="variance", most=4)
    assert np.flatnonzero(np.isfinite(scores)).tolist() == [250, 750, 1250, 1750]
    assert len(choose_slices(3, shape=(2000,), method="density", scores=scores)) == 3


def test_cancelling():
    array, seen = CountedPlanes(np.zeros((9, 8, 8), np.float32)), []
    with pytest.raises(CancelledError):
        score_slices(
            array, axes="ZYX", score="entropy", progress=lambda *_: seen.append(1), should_cancel=lambda: len(seen) >= 2
        )
    assert array.read == [0, 1]
