import pytest

from napari_aprcnn.io.units import in_um


@pytest.mark.parametrize(
    "unit",
    [
        "um",
        "µm",
        "μm",
        "micron",
        "microns",
        "Micron",
        "micrometer",
        "micrometre",
        r"\u00B5m",
        r"\u03BCm",
        " um ",
        "µm\x00",
    ],
)
def test_every_spelling_of_the_micrometre(unit):
    assert in_um(0.25, unit) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 1e-3), ("mm", 1e3), ("cm", 1e4), ("inch", 25400), ("Å", 1e-4), ("nanometer", 1e-3)]
)
def test_other_units(unit, factor):
    assert in_um(0.01, unit) == pytest.approx(0.01 * factor)


@pytest.mark.parametrize("unit", ["pixel", "pixels", "", None, "reference frame", "sec", r"\u12", "furlong"])
def test_no_unit_of_length(unit):
    assert in_um(1, unit) is None


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "many", None, 1e300])
def test_values_that_are_no_voxel_edge(value):
    assert in_um(value, "um") is None


def test_the_default_unit_is_for_missing_ones_only():
    assert in_um("2", None, default="µm") == 2
    assert in_um("2", "pixel", default="µm") is None
