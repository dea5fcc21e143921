"""``.apr`` files as layers, and layers that napari-apr-viewer made as inputs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from napari.components import ViewerModel
from napari_fakes import fake_backend
from segment_tools import in_place, settle

from napari_aprcnn._napari.apr_reader import MOST_IMAGES, layer_of_tree
from napari_aprcnn._napari.foreign import SlicerImage, steady
from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn._napari.reader import get_reader
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn.apr.pyramid import TreeArray
from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.errors import FileFormatError
from napari_aprcnn.segment.pipeline import segment
from volume_fakes import BallNetwork, balls

pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")


def added(*paths):
    viewer = ViewerModel()
    given = [str(path) for path in paths]
    for data, options, kind in get_reader(given)(given):
        assert kind == "image"
        viewer.add_image(data, **options)
    return list(viewer.layers)


@pytest.fixture
def tree():
    return to_apr(balls(), threads=1, spacing=(2.0, 0.5, 0.5))


@pytest.fixture
def file(tree, tmp_path):
    from napari_aprcnn.apr.files import write_apr

    return write_apr(tmp_path / "embryo.apr", tree)


def test_a_file_becomes_a_layer_with_its_scale(tree, file):
    (layer,) = added(file)
    assert layer.name == "embryo"
    assert isinstance(layer.data, TreeArray)
    assert np.array_equal(np.asarray(layer.data), tree.reconstruct())
    np.testing.assert_allclose(layer.scale, (2.0, 0.5, 0.5))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert layer.metadata["particles"] == len(tree)
    assert layer.contrast_limits == [tree.intensities.min(), tree.intensities.max()]


def test_a_large_file_becomes_a_pyramid_that_is_never_painted_whole(tmp_path, monkeypatch):
    from napari_aprcnn.apr.files import write_apr

    image = balls((12, 220, 200), step=40)
    path = write_apr(tmp_path / "large.apr", to_apr(image, threads=1))
    boxes = []
    paint = TreeArray.read_box
    monkeypatch.setattr(TreeArray, "read_box", lambda self, spans: boxes.append(spans) or paint(self, spans))
    (layer,) = added(path)
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(12, 220, 200), (6, 110, 100)]
    assert {str(unit) for unit in layer.units} == {"pixel"}
    assert boxes
    assert max(np.prod([high - low for low, high in spans]) for spans in boxes) <= image.size // 8


def test_several_images_and_other_files_together(tree, tmp_path):
    import tifffile

    from napari_aprcnn.apr.files import write_apr

    film = write_apr(tmp_path / "film.apr", {("t", 0): tree, ("t", 1): tree.with_intensities(tree.intensities + 1)})
    tifffile.imwrite(tmp_path / "plane.tif", np.zeros((20, 30), np.uint8))
    layers = added(film, tmp_path / "plane.tif")
    assert [layer.name for layer in layers] == ["film t", "film t1", "plane"]
    assert int(np.asarray(layers[1].data)[0, 0, 0]) == int(np.asarray(layers[0].data)[0, 0, 0]) + 1


def test_of_very_many_images_the_first_are_opened(tmp_path):
    from napari_aprcnn.apr.files import write_apr

    small = to_apr(balls((8, 16, 16)), threads=1)
    film = write_apr(tmp_path / "film.apr", {("t", i): small for i in range(MOST_IMAGES + 1)})
    with pytest.warns(UserWarning, match=r"holds 17 images, of which the first 16"):
        assert len(added(film)) == MOST_IMAGES


def test_planes_and_trees_without_values(tree):
    data, options, _ = layer_of_tree(to_apr(balls()[8], threads=1), name="plane")
    assert data.shape == (40, 48)
    assert options["axis_labels"] == ["y", "x"]
    data, options, _ = layer_of_tree(tree.with_intensities(None), name="levels")
    assert np.array_equal(np.asarray(data), tree.level_image())
    assert options["name"] == "levels"


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(300)])
def test_bad_files_say_what_is_wrong(tmp_path, content):
    path = tmp_path / "bad.apr"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"bad\.apr"):
        get_reader(str(path))(str(path))


def test_a_layer_of_a_file_is_segmented(file):
    viewer = ViewerModel()
    ((data, options, _),) = get_reader(str(file))(str(file))
    viewer.add_image(data, **options)
    model = SegmentModel(viewer, launch=in_place, backend=fake_backend())
    settle(model)
    assert model.images.shape_words == "Z 32 x Y 40 x X 48"
    image = model.images.snapshot
    assert segment(image.data, model=BallNetwork(), threads=1).readout.n_objects == 12


# --- napari-apr-viewer -----------------------------------------------------------------------------------------------


class _Patch:
    level_delta = 0


class Slicer:
    """Behaves as pyapr's slicer: one buffer, axes of length 1 dropped, its particles for numpy.asarray."""

    def __init__(self, apr, parts, mode="constant", level_delta=0):
        self.apr, self.parts, self.mode, self.patch = apr, parts, mode, _Patch()
        self.dtype, self.shape, self.ndim = np.uint16, apr.shape, 3
        self.reads = []
        self._buffer = None

    def reconstruct(self):
        return self._buffer.squeeze()

    def __getitem__(self, item):
        if not isinstance(item, tuple):
            item = (item, slice(None), slice(None))
        # Like the original: None stands for the end, steps are not looked at.
        box = [part if isinstance(part, slice) else slice(int(part), int(part) + 1) for part in item]
        self.reads.append(box)
        part = self.apr[tuple(box)]
        if self._buffer is None or self._buffer.shape != part.shape:
            self._buffer = np.empty_like(part)
        self._buffer[...] = part
        return self.reconstruct()

    def __array__(self, dtype=None, copy=None):
        return np.arange(5)


def test_layers_of_the_apr_viewer_are_read_safely():
    image = balls()
    slicer = Slicer(image, parts=np.zeros(3))
    safe = steady(slicer)
    assert isinstance(safe, SlicerImage)
    assert np.array_equal(np.asarray(safe), image)
    for index in (0, (slice(3, 4), slice(0, 40), slice(0, 48)), (slice(1, 9, 2), 5), (Ellipsis, slice(2, 3))):
        assert np.array_equal(safe[index], image[index])
        assert safe[index].shape == image[index].shape
    first, second = safe[0], safe[1]
    assert np.array_equal(first, image[0])  # not a buffer that the next read has painted over
    assert np.array_equal(second, image[1])
    with ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(lambda z: safe[z], list(range(32)) * 4))
    assert all(np.array_equal(plane, image[i % 32]) for i, plane in enumerate(planes))
    assert slicer.reads == []  # the viewer's own is left alone


def test_a_layer_of_the_apr_viewer_is_segmented():
    from napari.layers import Image

    image = balls()
    layer = Image(
        Slicer(image, parts=np.zeros(3)), rgb=False, multiscale=False, contrast_limits=(0, 1000), scale=(2, 1, 1),
        projection_mode="none",
    )  # fmt: skip
    snapshot = image_of(layer)
    assert snapshot.shape == image.shape
    result = segment(snapshot.data, model=BallNetwork(), axes=snapshot.guess(), threads=1)
    assert np.array_equal(result.labels, segment(image, model=BallNetwork(), threads=1).labels)


def test_other_arrays_are_left_as_they_are():
    array = np.zeros((3, 4))
    assert steady(array) is array
    lazy = TreeArray.__new__(TreeArray)
    assert steady(lazy) is lazy
