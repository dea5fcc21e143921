"""Files that were damaged, or made to do harm: a typed error, no crash, no other image, little memory, little time."""

import os
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from apr_helpers import DATA, edited, make_legacy, parse_and_build

from napari_aprcnn.apr.files import AprLimits, list_apr, read_apr, write_apr
from napari_aprcnn.apr.hdf5_parse import describe, parse
from napari_aprcnn.errors import FileFormatError, ParticleTreeError

h5py = pytest.importorskip("h5py")


# --- mutated files ---------------------------------------------------------------------------------------------------


def _fuzz(source, count, folder):
    """Outcomes of `count` mutated copies; a crash is one, and the rest is done by another process."""
    outcomes, first = Counter(), 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    while first < count:
        command = [sys.executable, str(Path(__file__).with_name("apr_fuzz_worker.py")), source, first, count, folder]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        assert done.returncode <= 0, done.stderr[-2000:]  # 1: an exception that is none of ours
        begun = {}
        for line in done.stdout.splitlines():
            seed, outcome = line.split()
            begun[int(seed)] = outcome
        outcomes.update("crash" if outcome == "begun" else outcome for outcome in begun.values())
        first = max(begun, default=count) + 1
    return outcomes


def test_of_our_own_files_none_is_read_wrong(tmp_path, rows_tree):
    outcomes = _fuzz(write_apr(tmp_path / "ours.apr", rows_tree), 350, tmp_path)
    assert set(outcomes) <= {"refused", "same", "crash"}
    assert outcomes["refused"] > 100
    assert outcomes["crash"] < 10
    assert outcomes.total() == 350


@pytest.mark.parametrize("name", ["rows", "gaps"])
def test_of_other_files_the_structure_is_never_read_wrong(tmp_path, name):
    outcomes = _fuzz(DATA / f"{name}.apr", 200, tmp_path)
    # Values that carry no checksum can change unseen; cells cannot.
    assert set(outcomes) <= {"refused", "same", "values", "crash"}
    assert outcomes["refused"] > 50
    assert outcomes["values"] < 30
    assert outcomes["crash"] < 10


@pytest.mark.parametrize("seed", range(10, 15))
def test_mutated_files_through_the_real_reader(tmp_path, rows_tree, seed):
    from apr_fuzz_worker import mutate

    path = tmp_path / "a.apr"
    write_apr(path, rows_tree)
    path.write_bytes(mutate(path.read_bytes(), seed))
    started = time.monotonic()
    try:
        tree = read_apr(path)
    except FileFormatError:
        tree = None
    assert tree is None or tree == rows_tree
    assert time.monotonic() - started < 20


# --- made to do harm -------------------------------------------------------------------------------------------------


def _replaced(folder, name, make):
    """A copy of rows.apr in which `make(group, name, data)` puts something else in the place of a dataset."""
    with edited(folder, DATA / "rows.apr") as (path, group, _):
        data = group[name][:]
        del group[name]
        make(group, name, data)
    return path


def _soft(group, name, data):
    group["elsewhere"] = data
    group[name] = h5py.SoftLink("/ParticleRepr/t/elsewhere")


def _external(group, name, data):
    group[name] = h5py.ExternalLink(str(DATA / "rows.apr"), f"/ParticleRepr/t/{name}")


def _virtual(group, name, data):
    layout = h5py.VirtualLayout(shape=data.shape, dtype=data.dtype)
    layout[:] = h5py.VirtualSource(str(DATA / "rows.apr"), f"/ParticleRepr/t/{name}", shape=data.shape)
    group.create_virtual_dataset(name, layout)


def _outside(group, name, data):
    group.create_dataset(name, data.shape, data.dtype, external=[("/etc/passwd", 0, data.nbytes)])


def _lzf(group, name, data):
    group.create_dataset(name, data=data, compression="lzf")


def _scaled(group, name, data):
    group.create_dataset(name, data=data, scaleoffset=8)


def _references(group, name, data):
    group.create_dataset(name, data.shape, h5py.ref_dtype)


def _texts(group, name, data):
    group.create_dataset(name, data.shape, h5py.string_dtype())


def _compound(group, name, data):
    group.create_dataset(name, data.shape, [("a", "u2"), ("b", "f4")])


def _plane(group, name, data):
    group[name] = data[:, None]


def _scalar(group, name, data):
    group[name] = data[0]


def _longer(group, name, data):
    group[name] = np.append(data, data[-1:])


def _shorter(group, name, data):
    group[name] = data[:-1]


def _floats(group, name, data):
    group[name] = data.astype(np.float64)


def _folder(group, name, data):
    group.create_group(name)


def _missing(group, name, data):
    pass


def _unwritten(group, name, data):
    group.create_dataset(name, data.shape, data.dtype, chunks=(64,))


def _partly_unwritten(group, name, data):
    group.create_dataset(name, data.shape, data.dtype, chunks=(64,))[:-64] = data[:-64]


def _unwritten_block(group, name, data):
    group.create_dataset(name, data.shape, data.dtype)


def _huge(group, name, data):
    group.create_dataset(name, (2**40,), data.dtype, chunks=(1 << 20,), compression="gzip")


def _huge_chunk(group, name, data):
    one = group.create_dataset(name, data.shape, data.dtype, chunks=(2**28,), maxshape=(None,), compression="gzip")
    one.id.write_direct_chunk((0,), zlib.compress(data.tobytes()))


_HARM = [
    _soft, _external, _virtual, _outside, _lzf, _scaled, _references, _texts, _compound, _plane, _scalar, _longer,
    _shorter, _floats, _folder, _missing, _unwritten, _partly_unwritten, _unwritten_block, _huge, _huge_chunk,
]  # fmt: skip


@pytest.mark.parametrize("make", _HARM, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["y_vec", "xz_end_vec", "particles"])
def test_datasets_that_are_not_what_they_should_be(tmp_path, name, make):
    path = _replaced(tmp_path, name, make)
    started = time.monotonic()
    if make is _missing and name == "particles":
        assert parse(path, most_bytes=1 << 28).intensities is None
        return
    with pytest.raises(FileFormatError):
        parse_and_build(path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("target", ["/ParticleRepr/t", "/ParticleRepr", "/ParticleRepr/t/Tree"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_groups_that_are_links(tmp_path, target, kind):
    with edited(tmp_path, DATA / "rows.apr") as (path, _, file):
        if kind == "soft":
            file.move(target, "/elsewhere")
            file[target] = h5py.SoftLink("/elsewhere")
        else:
            del file[target]
            file[target] = h5py.ExternalLink(str(DATA / "rows.apr"), target)
    with pytest.raises(FileFormatError, match=r"link|no group"):
        parse_and_build(path)


def test_groups_in_a_circle(tmp_path):
    with edited(tmp_path, DATA / "rows.apr") as (path, group, file):
        group["again"] = file["ParticleRepr"]
        file["ParticleRepr/loop"] = file["ParticleRepr"]
    assert [image["group"] for image in describe(path)] == ["t"]
    assert [image.group for image in list_apr(path)] == ["t"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("z_num", np.array([12], np.uint64)),
        ("z_num", np.array([0], np.uint64)),
        ("z_num", np.array([65_536], np.uint64)),
        ("x_num", np.array([2**32 - 1], np.uint64)),
        ("y_num", np.array([1, 2], np.uint64)),
        ("y_num", np.array([23.0])),
        ("y_num", np.bytes_(b"23")),
        ("y_num", "23"),
        ("y_num", None),
        ("level_max", np.array([6], np.uint64)),
        ("y_num_3", np.array([5], np.int32)),
        ("total_number_particles", np.array([1600], np.uint64)),
        ("total_number_particles", np.array([0], np.uint64)),
        ("compress_type", np.array([2], np.int32)),
        ("compress_type", np.array([1], np.int64)),
        ("aprcnn_conversion", np.bytes_(b"{}")),
    ],
    ids=str,
)
def test_attributes_that_do_not_fit(tmp_path, name, value):
    with edited(tmp_path, DATA / "rows.apr") as (path, group, _):
        del group.attrs["quantization_factor"]
        if name in group.attrs:
            del group.attrs[name]
        if value is not None:
            group.attrs[name] = value
    with pytest.raises(FileFormatError):
        parse_and_build(path)


def test_the_upper_half_of_an_integer_is_ignored(tmp_path, rows_tree):
    """LibAPR writes 32-bit numbers as 64-bit ones, the other half of which is whatever lay there."""
    with edited(tmp_path, DATA / "rows.apr") as (path, group, _):
        for key in ("z_num", "x_num", "y_num", "level_max"):
            group.attrs[key] = group.attrs[key] & 0xFFFFFFFF | np.uint64(0xDEAD << 32)
    assert parse_and_build(path) == rows_tree


@pytest.mark.parametrize("name", ["map_level", "map_z", "map_x", "map_number_gaps", "map_global_index", "map_y_begin"])
def test_gap_maps_that_do_not_fit(tmp_path, name):
    source = make_legacy(tmp_path)
    for index in (0, 7, -1):
        for step in (1, -1):
            with edited(tmp_path, source) as (path, group, _):
                group[name][index] = (int(group[name][index]) + step) % 128
            with pytest.raises((FileFormatError, ParticleTreeError)):
                parse_and_build(path)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_huge_declared_dataset_is_refused_before_it_is_read(tmp_path):
    path = _replaced(tmp_path, "xz_end_vec", _huge)
    started = time.monotonic()
    with pytest.raises(FileFormatError, match="declares"):
        read_apr(path)
    assert time.monotonic() - started < 15


def test_a_huge_declared_volume_is_refused(tmp_path):
    with edited(tmp_path, make_legacy(tmp_path)) as (path, group, _):
        for key in list(group.attrs):
            if "_num" in key and key[0] in "xyz":
                del group.attrs[key]
        del group.attrs["level_max"]
        for key in ("z_num", "x_num", "y_num"):
            group.attrs[key] = np.array([65_536], np.uint64)
    with pytest.raises(FileFormatError, match="MiB"):
        read_apr(path, limits=AprLimits(memory_bytes=1 << 30))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_a_bomb_of_zeros_meets_the_memory_limit(tmp_path):
    def bomb(group, name, data):
        group.create_dataset(name, data=np.zeros(120_000_000, np.uint64), chunks=(1 << 20,), compression="gzip")

    path = _replaced(tmp_path, "xz_end_vec", bomb)
    assert path.stat().st_size < 5_000_000
    with pytest.raises(FileFormatError, match=r"memory limit|memory than allowed|HDF5"):
        read_apr(path, limits=AprLimits(memory_bytes=300 << 20))


def test_a_compressed_chunk_that_claims_two_gigabytes(tmp_path):
    def claim(group, name, data):
        import hdf5plugin

        one = group.create_dataset(name, data.shape, data.dtype, chunks=data.shape, **hdf5plugin.Blosc())
        header = struct.pack("<BBBBIII", 2, 1, 0, 2, 2**31 - 1, 1 << 18, 4096)
        one.id.write_direct_chunk((0,), header + bytes(4080))

    path = _replaced(tmp_path, "y_vec", claim)
    with pytest.raises(FileFormatError, match=r"edited\.apr"):
        read_apr(path, limits=AprLimits(memory_bytes=200 << 20))
