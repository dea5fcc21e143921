"""The process around untrusted work: crash, hang, greed and lies of the child end as errors of the parent."""

import os
import sys
import time

import numpy as np
import pytest
from apr_helpers import DATA

from napari_aprcnn.apr import files
from napari_aprcnn.apr.children import ChildFailedError, job_folder, load_result, run_child
from napari_aprcnn.apr.files import list_apr, read_apr
from napari_aprcnn.errors import FileFormatError

_MODULE = "child_that_misbehaves"


def _run(behaviour, **options):
    with job_folder({"behaviour": behaviour}) as folder:
        run_child(_MODULE, folder, **{"seconds": 20, "memory_bytes": 1 << 30} | options)
        return load_result(folder)


def test_a_good_child():
    answer, arrays = _run("good")
    assert answer == {"a": 1}
    assert arrays["x"].dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        ("exit", "crashed", "status 3: last words"),
        ("raise", "crashed", "of no expected kind"),
        ("nothing", "crashed", "no usable answer"),
        ("no json", "crashed", "no usable answer"),
        ("deep json", "crashed", "no usable answer"),
        ("other json", "crashed", "no usable answer"),
        ("too long", "crashed", "too long"),
        ("pickle", "crashed", "not expected"),
        ("path", "crashed", "not expected"),
        ("short", "crashed", "incomplete"),
        ("huge", "crashed", "incomplete"),
        ("negative", "crashed", "incomplete"),
    ],
)
def test_children_that_end_badly(behaviour, reason, words):
    with pytest.raises(ChildFailedError, match=words) as caught:
        _run(behaviour)
    assert caught.value.reason == reason


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_segmentation_fault():
    with pytest.raises(ChildFailedError, match="SIGSEGV"):
        _run("crash")


def test_a_hanging_child():
    started = time.monotonic()
    with pytest.raises(ChildFailedError, match=r"more than 0\.5 s") as caught:
        _run("hang", seconds=0.5)
    assert caught.value.reason == "time"
    assert time.monotonic() - started < 3


def test_a_cancel_takes_less_than_half_a_second():
    started = time.monotonic()
    asked = []

    def should_cancel():
        asked.append(time.monotonic())
        return asked[-1] - started > 0.3

    with pytest.raises(ChildFailedError) as caught:
        _run("hang", should_cancel=should_cancel)
    assert caught.value.reason == "cancelled"
    assert time.monotonic() - started < 0.8


def test_progress_is_told():
    told = []
    with pytest.raises(ChildFailedError):
        _run("hang", seconds=0.3, progress=told.append)
    assert told == sorted(told)
    assert len(told) > 3


def test_a_greedy_child_is_stopped_by_its_parent():
    with pytest.raises(ChildFailedError, match="300 MiB") as caught:
        _run("eat", memory_bytes=300 << 20)
    assert caught.value.reason == "memory"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_a_child_limits_itself():
    assert _run("eat limited")[0] == {"error": "no memory"}


@pytest.mark.skipif(os.name != "posix", reason="a limit of Unix")
def test_a_child_cannot_fill_the_disk():
    with pytest.raises(ChildFailedError):
        _run("flood")


def test_an_exception_of_the_caller_ends_the_child():
    def progress(_):
        raise KeyError("the caller's own")

    started = time.monotonic()
    with pytest.raises(KeyError, match="own"):
        _run("hang", progress=progress)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("behaviour", ["exit", "no json", "empty answer", "wrong shape", "pickle"])
@pytest.mark.parametrize("call", [read_apr, list_apr])
def test_the_reader_turns_all_of_it_into_typed_errors(monkeypatch, behaviour, call):
    monkeypatch.setattr(files, "_READER", _MODULE)
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    with pytest.raises(FileFormatError, match=r"rows\.apr"):
        call(DATA / "rows.apr")
