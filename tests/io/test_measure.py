import csv

import dask.array as da
import numpy as np
import pytest
from skimage.measure import regionprops

from napari_aprcnn.errors import AxesError
from napari_aprcnn.io.measure import measure, write_measurements

SPACING = (1.0, 0.5, 0.25)


def _disk(radius, shape=(60, 60)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - 30) ** 2 + (x - 28) ** 2 <= radius**2).astype(np.uint16)


def test_plane_against_scikit_image():
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 9, (6, 7)), np.ones((5, 4), int)).astype(np.uint16)
    image = rng.integers(0, 999, labels.shape).astype(np.uint16)
    rows = measure(labels, spacing_um=SPACING, image=image)
    expected = regionprops(labels, intensity_image=image)
    assert [row["label"] for row in rows] == [region.label for region in expected]
    for row, region in zip(rows, expected, strict=True):
        assert row["area_px"] == region.area
        assert row["area_um2"] == pytest.approx(region.area * 0.125)
        assert (row["centroid_y_px"], row["centroid_x_px"]) == pytest.approx(region.centroid)
        assert row["centroid_y_um"] == pytest.approx(region.centroid[0] * 0.5)
        assert (row["bbox_y0_px"], row["bbox_x0_px"], row["bbox_y1_px"], row["bbox_x1_px"]) == region.bbox
        assert row["equivalent_diameter_px"] == pytest.approx(region.equivalent_diameter_area)
        assert row["intensity_mean"] == pytest.approx(region.intensity_mean)
        assert row["intensity_max"] == region.intensity_max
        assert 0 < row["solidity"] <= 1 + 1e-9


def test_shape_of_known_objects():
    assert measure(_disk(20))[0]["solidity"] > 0.93
    square = np.pad(np.ones((9, 9), np.uint8), 3)
    assert measure(square)[0]["solidity"] == pytest.approx(1)
    z, y, x = np.mgrid[:40, :40, :40]
    ball = ((z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 15**2).astype(np.uint8)
    stick = np.zeros((40, 40, 40), np.uint8)
    stick[2:38, 19:22, 19:22] = 1
    assert 0.88 < measure(ball)[0]["sphericity"] <= 1
    assert measure(stick)[0]["sphericity"] < 0.75


def test_anisotropic_voxels_count():
    z, y, x = np.mgrid[:11, :41, :41]
    ball = ((4 * (z - 5)) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 15**2).astype(np.uint8)
    row = measure(ball, spacing_um=(4, 1, 1))[0]
    assert row["volume_um3"] == pytest.approx(4 * row["volume_vox"])
    assert row["equivalent_diameter_um"] == pytest.approx(30, rel=0.05)
    assert row["sphericity"] > 0.8


def test_series_have_a_row_for_each_time_point():
    labels = np.stack([_disk(5), _disk(6) * 3])
    rows = measure(
        da.from_array(labels, chunks=(1, 60, 60)), axes="TYX", image=da.from_array(labels, chunks=(1, 60, 60))
    )
    assert [(row["label"], row["t"], row["intensity_max"]) for row in rows] == [(1, 0, 1), (3, 1, 3)]


def test_sparse_ids_take_no_memory():
    labels = np.zeros((20, 20), np.uint32)
    labels[2:4, 2:4] = 4_000_000_000
    labels[7:9, 2:4] = 17
    assert [row["label"] for row in measure(labels)] == [17, 4_000_000_000]


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 5), (3, 1, 1)])
def test_single_voxels_and_lines(shape):
    (row,) = measure(np.ones(shape, np.uint8), spacing_um=SPACING)
    assert all(np.isfinite(value) for value in row.values())


def test_csv(tmp_path):
    write_measurements(_disk(5), tmp_path / "a.csv", spacing_um=SPACING, image=np.full((60, 60), 0.5, np.float32))
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["label"] == "1"
    assert float(rows[0]["intensity_mean"]) == 0.5
    write_measurements(np.zeros((4, 4), np.uint8), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text().startswith("label,")


def test_what_does_not_fit():
    with pytest.raises(AxesError):
        measure(_disk(5), axes="ZYX")
    with pytest.raises(AxesError, match="without channels"):
        measure(_disk(5), image=np.zeros((3, 60, 60)))
