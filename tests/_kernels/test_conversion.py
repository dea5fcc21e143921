"""The conversion kernels: the same bits from every kernel, thread count and slab; the pulling scheme; values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import conversion_tools as tools
from napari_aprcnn import _kernels
from napari_aprcnn._kernels import conversion, values
from napari_aprcnn._kernels.spline import spline_constants

SHAPES = st.one_of(st.tuples(*[st.integers(1, 21)] * 3), st.tuples(st.just(1), *[st.integers(1, 60)] * 2))

# The fixture gives a context manager, which starts anew for each example.
ANY_KERNEL = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def everything(image, *, smoothing, threads, block_planes, spacing=(2.0, 1.0, 0.5), original=False):
    """All that the kernels compute for an image, as one list of arrays."""
    top = max(1, int(max(image.shape) - 1).bit_length() - 1)
    passes = conversion.ConversionImage(image, smoothing=smoothing, threads=threads, block_planes=block_planes)
    gradient, intensity, residuals = passes.estimate(spacing)
    parts = [gradient.copy(), intensity.copy(), residuals, np.array(passes.statistics())]
    active = tuple(n > 3 for n in intensity.shape)
    scale = conversion.local_scale(
        intensity, gradient, image.shape, threshold=20.0, inner=1, outer=3, rescale=12.8, active=active,
        smoothed=smoothing > 0, threads=threads,
    )  # fmt: skip
    parts += [gradient.copy(), scale.copy()]
    thresholds = conversion.li_thresholds(gradient, scale, threads=threads)
    wanted = conversion.estimate_levels(
        gradient, scale, scale_threshold=thresholds[1], scale_threshold_max=1.0, gradient_threshold=thresholds[0],
        factor=10 * 2.0 ** (top + 1), top=top, threads=threads,
    )  # fmt: skip
    levels = conversion.pull(wanted, top, threads=threads)
    parts += [np.float32(thresholds), scale, wanted, levels.copy()]
    fails = passes.check_cells(scale, top, relative=0.05, slack=1e-3, least=0.1, original=original)
    rounds = conversion.refine(levels, top, fails, threads=threads)
    counts, largest, over = passes.measure_errors(scale, levels, top, relative=0.05, rounded=True)
    return [*parts, fails, levels, np.array(rounds), counts, np.array(largest), np.array(over)]


@given(
    shape=SHAPES,
    kind=st.sampled_from(tools.KINDS),
    dtype=st.sampled_from(["uint8", "uint16", "float32", ">u2", "<f8", "int32", "float16"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0, 3.0, 50.0]),
    original=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(shape=(1, 1, 1), kind="noise", dtype="float32", smoothing=3.0, original=False, seed=0)
@example(shape=(5, 17, 1), kind="noise", dtype="uint16", smoothing=3.0, original=False, seed=0)
@example(shape=(9, 9, 9), kind="noise", dtype="uint16", smoothing=3.0, original=True, seed=0)
@settings(max_examples=80, deadline=None)
def test_any_image_gives_the_bits_of_the_reference(shape, kind, dtype, smoothing, original, seed):
    image = tools.image_of(kind, shape, dtype, seed)
    runs = [
        everything(image, smoothing=smoothing, threads=threads, block_planes=planes, original=original)
        for threads, planes in ((1, 64), (2, 2), (3, 8))
    ]
    _kernels.use_kernels("reference")
    try:
        runs.append(everything(image, smoothing=smoothing, threads=1, block_planes=8, original=original))
    finally:
        _kernels.use_kernels("auto")
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert a.dtype.kind == "b" or a.shape == b.shape
            assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(70, 33, 41), (1, 300, 257), (9, 200, 130)])
@pytest.mark.parametrize("smoothing", [0.0, 3.0])
def test_slabs_and_threads_do_not_change_a_bit(shape, smoothing, every_kernel):
    image = tools.image_of("balls", shape, np.uint16, 3)
    with every_kernel() as names:
        runs = [
            [part.tobytes() for part in everything(image, smoothing=smoothing, threads=threads, block_planes=planes)]
            for name in names
            for threads, planes in (((1, 8),) if name == "python" else ((1, 8), (2, 2), (3, 8), (7, 64), (2, 1000)))
        ]
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 1.0, 3.0, 10.0])
def test_spline_constants_are_those_of_the_specification(smoothing):
    known = {  # b1, b2, gain, taps
        0.1: (0.1767194, -0.0819430, 0.8194298, 8),
        1.0: (0.7500460, -0.2432618, 0.2432618, 14),
        3.0: (1.0041043, -0.3414925, 0.1138309, 18),
        10.0: (1.2389935, -0.4514722, 0.0451472, 24),
    }
    spline = spline_constants(smoothing)
    got = (spline.b1, spline.b2, spline.gain, spline.taps)
    if smoothing in known:
        np.testing.assert_allclose(got, known[smoothing], rtol=3e-6)
    # A constant line keeps its value: forward and backward gains times `gain` are one.
    assert spline.gain / (1 - spline.b1 - spline.b2) ** 2 == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("smoothing", [1 / 24, 0.01, -1.0, float("nan")])
def test_weak_smoothing_is_refused(smoothing):
    with pytest.raises(ValueError, match="1/24"):
        spline_constants(smoothing)


def by_definition(wanted, top, optimise):
    """The pulling scheme cell by cell, from its definition."""
    grids = {top: wanted}
    for level in range(top - 1, 0, -1):
        fine = grids[level + 1]
        coarse = np.zeros([-(-n // 2) for n in fine.shape], np.uint8)
        for at in np.ndindex(coarse.shape):
            coarse[at] = fine[tuple(slice(2 * i, 2 * i + 2) for i in at)].max()
        grids[level] = coarse
    out = np.zeros(wanted.shape, np.uint8)

    def visit(at, level):
        v = grids[level]
        nearby = v[tuple(slice(max(0, i - 1), i + 2) for i in at)].max()
        if level < top and nearby > level:
            for child in np.ndindex(2, 2, 2):
                below = tuple(2 * i + j for i, j in zip(at, child, strict=True))
                if all(i < n for i, n in zip(below, grids[level + 1].shape, strict=True)):
                    visit(below, level + 1)
            return
        fine = (v[at] if optimise else nearby) == level
        out[tuple(slice(i << (top - level), (i + 1) << (top - level)) for i in at)] = level + fine

    for at in np.ndindex(grids[1].shape):
        visit(at, 1)
    return out


@given(
    shape=st.tuples(*[st.integers(1, 11)] * 3).filter(lambda s: max(s) > 2),
    optimise=st.booleans(),
    sparse=st.floats(0.01, 0.5),
    seed=st.integers(0, 1000),
)
@settings(ANY_KERNEL, max_examples=60, deadline=None)
def test_the_pulling_scheme_is_its_definition(shape, optimise, sparse, seed, every_kernel):
    random = np.random.default_rng(seed)
    top = int(max(shape) - 1).bit_length()
    wanted = np.where(random.random(shape) < sparse, random.integers(1, top + 1, shape), 1).astype(np.uint8)
    expected = by_definition(wanted, top, optimise)
    with every_kernel() as names:
        for _ in names:
            got = conversion.pull(wanted, top, optimise=optimise, threads=2)
            assert_array_equal(got, expected)
    voxels = tuple(2 * n for n in shape)
    tools.require_a_particle_structure(expected, voxels, top + 1)


@given(
    shape=st.tuples(*[st.integers(1, 13)] * 3).filter(lambda s: max(s) > 2),
    share=st.floats(0.0, 0.3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_refining_leaves_no_cell_that_fails_and_only_splits(shape, share, seed):
    random = np.random.default_rng(seed)
    top = int(max(shape) - 1).bit_length()
    wanted = np.where(random.random(shape) < 0.03, random.integers(1, top + 1, shape), 1).astype(np.uint8)
    before = conversion.pull(wanted, top)
    fails = (random.random(conversion.pyramid_size(shape, top)) < share).astype(np.uint8)
    after = before.copy()
    rounds = conversion.refine(after, top, fails, threads=2)
    assert (after >= before).all()
    assert (rounds == 0) == bool((after == before).all())
    tools.require_a_particle_structure(after, tuple(2 * n for n in shape), top + 1)
    start = 0
    for level in range(top, 0, -1):
        grid = conversion.coarser(shape, top - level)
        flags = fails[start : start + int(np.prod(grid))].reshape(grid)
        start += flags.size
        assert not (flags & (after[(slice(None, None, 1 << (top - level)),) * 3] == level)).any()


def test_thresholds_minimise_the_cross_entropy():
    random = np.random.default_rng(0)
    grey = np.concatenate([random.gamma(2, 5, 60000), random.gamma(9, 20, 9000)]).astype(np.float32)
    random.shuffle(grey)
    other = np.full_like(grey, 3)
    got, same = conversion.li_thresholds(grey.reshape(1, 1, -1), other.reshape(1, 1, -1))
    assert same == 3

    def entropy(t):
        low, high = grey[grey <= t].astype(float), grey[grey > t].astype(float)
        return -(low.sum() * np.log(low.mean()) + high.sum() * np.log(high.mean()))

    candidates = np.linspace(grey.min() + 1, grey.max() - 1, 400)
    best = candidates[np.argmin([entropy(t) for t in candidates])]
    assert entropy(got) <= entropy(best) + 1e-6 * abs(entropy(best))


def test_marked_cells_do_not_count_for_thresholds():
    values = np.abs(np.random.default_rng(1).normal(size=(3, 40, 50))).astype(np.float32)
    marked = np.where(values > 1.5, np.float32(-1), values)
    kept = values[values <= 1.5].reshape(1, 1, -1)
    assert conversion.li_thresholds(marked, values) == conversion.li_thresholds(kept, kept)
    assert conversion.li_thresholds(np.full_like(values, -1), values) == (0.0, 0.0)


@given(
    shape=SHAPES,
    dtype=st.sampled_from(["uint8", "uint16", ">u2", "float32", "int16", "float64", "uint32"]),
    repeated=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(ANY_KERNEL, max_examples=80, deadline=None)
def test_values_are_means_rounded_once_or_repeated(shape, dtype, repeated, seed, every_kernel):
    random = np.random.default_rng(seed)
    image = (random.random(shape) * 250).astype(dtype)
    level_max = max(1, int(max(shape) - 1).bit_length())
    grid = conversion.coarser(shape, 1)
    levels = np.full(grid, level_max, np.uint8)
    if level_max > 2:
        wanted = np.where(random.random(grid) < 0.05, level_max - 1, 1).astype(np.uint8)
        levels = conversion.pull(wanted, level_max - 1)
    rows = tools.rows_of(levels, shape, level_max)
    results = []
    with every_kernel() as names:
        for _ in names:
            results += [
                values.sample_values(image, *rows, level_max=level_max, repeated=repeated, threads=threads)
                for threads in (1, 3)
            ]
    for other in results[1:]:
        assert_array_equal(results[0], other)
    if repeated:
        return
    means = tools.cell_means(image, tools.levels_of_voxels(levels, shape), level_max)
    expected = []
    for level in range(level_max + 1):
        edge = 1 << (level_max - level)
        here = tools.levels_of_voxels(levels, shape)[::edge, ::edge, ::edge] == level
        expected.append(means[::edge, ::edge, ::edge][here])
    wanted_values = np.concatenate(expected)
    if results[0].dtype.kind == "u":
        assert np.abs(results[0] - wanted_values).max() <= 0.5
        halves = np.abs(wanted_values - np.floor(wanted_values) - 0.5) < 1e-9
        assert (results[0][halves] % 2 == 0).all()
    else:
        np.testing.assert_allclose(results[0], wanted_values, rtol=1e-6)


def test_repeated_means_lose_almost_half_a_grey_value_a_level():
    image = np.random.default_rng(0).integers(0, 200, (64, 64, 64)).astype(np.uint8)
    levels = np.full((32, 32, 32), 3, np.uint8)  # cells of 8 voxels an edge
    rows = tools.rows_of(levels, image.shape, 6)
    once, repeated = (
        values.sample_values(image, *rows, level_max=6, repeated=again).astype(float).mean() for again in (False, True)
    )
    assert once == pytest.approx(image.mean(), abs=0.03)
    assert repeated - image.mean() == pytest.approx(-1.31, abs=0.1)


def test_rows_that_do_not_fit_are_refused():
    image = np.zeros((4, 6, 6), np.uint8)
    starts, offsets, x = tools.rows_of(np.full((2, 3, 3), 3, np.uint8), image.shape, 3)
    for wrong in ((starts[:-1], offsets, x), (starts, offsets[:-1], x), (starts, offsets, x[:-1])):
        with pytest.raises(ValueError):
            values.sample_values(image, *wrong, level_max=3)
    outside = x.copy()
    outside[-1] = 6
    with pytest.raises(ValueError):
        values.sample_values(image, starts, offsets, outside, level_max=3)
