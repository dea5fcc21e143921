import pytest

from napari_aprcnn._napari.settings import Settings, load_settings, preferences, save_settings, settings_path
from napari_aprcnn.config import AxisMapping, SegmentConfig


def test_settings_survive_without_what_belongs_to_an_image():
    config = SegmentConfig(diameter_px=31.0, axes=AxisMapping(order="ZYX"), spacing_um=(1, 1, 1), threads=3)
    assert save_settings(Settings(config=config, show_flows=True, rerun="version"))
    loaded = load_settings()
    assert loaded.config == SegmentConfig(diameter_px=31.0, threads=3)
    assert (loaded.show_flows, loaded.rerun) == (True, "version")
    assert [path.name for path in settings_path().parent.iterdir()] == ["segment.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"rerun": "sometimes"}', '{"config": 3}', "\x00\xff", "{}"])
def test_a_damaged_file_gives_the_defaults(text):
    settings_path().parent.mkdir(parents=True)
    settings_path().write_text(text, encoding="latin-1")
    assert load_settings() == Settings()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert not save_settings(Settings(), tmp_path / "file" / "segment.json")


def test_preferences_have_defaults_without_napari_s():
    assert preferences().remember


def test_a_model_chosen_in_an_older_version_is_still_a_choice():
    settings_path().parent.mkdir(parents=True)
    settings_path().write_text('{"config": {"model": "mine.safetensors"}}')
    assert load_settings().model_chosen
    settings_path().write_text('{"config": {"model": "fastercellpose-v3"}}')
    assert not load_settings().model_chosen
    settings_path().write_text('{"config": {"model": "apr-tiny-3d"}, "model_chosen": false}')
    assert not load_settings().model_chosen
