import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.io.samples import sample_path
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.distil_images import read_images
from napari_aprcnn.train.distil_settings import DistilConfig
from napari_aprcnn.train.teacher import TeacherPatches

TEACHER = "fastercellpose-v3"


def disks(shape=(96, 112), count=8, radius=8, seed=0):
    """An image of blurred disks and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    yy, xx = np.indices(shape)
    for number in range(1, count + 1):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        labels[((yy - y) ** 2 + (xx - x) ** 2 < radius**2) & (labels == 0)] = number
    image = ndimage.gaussian_filter((labels > 0) * 800.0, 1.0) + rng.normal(100, 5, shape)
    return image.astype(np.uint16), labels


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "disks.zip"
    with zipfile.ZipFile(path, "w") as out:
        index = []
        for number in range(4):
            for part, array in zip(("images", "labels"), disks(seed=number), strict=True):
                blob = io.BytesIO()
                tifffile.imwrite(blob, array)
                out.writestr(f"{part}/im{number}.tif", blob.getvalue())
            index.append({"name": f"im{number}", "kind": "even" if number % 2 == 0 else "odd"})
        out.writestr("index.json", json.dumps(index))
    return path


def distil_settings(n_steps=6, views=2, validate_every=3, seed=0, held_out=0.4, training=None, **changes):
    """A distillation of seconds."""
    small = TrainConfig(
        architecture="faster_v3", n_steps=n_steps, batch_size=2, crop_px=64, learning_rate=1e-3, warmup_steps=1,
        precision="float32", seed=seed,
    ).replace(**(training or {}))  # fmt: skip
    return DistilConfig(training=small, views=views, validate_every=validate_every, held_out=held_out, **changes)


@pytest.fixture(scope="session")
def teacher():
    return load_model(TEACHER, device="cpu")


@pytest.fixture(scope="session")
def quarters(tmp_path_factory) -> Path:
    """Quarters of a real image, without labels."""
    folder = tmp_path_factory.mktemp("bare")
    plane = tifffile.imread(sample_path("culture"))
    half = [n // 2 for n in plane.shape]
    for n, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        tifffile.imwrite(folder / f"q{n}.tif", plane[y * half[0] :, x * half[1] :][: half[0], : half[1]])
    return folder


@pytest.fixture(scope="session")
def labelled_quarters(quarters, teacher, tmp_path_factory) -> Path:
    """The same with labels, so that no diameter has to be found."""
    folder = tmp_path_factory.mktemp("labelled")
    for path in quarters.glob("*.tif"):
        plane = tifffile.imread(path)
        for name, written in (("images", plane), ("labels", segment(plane, model=teacher).labels)):
            (folder / name).mkdir(exist_ok=True)
            tifffile.imwrite(folder / name / path.name, written)
    return folder


@pytest.fixture(scope="session")
def patches(quarters, teacher, tmp_path_factory) -> TeacherPatches:
    """What the teacher says of them."""
    where = tmp_path_factory.mktemp("patches")
    return TeacherPatches(read_images([quarters]), teacher, distil_settings(), folder=where)
