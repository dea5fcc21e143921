"""pyapr: to its objects and back, its files, and the process in which it converts."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from apr_helpers import DATA, make_legacy

from napari_aprcnn.apr import pyapr_bridge
from napari_aprcnn.apr.files import read_apr, write_apr
from napari_aprcnn.apr.pyapr_bridge import convert_with_pyapr, from_pyapr, has_pyapr, to_pyapr
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.config import PyaprConfig
from napari_aprcnn.errors import (
    CancelledError,
    ConfigError,
    ConversionError,
    ImageDtypeError,
    ImageError,
    ImageValueError,
    MissingDependencyError,
    ParticleTreeError,
)

needs_pyapr = pytest.mark.skipif(not has_pyapr(), reason="pyapr is not installed")


def _image(shape=(40, 50, 60), dtype=np.uint16):
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    ball = (at - np.array([n / 2 for n in shape]).reshape(-1, *[1] * len(shape))) ** 2
    noise = np.random.default_rng(0).normal(10, 1, shape).clip(0)
    return (noise + 150 * (ball.sum(axis=0) < 100)).astype(dtype)


def _read_by_pyapr(path, name="particles"):
    """What `pyapr.io.read` does, without the package around it, which imports PyQt5."""
    from _pyaprwrapper import data_containers as containers
    from _pyaprwrapper.io import APRFile

    file, apr = APRFile(), containers.APR()
    file.open(str(path), "READ")
    kind = file.get_particle_type(name, apr_or_tree=True)
    particles = {"uint8": "ByteParticles", "uint16": "ShortParticles", "float": "FloatParticles"}[kind]
    particles = getattr(containers, particles)()
    assert file.read_apr(apr)
    assert file.read_particles(apr, name, particles, apr_or_tree=True)
    file.close()
    return apr, particles


def _reconstructed(apr, particles):
    from _pyaprwrapper.reconstruction import reconstruct_constant_inplace

    values = np.array(particles)
    out = np.zeros(apr.shape(), values.dtype)
    reconstruct_constant_inplace(apr, particles, out)
    return out


@needs_pyapr
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("levels", [3, 4, 6])
def test_pyapr_reads_our_files(tmp_path, dtype, levels):
    grid = np.full((12, 9, 17), levels if levels < 6 else 6, np.uint8)
    if levels < 5:
        grid[...] = 5
        grid[8:, :, 8:] = 4
    tree = ParticleTree.from_levels(np.minimum(grid, 6 if levels == 6 else 5), shape=(23, 18, 33))
    tree = tree.with_intensities(np.random.default_rng(0).uniform(0, 255, len(tree)).astype(dtype))
    apr, particles = _read_by_pyapr(write_apr(tmp_path / "a.apr", tree))
    assert apr.shape() == tree.shape
    assert apr.total_number_tree_particles() == tree.node_count
    np.testing.assert_array_equal(_reconstructed(apr, particles), tree.reconstruct())
    assert from_pyapr(apr, particles) == tree


@needs_pyapr
@pytest.mark.parametrize("name", ["rows", "gaps", "stabilised"])
def test_there_and_back(name):
    tree = read_apr(DATA / f"{name}.apr")
    apr, particles = to_pyapr(tree)
    assert from_pyapr(apr, particles) == tree
    assert from_pyapr(apr) == tree.with_intensities(None)
    assert from_pyapr(apr, np.array(particles, np.float64)).intensities.dtype == np.float64
    apr, particles = to_pyapr(tree.with_intensities(None))
    assert particles is None
    assert apr.total_number_particles() == len(tree)


@needs_pyapr
def test_pyapr_reads_the_made_up_legacy_file_as_we_do(tmp_path):
    path = make_legacy(tmp_path)
    assert from_pyapr(*_read_by_pyapr(path, "particle_intensities")) == read_apr(path)


@needs_pyapr
@pytest.mark.parametrize("shape", [(12, 18, 24), (11, 18, 23), (12, 17, 24), (11, 17, 23), (1, 33, 40)], ids=str)
def test_gaps_of_even_and_odd_shapes(tmp_path, shape):
    """Fine particles at every border, stored as gaps, in the new order of values and in the old one."""
    from _pyaprwrapper.io import APRFile

    tree = convert_with_pyapr(np.random.default_rng(3).integers(0, 3000, shape).astype(np.uint16))
    apr, particles = to_pyapr(tree)
    file = APRFile()
    file.set_write_linear_flag(False)
    file.open(str(tmp_path / "gaps.apr"), "WRITE")
    file.write_apr(apr)
    file.write_particles("particles", particles, apr_or_tree=True)
    file.close()
    assert read_apr(tmp_path / "gaps.apr") == tree
    legacy = make_legacy(tmp_path, tmp_path / "gaps.apr")
    assert read_apr(legacy) == tree
    assert from_pyapr(*_read_by_pyapr(legacy, "particle_intensities")) == tree


@needs_pyapr
@pytest.mark.shared
def test_every_oracle_file_is_read_as_pyapr_reads_it(oracle):
    for path in sorted((oracle / "apr").glob("*.apr")):
        assert from_pyapr(*_read_by_pyapr(path, "particle_intensities")) == read_apr(path), path.name


@needs_pyapr
def test_pyapr_objects_that_do_not_fit():
    from _pyaprwrapper.data_containers import APR

    with pytest.raises(ParticleTreeError, match="without particles"):
        from_pyapr(APR())
    apr, particles = to_pyapr(read_apr(DATA / "rows.apr"))
    with pytest.raises(ParticleTreeError, match="one for each"):
        from_pyapr(apr, np.array(particles)[1:])


# --- conversion ------------------------------------------------------------------------------------------------------


@needs_pyapr
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_conversion_is_that_of_pyapr(dtype):
    from _pyaprwrapper.converter import FloatConverter
    from _pyaprwrapper.data_containers import APR

    image, told = _image(dtype=dtype), []
    tree = convert_with_pyapr(image, progress=told.append, threads=1)
    converter = FloatConverter()
    parameters = converter.get_parameters()
    parameters.auto_parameters = True
    converter.set_parameters(parameters)
    converter.verbose = False
    apr = APR()
    converter.get_apr(apr, image)
    assert from_pyapr(apr).with_intensities(None) == tree.with_intensities(None)
    assert tree.intensities.dtype == dtype
    assert tree.conversion["converter"] == "pyapr"
    assert tree.conversion["gradient_threshold"] == pytest.approx(apr.get_parameters().grad_th)
    assert told == sorted(told)
    assert told[-1] == 1.0


@needs_pyapr
@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["odd_33x2x65", "small_manual_lam3", "small_aniso", "dsb2018_256_auto", "img2d_manual"]
)
def test_parameters_reach_pyapr(oracle, name):
    with np.load(oracle / "conversion" / f"{name}.npz") as arrays:
        image, levels, parts = arrays["image"], arrays["level_map"], arrays["parts"]
        meta = json.loads(str(arrays["meta"]))
    given = meta.get("parameters", meta)
    names = {
        "relative_error": "rel_error", "auto_thresholds": "auto_parameters", "smoothing": "gradient_smoothing",
        "intensity_threshold": "Ip_th", "scale_threshold": "sigma_th", "scale_cutoff": "sigma_th_max",
        "gradient_threshold": "grad_th",
    }  # fmt: skip
    values = {ours: given[theirs] for ours, theirs in names.items() if theirs in given}
    spacing = tuple(given.get(key, 1.0) for key in ("dz", "dx", "dy"))
    tree = convert_with_pyapr(image, PyaprConfig(**values, spacing_um=spacing), threads=2)
    np.testing.assert_array_equal(tree.level_image().squeeze(), levels.squeeze())
    np.testing.assert_array_equal(tree.intensities, parts)


@needs_pyapr
def test_conversion_metadata_survive_a_file(tmp_path):
    tree = convert_with_pyapr(_image((20, 20, 20)), PyaprConfig(relative_error=0.2, spacing_um=(2, 1, 1)))
    again = read_apr(write_apr(tmp_path / "a.apr", tree))
    assert again == tree
    assert dict(again.conversion) == dict(tree.conversion)


@needs_pyapr
def test_cancel_ends_the_conversion_at_once():
    image, asked, wanted = np.tile(_image(), (6, 6, 6)), [], []

    def should_cancel():
        # From the first look at a child that is at work: by the clock a fast machine would be done before.
        asked.append(time.monotonic())
        return bool(working) and (wanted.append(asked[-1]) or True)

    working = []
    with pytest.raises(CancelledError, match="conversion"):
        convert_with_pyapr(image, progress=working.append, should_cancel=should_cancel)
    assert time.monotonic() - wanted[0] < 0.5


@needs_pyapr
def test_a_cancel_after_the_child_is_done_is_heard_too(monkeypatch):
    late = []
    run = pyapr_bridge.run_child
    monkeypatch.setattr(pyapr_bridge, "run_child", lambda *a, **k: (run(*a, **k), late.append(1)))
    with pytest.raises(CancelledError, match="conversion"):
        convert_with_pyapr(_image(), should_cancel=lambda: bool(late))


@needs_pyapr
def test_other_threads_go_on_meanwhile():
    image, gaps = np.tile(_image(), (3, 3, 3)), []
    done = threading.Event()

    def watch():
        last = time.monotonic()
        while not done.wait(0.005):
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        convert_with_pyapr(image)
    finally:
        done.set()
        watcher.join()
    assert len(gaps) > 20
    assert max(gaps) < 0.5


@needs_pyapr
def test_a_conversion_that_takes_too_long():
    with pytest.raises(ConversionError, match=r"more than 0\.05 s"):
        convert_with_pyapr(_image(), timeout=0.05)


@needs_pyapr
def test_a_crash_of_pyapr_is_an_error(monkeypatch):
    """Of the shapes that end pyapr's process one gets past its checks here: with them out of the way."""
    monkeypatch.setattr(pyapr_bridge, "_checked", lambda image: image)
    with pytest.raises(ConversionError, match="pyapr did not convert"):
        convert_with_pyapr(np.zeros((1, 1, 1), np.uint16))
    with pytest.raises(ConversionError, match="pyapr did not convert"):
        convert_with_pyapr(np.zeros((0, 64, 64), np.uint16))


@needs_pyapr
def test_neither_qt_nor_the_package_around_it_is_imported():
    code = (
        "import sys, numpy as np; from napari_aprcnn.apr.pyapr_child import _convert; from pathlib import Path;"
        "from napari_aprcnn.config import PyaprConfig; import tempfile;"
        "image = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype('uint8');"
        "_convert(image, PyaprConfig().model_dump(mode='json'), Path(tempfile.mkdtemp()) / 'a.apr');"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('PyQt5', 'PyQt6', 'pyqtgraph', 'pyapr', 'torch')];"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((1, 1, 1), np.uint16), ImageError, "edge of 7"),
        (np.zeros((6, 6, 6), np.uint16), ImageError, "built-in"),
        (np.zeros((64, 64, 1), np.uint16), ImageError, "along x"),
        (np.zeros((0,), np.uint16), ImageError, "axes"),
        (np.zeros((0, 64, 64), np.uint16), ImageError, "empty"),
        (np.zeros((2, 3, 64, 64), np.uint16), ImageError, "axes"),
        (np.zeros((1, 1, 70_000), np.uint8), ImageError, "65536"),
        (np.zeros((20, 20, 20), np.int32), ImageDtypeError, "astype"),
        (np.zeros((20, 20, 20), np.float64), ImageDtypeError, "float32"),
        (np.full((20, 20, 20), np.nan, np.float32), ImageValueError, "finite"),
        (np.full((20, 20, 20), np.inf, np.float32), ImageValueError, "finite"),
        (np.full((20, 20, 20), -1, np.float32), ImageValueError, "-1"),
    ],
    ids=str,
)
def test_images_that_pyapr_would_lose_or_die_of(monkeypatch, image, error, words):
    monkeypatch.setattr(pyapr_bridge, "has_pyapr", lambda: True)
    monkeypatch.setattr(pyapr_bridge, "run_child", None)
    with pytest.raises(error, match=words):
        convert_with_pyapr(image)


def test_a_single_bad_voxel_is_found(monkeypatch):
    monkeypatch.setattr(pyapr_bridge, "has_pyapr", lambda: True)
    for bad in (np.nan, np.inf, -np.inf, -1e-3):
        image = np.ones((20, 20, 20), np.float32)
        image[7, 8, 9] = bad
        with pytest.raises(ImageValueError):
            convert_with_pyapr(image)


@pytest.mark.parametrize(
    "call", [lambda: convert_with_pyapr(_image()), lambda: from_pyapr(None), lambda: to_pyapr(None)]
)
def test_without_pyapr(monkeypatch, call):
    monkeypatch.setattr(pyapr_bridge, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'napari-aprcnn\[apr\]' under Python 3.11"):
        call()


def test_a_smoothing_that_libapr_cannot_do():
    with pytest.raises(ConfigError, match="1/24"):
        PyaprConfig(smoothing=0.01)
