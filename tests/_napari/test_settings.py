import json

import pytest
from pydantic import model_validator

from napari_aprcnn._napari.settings import Settings, load_settings, preferences, save_settings, settings_path
from napari_aprcnn._napari.settings_file import read_settings
from napari_aprcnn._napari.train_settings import TrainSettings, load_train_settings, train_settings_path
from napari_aprcnn.config import AxisMapping, SegmentConfig
from napari_aprcnn.frozen import Frozen


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


# --- files of other versions -----------------------------------------------------------------------------------------
@pytest.fixture
def told(monkeypatch):
    """What the user is told."""
    from napari.utils import notifications

    found = []
    monkeypatch.setattr(notifications, "show_info", found.append)
    return found


def written(change):
    """Write the settings of another version; the text that was written."""
    values = json.loads(Settings(config=SegmentConfig(threads=3, diameter_px=31.0)).model_dump_json())
    change(values)
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().write_text(json.dumps(values), encoding="utf-8")
    return settings_path().read_text(encoding="utf-8")


def test_what_is_known_of_another_version_is_taken(told):
    def change(values):
        values.update(show_flows=True, guide=False, from_the_future=1, rerun="sometimes")
        values["config"].update(new_option=3, threads=-7)

    text = written(change)
    settings = load_settings()
    assert (settings.show_flows, settings.guide, settings.rerun) == (True, False, "replace")
    assert settings.config == SegmentConfig(diameter_px=31.0)
    old = settings_path().with_name("segment.json.bak")
    assert old.read_text(encoding="utf-8") == text
    assert len(told) == 1
    assert "segment.json.bak" in told[0]
    load_settings()
    assert len(told) == 1
    assert save_settings(settings)
    assert load_settings() == settings
    assert old.read_text(encoding="utf-8") == text


def test_values_that_depend_on_one_another_are_taken_in_any_order():
    class Pair(Frozen):
        low: int = 1
        high: int = 2

        @model_validator(mode="after")
        def _ordered(self):
            if self.low >= self.high:
                raise ValueError("low is not below high")
            return self

    path = settings_path()
    path.parent.mkdir(parents=True)
    path.write_text('{"low": 5, "high": 9, "middle": 7}')
    assert read_settings(Pair, path) == Pair(low=5, high=9)
    path.write_text('{"low": 5, "high": 3, "middle": 7}')
    assert read_settings(Pair, path) == Pair(high=3)


def test_every_dock_takes_what_it_knows():
    path = train_settings_path()
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "mine", "mix": false, "config": {"epochs": 7, "network": {"channels": -1}, "more": 1}}')
    settings = load_train_settings()
    assert (settings.name, settings.mix, settings.config.epochs) == ("mine", False, 7)
    assert settings.config.network == TrainSettings().config.network


@pytest.mark.parametrize("text", ["[" * 100_000, '{"config": ' * 100_000, "\x00\xff", "[1, 2]", "3"])
def test_a_damaged_file_is_kept_and_told(told, text):
    settings_path().parent.mkdir(parents=True)
    settings_path().write_text(text, encoding="latin-1")
    assert load_settings() == Settings()
    assert settings_path().with_name("segment.json.bak").read_text(encoding="latin-1") == text
    assert len(told) == 1


def test_a_folder_in_the_place_of_the_file_is_no_error(told):
    settings_path().mkdir(parents=True)
    assert load_settings() == Settings()
    assert told == []
