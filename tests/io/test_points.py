"""Tables of points: round trips, tables of other programs, hostile files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_aprcnn.errors import AxesError, ConfigError, FileFormatError, OutputError
from napari_aprcnn.io import points as module
from napari_aprcnn.io import points_table
from napari_aprcnn.io.points import Points, read_points, write_points


def _table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "TZYX"])
@pytest.mark.parametrize("with_spacing", [True, False])
def test_round_trip_is_exact(tmp_path: Path, axes: str, *, with_spacing: bool) -> None:
    rng = np.random.default_rng(3)
    rank = len(axes.replace("T", ""))
    spacing = (2.0, 0.16251, 0.16251)[-rank:] if with_spacing else None
    coordinates = rng.uniform(1, 1000, (50, len(axes)))
    names = tuple(["Ann, B.", 'say "x"\nnext', "Ümit", "", "a"] * 10)
    path = write_points(Points(coordinates, axes=axes, spacing_um=spacing, annotators=names), tmp_path / "p.csv")
    back = read_points(path)
    assert back.coordinates.tolist() == coordinates.tolist()
    assert (back.axes, back.spacing_um, back.annotators) == (axes, spacing, names)


def test_no_points_are_a_file(tmp_path: Path) -> None:
    path = write_points(Points([], axes="ZYX", spacing_um=(1, 1, 1)), tmp_path / "p.csv")
    back = read_points(path, spacing_um=(1, 1, 1))
    assert back.coordinates.shape == (0, 3)
    assert back.axes == "ZYX"
    assert len(back) == 0


@pytest.mark.parametrize(
    ("text", "arguments", "axes", "expected"),
    [
        ("index,axis-0,axis-1\n0,1,2\n", {}, "YX", [[1, 2]]),
        ("index,axis-0,axis-1,axis-2\n0,1,2,3\n", {"axes": "TYX"}, "TYX", [[1, 2, 3]]),
        ("index,axis-0,axis-1,axis-2,axis-3\n0,1,2,3,4\n", {}, "TZYX", [[1, 2, 3, 4]]),
        ("X,Y,Z\n1,2,3\n", {}, "ZYX", [[3, 2, 1]]),
        ("slice,Y,X,x\n7,8,9,0\n", {"columns": {"z": "slice", "y": "Y", "x": "X"}}, "ZYX", [[7, 8, 9]]),
        ("z_um,y_um,x_um\n4,1,2\n", {"spacing_um": (2, 0.5, 0.5)}, "ZYX", [[2, 2, 4]]),
        ("z;y;x\n1,5;2;3\n", {}, "ZYX", [[1.5, 2, 3]]),
        ("\ufeffz\ty\tx\r\n1\t2\t3\r\n\r\n", {}, "ZYX", [[1, 2, 3]]),
        ("y,x,area\n1,2,old\n", {}, "YX", [[1, 2]]),
    ],
)
def test_tables_of_other_programs(tmp_path: Path, text: str, arguments: dict, axes: str, expected: list) -> None:
    points = read_points(_table(tmp_path, text), **arguments)
    assert points.axes == axes
    assert points.coordinates.tolist() == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns none"),
        ("a,b\n1,2\n", "'a', 'b'"),
        ("z,y\n1,2\n", "expected z,y,x"),
        ("z,y,x,X\n1,2,3,4\n", "2 columns 'x'"),
        ("z,y,x\n1,2,3\n1,two,3\n", r"line 3: column 'y' holds 'two'"),
        ("z,y,x\n1,2\n", r"line 2: column 'x' holds ''"),
        ("z,y,x\n1,2,nan\n", "line 2.*finite"),
        ("z,y,x\n1,2,-inf\n", "line 2.*finite"),
        ("z,y,x\n1,2,1e300\n", "line 2.*finite"),
        ("z_um,y_um,x_um\n1,2,3\n", "give the voxel size"),
        ("index,axis-0\n0,1\n", "1 axes"),
        ("z,y,x\n1,2,\x003\n", "line 2"),
        ('z,y,x\n1,2,"' + "3" * 200_000 + '"\n', "no CSV table"),
    ],
)
def test_hostile_tables_say_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FileFormatError, match=words):
        read_points(_table(tmp_path, text))


def test_no_text_and_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"z,y,x\n\xff\xfe\n")
    with pytest.raises(FileFormatError, match="UTF-8"):
        read_points(path)
    monkeypatch.setattr(points_table, "_MOST_LINE", 100)
    with pytest.raises(FileFormatError, match="line 1"):
        read_points(_table(tmp_path, "z" * 1000))
    monkeypatch.setattr(points_table, "_MOST_POINTS", 2)
    with pytest.raises(FileFormatError, match="more than 2 points"):
        read_points(_table(tmp_path, "y,x\n1,2\n1,2\n1,2\n"))
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    with pytest.raises(FileFormatError, match="split it"):
        read_points(_table(tmp_path, "y,x\n1,2\n1,2\n1,2\n"))


def test_chosen_columns_are_checked(tmp_path: Path) -> None:
    path = _table(tmp_path, "a,b\n1,2\n")
    with pytest.raises(ConfigError, match="y and x are needed"):
        read_points(path, columns={"x": "a"})
    with pytest.raises(ConfigError, match="keys out of"):
        read_points(path, columns={"q": "a"})
    with pytest.raises(FileFormatError, match=r"no columns 'c'.*'a', 'b'"):
        read_points(path, columns={"y": "a", "x": "c"})
    with pytest.raises(AxesError):
        read_points(_table(tmp_path, "axis-0,axis-1\n1,2\n"), axes="ZYX")


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_points(Points([[1, 2]], axes="YX"), tmp_path / "p.csv")
    with pytest.raises(OutputError):
        write_points(Points([[3, 4]], axes="YX"), path)

    class _Broken:
        def __init__(self, file: object, **_: object) -> None:
            self.file = file

        def writerow(self, _row: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.csv, "writer", _Broken)
    with pytest.raises(OutputError, match="disk is full"):
        write_points(Points([[3, 4]], axes="YX"), path, overwrite=True)
    assert read_points(path).coordinates.tolist() == [[1, 2]]
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"coordinates": [[1, 2]], "axes": "ZYX"}, AxesError),
        ({"coordinates": [[1, 2]], "axes": "XY"}, AxesError),
        ({"coordinates": [[1, np.nan]], "axes": "YX"}, ConfigError),
        ({"coordinates": [[1, 2]], "axes": "YX", "spacing_um": (1, 0)}, ConfigError),
        ({"coordinates": [[1, 2]], "axes": "YX", "spacing_um": (1, 1, 1)}, ConfigError),
        ({"coordinates": [[1, 2]], "axes": "YX", "annotators": ("a", "b")}, ConfigError),
    ],
)
def test_points_are_checked(arguments: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        Points(**arguments)


def test_points_are_not_changed_from_outside() -> None:
    source = np.zeros((1, 2))
    points = Points(source, axes="YX")
    source[0, 0] = 5
    assert points.coordinates[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        points.coordinates[0, 0] = 1
