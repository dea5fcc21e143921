"""Simulated volumes: the same for the same seed, labels at the outline level, scenes of their own character."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.train.simulation import CameraConfig, OpticsConfig, SimulationConfig, simulate_volume, statistics
from napari_aprcnn.train.simulation.nuclei import Body, Canvas
from napari_aprcnn.train.simulation.optics import draw_optics
from napari_aprcnn.train.simulation.scenes import draw_style, lay_out
from napari_aprcnn.train.simulation.volume import Exposure

SMALL = {"shape": (32, 64, 64), "diameter_px": (10, 13)}
SCENES = ("cystic", "compact", "cauliflower", "embryo", "scattered", "tissue", "empty")
PLAIN_OPTICS = OpticsConfig(halo=(0, 0), attenuation=(0, 0), illumination=(0, 0), depth_blur=(0, 0))
NO_DIRT = {"haze": (0, 0), "background": (0, 0), "ghosts": (0, 0), "debris": (0, 0), "polar_bodies": 0}
GOOD_CAMERA = CameraConfig(photons=(100, 200), emccd=0, read_noise=(0.003, 0.01), black_clip=0, saturated=0)


@pytest.mark.parametrize("scene", SCENES)
def test_a_volume_is_a_function_of_its_seed(scene):
    one, same, other = (simulate_volume(seed=seed, scene=scene, **SMALL) for seed in (5, 5, 6))
    for name in ("image", "labels", "clean", "background"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.parameters == same.parameters
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("seed", [0, 1])
def test_shapes_types_and_labels(scene, seed):
    volume = simulate_volume(seed=seed, scene=scene, **SMALL)
    assert volume.image.shape == volume.labels.shape == volume.clean.shape == volume.background.shape == (32, 64, 64)
    assert (volume.image.dtype, volume.labels.dtype) == (np.uint16, np.uint16)
    assert (volume.clean.dtype, volume.background.dtype) == (np.float32, np.float32)
    assert np.isfinite(volume.clean).all()
    n = int(volume.labels.max())
    np.testing.assert_array_equal(np.unique(volume.labels)[-n or None :], np.arange(1, n + 1) if n else [0])
    sizes = np.bincount(volume.labels.ravel(), minlength=n + 1)[1:]
    assert (sizes >= 30).all()
    pieces = cc3d.connected_components(volume.labels, connectivity=6)
    assert pieces.max() == n  # every label is one piece
    assert volume.parameters["labelled"] == n
    z, y, x = volume.spacing_um
    assert z >= y == x == 0.5


def lone_nucleus(level: float, **more):
    return simulate_volume(
        seed=3, shape=(48, 64, 64), diameter_px=(16, 16), size_cv=(0, 0), scene="embryo", nuclei=(1, 1),
        mitotic=(0, 0), outline_level=level, optics=PLAIN_OPTICS, **{**NO_DIRT, **more},
    )  # fmt: skip


@pytest.mark.parametrize("level", [0.15, 0.25, 0.5])
def test_a_label_ends_at_the_outline_level_of_the_noiseless_image(level):
    volume = lone_nucleus(level, nucleoli=(0, 0), texture=(0, 0))
    assert volume.labels.max() == 1
    # In units of its own peak, the light of the only nucleus is the clean image.
    np.testing.assert_array_equal(volume.labels == 1, volume.clean > np.float32(level))
    assert np.percentile(volume.clean[volume.clean > 0.25 * volume.clean.max()], 95) == pytest.approx(1, abs=0.01)


def test_the_outline_level_changes_labels_only():
    volumes = [lone_nucleus(level) for level in (0.15, 0.25, 0.5)]
    sizes = [int((volume.labels > 0).sum()) for volume in volumes]
    assert sizes[0] > 1.1 * sizes[1] > 1.2 * sizes[2]
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume.image, volumes[0].image)
    inside, outside = volumes[1].labels > 0, volumes[1].labels == 0
    assert volumes[1].clean[inside].min() > 0.2
    assert volumes[1].clean[outside].max() < 0.3


def test_outlines_follow_each_nucleus_or_one_grey_value():
    share = {"seed": 5, "scene": "scattered", "shape": (32, 96, 96), "diameter_px": (12, 12), "size_cv": (0, 0)}
    share |= {"intensity_cv": (0.5, 0.5), "mitotic": (0, 0), "texture": (0, 0), "nucleoli": (0, 0), "density": (1, 1)}
    share |= {"nuclei": (30, 60), "outline_level": 0.25, "optics": PLAIN_OPTICS, **NO_DIRT}
    own, common = (simulate_volume(**share, outline_common=c) for c in (0.0, 1.0))

    def ends(volume):
        """Median over free outer voxels of a nucleus, against its peak, logarithms' slope."""
        ends, peaks = [], []
        for number in range(1, volume.labels.max() + 1):
            mask = volume.labels == number
            free = ndimage.binary_dilation(mask) & (volume.labels == 0)
            if free.sum() > 40:
                ends.append(np.log(np.percentile(volume.clean[free], 95)))
                peaks.append(np.log(np.percentile(volume.clean[mask], 90)))
        assert len(ends) > 8
        return np.polyfit(peaks, ends, 1)[0]

    assert ends(own) > 0.7
    assert abs(ends(common)) < 0.3


def test_pressed_neighbours_share_no_voxel_and_part_where_they_are_equally_bright():
    volume = simulate_volume(
        seed=2, scene="tissue", shape=(32, 64, 64), diameter_px=(12, 14), density=(1, 1), spacing=(0.75, 0.75),
        optics=PLAIN_OPTICS, **NO_DIRT,
    )  # fmt: skip
    found = statistics(volume.image, volume.labels)
    assert found.touching > 0.8
    assert found.volume_fraction > 0.35


def test_overlapping_bodies_divide_the_room_between_them():
    size, scale = np.array([24, 24, 36]), np.ones(3)
    low = np.zeros(3, np.int64)
    bodies = [
        Body(np.array([12.0, 12.0, x]), np.full(3, 8.0), np.eye(3), np.zeros((6, 3)), 0.0, 1.0, False) for x in (12, 22)
    ]
    depths = [body.depth(low, size, scale) for body in bodies]
    canvas = Canvas(low, size)
    for number, depth in enumerate(depths):
        canvas.claim(number, low, size, depth)
    shares = [canvas.share(number, low, size, depth, 8.0, 0.0) for number, depth in enumerate(depths)]
    assert max(depth[12, 12, 17] for depth in depths) < 0.9  # they do overlap
    assert (shares[0] + shares[1]).max() <= 1.01
    assert shares[0][12, 12, 12] == shares[1][12, 12, 22] == 1
    ball = 4 / 3 * np.pi * 8**3
    cap = np.pi * 3**2 * (3 * 8 - 3) / 3  # what lies beyond the plane between the centres
    for share in shares:
        assert share.sum() == pytest.approx(ball - cap, rel=0.04)


def test_of_a_label_in_pieces_the_largest_stays():
    config = SimulationConfig(shape=(16, 32, 32), scene="compact")
    rng = np.random.default_rng(0)
    exposure = Exposure(config, draw_optics(rng, draw_style(rng, config), config), 3)
    exposure.labels[1:3, 1:5, 1:6] = 2  # 40 voxels, first in order, of a label ...
    exposure.labels[8:12, 8:20, 8:20] = 2  # ... that is mostly elsewhere
    exposure.labels[14:16, 1:4, 1:5] = 1  # 24 voxels: too small
    exposure.labels[8:12, 24:30, 24:30] = 3
    exposure.peaks[1:] = 1.0, 2.0, 0.01  # the last is too faint to be seen
    labels, unit = exposure.settle()
    np.testing.assert_array_equal(np.argwhere(labels == 1).min(0), (8, 8, 8))
    assert (labels == 1).sum() == 4 * 12 * 12
    assert labels.max() == 1
    assert unit == pytest.approx((2.0 + 0.01) / 2)


def radial(scene: str, seed: int) -> np.ndarray:
    """Distances of the labelled voxels from their common centre, over the 95th percentile."""
    volume = simulate_volume(
        seed=seed, scene=scene, shape=(64, 96, 96), z_scale=(0.65, 0.67), extent=(0.75, 0.8), diameter_px=(9, 11),
        density=(0.9, 1), mitotic=(0, 0),
    )  # fmt: skip
    places = np.argwhere(volume.labels > 0) / (volume.parameters["style"]["z_scale"], 1, 1)
    distance = np.linalg.norm(places - places.mean(0), axis=1)
    return distance / np.percentile(distance, 95)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cystic_is_hollow_and_compact_is_not(seed):
    assert (radial("cystic", seed) < 0.5).mean() < 0.04
    assert (radial("compact", seed) < 0.5).mean() > 0.08  # an even ball has 0.125


@pytest.mark.parametrize("seed", range(4))
def test_cauliflower_has_lobes(seed):
    config = SimulationConfig(scene="cauliflower", diameter_px=(8, 10), extent=(0.8, 0.8), density=(1, 1))
    rng = np.random.default_rng(seed)
    layout = lay_out(rng, draw_style(rng, config), config)
    assert 4 <= len(layout.shells) <= 9
    centres = np.array([shell.centre for shell in layout.shells])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[~np.eye(len(centres), dtype=bool)]
    assert apart.min() > 0.8 * np.min([shell.radius for shell in layout.shells])
    owner = np.argmin([shell.depth(layout.centres) for shell in layout.shells], axis=0)
    assert len(np.unique(owner)) == len(layout.shells)  # every lobe has nuclei


def test_embryos_have_few_nuclei_and_empties_none():
    counts = [simulate_volume(seed=seed, scene="embryo", diameter_px=(9, 12)).labels.max() for seed in range(8)]
    assert 1 <= min(counts) < 12
    assert max(counts) <= 75  # 64 places, some of them pairs of plates
    for seed in range(4):
        assert simulate_volume(seed=seed, scene="empty", **SMALL).labels.max() == 0


def test_scattered_is_sparse():
    shares = [(simulate_volume(seed=seed, scene="scattered", **SMALL).labels > 0).mean() for seed in range(6)]
    assert np.median(shares) < 0.12


def test_debris_ghosts_and_polar_bodies_are_seen_but_never_labelled():
    bare = {**SMALL, "haze": (0, 0), "background": (0, 0), "optics": PLAIN_OPTICS}
    dirty = simulate_volume(seed=1, scene="empty", debris=(6, 6), ghosts=(2, 2), **bare)
    assert dirty.clean.max() > 0.5
    assert dirty.labels.max() == 0
    assert dirty.parameters["debris"] > 0
    assert dirty.parameters["ghosts"] > 0
    clean = simulate_volume(seed=4, scene="embryo", **{**bare, **NO_DIRT})
    dirty = simulate_volume(seed=4, scene="embryo", debris=(1, 1), ghosts=(1, 1), polar_bodies=6, **bare)
    np.testing.assert_array_equal(clean.labels, dirty.labels)
    assert (dirty.background > 0.3).sum() > 50
    assert not clean.background.any()


def test_polar_bodies_belong_to_embryos():
    counts = [simulate_volume(seed=s, scene="embryo", **SMALL).parameters["polar_bodies"] for s in range(8)]
    assert max(counts) >= 1
    assert simulate_volume(seed=1, scene="compact", **SMALL).parameters["polar_bodies"] == 0


def test_mitoses_are_brighter():
    share = {"seed": 8, "scene": "compact", **SMALL, "intensity_cv": (0, 0), "optics": PLAIN_OPTICS, **NO_DIRT}
    calm, busy = (simulate_volume(**share, mitotic=(m, m)) for m in (0.0, 0.5))
    assert np.percentile(busy.clean, 99.9) > 1.2 * np.percentile(calm.clean, 99.9)
    assert busy.labels.max() != calm.labels.max()  # pairs of plates are two nuclei


def test_pyknotic_nuclei_are_bright_small_and_labelled():
    share = {"seed": 8, "scene": "compact", **SMALL, "intensity_cv": (0, 0), "optics": PLAIN_OPTICS, **NO_DIRT}
    share["outline_common"] = 0.0  # or their light from afar is theirs
    calm, dying = (simulate_volume(**share, mitotic=(0, 0), pyknotic=(p, p)) for p in (0.0, 0.25))
    assert dying.clean.max() > 2 * calm.clean.max()
    assert dying.labels[np.unravel_index(dying.clean.argmax(), dying.clean.shape)] > 0
    bright = np.unique(dying.labels[dying.clean > 2])
    sizes = np.bincount(dying.labels.ravel())
    assert np.median(sizes[bright[bright > 0]]) < 0.7 * np.median(sizes[1:])


def test_particle_reduction_spans_the_range_of_real_data():
    dense = simulate_volume(
        seed=3, scene="tissue", density=(1, 1), spacing=(0.8, 0.8), diameter_px=(8, 10), shape=(48, 64, 64),
        pyknotic=(0, 0), debris=(0, 0), optics=PLAIN_OPTICS,
    )  # fmt: skip
    assert statistics(dense.image, dense.labels).prr < 1.8
    sparse = simulate_volume(
        seed=4, scene="scattered", shape=(96, 160, 160), diameter_px=(9, 12), nuclei=(2, 4), density=(0, 0.02),
        camera=GOOD_CAMERA, haze=(0, 0), background=(0, 0),
    )  # fmt: skip
    assert statistics(sparse.image, sparse.labels).prr > 80


def test_mixed_draws_every_scene():
    config = SimulationConfig()
    drawn = {draw_style(np.random.default_rng(seed), config).scene for seed in range(120)}
    assert drawn == set(SCENES)


def test_depth_takes_light():
    plain = {**SMALL, **NO_DIRT, "scene": "tissue", "density": (1, 1), "intensity_cv": (0, 0), "mitotic": (0, 0)}
    volume = simulate_volume(seed=2, **plain, optics=OpticsConfig(attenuation=(2, 2), halo=(0, 0), illumination=(0, 0)))
    optics = volume.parameters["optics"]
    ends = volume.clean[:8].mean(), volume.clean[-8:].mean()
    near, far = ends if optics["from_top"] else ends[::-1]
    assert near > 2 * far


@pytest.mark.parametrize(
    "wrong",
    [
        {"scene": "moon"},
        {"shape": (4, 64, 64)},
        {"shape": (64, 64)},
        {"diameter_px": (30, 10)},
        {"diameter_px": (1, 10)},
        {"outline_level": 1.5},
        {"density": (0.5, 1.5)},
        {"nuclei": (9, 3)},
        {"wavelength": 500},
        {"camera": {"photons": (0, 10)}},
        {"optics": {"halo": (0.5, 0.2)}},
    ],
)
def test_wrong_settings_are_config_errors_that_name_the_field(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        simulate_volume(seed=0, **wrong)


def test_a_configuration_survives_json():
    config = SimulationConfig(scene="cystic", camera=GOOD_CAMERA)
    assert SimulationConfig.model_validate_json(config.model_dump_json()) == config
