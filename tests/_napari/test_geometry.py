import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_aprcnn._napari.geometry import image_of, micrometres, plausible_orders, view_region
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AxesError


def world(layer, index):
    """World coordinates of a data index, along the layer's own axes."""
    return np.asarray(layer.data_to_world(index))


def test_labels_lie_exactly_on_the_image_whatever_its_transform():
    image = Image(
        np.zeros((7, 20, 30)), scale=(2.0, 0.5, 0.4), translate=(3, -4, 5), rotate=(0, 20, 10), shear=(0.1, 0, 0.2),
        units=("um", "um", "um"), axis_labels=("z", "y", "x"),
        affine=np.array([[1, 0, 0, 9], [0, 0, 1, 8], [0, 1, 0, 7], [0, 0, 0, 1]]),
    )  # fmt: skip
    placement = image_of(image).place(AxisMapping(order="ZYX"))
    labels = Labels(placement.array(np.zeros((7, 20, 30), np.uint16)), **placement.kwargs)
    for index in ((0, 0, 0), (6, 19, 29), (3, 2, 1)):
        np.testing.assert_allclose(world(labels, index), world(image, index), atol=1e-9)
    assert labels.units == image.units
    assert labels.axis_labels == ("z", "y", "x")


def test_a_leading_channel_axis_is_dropped_with_its_entries():
    image = Image(np.zeros((3, 8, 20, 30)), scale=(1, 2, 0.5, 0.5), translate=(0, 1, 2, 3), axis_labels=tuple("czyx"))
    placement = image_of(image).place(AxisMapping(order="CZYX", channel=1))
    assert placement.channel_at is None
    np.testing.assert_allclose(placement.kwargs["scale"], (2, 0.5, 0.5))
    np.testing.assert_allclose(placement.kwargs["translate"], (1, 2, 3))
    assert placement.kwargs["axis_labels"] == ("z", "y", "x")
    assert placement.kwargs["affine"].shape == (4, 4)


def test_a_channel_axis_behind_time_is_stretched_over_all_channels():
    """Dropping it would tie the labels' T to the viewer's C slider."""
    image = Image(np.zeros((5, 3, 20, 30)), scale=(2, 1, 0.5, 0.5), axis_labels=tuple("tcyx"))
    placement = image_of(image).place(AxisMapping(order="TCYX"))
    labels = Labels(placement.array(np.zeros((5, 20, 30), np.uint16)), **placement.kwargs)
    assert labels.data.shape == (5, 1, 20, 30)
    for channel in range(3):
        at = np.asarray(labels.world_to_data(world(image, (4, channel, 10, 20))))
        assert tuple(np.round(at).astype(int)) == (4, 0, 10, 20)
    assert placement.region((slice(1, 2), slice(0, 9), slice(3, 4)))[1] == slice(0, 1)


def test_a_part_lies_where_it_was_cut():
    image = Image(np.zeros((7, 40, 50)), scale=(2, 0.5, 0.4), translate=(1, 1, 1), rotate=(0, 0, 30))
    placement = image_of(image).place(AxisMapping(order="ZYX"), start=(3, 10, 20))
    part = Labels(np.zeros((1, 5, 5), np.uint16), **placement.kwargs)
    np.testing.assert_allclose(world(part, (0, 2, 1)), world(image, (3, 12, 21)), atol=1e-9)


@pytest.mark.parametrize(
    ("scale", "units", "um"),
    [
        ((2.0, 0.5, 0.5), "um", (2.0, 0.5, 0.5)),
        ((2000.0, 500.0, 500.0), "nm", (2.0, 0.5, 0.5)),
        ((0.002, 0.0005, 0.0005), "mm", (2.0, 0.5, 0.5)),
        ((2.0, 0.5, 0.5), "pixel", (2.0, 0.5, 0.5)),
        ((1.0, 1.0, 1.0), "pixel", None),
        ((-2.0, 0.5, 0.5), "um", (2.0, 0.5, 0.5)),
    ],
)
def test_voxel_size_comes_from_scale_and_units(scale, units, um):
    image = Image(np.zeros((3, 4, 5)), scale=scale, units=(units,) * 3)
    spacing = image_of(image).spacing(AxisMapping(order="ZYX"))
    assert spacing.um == (None if um is None else pytest.approx(um))
    assert spacing.words


def test_voxel_size_in_the_affine_counts_and_time_does_not():
    image = Image(np.zeros((6, 3, 4, 5)), units=("s", "um", "um", "um"), affine=np.diag([9, 3, 0.2, 0.1, 1]))
    assert image_of(image).spacing(AxisMapping(order="TZYX")).um == pytest.approx((3, 0.2, 0.1))


def test_2d_takes_y_for_z():
    image = Image(np.zeros((4, 5)), scale=(0.3, 0.2), units=("um", "um"))
    assert image_of(image).spacing(AxisMapping(order="YX")).um == pytest.approx((0.3, 0.3, 0.2))


@pytest.mark.parametrize(
    ("data", "options", "order"),
    [
        (np.zeros((64, 64)), {}, "YX"),
        (np.zeros((9, 64, 64)), {"axis_labels": ("t", "y", "x")}, "TYX"),
        (np.zeros((64, 64, 3), np.uint8), {"rgb": True}, "YXC"),
        (np.zeros((9, 64, 64, 3), np.uint8), {"rgb": True}, "ZYXC"),
        (np.zeros((2, 64, 64, 4), np.uint8), {"rgb": True, "axis_labels": ("time", "y", "x")}, "TYXC"),
    ],
)
def test_axes_are_guessed(data, options, order):
    assert image_of(Image(data, **options)).guess().order == order


def test_six_axes_are_refused_in_words():
    with pytest.raises(AxesError, match="6 axes"):
        image_of(Image(np.zeros((2, 2, 2, 2, 8, 8)))).guess()


def test_multiscale_gives_the_full_resolution():
    levels = [np.zeros((64, 64)), np.zeros((32, 32))]
    assert image_of(Image(levels, multiscale=True)).shape == (64, 64)


def test_plausible_orders_of_rgb_end_in_c():
    assert all(order.endswith("C") for order in plausible_orders(4, rgb=True))
    assert plausible_orders(7) == ()


def test_the_view_is_one_plane_at_the_sliders():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((9, 3, 200, 300)), scale=(1, 1, 0.5, 0.5))
    viewer.dims.set_point(0, 4)
    layer.corner_pixels = np.array([[0, 0, 20, 40], [0, 0, 99, 139]])
    region = view_region(layer, viewer, AxisMapping(order="ZCYX"))
    assert region == (slice(4, 5), slice(0, 3), slice(20, 100), slice(40, 140))


def test_the_view_of_a_multiscale_layer_is_in_full_resolution():
    viewer = ViewerModel()
    levels = [np.zeros((800, 800)), np.zeros((400, 400))]
    layer = viewer.add_image(levels, multiscale=True)
    layer._data_level = 1
    layer.corner_pixels = np.array([[50, 60], [99, 119]])
    rows, columns = view_region(layer, viewer, AxisMapping(order="YX"))
    assert (rows.start, columns.start) == (100, 120)
    assert rows.stop in (199, 200)


def test_a_huge_view_is_cut_to_its_middle():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((4000, 500), np.uint8))
    rows, columns = view_region(layer, viewer, AxisMapping(order="YX"))
    assert rows == slice(1488, 2512)
    assert columns == slice(0, 500)


def test_micrometres_of_units():
    assert micrometres("mm") == pytest.approx(1000)
    assert micrometres("pixel") is None
    assert micrometres("nonsense") is None
