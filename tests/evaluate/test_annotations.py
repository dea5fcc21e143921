"""Annotations in a folder: every step saved, crashes, several annotators, damaged and foreign folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_aprcnn.errors import AxesError, ConfigError, FileFormatError, OutputError
from napari_aprcnn.evaluate import annotation_files
from napari_aprcnn.evaluate.annotations import AnnotationSession, SparseLabels, agreement, is_session, slice_words
from napari_aprcnn.io.points import Points, read_points, write_points

SLICES = [(4,), (9,), (20,)]


def make(folder: Path, **changes):
    options = {"shape": (30, 64, 48), "axes": "ZYX", "slices": SLICES, "annotator": "Ann", "image_name": "organoid"}
    return AnnotationSession.create(folder / "s", **{**options, **changes})


def content(session):
    return (
        [(index, session.state(index), session.points_on(index).tolist()) for index in session.slices],
        session.current,
    )


def test_every_step_is_there_again(tmp_path):
    session = make(tmp_path, spacing_um=(2, 0.5, 0.5), choice={"method": "random", "seed": 3})
    again = AnnotationSession.open(session.folder, annotator="Ann")
    assert content(again) == content(session)
    steps = [
        lambda: session.set_points((4,), [[1.5, 2], [30, 40]]),
        lambda: session.go_to((9,)),
        lambda: session.set_points((9,), [[3, 4]]),
        lambda: session.set_state((9,), "done"),
        lambda: session.set_points((4,), []),
    ]
    for step in steps:
        step()
        assert content(AnnotationSession.open(session.folder, annotator="ann")) == content(session)
    assert session.state((4,)) == "doing"
    assert session.in_state("done") == [(9,)]
    assert session.points("done").coordinates.tolist() == [[9, 3, 4]]
    assert session.points().annotators == ("Ann",)
    assert AnnotationSession.open(session.folder, annotator="Ann").info.choice == {"method": "random", "seed": 3}
    assert sorted(p.name for p in session.folder.iterdir()) == ["annotator_ann.json", "points_ann.csv", "session.json"]


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "TZYX"])
def test_images_of_any_axes(tmp_path, axes):
    shape, index = (5, 6, 16, 12)[-len(axes) :], (3, 2)[: len(axes) - 2]
    session = make(tmp_path, shape=shape, axes=axes, slices=[index], mode="labels")
    session.set_points(index, [[7, 8]])
    plane = np.zeros((16, 12), np.uint16)
    plane[2:5, 3:6] = 7
    session.set_labels(index, plane)
    session.set_state(index, "done")
    again = AnnotationSession.open(session.folder, annotator="Ann")
    assert again.points().coordinates.tolist() == [[*index, 7, 8]]
    assert np.array_equal(again.labels_on(index), plane)
    whole = np.zeros(shape, np.uint32)
    whole[index] = plane
    assert np.array_equal(np.asarray(again.sparse_labels("done")), whole)
    assert slice_words(index, axes) == {"YX": "the image", "ZYX": "z 3", "TYX": "t 3", "TZYX": "t 3, z 2"}[axes]


def test_labels_only_of_painted_slices(tmp_path):
    session = make(tmp_path, shape=(2000, 64, 48), mode="labels", spacing_um=(2, 0.5, 0.5))
    plane = np.zeros((64, 48), np.int64)
    plane[10:20, 10:20] = 70_000
    session.set_labels((9,), plane)
    session.set_labels((9,), plane * 2)
    for index in SLICES[:2]:
        session.set_state(index, "done")
    assert [p.name for p in (session.folder / "labels_ann").iterdir()] == ["slice_z0009.tif"]
    slices, stack = session.label_stack()
    assert slices == SLICES[:2]
    assert stack.shape == (2, 64, 48)
    assert stack.max(axis=(1, 2)).tolist() == [0, 140_000]
    lazy = session.sparse_labels()
    assert isinstance(lazy, SparseLabels)
    assert (lazy.shape, lazy.slices) == ((2000, 64, 48), [(9,)])
    assert lazy[9, 15, 8:12].tolist() == [0, 0, 140_000, 140_000]
    assert not lazy[10:40].any()
    with pytest.raises(ConfigError, match="expected"):
        session.set_labels((9,), np.zeros((3, 3), int))
    with pytest.raises(ConfigError, match="not chosen"):
        session.set_labels((10,), plane)


class Killed(BaseException):
    """Ends the program in the middle of a writing."""


@pytest.mark.parametrize("written", [False, True])
def test_killed_while_writing(tmp_path, monkeypatch, written):
    """The last whole step is there; nothing half-written is read."""
    session = make(tmp_path, mode="labels")
    session.set_points((4,), [[1, 2]])
    session.set_labels((4,), np.full((64, 48), 3, np.uint16))
    before = content(session)

    def dies(points, path, **options):
        if written:
            write_points(points, path, **options)
        raise Killed

    monkeypatch.setattr("napari_aprcnn.evaluate.annotations.write_points", dies)
    with pytest.raises(Killed):
        session.set_points((9,), [[5, 6]])
    again = AnnotationSession.open(session.folder, annotator="Ann")
    if written:
        assert again.points_on((9,)).tolist() == [[5, 6]]
    else:
        assert content(again) == before
    written = False
    monkeypatch.setattr("napari_aprcnn.io.write.write_labels", dies)
    with pytest.raises(Killed):
        session.set_labels((4,), np.full((64, 48), 9, np.uint16))
    assert again.labels_on((4,)).max() == 3
    assert session.labels_on((4,)).max() == 9  # what could not be written is kept where it was made


_WORK = """
import sys
from napari_aprcnn.evaluate.annotations import AnnotationSession
session = AnnotationSession.open(sys.argv[1], annotator="Ann")
for n in range(1, 100_000):
    session.set_points((4,), [[i, i] for i in range(n)])
    print(n, flush=True)
"""


def test_a_process_that_is_killed(tmp_path):
    session = make(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _WORK, session.folder], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(40):
            process.stdout.readline()
        process.kill()
        told = process.stdout.read().split()
    last = int(told[-1]) if told else 40
    again = AnnotationSession.open(session.folder, annotator="Ann")
    assert len(again.points_on((4,))) in (last, last + 1)
    again.set_points((4,), [[1, 1]])
    assert len(AnnotationSession.open(session.folder, annotator="Ann").points()) == 1


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    session = make(tmp_path)
    session.set_points((4,), [[1, 2]])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="disk is full"):
            session.set_points((4,), [[1, 2], [3, 4]])
    assert AnnotationSession.open(session.folder, annotator="Ann").points_on((4,)).tolist() == [[1, 2]]
    session.set_points((9,), [[5, 6]])
    assert len(AnnotationSession.open(session.folder, annotator="Ann").points()) == 3


def test_two_annotators_in_one_folder(tmp_path):
    ann = make(tmp_path, mode="labels")
    bob = AnnotationSession.open(ann.folder, annotator="Böb / 2")
    for value, session in ((1, ann), (2, bob), (3, ann), (4, bob)):
        session.set_points((4,), [[value, value]])
        session.set_labels((9,), np.full((64, 48), value, np.uint8))
    bob.set_state((4,), "done")
    again = AnnotationSession.open(ann.folder, annotator="Ann")
    assert again.points_on((4,)).tolist() == [[3, 3]]
    assert again.labels_on((9,)).max() == 3
    assert again.state((4,)) == "doing"
    again = AnnotationSession.open(ann.folder, annotator="böb / 2")
    assert again.points_on((4,)).tolist() == [[4, 4]]
    assert (again.labels_on((9,)).max(), again.n_done) == (4, 1)
    assert ann.annotators() == ["Ann", "Böb / 2"]


def test_two_windows_under_one_name(tmp_path):
    """The second to write keeps its points beside those of the first."""
    one = make(tmp_path)
    other = AnnotationSession.open(one.folder, annotator="Ann")
    one.set_points((4,), [[1, 1]])
    for _ in range(2):
        with pytest.raises(OutputError, match="changed by another window"):
            other.set_points((4,), [[2, 2]])
    assert AnnotationSession.open(one.folder, annotator="Ann").points_on((4,)).tolist() == [[1, 1]]
    aside = list(one.folder.glob("points_ann_aside-*.csv"))
    assert len(aside) == 1
    assert read_points(aside[0]).coordinates.tolist() == [[4, 2, 2]]


def test_more_slices_for_everybody(tmp_path, monkeypatch):
    ann = make(tmp_path)
    bob = AnnotationSession.open(ann.folder, annotator="Bob")
    ann.add_slices([(1,)])
    bob.add_slices([(2,), (4,)])
    assert bob.slices == ((1,), (2,), (4,), (9,), (20,))
    with pytest.raises(ConfigError, match="outside"):
        ann.add_slices([(30,)])
    lock = ann.folder / ".session.lock"
    lock.touch()
    monkeypatch.setattr(annotation_files, "_LOCK_SECONDS", 0.05)
    with pytest.raises(OutputError, match="another program"):
        ann.add_slices([(3,)])
    os.utime(lock, (time.time() - 100,) * 2)
    ann.add_slices([(3,)])
    assert ann.slices == ((1,), (2,), (3,), (4,), (9,), (20,))
    assert not lock.exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("session.json", None, "holds no annotations"),
        ("session.json", "{", "no JSON"),
        ("session.json", "[" * 100_000, "no JSON"),
        ("session.json", "[1]", "expected an object"),
        ("session.json", '{"name": "x"}', "another program"),
        ("session.json", {"version": 99}, "newer|update"),
        ("session.json", {"slices": [[40]]}, "outside the image"),
        ("session.json", {"slices": [[4], [4]]}, "twice"),
        ("session.json", {"axes": "QQQ"}, "expected YX"),
        ("session.json", {"shape": [30, 0, 48]}, "empty"),
        ("session.json", {"mode": "spheres"}, "damaged"),
        ("session.json", {"surprise": 1}, "damaged"),
        ("annotator_ann.json", "null", "expected an object"),
        ("annotator_ann.json", '{"annotator": "Ann", "states": [[[4], "maybe"]]}', "damaged"),
        ("points_ann.csv", "z,y,x\n4,1,two\n", "line 2"),
        ("points_ann.csv", "y,x\n1,2\n", "axes YX"),
        ("points_ann.csv", "z,y,x\n4,1,2\n4.5,1,2\n", "point 2 is on no slice"),
        ("points_ann.csv", "z,y,x\n400,1,2\n", "point 1 is on no slice"),
    ],
)
def test_damaged_and_foreign_folders(tmp_path, name, text, words):
    session = make(tmp_path)
    session.set_points((4,), [[1, 2]])
    path = session.folder / name
    if text is None:
        path.unlink()
    elif isinstance(text, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **text}))
    else:
        path.write_text(text)
    before = {file: file.read_bytes() for file in session.folder.iterdir()}
    with pytest.raises(FileFormatError, match=words):
        AnnotationSession.open(session.folder, annotator="Ann")
    assert {file: file.read_bytes() for file in session.folder.iterdir()} == before


def test_damaged_labels(tmp_path):
    session = make(tmp_path, mode="labels")
    session.set_labels((4,), np.ones((64, 48), np.uint8))
    path = session.folder / "labels_ann" / "slice_z0004.tif"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FileFormatError):
        session.labels_on((4,))
    from napari_aprcnn.io.write import write_labels

    write_labels(np.ones((5, 5), np.uint8), path, axes="YX", overwrite=True)
    with pytest.raises(FileFormatError, match="expected labels of"):
        session.labels_on((4,))


def test_what_cannot_be_begun(tmp_path):
    session = make(tmp_path)
    assert is_session(session.folder)
    with pytest.raises(OutputError, match="already"):
        make(tmp_path)
    with pytest.raises(ConfigError, match="outside"):
        make(tmp_path / "a", slices=[(30,)])
    with pytest.raises(AxesError):
        make(tmp_path / "b", axes="CYX")
    for name in ("", "  ", "x" * 41, "a\x00b"):
        with pytest.raises(ConfigError, match="expected a name"):
            AnnotationSession.open(session.folder, annotator=name)
    with pytest.raises(AxesError, match="organoid with ZYX 30 x 64 x 48"):
        session.check_image((31, 64, 48), "ZYX")
    session.check_image((30, 64, 48), "zyx")


def test_agreement_is_one_to_one():
    one = Points([[4, 10, 10], [4, 10, 14], [9, 5, 5], [20, 1, 1]], spacing_um=(2, 0.5, 0.5))
    other = Points([[4, 10, 12], [4, 10, 17], [10, 5, 5]], spacing_um=(2, 0.5, 0.5))
    found = agreement(one, other, radius_px=3)
    assert (found.n_matched, found.n_only_first, found.n_only_second) == (2, 2, 1)
    assert found.f1 == pytest.approx(4 / 7)
    assert found.mean_distance == pytest.approx(2.5)
    assert agreement(one, other, radius_um=1.5).n_matched == 2
    assert agreement(one, other, radius_um=1.5).mean_distance == pytest.approx(1.25)
    assert agreement(one, other, radius_px=3, slices=[(4,)]).f1 == 1.0
    assert agreement(Points([]), Points([]), radius_px=3).f1 == 1.0
    with pytest.raises(ConfigError):
        agreement(one, other)
    with pytest.raises(ConfigError, match="voxel size"):
        agreement(Points([]), Points([]), radius_um=2)
    with pytest.raises(AxesError):
        agreement(one, Points([], axes="YX"), radius_px=1)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([[4, 10, 20], [4, 30, 40]], r"shape \(2, 3\); expected \(N, 2\)"),
        ([10, 20], r"shape \(2,\)"),
        ([[1000, 2]], "outside of the plane"),
        ([[-2, 2]], "outside of the plane"),
    ],
)
def test_points_that_do_not_fit_the_slice(tmp_path, places, told):
    session = make(tmp_path)
    session.set_points((4,), [[1, 2]])
    with pytest.raises(ConfigError, match=told):
        session.set_points((4,), places)
    assert session.points_on((4,)).tolist() == [[1, 2]]
