"""Image to level grid: the promised bound, any array, every edge case, and what is refused."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

import conversion_tools as tools
from napari_aprcnn.apr.checks import level_max_of
from napari_aprcnn.apr.conversion_error import conversion_error
from napari_aprcnn.apr.convert import level_grid
from napari_aprcnn.config import ConversionConfig
from napari_aprcnn.errors import CancelledError, ImageError

INNER, OUTER = 1, 3  # the windows of the default point spread function


def smoothed_independently(image, lam):
    """Coefficients and samples of the smoothing spline in float64, from its impulse responses."""
    if lam == 0:
        return image.astype(float), image.astype(float)
    root = 24 * lam * np.sqrt(3 + 144 * lam)
    xi = 1 - 96 * lam + root
    rho = (24 * lam - 1 - np.sqrt(xi)) / (24 * lam) * np.sqrt((48 * lam + root) / xi)
    w = np.arctan(np.sqrt((144 * lam - 1) / xi))
    b1, b2 = 2 * rho * np.cos(w), -(rho**2)
    gain = (1 - b1 + rho**2) ** 2
    c0 = (1 + rho**2) / (1 - rho**2) * (1 - b1 + rho**2) / (1 + b1 + rho**2)
    gamma = (1 - rho**2) / (1 + rho**2) / np.tan(w)
    taps = int(np.ceil(abs(np.log(1e-4) / np.log(rho))))
    k = np.arange(taps + 2)
    f = rho**k * np.sin((k + 1) * w) / np.sin(w)
    q = c0 * rho**k * (np.cos(w * k) + gamma * np.sin(w * k)) / gain
    first, second = f[:taps], f[1 : taps + 1].copy()
    second[1] += f[0]
    last, before = 2 * q[:taps], np.r_[q[1], q[: taps - 1] + q[2 : taps + 1]]
    last[0] = q[0]
    c = image.astype(float)
    for axis in range(3):
        n = image.shape[axis]
        if n <= 2:
            continue
        line = np.moveaxis(c, axis, -1)
        used = min(taps, n)

        def boundary(weights, ends, used=used):
            return ends[..., :used] @ np.r_[weights[: used - 1], weights[used - 1 :].sum()]

        u = line.copy()
        u[..., 0] = boundary(first, line)
        u[..., 1] = boundary(second, line) - b1 * u[..., 0]
        u = signal.lfilter([1], [1, -b1, -b2], u, axis=-1)
        v = u[..., ::-1].copy()
        v[..., 0] = boundary(last, line[..., ::-1])
        v[..., 1] = boundary(before, line[..., ::-1]) - b1 * v[..., 0]
        c = np.moveaxis(gain * signal.lfilter([1], [1, -b1, -b2], v, axis=-1)[..., ::-1], -1, axis)
    return c, sampled(c, image.shape)


def sampled(values, full):
    for axis in range(3):
        if full[axis] > 2:
            values = ndimage.convolve1d(values, np.array([1, 4, 1]) / 6, axis, mode="mirror")
    return values


def scale_independently(c, lam, sigma_threshold):
    """Clamped local scale of each voxel, in float64."""
    intensity = c
    for axis, n in enumerate(c.shape):
        index = np.arange(0, n, 2)
        intensity = (intensity.take(index, axis) + intensity.take(np.minimum(index + 1, n - 1), axis)) / 2
    if lam > 0:
        intensity = sampled(intensity, c.shape)
    active = [axis for axis in range(3) if intensity.shape[axis] > OUTER]
    if not active:
        scale = np.full(intensity.shape, intensity.mean() - intensity.min())
    else:
        pad = [(OUTER, OUTER) if axis in active else (0, 0) for axis in range(3)]
        wide = np.pad(intensity, pad, "reflect")

        def box(a, r):
            for axis in active:
                ones = ndimage.convolve1d(np.ones(a.shape[axis]), np.ones(2 * r + 1), mode="constant")
                shape = [-1 if other == axis else 1 for other in range(3)]
                a = ndimage.convolve1d(a, np.ones(2 * r + 1), axis, mode="constant") / ones.reshape(shape)
            return a

        scale = box(np.abs(box(wide, INNER) - wide), OUTER)
        scale = scale[tuple(slice(low, low + n) for (low, _), n in zip(pad, intensity.shape, strict=True))]
        scale = scale * {1: 31.2843, 2: 28.7069, 3: 26.1256}[len(active)]
    return tools.levels_of_voxels(np.maximum(scale, sigma_threshold), c.shape)


@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 24)] * 3), st.tuples(st.just(1), *[st.integers(1, 70)] * 2)),
    kind=st.sampled_from(tools.KINDS),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0, 3.0, 20.0]),
    relative_error=st.sampled_from([0.02, 0.1, 0.5]),
    auto=st.booleans(),
    threads=st.integers(1, 3),
    block_planes=st.sampled_from([2, 8, 64]),
    optimise=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_the_strict_bound_holds_at_every_voxel(
    shape, kind, dtype, smoothing, relative_error, auto, threads, block_planes, optimise, seed
):
    image = tools.image_of(kind, shape, dtype, seed)
    config = ConversionConfig(
        smoothing=smoothing,
        relative_error=relative_error,
        auto_thresholds=auto,
        sigma_threshold=2.0,
        gradient_threshold=1.0,
        neighbourhood_optimisation=optimise,
    )
    grid = level_grid(image, config, threads=threads, block_planes=block_planes)
    tools.require_a_particle_structure(grid.levels, shape, grid.level_max)
    c, smooth = smoothed_independently(image, smoothing)
    scale = scale_independently(c, smoothing, grid.sigma_threshold)
    means = tools.cell_means(smooth, tools.levels_of_voxels(grid.levels, shape), grid.level_max)
    assert (np.abs(means - smooth) <= relative_error * scale + 1e-9).all()
    report = conversion_error(image, grid, threads=threads, block_planes=block_planes)
    assert report.over_bound == 0
    assert report.bound.maximum <= 1


@pytest.mark.parametrize("mode", ["strict", "compatible"])
def test_the_check_above_can_fail(mode):
    """On a slope too gentle for the gradient threshold, only strict mode keeps the bound, and it is tight."""
    image = tools.image_of("balls", (40, 44, 70), np.uint16, 2) + np.arange(70, dtype=np.uint16)
    config = ConversionConfig(mode=mode, auto_thresholds=False, sigma_threshold=100.0, gradient_threshold=20.0)
    grid = level_grid(image, config)
    c, smooth = smoothed_independently(image, 3.0)
    scale = scale_independently(c, 3.0, grid.sigma_threshold)
    means = tools.cell_means(smooth, tools.levels_of_voxels(grid.levels, image.shape), grid.level_max)
    ratio = (np.abs(means - smooth) / (0.1 * scale)).max()
    report = conversion_error(image, grid)
    assert report.bound.maximum == pytest.approx(ratio, rel=1e-3)
    if mode == "compatible":
        assert ratio > 1
        assert report.over_bound > 0
    else:
        assert 0.8 < ratio <= 1


def test_the_bound_on_original_voxels():
    image = tools.image_of("balls", (40, 44, 38), np.uint16, 2)
    config = ConversionConfig(bound="original", noise_floor=3.0)
    grid = level_grid(image, config)
    c, smooth = smoothed_independently(image, 3.0)
    residual = image - smooth
    assert grid.noise_sd == pytest.approx(1.4826 * np.median(np.abs(residual - np.median(residual))), rel=0.05)
    scale = scale_independently(c, 3.0, grid.sigma_threshold)
    means = tools.cell_means(image, tools.levels_of_voxels(grid.levels, image.shape), grid.level_max)
    assert (np.abs(means - image) <= np.maximum(0.1 * scale, 3 * grid.noise_sd) + 1e-6).all()
    assert grid.particles > level_grid(image).particles


def test_strict_only_splits_what_compatible_made():
    image = tools.image_of("balls", (48, 50, 46), np.uint16, 5)
    strict, compatible = (level_grid(image, ConversionConfig(mode=mode)) for mode in ("strict", "compatible"))
    assert (strict.levels >= compatible.levels).all()
    assert compatible.rounds == 0


@given(shape=st.tuples(*[st.integers(1, 30)] * 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_particles_are_counted(shape, seed):
    grid = level_grid(tools.image_of("balls", shape, np.uint16, seed))
    assert grid.particles == len(tools.rows_of(grid.levels, shape, grid.level_max)[2])
    assert grid.level_max == max(1, int(np.ceil(np.log2(max(shape)))))


@pytest.mark.parametrize(
    ("shape", "level_max"),
    [((1, 1, 1), 1), ((2, 1, 2), 1), ((1, 1, 3), 2), ((4, 4, 4), 2), ((5, 1, 1), 3), ((1, 1, 257), 9), ((64, 3, 9), 6)],
)
@pytest.mark.parametrize("mode", ["strict", "compatible"])
def test_small_and_thin_images(shape, level_max, mode):
    assert level_max_of(shape) == level_max
    image = tools.image_of("noise", shape, np.uint16, 1)
    grid = level_grid(image, ConversionConfig(mode=mode))
    assert grid.level_max == level_max
    tools.require_a_particle_structure(grid.levels, shape, level_max)
    if level_max <= 2:
        assert (grid.levels == level_max).all()
    report = conversion_error(image, grid)
    assert report.voxels == image.size
    if level_max <= 2:
        assert report.grey.maximum == 0


def test_a_last_axis_of_one_voxel_has_gradients():
    image = tools.image_of("balls", (60, 64, 1), np.uint16, 4)
    lying, standing = level_grid(image), level_grid(image.transpose(2, 0, 1))
    assert lying.particles == pytest.approx(standing.particles, rel=0.02)
    assert (lying.levels == lying.level_max).any()


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("config", [{}, {"auto_thresholds": False}, {"relative_error": 1e-3}, {"smoothing": 0.0}])
@pytest.mark.parametrize("shape", [(33, 40, 65), (1, 100, 90), (3, 3, 200)])
def test_constant_images_get_the_coarsest_tree(value, config, shape):
    grid = level_grid(np.full(shape, value, np.uint8), ConversionConfig(**config))
    assert (grid.levels == 2).all()


@pytest.mark.parametrize("value", [-3.7e4, 1e-30, 1e30])
def test_constant_floats_too(value):
    assert (level_grid(np.full((40, 33, 30), value, np.float32)).levels == 2).all()


def test_detail_on_a_scale_of_zero_is_resolved():
    image = np.zeros((64, 64, 64), np.uint8)
    image[40, 40, 40] = 200
    for mode in ("strict", "compatible"):
        config = ConversionConfig(mode=mode, auto_thresholds=False, smoothing=0.0, intensity_threshold=-1.0)
        grid = level_grid(image, config)
        assert grid.levels[20, 20, 20] == grid.level_max


def test_spacing_and_point_spread_function_matter():
    image = tools.image_of("balls", (40, 40, 40), np.uint16, 0)
    plain = level_grid(image).particles
    assert level_grid(image, ConversionConfig(spacing=(3.0, 1.0, 1.0))).particles != plain
    assert level_grid(image, ConversionConfig(psf=6.0)).particles != plain
    # Only ratios do.
    assert level_grid(image, ConversionConfig(spacing=(0.5, 0.5, 0.5))).particles == plain
    assert level_grid(image, ConversionConfig(spacing=(0.5, 0.5, 0.5), psf=1.0)).particles == plain


@pytest.mark.parametrize("block_planes", [None, 8])
def test_progress_rises_to_one(block_planes):
    shares = []
    image = np.random.default_rng(0).integers(0, 999, (160, 256, 256)).astype(np.uint16)
    level_grid(image, progress=shares.append, threads=1, block_planes=block_planes)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_cancel_is_heard(after):
    calls = []

    def should_cancel():
        calls.append(None)
        return len(calls) > after

    image = tools.image_of("balls", (64, 128, 128), np.uint16, 0)
    with pytest.raises(CancelledError):
        level_grid(image, should_cancel=should_cancel)
    assert len(calls) == after + 1


def test_other_threads_run_meanwhile():
    image, done, counted = np.zeros((128, 256, 256), np.uint16), threading.Event(), []

    def count():
        while not done.is_set():
            counted.append(None)
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    start = time.perf_counter()
    level_grid(image, threads=1)
    taken = time.perf_counter() - start
    done.set()
    other.join()
    assert len(counted) > 50 * taken


def test_the_report_is_the_difference_that_one_sees():
    image = tools.image_of("balls", (33, 30, 41), np.uint16, 7)
    grid = level_grid(image, block_planes=4)
    report = conversion_error(image, grid, block_planes=8)
    means = np.rint(tools.cell_means(image, tools.levels_of_voxels(grid.levels, image.shape), grid.level_max))
    difference = np.abs(means - image)
    assert report.grey.maximum == difference.max()
    for share, value in report.grey.quantiles.items():
        assert value == pytest.approx(np.quantile(difference, share, method="inverted_cdf"), rel=2e-3, abs=1e-6)
    with pytest.raises(ImageError, match="shape"):
        conversion_error(image[1:], grid)
