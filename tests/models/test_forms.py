"""Which form of a network is expected to be fastest."""

from __future__ import annotations

import pytest

from napari_aprcnn.models.forms import choose_form, choose_form_for, expected_seconds, stage_rows
from napari_aprcnn.models.volume_config import VolumeNetConfig
from trees import finest_tree, random_tree

CONFIG = VolumeNetConfig(channels=4, depth=2)


def test_rows_are_those_of_the_stages():
    tree = finest_tree((8, 12, 16))
    assert stage_rows(tree, 2)[0] >= len(tree) == 8 * 12 * 16
    assert sorted(stage_rows(tree, 2), reverse=True) == stage_rows(tree, 2)


def test_fewer_particles_cost_less_and_voxels_always_the_same():
    shape = (64, 64, 64)
    dense, sparse = [64**3, 32**3, 16**3], [64**3 // 20, 32**3 // 8, 16**3 // 4]
    apr, pixel = CONFIG, CONFIG.replace(particle_stages=0)
    assert expected_seconds(apr, shape, sparse) < 0.2 * expected_seconds(apr, shape, dense)
    assert expected_seconds(pixel, shape, sparse) == expected_seconds(pixel, shape, dense)
    assert choose_form(CONFIG, shape, sparse) > 0
    assert choose_form(CONFIG, shape, [5 * n for n in dense]) == 0


def test_one_form_for_several_images():
    sparse = random_tree((40, 44, 36), 1, 0.05)
    alone = choose_form(CONFIG, sparse.shape, stage_rows(sparse, 2))
    assert choose_form_for(CONFIG, [sparse, sparse]) == alone
    assert choose_form_for(CONFIG, iter([sparse])) == alone
    assert choose_form_for(CONFIG, []) == 0


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_the_choice_does_not_depend_on_the_form_it_is_asked_with(stages):
    rows = [5_000, 2_000, 700]
    assert choose_form(CONFIG.replace(particle_stages=stages), (48, 48, 48), rows) == choose_form(
        CONFIG, (48, 48, 48), rows
    )
