import pytest

from napari_aprcnn._napari.fields import field_specs, get_value, with_value
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import ConfigError

SPECS = {spec.path: spec for spec in field_specs(SegmentConfig)}


def test_every_field_has_a_sentence():
    assert [path for path, spec in SPECS.items() if len(spec.help) < 10] == []


@pytest.mark.parametrize(
    ("path", "kind", "optional", "low", "high"),
    [
        (("flows", "n_steps"), "int", False, 1, 10_000),
        (("flows", "fill_holes"), "bool", False, None, None),
        (("tiles", "overlap"), "float", False, 0, 0.5),
        (("tiles", "memory_gb"), "float", True, 0, None),
        (("threads",), "int", True, 1, None),
        (("diameter_px",), "float", True, 0, None),
        (("dimensionality",), "choice", False, None, None),
        (("model",), "text", False, None, None),
    ],
)
def test_types_and_ranges_are_read(path, kind, optional, low, high):
    spec = SPECS[path]
    assert (spec.kind, spec.optional, spec.minimum, spec.maximum) == (kind, optional, low, high)


def test_choices_and_tooltip():
    spec = SPECS["dimensionality",]
    assert spec.choices == ("auto", "2d", "planes", "stitch", "volume")
    assert "planes: 3D by flows averaged" in spec.tooltip
    assert "Range: 0 to 0.5" in SPECS["tiles", "overlap"].tooltip
    assert "Default: auto" in SPECS["threads",].tooltip


def test_values_are_changed_deep_down_and_validated():
    config = with_value(SegmentConfig(), ("flows", "n_steps"), 50)
    assert get_value(config, ("flows", "n_steps")) == 50
    assert config.flows.flow_threshold == SegmentConfig().flows.flow_threshold
    with pytest.raises(ConfigError, match="n_steps"):
        with_value(config, ("flows", "n_steps"), 0)
