import pytest

from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AxesError
from napari_aprcnn.segment.axes import check_axes, describe_axes, guess_axes


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((512, 512), "YX"),
        ((64, 512, 512), "ZYX"),
        ((51, 125, 127), "ZYX"),
        ((3, 512, 512), "CYX"),
        ((512, 512, 3), "YXC"),
        ((20, 20, 20), "ZYX"),
        ((3, 10, 12), "ZYX"),
        ((10, 64, 512, 512), "TZYX"),
        ((2, 64, 512, 512), "CZYX"),
        ((64, 2, 512, 512), "ZCYX"),
        ((64, 512, 512, 4), "ZYXC"),
        ((5, 2, 64, 512, 512), "TCZYX"),
        ((5, 64, 2, 512, 512), "TZCYX"),
        ((5, 64, 512, 512, 3), "TZYXC"),
    ],
)
def test_guessed_by_shape(shape, order):
    assert guess_axes(shape).order == order


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("TYX", "TYX"),
        (("time", "y", "x"), "TYX"),
        (("Channel", "Y", "X"), "CYX"),
        ("QYX", "ZYX"),  # an unknown letter says nothing: the shape decides
        (("axis 0", "axis 1", "axis 2"), "ZYX"),
        ("YX", "ZYX"),  # names of another array
        (("z", "z", "x"), "ZYX"),
    ],
)
def test_names_are_believed_where_they_say_something(names, order):
    assert guess_axes((9, 512, 512), names=names).order == order


@pytest.mark.parametrize("shape", [(), (7,), (1, 1, 1, 1, 8, 8)])
def test_wrong_rank(shape):
    with pytest.raises(AxesError, match="expected 2 to 5"):
        guess_axes(shape)


def test_mapping_that_does_not_fit():
    with pytest.raises(AxesError, match="name 2 axes but the image has 3"):
        check_axes((4, 5, 6), AxisMapping(order="YX"))
    with pytest.raises(AxesError, match="channel 3 was asked for but the image has 3"):
        check_axes((3, 5, 6), AxisMapping(order="CYX", channel=3))
    with pytest.raises(AxesError, match="have no C"):
        check_axes((3, 5, 6), AxisMapping(order="ZYX", channel=1))


def test_words():
    assert describe_axes((2, 9, 64, 128), AxisMapping(order="CZYX", channel=1)) == "Z 9 x Y 64 x X 128, channel 1 of 2"
    assert describe_axes((128, 64), AxisMapping(order="XY")) == "Y 64 x X 128"
