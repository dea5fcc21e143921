import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage


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
