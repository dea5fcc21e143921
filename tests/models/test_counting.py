"""Parameters and MACs of the ten networks, published and true."""

from __future__ import annotations

import pytest

from napari_aprcnn.models.counting import count_macs, family_table

TRUE_MACS = {
    "cellpose": 323_968_409_600,
    "dilated": 246_658_998_272,
    "upsample": 250_953_719_808,
    "compressed": 173_644_308_480,
    "cellpose_dsc": 49_073_725_440,
    "compressed_dsc": 33_957_208_064,
    "fastcellpose": 24_914_196_480,
    "faster_v1": 13_541_402_624,
    "faster_v2": 9_204_430_848,
    "faster_v3": 4_971_329_536,
}


@pytest.fixture(scope="module")
def table():
    return {row.name: row for row in family_table()}


@pytest.mark.parametrize("name", TRUE_MACS)
def test_macs_are_exact(table, name):
    row = table[name]
    assert {"thop": row.thop_macs, "calflops": row.calflops_macs}[row.published_counter] == row.published_macs
    assert row.macs == TRUE_MACS[name]


def test_rows_are_the_ten_of_the_thesis_in_order(table):
    assert list(table) == list(TRUE_MACS)


@pytest.mark.parametrize(("name", "unused"), [("upsample", 282_976), ("faster_v3", 11_366), ("cellpose", 0)])
def test_unused_parameters(table, name, unused):
    assert table[name].unused_parameters == unused


def test_true_macs_of_convolutions_grow_with_the_area():
    # What does not grow is the linear layers of the style: 128 x (128 + 64 + 32 + 16).
    style = 128 * (128 + 64 + 32 + 16)
    assert count_macs("faster_v3", shape=(1, 2, 64, 64)) - style == 4 * (
        count_macs("faster_v3", shape=(1, 2, 32, 32)) - style
    )
