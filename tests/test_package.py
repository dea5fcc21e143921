import subprocess
import sys

import pytest

import napari_aprcnn


@pytest.mark.parametrize("name", napari_aprcnn.__all__)
def test_the_public_surface_resolves(name):
    assert getattr(napari_aprcnn, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = napari_aprcnn.nothing


@pytest.mark.parametrize("first", ["segment.pipeline", "evaluate.matching"])
def test_functions_can_be_called_whatever_was_imported_first(first):
    room = first.partition(".")[0]
    code = f"import napari_aprcnn, napari_aprcnn.{first}; assert callable(napari_aprcnn.{room})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_does_not_import_torch_or_qt():
    code = "import sys, napari_aprcnn; assert not {'torch', 'qtpy', 'napari', 'zarr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
